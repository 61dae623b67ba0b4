"""The addresses of both services: regions, platforms, and base URLs. No I/O."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import urlsplit

from ..base.addresses import is_loopback, split_address
from ..base.checks import shown
from ..base.wording import one_of
from ..errors import InvalidArgument
from ..redaction import Secret, as_secret

__all__ = [
    "ENDPOINTS",
    "REGIONS",
    "checked_base_url",
    "hide_login",
    "is_custom",
    "looks_like_address",
    "platform",
    "same_host",
]

T = TypeVar("T")

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


_PORTS = {"http": 80, "https": 443}


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


def same_host(url: str) -> str:
    """Return the host of a base URL, with its port: one text for all spellings of one service.

    The hosts of the region "global" are those of "eu1": an account has one limit under both.
    """
    host, port = _host(url)
    with suppress(ValueError):
        host = ip_address(host or "").compressed
    if (host, port or 443) == (_host(REGIONS["global"])[0], 443):
        host = _host(REGIONS["eu1"])[0]
    host = f"[{host}]" if host and ":" in host else host or ""
    return host if port in (None, _PORTS.get(urlsplit(url).scheme)) else f"{host}:{port}"


def platform(endpoint: object) -> tuple[str, str]:
    """Return the name of a platform in its canonical form, and its base URL."""
    if not isinstance(endpoint, str):
        raise InvalidArgument(f"endpoint: expected the name of a platform, got {shown(endpoint)}")
    if "@" in endpoint:
        # The message leaves the text out, because a credential stands before the @.
        raise InvalidArgument("endpoint: holds an @; pass a name such as 'gptbots.ai'")
    name = endpoint.strip().lower()
    if name in ENDPOINTS:
        return name, ENDPOINTS[name]
    known = ", ".join(ENDPOINTS)
    if re.search(r"[/:?#]", name):
        raise InvalidArgument(
            f"endpoint: {shown(hide_login(_place(endpoint)))} is more than the name of a "
            f"platform; use one of {known}, or pass a URL as `base_url`"
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
            raise InvalidArgument(f"endpoint: {shown(endpoint)} is a host; pass {other!r}")
    if re.fullmatch(r"api-[^.]+\.gptbots\.ai\.?", name):
        # GPTBots' regions are hosts of their own, to which the vendor's pattern does not lead.
        raise InvalidArgument(
            f"endpoint: {shown(endpoint)} is a host, before which api. would be put; pass "
            "its URL as `base_url`"
        )
    if name.startswith("api."):
        raise InvalidArgument(
            f"endpoint: {shown(hide_login(endpoint))} begins with api., which is put before it; "
            f"pass {shown(hide_login(name[4:]))}"
        )
    url = f"https://api.{name}"
    try:
        parts = split_address(url)
    except ValueError as error:
        raise InvalidArgument(
            f"endpoint: {shown(hide_login(url))} {error}; use one of {known}, or "
            "pass a URL as `base_url`"
        ) from None
    return parts.netloc.removeprefix("api."), parts.geturl()


def _place(url: str) -> str:
    """Return a URL without its query and fragment, which may hold a credential."""
    return re.split(r"[?#]", url, maxsplit=1)[0]


_PATH = r"(?:[A-Za-z0-9._~!$&'()*+,;=:/-]|%[0-9A-Fa-f]{2})*"


_ADDRESS = re.compile(
    r"\s*|(?:[A-Za-z]+:)?//[^@?#]*"
    r"|(?:localhost|(?:[a-z0-9-]{1,20}\.)+[a-z]{2,12}|(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
    r"|\[(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}\])(?::[0-9]{1,5})?(?:/[a-z0-9/]*)?"
)


def looks_like_address(text: str) -> bool:
    """Return whether a setting that should be a word is a URL or a host."""
    return "://" in text or bool(text.strip() and _ADDRESS.fullmatch(text.strip().lower()))


def hide_login(url: T) -> T | Secret:
    """Return an argument `base_url` in a form that messages and tracebacks may show.

    A login may stand in it, and a text that is no address may be the API key in the wrong place.
    """
    return as_secret(url) if isinstance(url, str) and not _ADDRESS.fullmatch(url) else url


def checked_base_url(url: object) -> str:
    """Return a base URL without a trailing slash.

    Raises:
        ConfigurationError: it is no URL, is not safe, or holds more than host, port and path.
    """
    if not isinstance(url, str):
        raise InvalidArgument(f"base_url: expected a URL as text, got {shown(url)}")
    if "@" in url:
        # The message leaves the URL out, because a credential stands before the @.
        raise InvalidArgument("base_url: holds user:password@; remove it")
    if _place(url) != url:
        # The message leaves the rest out, because it may hold a credential.
        raise InvalidArgument(
            f"base_url: {shown(hide_login(_place(url)))} is followed by a query or a fragment; "
            "write https://HOST"
        )
    try:
        parts = split_address(url)
    except ValueError as error:
        if url.strip().lower() in REGIONS:
            raise InvalidArgument(
                "base_url: holds the name of a region; pass it as `region`"
            ) from None
        if url.strip().lower() in ENDPOINTS:
            raise InvalidArgument(
                "base_url: holds the name of a platform; pass it as `endpoint`"
            ) from None
        raise InvalidArgument(
            f"base_url: {shown(url)} {error}; write https://HOST or https://HOST:PORT"
        ) from None
    if not re.fullmatch(_PATH, parts.path):
        raise InvalidArgument(
            f"base_url: {shown(url)} holds more than scheme, host, port and path; write https://HOST"
        )
    if re.search(r"/v?\d+/*$", parts.path):
        # The paths of both APIs start with the version. Given twice, every lookup gets a 404, which
        # reads as "no such person".
        raise InvalidArgument(
            f"base_url: {shown(url)} ends in the API version, which is added to it; remove the "
            "version"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise InvalidArgument(
            f"base_url: {shown(url)} would send credentials unencrypted; use https "
            f"(http is accepted for loopback addresses only)"
        )
    # As written, unless the host needs another form.
    is_plain = urlsplit(url).netloc == parts.netloc
    return (str.__str__(url) if is_plain else parts.geturl()).rstrip("/")
