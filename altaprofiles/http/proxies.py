"""The proxy of a service, from the environment variables."""

from __future__ import annotations

import base64
import re
import urllib.request
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from ..base.addresses import is_loopback, split_address
from ..base.checks import is_unicode
from ..errors import ConfigurationError
from ..redaction import Secret

__all__ = ["proxy_from_env", "proxy_secrets"]

_AUTHORIZATION = "Proxy-Authorization"
_BASIC = "Basic "


def proxy_from_env(base_url: str) -> tuple[str | None, dict[str, str] | None]:
    """Return the proxy for `base_url` and the headers to send to it; None for each if unset.

    Reads `HTTPS_PROXY` or `HTTP_PROXY`, else `ALL_PROXY`, and `NO_PROXY`, in capitals or small
    letters; on macOS and Windows also the system's settings, if none of these is set. For a service
    on this machine, a proxy on another one is not used: it would get the credentials unencrypted,
    and could not reach the service.

    Raises:
        ConfigurationError: the variable does not hold the URL of an http or https proxy.
    """
    # Not aiohttp's own `trust_env`: it reads ~/.netrc as well, and refuses to send our
    # Authorization header if it finds the host there.
    parts = urlsplit(base_url)
    # A URL may hold a password, which a traceback with locals would show.
    proxies = {name: Secret(url.strip()) for name, url in urllib.request.getproxies().items()}
    scheme = parts.scheme if proxies.get(parts.scheme) else "all"
    proxy = proxies.get(scheme)
    if not proxy or _is_bypassed(parts, proxies):
        return None, None
    variable = f"{scheme.upper()}_PROXY"
    kind = proxy.partition("://")[0].lower() if "://" in proxy else "http"
    if kind not in ("http", "https"):
        # Any other text is left out of the message because it may hold a password.
        named = f": {kind!r} proxies are not supported" if _SCHEME.fullmatch(kind) else ""
        raise ConfigurationError(
            f"{variable}: not an http or https proxy{named}; write http://HOST:PORT, or unset the "
            f"variable"
        )
    if not is_unicode(proxy):
        raise ConfigurationError(
            f"{variable}: not text in UTF-8; write such characters in percent-encoding"
        )
    try:
        found = _split_proxy(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError as error:
        form = "http://HOST:PORT"
        if "@" in proxy:
            form = (
                "http://USER:PASSWORD@HOST:PORT, special characters in percent-encoding (# is %23)"
            )
        raise ConfigurationError(
            f"{variable}: not the URL of a proxy: it {error}; write {form}"
        ) from None
    if is_loopback(parts.hostname or "") and not is_loopback(found.hostname or ""):
        return None, None
    login, at, place = found.netloc.rpartition("@")
    url = f"{found.scheme}://{place}"
    if not at:
        return url, None
    user, _, password = login.partition(":")
    credentials = b"%b:%b" % (unquote_to_bytes(user), unquote_to_bytes(password))
    encoded = base64.b64encode(credentials).decode()
    return url, {_AUTHORIZATION: Secret(f"{_BASIC}{encoded}")}


_SCHEME = re.compile("[a-z][a-z0-9]{0,9}")


def _split_proxy(url: str) -> SplitResult:
    parts = split_address(url)
    if "@" in parts.path + parts.query + parts.fragment:
        raise ValueError("has a /, ? or # in its user or password")
    return parts


def proxy_secrets(headers: Mapping[str, str] | None) -> tuple[Secret, ...]:
    """Return the login in the headers for a proxy, encoded, and its password; or nothing."""
    if headers is None:
        return ()
    login = headers[_AUTHORIZATION].removeprefix(_BASIC)
    password = base64.b64decode(login).decode(errors="replace").partition(":")[2]
    return (Secret(login), Secret(password))


def _is_bypassed(parts: SplitResult, proxies: Mapping[str, str]) -> bool:
    if "no" not in proxies:
        # The exceptions in the system's settings.
        return bool(urllib.request.proxy_bypass(parts.netloc))
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return any(_matches(entry, host, port) for entry in re.split(r"[\s,]+", proxies["no"].lower()))


_WITH_PORT = re.compile(r"(\[[^]]*\]|[^:]*):([0-9]+)")


def _matches(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of `NO_PROXY` covers a host.

    An entry is `*`, a name with all names below it (a dot or `*.` in front changes nothing), an
    address, or a network such as `10.0.0.0/8`; a port behind it limits it to that port.
    """
    if with_port := _WITH_PORT.fullmatch(entry):
        if int(with_port[2]) != port:
            return False
        entry = with_port[1]
    entry = entry.strip("[]")
    if entry == "*":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        name = entry.removeprefix("*").strip(".")
        return name != "" and (host == name or host.endswith(f".{name}"))
    try:
        return address in ip_network(entry, strict=False)
    except ValueError:
        return False
