"""Hosts in addresses: checked and brought into the form that the network uses. Does no I/O."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

__all__ = ["is_loopback", "split_address"]

_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
# Such a host is an IPv4 address, at times in a form that only some programs accept.
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
_MAX_HOST = 253


def split_address(address: str) -> SplitResult:
    """Return the parts of an http or https URL, with its host as it stands in DNS.

    Letters outside ASCII are encoded by IDNA, and a dot at the end is removed. User and password
    stay.

    Raises:
        ValueError: the reason, in words that do not quote the address.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        # Its text may quote the address.
        raise ValueError("has no valid host") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("does not begin with https:// or http://")
    if not parts.netloc:
        raise ValueError("has no host")
    if re.search(r"[\x00-\x20\x7f\\]", address):
        raise ValueError("holds a space, a control character or a backslash")
    login, at, place = parts.netloc.rpartition("@")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("has no valid port: use 1 to 65535") from None
    if port == 0 or place.endswith(":"):
        raise ValueError("has no valid port: use 1 to 65535")
    host = _checked_host(place, parts.hostname or "")
    return parts._replace(netloc=f"{login}{at}{host}" + ("" if port is None else f":{port}"))


def _checked_host(place: str, name: str) -> str:
    if place.startswith("["):
        try:
            IPv6Address(name)
        except ValueError:
            raise ValueError("has no valid IPv6 address in its brackets") from None
        if "%" in name or not re.fullmatch(r"\[[0-9A-Fa-f:.]+\](?::\d*)?", place):
            raise ValueError("has an IPv6 address with a zone, or with text behind its brackets")
        return place[: place.index("]") + 1]
    # As written, because `hostname` is in lower case.
    host = place.partition(":")[0]
    try:
        # Full stops of other scripts separate labels as well.
        host = host.encode("idna").decode("ascii").removesuffix(".")
    except UnicodeError:
        raise ValueError(
            "has a host with a label that is empty, over 63 characters, or without a form in DNS"
        ) from None
    if not _HOST.fullmatch(host) or len(host) > _MAX_HOST:
        raise ValueError("has no valid host")
    if _NUMBER.fullmatch(host):
        try:
            ip_address(host)
        except ValueError:
            raise ValueError(
                "has no valid IPv4 address: write four numbers from 0 to 255"
            ) from None
    return host


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
