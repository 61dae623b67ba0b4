"""Credentials of both services, with their base URLs. Checked for form only; no I/O."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from .base.addresses import is_loopback, split_address
from .base.checks import check_whole
from .base.paths import path_text
from .base.wording import one_of
from .base.zones import zone_of
from .errors import ConfigurationError, InvalidArgument, MissingCredentials
from .redaction import as_secret

__all__ = [
    "CHAIN_SLOTS",
    "ENDPOINTS",
    "REGIONS",
    "Alta",
    "CleverTap",
    "InvalidSetting",
    "MaxInFlight",
    "can_name",
    "explained",
    "ignored_variables",
    "is_custom",
    "is_in_environment",
    "renamed",
    "shared_from_env",
    "variable",
]

REGIONS = {
    "eu1": "https://eu1.api.clevertap.com",
    # Europe in the vendor's region table. Its newer pages have Europe under eu1.
    "global": "https://api.clevertap.com",
    "in1": "https://in1.api.clevertap.com",
    "us1": "https://us1.api.clevertap.com",
    "sg1": "https://sg1.api.clevertap.com",
    "aps3": "https://aps3.api.clevertap.com",
    "mec1": "https://mec1.api.clevertap.com",
    # South Korea, which connectors of other vendors have.
    "sk1": "https://sk1.api.clevertap.com",
}
"""The base URL of each CleverTap region.

https://developer.clevertap.com/docs/get-user-profiles-api
"""

ENDPOINTS = {
    "altatech": "https://altatech.ai",
    "gptbots.ai": "https://api.gptbots.ai",
    "sg": "https://api-sg.gptbots.ai",
    "jp": "https://api-jp.gptbots.ai",
    "th": "https://api-th.gptbots.ai",
}
"""The base URL of each known platform of Alta ("Query User CDP", also in German and Japanese)."""

CHAIN_SLOTS = 3
"""Chain requests that CleverTap allows in flight, and counts as many.

https://developer.clevertap.com/docs/api-request-limit
"""

MaxInFlight: TypeAlias = int | Literal["auto"]
"""Most requests in flight at once: a number, or as many as the service turns out to take."""

_MAX_NAME = 100

_SHARED = "ALTAPROFILES_SHARED"


@dataclass(frozen=True, slots=True, init=False)
class CleverTap:
    """Credentials of a CleverTap account, and the limit on its use.

    Args:
        account_id: the account ID (project ID) from the dashboard.
        passcode: the passcode of the account. Never shown, never pickled.
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
        passcode: str,
        region: str = "eu1",
        base_url: str | None = None,
        max_in_flight: MaxInFlight = CHAIN_SLOTS,
        *,
        timezone: str | None = None,
        shared: bool | str | os.PathLike[str] = False,
    ) -> None:
        # Before any check, because a traceback may show the locals of this frame.
        kind, passcode = type(passcode).__name__, as_secret(passcode)
        _set(self, account_id=account_id, passcode=passcode, region=region)
        _set(self, base_url=base_url, max_in_flight=max_in_flight, timezone=timezone)
        _set(self, shared=shared, url="")
        _check_token("account_id", account_id, type(account_id).__name__)
        _check_token("passcode", passcode, kind)
        if passcode.lower() in REGIONS:
            # The region is likely to be the passcode, and must not be shown.
            region = as_secret(region)
            _set(self, region=region)
            raise InvalidArgument(
                "passcode: holds the name of a region; swap `passcode` and `region`"
            )
        name = region.strip().lower() if isinstance(region, str) else ""
        if name not in REGIONS:
            raise InvalidArgument(
                f"region: unknown region {region!r}; use one of {one_of(REGIONS, name)}"
            )
        _set(self, region=name)
        _set(self, max_in_flight=_check_max_in_flight(max_in_flight))
        if timezone is not None:
            zone_of("timezone", timezone)
            # Plain text, even of a subclass such as NumPy's.
            _set(self, timezone=str.__str__(timezone))
        _set(self, shared=_check_shared(shared))
        _set(self, url=REGIONS[name] if base_url is None else _base(base_url))

    @classmethod
    def from_env(cls) -> CleverTap:
        """Return the account in `CLEVERTAP_ACCOUNT_ID` and `CLEVERTAP_PASSCODE`.

        `CLEVERTAP_REGION`, `CLEVERTAP_BASE_URL`, `CLEVERTAP_MAX_IN_FLIGHT` and
        `CLEVERTAP_TIMEZONE` and `ALTAPROFILES_SHARED` (1 or a path) are optional.

        Raises:
            ConfigurationError: one of the first two is unset or empty, or a value is invalid; it
                names the variable.
        """
        shared = shared_from_env()
        with _naming_variables("CLEVERTAP"):
            return cls(
                account_id=_from_env("CLEVERTAP_ACCOUNT_ID"),
                passcode=_from_env("CLEVERTAP_PASSCODE"),
                region=os.environ.get("CLEVERTAP_REGION") or "eu1",
                base_url=os.environ.get("CLEVERTAP_BASE_URL") or None,
                max_in_flight=_in_flight_from_env("CLEVERTAP_MAX_IN_FLIGHT", CHAIN_SLOTS),
                timezone=os.environ.get("CLEVERTAP_TIMEZONE") or None,
                shared=shared,
            )

    def __repr__(self) -> str:
        where = f"region={self.region!r}" if self.base_url is None else f"base_url={self.url!r}"
        zone = "" if self.timezone is None else f", timezone={self.timezone!r}"
        return (
            f"CleverTap(account_id={self.account_id!r}, passcode='***', {where}, "
            f"max_in_flight={self.max_in_flight!r}{zone}{_shared_text(self.shared)})"
        )


