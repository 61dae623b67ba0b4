"""Credentials of both services, with their limits. Checked for form only; no I/O."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from ..base.checks import check_no_database, check_whole, unknown
from ..base.wording import one_of
from ..base.zones import zone_of
from ..errors import InvalidArgument
from ..redaction import Secret, as_secret
from .addresses import (
    ENDPOINTS,
    REGIONS,
    checked_base_url,
    hide_login,
    looks_like_address,
    platform,
)
from .environment import (
    check_prefix,
    naming_variables,
    number_from_env,
    required_from_env,
    shared_from_env,
    text_from_env,
)
from .secret import SecretFunction, SecretSource, hidden
from .settings import (
    CHAIN_SLOTS,
    MaxInFlight,
    Source,
    check_max_in_flight,
    check_name,
    check_shared,
    check_token,
    hide_misplaced,
    shared_text,
)

__all__ = ["Alta", "CleverTap", "check_api_key", "check_passcode"]


def check_passcode(passcode: str, kind: str, source: Source = "argument") -> None:
    """Raise `ConfigurationError` unless a value can be a passcode.

    Args:
        passcode: the value, empty if it is not text.
        kind: its type.
        source: the place that it comes from.
    """
    check_token("passcode", passcode, kind, source)
    if passcode.lower() in REGIONS:
        is_returned = source == "function"
        fix = "return the passcode" if is_returned else "swap `passcode` and `region`"
        raise InvalidArgument(f"passcode: holds the name of a region; {fix}")
    if "://" in passcode:
        fix = "return" if source == "function" else "pass an address as `base_url`, and"
        raise InvalidArgument(f"passcode: holds a URL; {fix} the passcode")


def check_api_key(token: str, kind: str, source: Source = "argument") -> None:
    """Raise `ConfigurationError` unless a value can be an API key, as `check_passcode` does."""
    check_token("token", token, kind, source)
    if "://" in token or token.lower() in ENDPOINTS:
        fault, fix = (
            ("a URL", "swap `token` and `base_url`, or pass the API key")
            if "://" in token
            else ("the name of a platform", "swap `token` and `endpoint`")
        )
        if source == "function":
            fix = "return the API key"
        raise InvalidArgument(f"token: holds {fault}; {fix}")


@dataclass(frozen=True, slots=True, init=False)
class CleverTap:
    """Credentials of a CleverTap account, and the limit on its use.

    Args:
        account_id: the account ID (project ID) from the dashboard.
        passcode: the passcode of the account. Never shown, never pickled. Or a function that
            returns it, also an async one; a plain one runs in a thread. It is called before
            the first request of a session, and again after the service has refused the passcode,
            once for all calls that wait. A request that was refused is then sent again, once,
            unless the passcode is the same. After such an answer, the function is not called again
            for a second, and for up to 20 s after several. Set a time limit in the function: calls
            wait for it. A task that it starts must not use the session.
        region: "eu1", "global", "in1", "us1", "sg1", "aps3", "mec1" or "sk1", in any case. With a
            wrong region, CleverTap refuses the credentials like a wrong passcode.
        base_url: replaces the address of the region: https, or http on loopback only.
        max_in_flight: most requests in flight at once, over all calls of one session. CleverTap
            allows 3 per account (https://developer.clevertap.com/docs/api-request-limit). With
            "auto", chains and counts have these 3 each, and lookups by ID, for which no limit is
            documented, as many as the service turns out to take: see `http.sizing.Size`.
        timezone: the time zone of the project, a name of the IANA database such as "Asia/Kolkata".
            Days in queries are days of this zone, so that `Session.sync` needs it to know which
            days are over. With None it is not known.
        shared: whether all processes of this machine that share the account keep `max_in_flight`
            together, with one pace: True in the user's cache folder, or the absolute path of a
            folder on a local disk, which is made if it is missing. With False, each session keeps
            it by itself. If processes name different figures, the smallest holds while its process
            lives; "auto" goes with "auto" only. `Session` opens the folder.

    Raises:
        ConfigurationError: an argument is invalid, or this machine has no data of time zones.

    >>> CleverTap(account_id="W9R-654-865Z", passcode="secret", region="in1")
    CleverTap(account_id='W9R-654-865Z', passcode='***', region='in1', max_in_flight=3)
    """

    account_id: str
    passcode: str
    region: str
    base_url: str | None
    max_in_flight: MaxInFlight
    timezone: str | None
    shared: bool | str
    url: str = field(init=False, repr=False)
    """The base URL in use: `base_url`, or that of `region`; without a trailing slash."""

    def __init__(
        self,
        account_id: str,
        passcode: SecretSource,
        region: str = "eu1",
        base_url: str | None = None,
        max_in_flight: MaxInFlight = CHAIN_SLOTS,
        *,
        timezone: str | None = None,
        shared: bool | str | os.PathLike[str] = False,
    ) -> None:
        # Before any check, because a traceback may show the locals of this frame.
        kind, passcode = _secret("passcode", passcode)
        base_url, region = hide_login(base_url), hide_misplaced(region)
        max_in_flight, timezone = hide_misplaced(max_in_flight), hide_misplaced(timezone)
        shared = hide_misplaced(shared)
        _set(self, account_id=account_id, passcode=passcode, region=region)
        _set(self, base_url=base_url, max_in_flight=max_in_flight, timezone=timezone)
        _set(self, shared=shared, url="")
        if account_id and _is_account_id(passcode) and not _is_account_id(account_id):
            # The account ID is likely to be the passcode, and must not be shown.
            account_id = as_secret(account_id)
            _set(self, account_id=account_id)
            raise InvalidArgument(
                "passcode: has the form of an account ID, and `account_id` has not; swap "
                "`account_id` and `passcode`"
            )
        check_token("account_id", account_id, type(account_id).__name__)
        check_no_database("account_id", account_id)
        if "://" in account_id:
            raise InvalidArgument(
                "account_id: holds a URL; pass an address as `base_url`, and the account ID"
            )
        if passcode.lower() in REGIONS:
            # The region is likely to be the passcode, and must not be shown.
            region = as_secret(region)
            _set(self, region=region)
        _check_secret(passcode, kind, check_passcode)
        is_shown = isinstance(region, str) and not isinstance(region, Secret)
        name = region.strip().lower() if is_shown else ""
        if name not in REGIONS:
            if isinstance(region, str) and looks_like_address(region):
                # Not shown: there may be a login in it.
                raise InvalidArgument("region: looks like an address; pass it as `base_url`")
            raise InvalidArgument(
                f"region: {unknown(region, 'region')}; use one of {one_of(REGIONS, name)}"
            )
        _set(self, region=name)
        _set(self, max_in_flight=check_max_in_flight(max_in_flight))
        if timezone is not None:
            zone_of("timezone", timezone)
            # Plain text, even of a subclass such as NumPy's.
            _set(self, timezone=str.__str__(timezone))
        _set(self, shared=check_shared(shared))
        _set(self, url=REGIONS[name] if base_url is None else checked_base_url(base_url))

    @classmethod
    def from_env(cls, prefix: str = "", *, passcode: SecretSource | None = None) -> CleverTap:
        """Return the account in `CLEVERTAP_ACCOUNT_ID` and `CLEVERTAP_PASSCODE`.

        `CLEVERTAP_REGION`, `CLEVERTAP_BASE_URL`, `CLEVERTAP_MAX_IN_FLIGHT`, `CLEVERTAP_TIMEZONE`
        and `ALTAPROFILES_SHARED` (1 or a path) are optional.

        Args:
            prefix: text in front of each of these names. With "SHOP_", `SHOP_CLEVERTAP_PASSCODE`
                and `SHOP_ALTAPROFILES_SHARED` are read, and those without it are not.
            passcode: the passcode or a function, as for `CleverTap`. `CLEVERTAP_PASSCODE` is not
                read then, and need not be set. None for the variable.

        Raises:
            ConfigurationError: one of the first two is unset or empty, or a value is invalid; it
                names the variable.

        >>> shop = CleverTap.from_env(prefix="SHOP_")
        """
        kind, passcode = _given("passcode", passcode)
        _check_secret(passcode, kind, check_passcode)
        prefix = check_prefix(prefix)
        shared = shared_from_env(prefix)
        service = "CLEVERTAP"
        with naming_variables(service, prefix):
            return cls(
                account_id=required_from_env(service, "account_id", prefix),
                passcode=(
                    required_from_env(service, "passcode", prefix) if passcode is None else passcode
                ),
                region=text_from_env(service, "region", prefix) or "eu1",
                base_url=text_from_env(service, "base_url", prefix),
                max_in_flight=number_from_env(service, "max_in_flight", prefix, CHAIN_SLOTS),
                timezone=text_from_env(service, "timezone", prefix),
                shared=shared,
            )

    @classmethod
    def from_account(
        cls, name: str | None = None, *, passcode: SecretSource | None = None
    ) -> CleverTap:
        """Return the CleverTap account of the credentials file, as `altaprofiles login` writes it.

        The file is the one that `ALTAPROFILES_CONFIG` names, else the user's. A secret that it
        lacks is read from the keyring (extra `keyring`). The environment's credentials are not
        read. It is read at once, and blocks until then.

        Args:
            name: the name of the account; None for the file's default, else its only account.
            passcode: the passcode or a function, as for `CleverTap`. It takes the place of the
                file's, and the keyring is not asked. None for the file's or the keyring's.

        Raises:
            MissingCredentials: there is no such account, or it has no CleverTap credentials.
            ConfigurationError: the file cannot be used, or a value in it is invalid; it names the
                file, the account and the key.

        >>> shop = CleverTap.from_account("shop")
        """
        from .file import AccountsFile

        name = hide_misplaced(name)
        kind, passcode = _given("passcode", passcode)
        _check_secret(passcode, kind, check_passcode)
        return AccountsFile.read().required(name, "CleverTap", passcode).made(cls)

    @property
    def owner(self) -> str:
        """The holder of the account's limits, by which processes with `shared` find each other."""
        return self.account_id

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __repr__(self) -> str:
        where = f"region={self.region!r}" if self.base_url is None else f"base_url={self.url!r}"
        zone = "" if self.timezone is None else f", timezone={self.timezone!r}"
        return (
            f"CleverTap(account_id={self.account_id!r}, passcode='***', {where}, "
            f"max_in_flight={self.max_in_flight!r}{zone}{shared_text(self.shared)})"
        )


@dataclass(frozen=True, slots=True, init=False)
class Alta:
    """An API key of Alta (GPTBots), and the limits on its use.

    A token belongs to one agent, and gives access to the users of that agent only: the data of a
    user is isolated between agents ("Query User CDP").

    Args:
        token: the API key. Never shown, never pickled. Or a function that returns it, as for
            `CleverTap`. It needs `name`, by which processes with `shared` find each other, too.
        base_url: replaces the address of the endpoint: https, or http on loopback only.
        max_in_flight: most requests in flight at once, over all calls of one session; or "auto" for
            as many as the service turns out to take. The vendor documents no limit.
        requests_per_minute: most requests per minute, spread evenly; None for no limit. The vendor
            documents no limit for this call; a sibling call allows about 100.
        name: a name for the agent, 1 to 100 printable characters. It identifies the account, in
            resumed work and in the column `account` of its users, even after the token has changed.
            With None, a digest of the token does so.
        endpoint: the platform that issued the key: "altatech" for `https://altatech.ai`, which is
            the default; "sg", "jp" or "th" for that one of GPTBots; else the `${endpoint}` of the
            vendor's pages, such as "gptbots.ai" for `https://api.gptbots.ai`. In any case.
        shared: as for `CleverTap`. `requests_per_minute` is then the pace of all processes, and the
            slowest one named holds.

    Raises:
        ConfigurationError: an argument is invalid, or both `endpoint` and `base_url` are given.

    >>> Alta("secret", name="support-agent")
    Alta(token='***', base_url='https://altatech.ai', max_in_flight=16, name='support-agent')
    >>> Alta("secret", endpoint="gptbots.ai").url
    'https://api.gptbots.ai'
    """

    token: str
    base_url: str | None
    max_in_flight: MaxInFlight
    requests_per_minute: int | None
    name: str | None
    endpoint: str | None
    shared: bool | str
    url: str = field(init=False, repr=False)
    """The base URL in use: `base_url`, or that of `endpoint`; without a trailing slash."""

    def __init__(
        self,
        token: SecretSource,
        base_url: str | None = None,
        max_in_flight: MaxInFlight = 16,
        requests_per_minute: int | None = None,
        name: str | None = None,
        *,
        endpoint: str | None = None,
        shared: bool | str | os.PathLike[str] = False,
    ) -> None:
        kind, token = _secret("token", token)
        base_url = hide_login(base_url)
        max_in_flight, shared = hide_misplaced(max_in_flight), hide_misplaced(shared)
        requests_per_minute = hide_misplaced(requests_per_minute)
        _set(self, token=token, base_url=base_url, max_in_flight=max_in_flight)
        _set(self, requests_per_minute=requests_per_minute, name=name, endpoint=endpoint)
        _set(self, shared=shared, url="")
        if "://" in token or token.lower() in ENDPOINTS:
            # The address is likely to be the token, and must not be shown.
            base_url, endpoint = as_secret(base_url), as_secret(endpoint)
            _set(self, base_url=base_url, endpoint=endpoint)
        _check_secret(token, kind, check_api_key)
        _check_agent(token, name)
        _set(self, max_in_flight=check_max_in_flight(max_in_flight))
        _set(self, shared=check_shared(shared))
        if requests_per_minute is not None:
            pace = check_whole("requests_per_minute", requests_per_minute, least=1)
            _set(self, requests_per_minute=pace)
        if endpoint is None:
            known_url = ENDPOINTS["altatech"]
            _set(self, url=known_url if base_url is None else checked_base_url(base_url))
        elif base_url is None:
            known, url = platform(endpoint)
            _set(self, endpoint=known, url=url)
        else:
            raise InvalidArgument(
                "endpoint: cannot be combined with `base_url`; pass one of the two"
            )

    @classmethod
    def from_env(
        cls, prefix: str = "", *, token: SecretSource | None = None, name: str | None = None
    ) -> Alta:
        """Return the API key in `ALTA_TOKEN`.

        `ALTA_ENDPOINT` or `ALTA_BASE_URL`, `ALTA_MAX_IN_FLIGHT`, `ALTA_REQUESTS_PER_MINUTE`,
        `ALTA_NAME` and `ALTAPROFILES_SHARED` (1 or a path) are optional.

        Args:
            prefix: as for `CleverTap.from_env`.
            token: the API key or a function, as for `Alta`. `ALTA_TOKEN` is not read then, and need
                not be set. None for the variable.
            name: as for `Alta`, which needs it if `token` is a function. None for `ALTA_NAME`.

        Raises:
            ConfigurationError: `ALTA_TOKEN` is unset or empty, both of the addresses are set, or a
                value is invalid; it names the variable.

        >>> agent = Alta.from_env(prefix="SHOP_")
        """
        kind, token = _given("token", token)
        _check_secret(token, kind, check_api_key)
        prefix = check_prefix(prefix)
        service = "ALTA"
        named = text_from_env(service, "name", prefix) if name is None else None
        if named is None:
            _check_agent(token, name)
        shared = shared_from_env(prefix)
        with naming_variables(service, prefix):
            return cls(
                token=required_from_env(service, "token", prefix) if token is None else token,
                base_url=text_from_env(service, "base_url", prefix),
                endpoint=text_from_env(service, "endpoint", prefix),
                max_in_flight=number_from_env(service, "max_in_flight", prefix, 16),
                requests_per_minute=number_from_env(service, "requests_per_minute", prefix, None),
                name=name if named is None else named,
                shared=shared,
            )

    @classmethod
    def from_account(cls, name: str | None = None, *, token: SecretSource | None = None) -> Alta:
        """Return the Alta agent of an account of the credentials file.

        The account's name is the agent's `name`, if that can be one.

        Args:
            name: as for `CleverTap.from_account`.
            token: the API key or a function, as for `Alta`. It takes the place of the file's, and
                the keyring is not asked. None for the file's or the keyring's.

        Raises:
            ConfigurationError: as from `CleverTap.from_account`.

        >>> agent = Alta.from_account("shop")
        """
        from .file import AccountsFile

        name = hide_misplaced(name)
        kind, token = _given("token", token)
        _check_secret(token, kind, check_api_key)
        return AccountsFile.read().required(name, "Alta", token).made(cls)

    @property
    def account(self) -> str:
        """`name`, or else the first 16 hex digits of the token's BLAKE2b digest.

        Two agents get different answers for the same user. This tells the agents apart without
        showing a token.
        """
        return self.name or _digest(self.token)

    @property
    def owner(self) -> str:
        """The holder of the agent's limits, by which processes with `shared` find each other.

        It is the digest of the token, as in `account`, whatever the name: two names of one key
        share the limits of the key. A key that a function returns is not known, so that the name
        stands for it.
        """
        if isinstance(self.token, SecretFunction):
            return self.name or ""
        return _digest(self.token)

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __repr__(self) -> str:
        rate, name = self.requests_per_minute, self.name
        paced = "" if rate is None else f", requests_per_minute={rate!r}"
        named = "" if name is None else f", name={name!r}"
        where = f"base_url={self.url!r}" if self.endpoint is None else f"endpoint={self.endpoint!r}"
        limits = f"max_in_flight={self.max_in_flight!r}{paced}{named}{shared_text(self.shared)}"
        return f"Alta(token='***', {where}, {limits})"


_ACCOUNT_ID = re.compile(r"(TEST-)?[A-Z0-9]{3}-[A-Z0-9]{3}-[A-Z0-9]{4}")


def _is_account_id(value: object) -> bool:
    """Return whether a value has the form of account IDs, such as W9R-654-865Z, and their end.

    Passcodes can have the form, with another letter at the end.
    """
    text = value.strip() if isinstance(value, str) else ""
    return text.endswith("Z") and _ACCOUNT_ID.fullmatch(text) is not None


def _digest(secret: str) -> str:
    """Return text that tells secrets apart and shows none."""
    return hashlib.blake2b(secret.encode()).hexdigest()[:16]


def _set(credentials: CleverTap | Alta, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(credentials, name, value)


def _secret(argument: str, value: object) -> tuple[str, Secret]:
    """Return the type of a secret, and the secret in a form that nothing shows."""
    if isinstance(value, SecretFunction):
        return "", value
    return ("", SecretFunction(argument, value)) if callable(value) else hidden(value)


def _given(argument: str, value: object) -> tuple[str, Secret | None]:
    """Return a secret as `_secret` does, or None if the caller gives none."""
    return ("", None) if value is None else _secret(argument, value)


def _check_secret(secret: Secret | None, kind: str, check: Callable[[str, str], None]) -> None:
    if isinstance(secret, SecretFunction):
        secret.check()
    elif secret is not None:
        check(secret, kind)


def _check_agent(token: Secret | None, name: object) -> None:
    if name is not None:
        check_name(name)
    elif isinstance(token, SecretFunction):
        raise InvalidArgument(
            "name: a token that a function returns may change, and the account needs a "
            "name that stays; pass one, such as name='support-agent'"
        )
