"""Who is asking, and where: accounts, regions and base URLs. Checks form; contacts nobody."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from .base.checks import check_whole
from .errors import ConfigurationError
from .redaction import as_secret

__all__ = [
    "REGIONS",
    "Alta",
    "CleverTap",
]

REGIONS = {
    "eu1": "https://eu1.api.clevertap.com",
    # The vendor's region table has Europe here; its newer pages have it under eu1.
    "global": "https://api.clevertap.com",
    "in1": "https://in1.api.clevertap.com",
    "us1": "https://us1.api.clevertap.com",
    "sg1": "https://sg1.api.clevertap.com",
    "aps3": "https://aps3.api.clevertap.com",
    "mec1": "https://mec1.api.clevertap.com",
}
"""CleverTap region to base URL ("Get User Profiles", Base URL)."""

_MAX_NAME = 100


@dataclass(frozen=True, slots=True, init=False)
class CleverTap:
    """A CleverTap account, and how hard it may be used.

    Args:
        account_id: the account ID (project ID) from the dashboard.
        passcode: its passcode. Never shown, never pickled.
        region: "eu1", "global", "in1", "us1", "sg1", "aps3" or "mec1". A wrong region answers as
            a wrong passcode does.
        base_url: replaces the region's address: https, or http on loopback only.
        max_in_flight: requests under way at once, over all calls of one session. CleverTap allows
            3 per account ("API limits").

    Raises:
        ConfigurationError: a value that cannot work.

    >>> CleverTap(account_id="W9R-654-865Z", passcode="secret", region="in1")
    CleverTap(account_id='W9R-654-865Z', passcode='***', region='in1', max_in_flight=3)
    """

    account_id: str
    passcode: str
    region: str
    base_url: str | None
    max_in_flight: int
    url: str = field(init=False, repr=False)
    """The base URL that `region` and `base_url` come to, without a trailing slash."""

    def __init__(
        self,
        account_id: str,
        passcode: str,
        region: str = "eu1",
        base_url: str | None = None,
        max_in_flight: int = 3,
    ) -> None:
        # Before any check: a traceback that shows locals shows these two.
        kind, passcode = type(passcode).__name__, as_secret(passcode)
        _set(self, account_id=account_id, passcode=passcode, region=region)
        _set(self, base_url=base_url, max_in_flight=max_in_flight, url="")
        _check_token("account_id", account_id, type(account_id).__name__)
        _check_token("passcode", passcode, kind)
        if not isinstance(region, str) or region not in REGIONS:
            raise ConfigurationError(
                f"region: unknown region {region!r}; use one of {', '.join(REGIONS)}"
            )
        check_whole("max_in_flight", max_in_flight, least=1)
        _set(self, url=REGIONS[region] if base_url is None else _base(base_url))

    @classmethod
    def from_env(cls) -> CleverTap:
        """Return the account that `CLEVERTAP_ACCOUNT_ID` and `CLEVERTAP_PASSCODE` name.

        `CLEVERTAP_REGION` and `CLEVERTAP_BASE_URL` may be set beside them.

        Raises:
            ConfigurationError: one of the two is missing or empty, or a value cannot work.
        """
        return cls(
            account_id=_from_env("CLEVERTAP_ACCOUNT_ID"),
            passcode=_from_env("CLEVERTAP_PASSCODE"),
            region=os.environ.get("CLEVERTAP_REGION") or "eu1",
            base_url=os.environ.get("CLEVERTAP_BASE_URL") or None,
        )

    def __repr__(self) -> str:
        where = f"region={self.region!r}" if self.base_url is None else f"base_url={self.url!r}"
        return (
            f"CleverTap(account_id={self.account_id!r}, passcode='***', {where}, "
            f"max_in_flight={self.max_in_flight})"
        )


@dataclass(frozen=True, slots=True, init=False)
class Alta:
    """An Alta (GPTBots) API key, and how hard it may be used.

    The token decides which agent's users are seen: data of one user is isolated between agents
    ("Query User CDP").

    Args:
        token: the API key. Never shown, never pickled.
        base_url: https, or http on loopback only. GPTBots' own platform is at
            `https://api.gptbots.ai`, or `api-sg`, `api-jp`, `api-th`.
        max_in_flight: requests under way at once, over all calls of one session.
        requests_per_minute: spreads requests evenly to this rate; None for no limit. The vendor
            documents none for this call; a sibling call allows about 100.
        name: identifies the agent, for example to work that is resumed, even after its token has
            changed: 1 to 100 printable characters. When None, a digest of the token does.

    Raises:
        ConfigurationError: a value that cannot work.

    >>> Alta("secret", name="support-agent")
    Alta(token='***', base_url='https://altatech.ai', max_in_flight=16, name='support-agent')
    """

    token: str
    base_url: str
    max_in_flight: int
    requests_per_minute: int | None
    name: str | None
    url: str = field(init=False, repr=False)
    """`base_url` without a trailing slash."""

    def __init__(
        self,
        token: str,
        base_url: str = "https://altatech.ai",
        max_in_flight: int = 16,
        requests_per_minute: int | None = None,
        name: str | None = None,
    ) -> None:
        kind, token = type(token).__name__, as_secret(token)
        _set(self, token=token, base_url=base_url, max_in_flight=max_in_flight)
        _set(self, requests_per_minute=requests_per_minute, name=name, url="")
        _check_token("token", token, kind)
        check_whole("max_in_flight", max_in_flight, least=1)
        if requests_per_minute is not None:
            check_whole("requests_per_minute", requests_per_minute, least=1)
        if name is not None:
            _check_name(name)
        _set(self, url=_base(base_url))

    @classmethod
    def from_env(cls) -> Alta:
        """Return the key that `ALTA_TOKEN` holds, for `ALTA_BASE_URL` where that is set.

        Raises:
            ConfigurationError: `ALTA_TOKEN` is missing or empty, or a value cannot work.
        """
        base_url = os.environ.get("ALTA_BASE_URL") or "https://altatech.ai"
        return cls(token=_from_env("ALTA_TOKEN"), base_url=base_url)

    @property
    def account(self) -> str:
        """`name`, or 16 hex digits that stand for the token: the start of its BLAKE2b digest.

        Users of one agent are invisible to another, so that this tells the answers of two agents
        apart without showing a token.
        """
        return self.name or hashlib.blake2b(self.token.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        rate, name = self.requests_per_minute, self.name
        paced = "" if rate is None else f", requests_per_minute={rate}"
        named = "" if name is None else f", name={name!r}"
        return (
            f"Alta(token='***', base_url={self.url!r}, max_in_flight={self.max_in_flight}"
            f"{paced}{named})"
        )


def _set(credentials: CleverTap | Alta, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(credentials, name, value)


def _from_env(name: str) -> str:
    if not (value := os.environ.get(name)):
        raise ConfigurationError(f"the environment variable {name} is not set, or empty")
    return value


def _check_token(name: str, value: object, kind: str) -> None:
    if not isinstance(value, str) or not value:
        # The kind alone: the value may be a secret.
        shown = "empty text" if kind == "str" else f"a {kind}"
        raise ConfigurationError(
            f"{name}: expected text that is not empty, got {shown}; copy it from the dashboard"
        )
    # It becomes an HTTP header: a line break in it would start another one.
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ConfigurationError(
            f"{name}: holds a space, a line break or a character outside ASCII; "
            f"pass the bare value that the dashboard shows"
        )


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _MAX_NAME:
        raise ConfigurationError(
            f"name: expected 1 to {_MAX_NAME} printable characters, got {name!r}; "
            f"use a short name, such as 'support-agent'"
        )


def _base(url: object) -> str:
    if not isinstance(url, str):
        raise ConfigurationError(f"base_url: expected a URL as text, got {url!r}")
    if "@" in url:
        # Not shown: what stands before the @ is a credential.
        raise ConfigurationError("base_url: holds user:password@; pass credentials as arguments")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(
            f"base_url: {error} in {url!r}; write https://HOST or https://HOST:PORT"
        ) from None
    if parts.scheme not in ("https", "http") or not host:
        raise ConfigurationError(f"base_url: {url!r} is not a URL; write https://HOST")
    if re.search(r"[\x00-\x20\x7f?#]", url):
        raise ConfigurationError(
            f"base_url: {url!r} holds more than scheme, host, port and path; write https://HOST"
        )
    if re.search(r"/v?\d+/*$", parts.path):
        # The paths of both APIs begin with it. Twice, it makes every lookup "404, no such person".
        raise ConfigurationError(
            f"base_url: {url!r} ends in the version, which is added to it; leave that off"
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigurationError(
            f"base_url: {url!r} would send credentials unencrypted; use https "
            f"(http is accepted for loopback addresses only)"
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
