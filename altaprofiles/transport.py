"""One HTTP request over aiohttp: sent, read under a byte cap, its failures told apart.

The only client-side module that knows aiohttp. Never retries; never interprets a body. aiohttp
itself may send a GET once more when a kept-alive connection turns out to be closed.
"""

from __future__ import annotations

import base64
import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct
from yarl import URL

from ._version import __version__
from .checks import check_seconds
from .credentials import Secret
from .errors import (
    AltaProfilesError,
    ConfigurationError,
    ConnectError,
    RequestTimeout,
    ResponseTooLarge,
    TransportError,
)
from .wire.http import Request, Response

__all__ = ["Timeout", "Transport"]


class Timeout(Struct, frozen=True, kw_only=True):
    """Limits of one attempt, in seconds; None switches one off.

    Args:
        connect: to have a connection: name resolution, TCP and TLS.
        read: between two pieces of an answer.
        total: the whole attempt. It is what ends an answer that drips for ever.

    Raises:
        ConfigurationError: a value that is not above zero.
    """

    connect: float | None = 10.0
    read: float | None = 60.0
    total: float | None = 300.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if (value := getattr(self, name)) is not None:
                check_seconds(name, value)


class Transport:
    """A pool of connections. Redirects are errors, cookies are not kept.

    Args:
        timeout: limits of each attempt.
        max_response_bytes: most bytes of one body, decompressed.
        trace_configs: passed on to aiohttp.
        trust_env: take proxies from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
    """

    def __init__(
        self,
        *,
        timeout: Timeout,
        max_response_bytes: int,
        trace_configs: Sequence[aiohttp.TraceConfig],
        trust_env: bool,
    ) -> None:
        self._timeout = timeout
        self._max_response_bytes = max_response_bytes
        self._trace_configs = _checked(trace_configs)
        self._trust_env = trust_env
        self._proxies: dict[str, tuple[str | None, dict[str, str] | None]] = {}
        self._http: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        # How many connections there are is bounded by the requests in flight, not here.
        connector = aiohttp.TCPConnector(limit=0)
        self._http = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"altaprofiles/{__version__}", "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(
                total=self._timeout.total,
                connect=self._timeout.connect,
                sock_read=self._timeout.read,
            ),
            trace_configs=self._trace_configs,
        )

    async def aclose(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def send(self, request: Request, base_url: str, headers: Mapping[str, str]) -> Response:
        """Return the complete response to `request`, whatever its status.

        Raises:
            TransportError: no complete answer arrived, or it is over the byte cap.
        """
        if self._http is None:
            raise RuntimeError("the transport is not open")
        proxy, proxy_headers = self._proxy(base_url) if self._trust_env else (None, None)
        try:
            # Encoded already: a cursor must reach the request line byte for byte.
            async with self._http.request(
                request.method,
                URL(base_url + request.target, encoded=True),
                headers=headers,
                data=request.body or None,
                allow_redirects=False,
                proxy=proxy,
                proxy_headers=proxy_headers,
            ) as response:
                return Response(response.status, response.headers, await self._read(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = self._translated(error, base_url)
        # Raised outside the handler: aiohttp's errors show request headers in their repr, and its
        # frames hold them, so none of that may hang on ours as context.
        raise failure

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        limit = self._max_response_bytes
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > limit:
                response.close()
                raise ResponseTooLarge(
                    f"the response is over {limit:,} bytes; ask for less (a smaller batch_size, "
                    f"events=False) or raise max_response_bytes",
                    limit=limit,
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _translated(self, error: Exception, base_url: str) -> AltaProfilesError:
        host = urlsplit(base_url).netloc
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return RequestTimeout(f"no connection to {host} within {self._timeout.connect} s")
        if isinstance(error, aiohttp.SocketTimeoutError):
            return RequestTimeout(f"{host} sent nothing for {self._timeout.read} s")
        if isinstance(error, TimeoutError):
            return RequestTimeout(f"no complete answer from {host} within {self._timeout.total} s")
        if isinstance(
            error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError
        ):
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
            untrusted = isinstance(cause, ssl.SSLCertVerificationError)
            return ConnectError(f"no TLS connection to {host}: {cause}", untrusted=untrusted)
        if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
            return ConnectError(f"no connection to {host} through the proxy")
        if isinstance(error, aiohttp.ClientConnectorError):
            return ConnectError(f"no connection to {host}: {error.os_error}")
        if isinstance(error, aiohttp.ClientResponseError):
            return TransportError(f"{host} answered something that is not HTTP: {error.message}")
        if isinstance(error, aiohttp.ClientPayloadError):
            return TransportError(f"the answer of {host} ended before it was complete")
        return TransportError(f"the connection to {host} broke: {error or type(error).__name__}")

    def _proxy(self, base_url: str) -> tuple[str | None, dict[str, str] | None]:
        """Return the proxy for `base_url`, and the headers it wants."""
        if base_url not in self._proxies:
            self._proxies[base_url] = _proxy_from_env(base_url)
        return self._proxies[base_url]


def _checked(trace_configs: Sequence[aiohttp.TraceConfig]) -> list[aiohttp.TraceConfig]:
    if not isinstance(trace_configs, Sequence) or not all(
        isinstance(config, aiohttp.TraceConfig) for config in trace_configs
    ):
        raise ConfigurationError(
            f"trace_configs: expected a list of aiohttp.TraceConfig, got {trace_configs!r}"
        )
    return list(trace_configs)


def _proxy_from_env(base_url: str) -> tuple[str | None, dict[str, str] | None]:
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
