"""The proxy of a service, from the environment variables."""

from __future__ import annotations

import base64
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

from yarl import URL

from ..errors import ConfigurationError
from ..redaction import Secret

__all__ = ["proxy_from_env", "proxy_secrets"]

_AUTHORIZATION = "Proxy-Authorization"
_BASIC = "Basic "


def proxy_from_env(base_url: str) -> tuple[str | None, dict[str, str] | None]:
    """Return the proxy for `base_url` and the headers to send to it; None for each if unset.

    Raises:
        ConfigurationError: the variable does not hold the URL of an http or https proxy.
    """
    # Not aiohttp's own `trust_env`: it reads ~/.netrc as well, and refuses to send our
    # Authorization header if it finds the host there.
    parts = urlsplit(base_url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.netloc):
        return None, None
    try:
        url = URL(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        # The value is left out of the message because it may hold a password.
        raise ConfigurationError(
            f"{parts.scheme.upper()}_PROXY: not an http or https proxy; write http://HOST:PORT"
        )
    if url.user is None:
        return str(url), None
    login = base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
    return str(url.with_user(None)), {_AUTHORIZATION: Secret(f"{_BASIC}{login}")}


def proxy_secrets(headers: Mapping[str, str] | None) -> tuple[Secret, ...]:
    """Return the login in the headers for a proxy, encoded, and its password; or nothing."""
    if headers is None:
        return ()
    login = headers[_AUTHORIZATION].removeprefix(_BASIC)
    password = base64.b64decode(login).decode().partition(":")[2]
    return (Secret(login), Secret(password))
