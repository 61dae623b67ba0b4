"""The proxy of a service, from an argument or from the environment variables."""

from __future__ import annotations

import base64
import re
import urllib.request
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from ..base.addresses import is_loopback, split_address
from ..base.checks import check_flag, is_unicode
from ..errors import ConfigurationError, InvalidArgument
from ..redaction import Secret

__all__ = ["Proxies", "Proxy", "hide_proxy", "proxy_from_env", "proxy_secrets"]

_AUTHORIZATION = "Proxy-Authorization"
_BASIC = "Basic "


_DEFAULT_PORTS = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """A proxy without its login.

    Attributes:
        url: its URL.
        headers: the headers to send to it, which hold the login; None without one.
        setting: the setting that it comes from: `proxy`, or the name of a variable in capitals.
    """

    url: str
    headers: dict[str, str] | None
    setting: str

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        port = "" if parts.port else f":{_DEFAULT_PORTS[parts.scheme]}"
        return f"{parts.netloc}{port} from {self.setting}"


class Proxies:
    """The proxies of services: one that is given, those of the environment, or none.

    Args:
        proxy: the proxy to use in the place of the environment's, as `hide_proxy` returns it.
        trust_env: whether to use those of the environment.

    Raises:
        ConfigurationError: `proxy` is not the URL of an http or https proxy.
    """

    def __init__(self, proxy: object, *, trust_env: bool) -> None:
        proxy = hide_proxy(proxy)
        self._given = _check_proxy(proxy)
        self._trust_env = check_flag("trust_env", trust_env)

    def to(self, base_url: str) -> Proxy | None:
        """Return the proxy for `base_url`; None if there is none.

        Raises:
            ConfigurationError: a variable does not hold the URL of an http or https proxy.
        """
        if self._given is not None:
            return _proxy_for(base_url, self._given)
        return proxy_from_env(base_url) if self._trust_env else None


def proxy_from_env(base_url: str) -> Proxy | None:
    """Return the proxy for `base_url`; None if there is none.

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
        return None
    setting = f"{scheme.upper()}_PROXY"
    if fault := _fault_of(proxy, otherwise="unset the variable"):
        raise ConfigurationError(f"{setting}: {fault}")
    return _proxy_for(base_url, proxy, setting)


def hide_proxy(proxy: object) -> object:
    """Return an argument `proxy` in a form that tracebacks may show: its type if it is not text."""
    if proxy is None or isinstance(proxy, Secret | type):
        return proxy
    return Secret(proxy) if isinstance(proxy, str) else type(proxy)


def _check_proxy(proxy: object) -> Secret | None:
    """Return the argument `proxy`, as `hide_proxy` returns it.

    Raises:
        ConfigurationError: it is not the URL of an http or https proxy.
    """
    if proxy is None:
        return None
    if not isinstance(proxy, Secret):
        kind = getattr(proxy, "__name__", "object")
        raise InvalidArgument(
            f"proxy: expected the URL of a proxy as text, got a {kind}; write http://HOST:PORT"
        )
    proxy = Secret(proxy.strip())
    if fault := _fault_of(proxy, otherwise="leave it out"):
        raise InvalidArgument(f"proxy: {fault}")
    return proxy


def _proxy_for(base_url: str, proxy: Secret, setting: str = "`proxy`") -> Proxy | None:
    """Return the proxy for `base_url`; None if it would not be used.

    Args:
        base_url: the base URL of a service.
        proxy: the URL of the proxy, which is valid.
        setting: the setting that it comes from, in words.
    """
    parts = split_address(_with_scheme(proxy))
    if is_loopback(urlsplit(base_url).hostname or "") and not is_loopback(parts.hostname or ""):
        return None
    login, at, place = parts.netloc.rpartition("@")
    url = f"{parts.scheme}://{place}"
    if not at:
        return Proxy(url, None, setting)
    user, _, password = login.partition(":")
    credentials = b"%b:%b" % (unquote_to_bytes(user), unquote_to_bytes(password))
    encoded = base64.b64encode(credentials).decode()
    return Proxy(url, {_AUTHORIZATION: Secret(f"{_BASIC}{encoded}")}, setting)


_SCHEME = re.compile("[a-z][a-z0-9]{0,9}")


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _fault_of(proxy: str, *, otherwise: str) -> str:
    """Return the fault of a proxy's URL and its fix, without the URL; nothing if it is valid.

    Returned and not raised, because frames that look at the URL hold its password.
    """
    kind = _with_scheme(proxy).partition("://")[0].lower()
    if kind not in ("http", "https"):
        named = f": {kind!r} proxies are not supported" if _SCHEME.fullmatch(kind) else ""
        return f"not an http or https proxy{named}; write http://HOST:PORT, or {otherwise}"
    if not is_unicode(proxy):
        return "not text in UTF-8; write such characters in percent-encoding"
    try:
        parts = split_address(_with_scheme(proxy))
    except ValueError as error:
        fault = str(error)
    else:
        if "@" not in parts.path + parts.query + parts.fragment:
            return ""
        fault = "has a /, ? or # in its user or password"
    form = "http://HOST:PORT"
    if "@" in proxy:
        form = "http://USER:PASSWORD@HOST:PORT, special characters in percent-encoding (# is %23)"
    return f"not the URL of a proxy: it {fault}; write {form}"


def proxy_secrets(headers: Mapping[str, str] | None) -> tuple[Secret, ...]:
    """Return the login in the headers for a proxy, encoded, and its password; or nothing.

    A login without a password is a key in the place of the user, and secret.
    """
    if headers is None:
        return ()
    login = headers[_AUTHORIZATION].removeprefix(_BASIC)
    user, _, password = base64.b64decode(login).decode(errors="replace").partition(":")
    return (Secret(login), Secret(password or user))


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
