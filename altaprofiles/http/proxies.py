"""The proxy that the environment names for a service."""

from __future__ import annotations

import base64
import urllib.request
from urllib.parse import urlsplit

from yarl import URL

from ..errors import ConfigurationError
from ..redaction import Secret

__all__ = ["proxy_from_env"]


def proxy_from_env(base_url: str) -> tuple[str | None, dict[str, str] | None]:
    """Return the proxy that the environment has for a service, and the headers it wants.

    Raises:
        ConfigurationError: it is of no kind that can be used.
    """
    # Not aiohttp's own `trust_env`: that one also reads ~/.netrc, and refuses to send our
    # Authorization header when it finds the host there.
    parts = urlsplit(base_url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.netloc):
        return None, None
    try:
        url = URL(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        # Not shown: it may hold a password.
        raise ConfigurationError(
            f"{parts.scheme.upper()}_PROXY: not an http or https proxy; write http://HOST:PORT"
        )
    if url.user is None:
        return str(url), None
    login = base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
    return str(url.with_user(None)), {"Proxy-Authorization": Secret(f"Basic {login}")}