@dataclass(frozen=True, slots=True, init=False)
class Alta:
    """An API key of Alta (GPTBots), and the limits on its use.

    A token belongs to one agent, and gives access to the users of that agent only: the data of a
    user is isolated between agents ("Query User CDP").

    Args:
        token: the API key. Never shown, never pickled.
        base_url: replaces the address of the endpoint: https, or http on loopback only.
        max_in_flight: most requests in flight at once, over all calls of one session; or "auto" for
            as many as the service turns out to take. The vendor documents no limit.
        requests_per_minute: most requests per minute, spread evenly; None for no limit. The vendor
            documents no limit for this call; a sibling call allows about 100.
        name: a name for the agent, 1 to 100 printable characters. It identifies the account, for
            example in resumed work, even after the token has changed. With None, a digest of the
            token does so.
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
        token: str,
        base_url: str | None = None,
        max_in_flight: MaxInFlight = 16,
        requests_per_minute: int | None = None,
        name: str | None = None,
        *,
        endpoint: str | None = None,
        shared: bool | str | os.PathLike[str] = False,
    ) -> None:
        kind, token = type(token).__name__, as_secret(token)
        _set(self, token=token, base_url=base_url, max_in_flight=max_in_flight)
        _set(self, requests_per_minute=requests_per_minute, name=name, endpoint=endpoint)
        _set(self, shared=shared, url="")
        _check_token("token", token, kind)
        if "://" in token or token.lower() in ENDPOINTS:
            # The address is likely to be the token, and must not be shown.
            base_url, endpoint = as_secret(base_url), as_secret(endpoint)
            _set(self, base_url=base_url, endpoint=endpoint)
            raise InvalidArgument(
                "token: holds a URL; swap `token` and `base_url`, or pass the API key"
                if "://" in token
                else "token: holds the name of a platform; swap `token` and `endpoint`"
            )
        _set(self, max_in_flight=_check_max_in_flight(max_in_flight))
        _set(self, shared=_check_shared(shared))
        if requests_per_minute is not None:
            check_whole("requests_per_minute", requests_per_minute, least=1)
        if name is not None:
            _check_name(name)
        if endpoint is None:
            _set(self, url=ENDPOINTS["altatech"] if base_url is None else _base(base_url))
        elif base_url is None:
            known, url = _platform(endpoint)
            _set(self, endpoint=known, url=url)
        else:
            raise InvalidArgument(
                "endpoint: cannot be combined with `base_url`; pass one of the two"
            )

    @classmethod
    def from_env(cls) -> Alta:
        """Return the API key in `ALTA_TOKEN`.

        `ALTA_ENDPOINT` or `ALTA_BASE_URL`, `ALTA_MAX_IN_FLIGHT` and `ALTAPROFILES_SHARED` (1 or a
        path) are optional.

        Raises:
            ConfigurationError: `ALTA_TOKEN` is unset or empty, both of the others are set, or a
                value is invalid; it names the variable.
        """
        shared = shared_from_env()
        with _naming_variables("ALTA"):
            return cls(
                token=_from_env("ALTA_TOKEN"),
                base_url=os.environ.get("ALTA_BASE_URL") or None,
                endpoint=os.environ.get("ALTA_ENDPOINT") or None,
                max_in_flight=_in_flight_from_env("ALTA_MAX_IN_FLIGHT", 16),
                shared=shared,
            )

    @property
    def account(self) -> str:
        """`name`, or else the first 16 hex digits of the token's BLAKE2b digest.

        Two agents get different answers for the same user. This tells the agents apart without
        showing a token.
        """
        return self.name or hashlib.blake2b(self.token.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        rate, name = self.requests_per_minute, self.name
        paced = "" if rate is None else f", requests_per_minute={rate}"
        named = "" if name is None else f", name={name!r}"
        where = f"base_url={self.url!r}" if self.endpoint is None else f"endpoint={self.endpoint!r}"
        limits = f"max_in_flight={self.max_in_flight!r}{paced}{named}{_shared_text(self.shared)}"
        return f"Alta(token='***', {where}, {limits})"


def _set(credentials: CleverTap | Alta, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(credentials, name, value)


_SECRETS = {"CLEVERTAP": ("ACCOUNT_ID", "PASSCODE"), "ALTA": ("TOKEN",)}
_SETTINGS = {
    "CLEVERTAP": ("REGION", "BASE_URL", "MAX_IN_FLIGHT", "TIMEZONE"),
    "ALTA": ("ENDPOINT", "BASE_URL", "MAX_IN_FLIGHT"),
}


def is_in_environment(prefix: str) -> bool:
    """Return whether a secret of a service is set, even if empty: `from_env` names what is missing.

    Args:
        prefix: the beginning of the service's variables, "CLEVERTAP" or "ALTA".
    """
    return any(f"{prefix}_{name}" in os.environ for name in _SECRETS[prefix])


def ignored_variables(prefix: str) -> str | None:
    """Return a sentence on variables without effect, because no secret is set; None without any."""
    names = [f"{prefix}_{name}" for name in _SETTINGS[prefix]]
    idle = [name for name in names if os.environ.get(name, "").strip()]
    if not idle or is_in_environment(prefix):
        return None
    secrets = " and ".join(f"{prefix}_{name}" for name in _SECRETS[prefix])
    return (
        f"{' and '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect, because "
        f"{secrets} {'is' if prefix == 'ALTA' else 'are'} not set"
    )


def _from_env(name: str) -> str:
    if not (value := os.environ.get(name)):
        raise MissingCredentials(f"the environment variable {name} is not set, or is empty")
    return value


def _in_flight_from_env(name: str, default: int) -> Any:
    # Anything but a number is checked, and shown, where the value is used.
    text = os.environ.get(name, "").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else text or default


def _check_max_in_flight(value: object) -> MaxInFlight:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        is_quoted = isinstance(value, str) and value.strip().isdecimal()
        raise InvalidArgument(
            f"max_in_flight: expected a whole number of at least 1, or 'auto', got {value!r}"
            + ("; leave out the quotation marks" if is_quoted else "")
        )
    return value


def _check_shared(value: object) -> bool | str:
    """Return whether limits are shared between processes, or the folder in which they are."""
    if isinstance(value, bool):
        return value
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not os.path.isabs(text):  # noqa: PTH117
        # Processes with other working folders, or homes, would not share a relative one.
        raise InvalidArgument(
            f"shared: expected True, False or the absolute path of a folder, got {value!r}"
        )
    return path_text("shared", text)


def shared_from_env() -> bool | str:
    """Return the value of `ALTAPROFILES_SHARED`: True for 1, False without it, else the path.

    Raises:
        InvalidSetting: it is something else.
    """
    text = os.environ.get(_SHARED, "").strip()
    shared = {"": False, "0": False, "1": True}.get(text, text)
    if isinstance(shared, str) and not os.path.isabs(shared):  # noqa: PTH117
        raise InvalidSetting(
            f"{_SHARED}: expected 1 or the absolute path of a folder, got {shared!r}"
        )
    return shared


def _shared_text(shared: bool | str) -> str:
    return f", shared={shared!r}" if shared else ""


class InvalidSetting(ConfigurationError):
    """A setting of the environment or the credentials file is invalid, beside valid secrets."""


_ARGUMENTS = (
    *("region", "endpoint", "base_url", "max_in_flight", "requests_per_minute", "name"),
    *("timezone", "shared"),
)


def explained(
    error: ConfigurationError, name: Callable[[str], str | None], place: str = ""
) -> ConfigurationError:
    """Return an error of a constructor in the words of the place that its arguments came from.

    Args:
        error: the error of `CleverTap` or `Alta`.
        name: returns the name of an argument there; see `renamed`.
        place: text in front of the message.
    """
    text = str(error)
    kind = InvalidSetting if text.partition(":")[0] in _ARGUMENTS else ConfigurationError
    return kind(place + renamed(text, name))


def renamed(text: str, name: Callable[[str], str | None]) -> str:
    """Return a message with its arguments under other names.

    Args:
        text: the message, which names an argument before its first colon, and others as `code` or
            as keyword=.
        name: returns the other name of an argument, or None if it stays.
    """
    return re.sub(
        r"\A(?P<subject>[a-z_]+)(?=: )|`(?P<other>[a-z_]+)`|\b(?P<keyword>[a-z_]+)=(?= )",
        lambda found: name(found["subject"] or found["other"] or found["keyword"]) or found[0],
        text,
    )


def variable(prefix: str, argument: str) -> str:
    """Return the name of an argument's variable, such as `ALTA_ENDPOINT`."""
    if argument == "shared":
        return _SHARED
    return f"{prefix}_{argument}".upper()


@contextmanager
def _naming_variables(prefix: str) -> Iterator[None]:
    """Let an error name variables of the environment in place of the arguments made of them."""
    try:
        yield
    except MissingCredentials:
        raise
    except ConfigurationError as error:
        raise explained(error, lambda argument: variable(prefix, argument)) from None


def is_custom(url: str, known: Mapping[str, str]) -> bool:
    """Return whether a base URL leads to another host than those of the vendor, such as a gateway.

    Args:
        url: the base URL.
        known: the base URLs of the vendor, by name.
    """
    return _host(url) not in map(_host, known.values())


def _host(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    return parts.hostname, parts.port


def _check_token(name: str, value: object, kind: str) -> None:
    if not isinstance(value, str) or not value:
        # The message names the type only, because the value may be a secret.
        found = "empty text" if kind == "str" else f"a {kind}"
        raise InvalidArgument(
            f"{name}: expected text that is not empty, got {found}; copy it from the dashboard"
        )
    # The value becomes an HTTP header: a line break in it would start another header.
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise InvalidArgument(
            f"{name}: holds a space, a line break or a character outside ASCII; "
            f"pass the bare value that the dashboard shows"
        )


def can_name(name: object) -> bool:
    """Return whether `name` can be the name of an `Alta` agent."""
    return isinstance(name, str) and name.isprintable() and 0 < len(name) <= _MAX_NAME


def _check_name(name: object) -> None:
    if not can_name(name):
        raise InvalidArgument(
            f"name: expected 1 to {_MAX_NAME} printable characters, got {name!r}; "
            f"use a short name, such as 'support-agent'"
        )


def _platform(endpoint: object) -> tuple[str, str]:
    """Return the name of a platform in its canonical form, and its base URL."""
    if not isinstance(endpoint, str):
        raise InvalidArgument(f"endpoint: expected the name of a platform, got {endpoint!r}")
    if "@" in endpoint:
        # The message leaves the text out, because a credential stands before the @.
        raise InvalidArgument("endpoint: holds an @; pass a name such as 'gptbots.ai'")
    name = endpoint.strip().lower()
    if name in ENDPOINTS:
        return name, ENDPOINTS[name]
    known = ", ".join(ENDPOINTS)
    if re.search(r"[/:?#]", name):
        raise InvalidArgument(
            f"endpoint: {_place(endpoint)!r} is more than the name of a platform; use one of "
            f"{known}, or pass a URL as `base_url`"
        )
    # Full stops of other scripts, and letters in full width, are read as in any host.
    name = unicodedata.normalize("NFKC", name).replace("。", ".")
    if name in ENDPOINTS:
        return name, ENDPOINTS[name]
    if "." not in name:
        # Any longer text may be the API key in the wrong place.
        quoted = repr(endpoint) if re.fullmatch(r"[a-z]{0,15}", name) else "'***'"
        raise InvalidArgument(
            f"endpoint: unknown platform {quoted}; use one of {one_of(ENDPOINTS, name)}, or the "
            f"domain of another one, for which https://api.DOMAIN is called"
        )
    for other, url in ENDPOINTS.items():
        if name.startswith("api") and name == urlsplit(url).hostname:
            raise InvalidArgument(f"endpoint: {endpoint!r} is a host; pass {other!r}")
    if re.fullmatch(r"api-[^.]+\.gptbots\.ai\.?", name):
        # GPTBots' regions are hosts of their own, to which the vendor's pattern does not lead.
        raise InvalidArgument(
            f"endpoint: {endpoint!r} is a host, before which api. would be put; pass "
            "its URL as `base_url`"
        )
    if name.startswith("api."):
        raise InvalidArgument(
            f"endpoint: {endpoint!r} begins with api., which is put before it; pass {name[4:]!r}"
        )
    url = f"https://api.{name}"
    try:
        parts = split_address(url)
    except ValueError as error:
        raise InvalidArgument(
            f"endpoint: {url!r} {error}; use one of {known}, or pass a URL as `base_url`"
        ) from None
    return parts.netloc.removeprefix("api."), parts.geturl()


def _place(url: str) -> str:
    """Return a URL without its query and fragment, which may hold a credential."""
    return re.split(r"[?#]", url, maxsplit=1)[0]


_PATH = r"(?:[A-Za-z0-9._~!$&'()*+,;=:/-]|%[0-9A-Fa-f]{2})*"


def _base(url: object) -> str:
    if not isinstance(url, str):
        raise InvalidArgument(f"base_url: expected a URL as text, got {url!r}")
    if "@" in url:
        # The message leaves the URL out, because a credential stands before the @.
        raise InvalidArgument("base_url: holds user:password@; remove it")
    place = _place(url)
    if place != url:
        # The message leaves the rest out, because it may hold a credential.
        raise InvalidArgument(
            f"base_url: {place!r} is followed by a query or a fragment; write https://HOST"
        )
    try:
        parts = split_address(url)
    except ValueError as error:
        raise InvalidArgument(
            f"base_url: {url!r} {error}; write https://HOST or https://HOST:PORT"
        ) from None
    if not re.fullmatch(_PATH, parts.path):
        raise InvalidArgument(
            f"base_url: {url!r} holds more than scheme, host, port and path; write https://HOST"
        )
    if re.search(r"/v?\d+/*$", parts.path):
        # The paths of both APIs start with the version. Given twice, every lookup gets a 404, which
        # reads as "no such person".
        raise InvalidArgument(
            f"base_url: {url!r} ends in the API version, which is added to it; remove the version"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise InvalidArgument(
            f"base_url: {url!r} would send credentials unencrypted; use https "
            f"(http is accepted for loopback addresses only)"
        )
    # As written, unless the host needs another form.
    is_plain = urlsplit(url).netloc == parts.netloc
    return (url if is_plain else parts.geturl()).rstrip("/")
