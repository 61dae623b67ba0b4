"""One HTTP request over aiohttp: sent, read under a byte cap, its errors translated.

The only client-side module that knows aiohttp. Never retries; never interprets a body. aiohttp
itself may resend a GET once if a kept-alive connection turns out to be closed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import aiohttp
from msgspec import Struct
from msgspec.structs import force_setattr
from multidict import CIMultiDict
from yarl import URL

from .._version import __version__
from ..base.checks import check_seconds, shown
from ..base.open_files import more_files
from ..base.structs import CalledStruct
from ..errors import (
    AltaProfilesError,
    ConnectError,
    InvalidArgument,
    RequestTimeout,
    ResponseTooLarge,
    TransportError,
)
from ..wire.messages import Request, Response
from .connections import Connector, failures, on_connection, send_once
from .deadlines import Deadlines, Watched
from .inflate import Garbled, Inflater, codings
from .proxies import Proxies, Proxy, proxy_secrets
from .reader import Reader

__all__ = [
    "Limits",
    "OnHead",
    "Peer",
    "Timeout",
    "Transport",
    "check_context",
    "proxy_refusal",
    "translated",
]


_HEAD = 16 * 1024


_RATIO = 100
"""Bytes of a body for each byte that arrives, at most."""

_USUAL_RATIO = 10
"""Bytes of a body for each byte that arrives, with records of people."""

OnHead: TypeAlias = Callable[[bytes, int | None], bool]
"""Receives the first bytes of a body; see `Transport.send`."""


class Timeout(Struct, frozen=True, kw_only=True, metaclass=CalledStruct):
    """Time limits of one attempt, in seconds; None disables a limit.

    Args:
        connect: for a new connection: name resolution, TCP and TLS.
        read: from the start to the first piece of an answer, and while the next one is waited for.
            The time in which what has arrived is decoded or stored does not count.
        total: for the whole attempt, that time included. It ends one that arrives drop by drop.

    Raises:
        ConfigurationError: a limit is not a number above zero.

    >>> session = Session.from_env(timeout=Timeout(read=20, total=60))
    """

    connect: float | None = 10.0
    read: float | None = 60.0
    total: float | None = 300.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if (value := getattr(self, name)) is not None:
                force_setattr(self, name, check_seconds(name, value))


_PORTS = {"https": 443, "http": 80}


class Limits:
    """The time limits of attempts that have the same `Timeout`."""

    def __init__(self, timeout: Timeout) -> None:
        self.timeout = timeout
        self.deadlines = Deadlines(read=timeout.read, total=timeout.total)
        # `Deadlines` enforces the other limits.
        self.client = aiohttp.ClientTimeout(total=None, connect=timeout.connect)


class Peer:
    """The destination of requests, and the headers sent with each.

    Args:
        url: base URL, without a trailing slash.
        headers: sent with every request; None for those of `renew`, which must come first.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self.url = url
        self.host = parts.netloc
        self.hostname = parts.hostname or ""
        self.port = parts.port or _PORTS[parts.scheme]
        self._own = {"Host": URL(url).host_port_subcomponent or self.host}
        self.is_fixed = headers is not None
        self.headers = {**self._own, **(headers or {})}
        self._scheme = parts.scheme
        self._path = parts.path

    def renew(self, headers: Mapping[str, str]) -> None:
        """Send other headers from now on."""
        self.headers = {**self._own, **headers}

    def headers_through(self, proxy: Proxy | None) -> Mapping[str, str] | None:
        """Return the headers of a request, or None for those that the client has.

        Args:
            proxy: the proxy on the way. One of a service without TLS reads the request itself, with
                its own login; any other is asked for a tunnel.
        """
        if proxy is None:
            return None if self.is_fixed else self.headers
        is_tunnel = self._scheme == "https"
        return self.headers if is_tunnel else {**self.headers, **(proxy.headers or {})}

    def address(self, request: Request) -> str:
        """Return the address of `request` without its query, in which people's keys are."""
        return self.url + request.target.partition("?")[0]

    def target(self, request: Request) -> URL:
        """Return the URL of `request`. Its target, already encoded, is kept byte for byte."""
        path, _, query = request.target.partition("?")
        # Building a URL from parts takes a third of the time of parsing one.
        return URL.build(
            scheme=self._scheme,
            authority=self.host,
            path=self._path + path,
            query_string=query,
            encoded=True,
        )


class Transport:
    """A pool of connections. Redirects are errors; cookies are not kept.

    Args:
        max_response_bytes: most bytes of one body, decompressed.
        trace_configs: passed to aiohttp.
        trust_env: whether to use the proxies in `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
            `NO_PROXY`.
        ssl: the settings of TLS, for services and https proxies; None for those of the system.
        proxy: the proxy to use in the place of the environment's, as `hide_proxy` returns it.
    """

    def __init__(
        self,
        *,
        max_response_bytes: int,
        trace_configs: Sequence[aiohttp.TraceConfig],
        trust_env: bool,
        ssl: object = None,
        proxy: object = None,
    ) -> None:
        # Views of a session with one timeout share its only timer, for as long as there are any.
        self._limits: WeakValueDictionary[Timeout, Limits] = WeakValueDictionary()
        self.max_response_bytes = max_response_bytes
        self._trace_configs = _check_trace_configs(trace_configs)
        self._ssl = check_context(ssl)
        self._routes = Proxies(proxy, trust_env=trust_env)
        self._proxies: dict[Peer, Proxy | None] = {}
        self._connector: Connector | None = None
        self._clients: dict[Peer, aiohttp.ClientSession] = {}

    async def open(self) -> None:
        self._connector = Connector(self._ssl)

    async def aclose(self) -> None:
        for limits in self._limits.values():
            limits.deadlines.close()
        # Closed first, so that requests in flight find it closed and not missing.
        if self._connector is not None:
            await self._connector.close()
        for client in self._clients.values():
            await client.close()

    def _client(self, peer: Peer) -> aiohttp.ClientSession:
        """Return a client for `peer` over the shared pool, with the headers prepared once."""
        if self._connector is None:
            raise RuntimeError("the transport is not open")
        # aiohttp sends a client's own headers to the proxy as well, in the clear. With a proxy,
        # credentials therefore go with each request, which only the service can read. So do those
        # that change.
        goes_along = self._proxy(peer) is not None or not peer.is_fixed
        client = self._clients[peer] = aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "User-Agent": f"altaprofiles/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": ", ".join(codings()),
                **({} if goes_along else peer.headers),
            },
            # `_read` bounds the inflated size.
            auto_decompress=False,
            request_class=_Request,
            trace_configs=self._trace_configs,
            middlewares=(send_once,),
        )
        return client

    def limits(self, timeout: Timeout) -> Limits:
        """Return the time limits for `send`."""
        limits = self._limits.get(timeout)
        if limits is None:
            limits = self._limits[timeout] = Limits(timeout)
        return limits

    async def send(
        self,
        request: Request,
        peer: Peer,
        limits: Limits,
        on_head: OnHead | None = None,
        reader: Reader[object] | None = None,
        on_connected: Callable[[], object] | None = None,
    ) -> Response:
        """Return the complete response to `request`, whatever its status.

        Args:
            request: the request.
            peer: its destination.
            limits: its time limits.
            on_head: called with the first bytes of the body of a 2xx answer, decompressed, each
                time more of them arrive, until it returns True or has received 16 KiB. Its second
                argument is the length of the body, estimated if it is compressed, or None. Not
                called for a body that arrives in one piece.
            reader: takes the body of an answer with status 200, which is then not in the response.
            on_connected: called when there is a connection for the request.

        Raises:
            TransportError: no complete answer arrived, or it exceeds the byte cap.
            DecodeError: the reader gives up.
        """
        client = self._clients.get(peer) or self._client(peer)
        proxy = self._proxy(peer)
        watched = limits.deadlines.begin()

        is_connected = False

        def connected() -> None:
            nonlocal is_connected
            is_connected = True
            if on_connected is not None:
                on_connected()

        token = on_connection.set(connected)
        failed: list[Exception] = []
        own_failures = failures.set(failed)
        failure: AltaProfilesError
        try:
            response = await client.request(
                request.method,
                peer.target(request),
                data=request.body or None,
                headers=peer.headers_through(proxy),
                allow_redirects=False,
                proxy=proxy.url if proxy else None,
                proxy_headers=proxy.headers if proxy else None,
                timeout=limits.client,
            )
            try:
                if response.status != 200:
                    reader = None
                body, taken = await self._read(response, limits.deadlines, watched, on_head, reader)
            except BaseException:
                response.close()
                raise
            if proxy is None or response.status != 407:
                return Response(response.status, response.headers, body, taken=taken)
            failure = proxy_refusal(peer.host, proxy, 407, "")
        except (asyncio.CancelledError, Exception) as error:
            if isinstance(error, Exception) and _is_of_a_hook(error):
                raise
            if watched.ended_by_deadline():
                if is_connected:
                    failure = _overdue(limits.timeout, watched, peer.host, request)
                else:
                    failure = _unconnected(limits.timeout, watched, _place(peer.host, proxy))
            elif isinstance(error, asyncio.CancelledError | AltaProfilesError):
                raise
            else:
                failure = translated(error, peer.host, limits.timeout, proxy)
        finally:
            on_connection.reset(token)
            failures.reset(own_failures)
            # Their tracebacks lead to this frame.
            failed.clear()
            limits.deadlines.end(watched)
        # Raised outside the handler, so that aiohttp's error does not become its context: that
        # error shows request headers in its repr, and its frames hold them.
        raise failure

    async def _read(
        self,
        response: aiohttp.ClientResponse,
        deadlines: Deadlines,
        watched: Watched,
        on_head: OnHead | None,
        reader: Reader[object] | None,
    ) -> tuple[bytes, int]:
        """Return the body, or what was taken of it by `reader`: the number of bytes."""
        content = response.content
        inflater = _inflater(response)
        if inflater is None and content.is_eof():
            # A small answer that arrived in one piece, as for most lookups.
            body = content.read_nowait()
            if reader is not None:
                deadlines.heard(watched)
                for _ in reader.feed(body):
                    await asyncio.sleep(0)
                return b"", len(body)
            self._check_size(len(body))
            return body, 0
        deadlines.heard(watched)
        if response.status >= 300:
            on_head = None
        length = response.content_length
        if inflater is not None and length is not None:
            length *= _USUAL_RATIO
        pieces: list[bytes] = []
        size = received = 0
        while not content.at_eof():
            # Work on what has arrived, as that of a slow disk, is not the service's silence.
            deadlines.listen(watched)
            arrived = await content.readany()
            deadlines.heard(watched)
            received += len(arrived)
            for number, piece in enumerate(inflater.feed(arrived) if inflater else (arrived,)):
                if number > 0:
                    # A little data can inflate to a lot, and other tasks need the loop.
                    await asyncio.sleep(0)
                size += len(piece)
                if reader is None:
                    self._check_size(size)
                elif size > self.max_response_bytes:
                    self._check_ratio(size, received)
                if reader is None or on_head is not None:
                    pieces.append(piece)
                if on_head is not None and (
                    on_head(b"".join(pieces)[:_HEAD], length) or size >= _HEAD
                ):
                    on_head = None
                if reader is not None:
                    if on_head is None:
                        pieces.clear()
                    for _ in reader.feed(piece):
                        await asyncio.sleep(0)
                    if reader.is_full:
                        await reader.drain()
        if inflater is not None and received and not inflater.complete:
            raise aiohttp.ClientPayloadError
        return (b"".join(pieces), 0) if reader is None else (b"", size)

    def _check_ratio(self, size: int, received: int) -> None:
        """Refuse a body that inflates to much more than any page does.

        Its records need not be held, so that its size alone says nothing.
        """
        limit = self.max_response_bytes
        if size > _RATIO * received:
            raise ResponseTooLarge(
                f"the response is over {limit:,} bytes, and over {_RATIO} times as large as what "
                f"arrived; no page of the service is; if this one is, raise `max_response_bytes`",
                limit=limit,
            )

    def _check_size(self, size: int) -> None:
        limit = self.max_response_bytes
        if size > limit:
            raise ResponseTooLarge(
                f"the response is over {limit:,} bytes; ask for less (a smaller "
                f"`batch_size`, no event summaries) or raise `max_response_bytes`",
                limit=limit,
            )

    def secrets(self, peer: Peer) -> tuple[str, ...]:
        """Return the password of the proxy for `peer`, if there is one."""
        proxy = self._proxies.get(peer)
        return () if proxy is None else proxy_secrets(proxy.headers)

    def place(self, peer: Peer) -> str:
        """Return the destination in words, with the proxy on the way, without its login."""
        return _place(peer.host, self._proxies.get(peer))

    def _proxy(self, peer: Peer) -> Proxy | None:
        if peer not in self._proxies:
            self._proxies[peer] = self._routes.to(peer.url)
        return self._proxies[peer]


def _unconnected(timeout: Timeout, watched: Watched, place: str) -> RequestTimeout:
    limit = timeout.read if watched.overdue == "read" else timeout.total
    return RequestTimeout(f"no connection to {place} within {limit} s")


def _overdue(timeout: Timeout, watched: Watched, host: str, request: Request) -> AltaProfilesError:
    if watched.overdue == "read":
        return RequestTimeout(f"{host} sent nothing for {timeout.read} s")
    failure = f"no complete answer from {host} within {timeout.total} s"
    if watched.heard == watched.started:
        return RequestTimeout(failure)
    smaller = "a smaller `batch_size` or " if request.operation == "get_page" else ""
    return RequestTimeout(
        f"{failure}, although it was still arriving; use {smaller}a longer `timeout`"
    )


def _is_of(error: Exception, server: URL) -> bool:
    """Return whether no connection to a server could be made."""
    return isinstance(
        error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError
    ) and (error.host, error.port) == (server.host, server.port)


def translated(
    error: Exception, host: str, timeout: Timeout, proxy: Proxy | None
) -> TransportError:
    """Return the error of this library for any exception from below."""
    if proxy is not None and isinstance(error, aiohttp.ClientHttpProxyError):
        return proxy_refusal(host, proxy, error.status, error.message)
    if proxy is not None and _is_of(error, URL(proxy.url)):
        place = f"the proxy for {host}, {proxy}"
    else:
        place = _place(host, proxy)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return RequestTimeout(f"no connection to {place} within {timeout.connect} s")
    if (tls := _tls_error(error)) is not None:
        return _tls_failure(place, tls)
    if isinstance(error, aiohttp.ClientConnectorError):
        fix = more_files(error.os_error)
        detail = _reason(error.os_error) + ("" if fix is None else f"; {fix}")
        return ConnectError(f"no connection to {place}", detail=detail)
    if isinstance(error, aiohttp.ClientResponseError):
        return TransportError(
            f"{host} answered something that is not HTTP",
            detail=_reason(error.message or error),
        )
    if isinstance(error, Garbled):
        return TransportError(f"the compressed answer of {host} is garbled", detail=_reason(error))
    if isinstance(error, aiohttp.ClientPayloadError):
        return TransportError(f"the answer of {host} ended before it was complete")
    return TransportError(f"the connection to {place} broke", detail=_reason(error))


def _place(host: str, proxy: Proxy | None) -> str:
    return host if proxy is None else f"{host} through the proxy {proxy}"


def _is_of_a_hook(error: BaseException) -> bool:
    """Return whether a hook of `trace_configs` raised `error`, which is then the caller's own."""
    return any(
        frame.f_globals.get("__name__", "").startswith("aiosignal")
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _reason(error: object) -> str:
    """Return the text of an exception, and never an empty one."""
    if isinstance(error, ConnectionResetError) and not error.args:
        return "the other side closed it"
    own = error.strerror if isinstance(error, OSError) and error.errno is None else None
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror | ssl.SSLError):
        # asyncio puts "Connect call failed" and the address in the place of the system's words.
        own = own or (os.strerror(error.errno) if error.errno else None)
    return _short(" ".join(str(own or error).split()) or type(error).__name__)


def proxy_refusal(host: str, proxy: Proxy, status: int, reason: str) -> ConnectError:
    """Return the error of a proxy that makes no connection to a host, by its HTTP status."""
    failure = f"no connection to {_place(host, proxy)}"
    if status == 407:
        return ConnectError(
            f"{failure}: the proxy refuses its credentials, or needs some (HTTP 407); write them "
            f"in {proxy.setting}, as http://USER:PASSWORD@HOST:PORT",
            permanent=True,
        )
    return ConnectError(
        f"{failure}: the proxy answered HTTP {status}",
        detail=_reason(reason) if reason else "",
        permanent=400 <= status < 500 and status not in (408, 429),
    )


def _tls_error(error: BaseException | None) -> OSError | None:
    """Return the failure of TLS behind an exception of aiohttp, or None."""
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, ConnectionResetError) and not error.os_error.args:
            # asyncio's error for an end amid the handshake. Those of TCP have a number.
            return error.os_error
        error = error.os_error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    while error is not None:
        if isinstance(error, ssl.SSLError | ssl.CertificateError):
            return error
        error = error.__cause__
    return None


# Faults on the way, which another attempt may not meet. All others are differences between the two
# sides: versions, ciphers, certificates.
_PASSING = ("ALERT_INTERNAL_ERROR", "BAD_RECORD_MAC", "DECRYPT", "USER_CANCEL", "CLOSE_NOTIFY")

_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
_UNKNOWN_ISSUER = (18, 19, 20, 21)
"""OpenSSL's codes for a certificate that signs itself, or whose chain leads to no known CA."""


def _tls_failure(host: str, error: OSError) -> ConnectError:
    if isinstance(error, ConnectionError | ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ConnectError(
            f"no TLS connection to {host}: the other side closed the connection during the TLS "
            f"handshake"
        )
    reason = str(getattr(error, "reason", None) or "")
    fix = ""
    if getattr(error, "verify_code", None) in _UNKNOWN_ISSUER:
        fix = " (for a CA of your own, or of a proxy, pass ssl=)"
    elif reason in _NO_TLS:
        fix = " (it may not speak TLS)"
    return ConnectError(
        f"no TLS connection to {host}{fix}",
        detail=_reason(error),
        untrusted=isinstance(error, ssl.SSLCertVerificationError),
        permanent=not any(word in reason for word in _PASSING),
    )


class _Request(aiohttp.ClientRequest):
    """A request that takes its headers as its client prepared them, the host included.

    Copying them one by one and adding missing ones is a twentieth of the cost of a lookup. Both
    methods are private to aiohttp: if it renames them, it does that work again.
    """

    def update_headers(self, headers: Any) -> None:
        self.headers = headers if isinstance(headers, CIMultiDict) else CIMultiDict(headers or ())

    def update_auto_headers(self, skip_auto_headers: Any) -> None:
        pass


def _short(text: str, longest: int = 200) -> str:
    # The ellipsis shows `masked` that a secret may be cut short.
    return text if len(text) <= longest else f"{text[:longest]}…"


def _inflater(response: aiohttp.ClientResponse) -> Inflater | None:
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding in ("identity", ""):
        return None
    coding = coding.removeprefix("x-")
    if coding not in codings():
        raise Garbled(f"the answer has a coding that was not offered: {_short(coding, 40)}")
    return Inflater(coding)


def _check_trace_configs(trace_configs: Sequence[aiohttp.TraceConfig]) -> list[aiohttp.TraceConfig]:
    if not isinstance(trace_configs, Sequence) or not all(
        isinstance(config, aiohttp.TraceConfig) for config in trace_configs
    ):
        raise InvalidArgument(
            f"trace_configs: expected a list of aiohttp.TraceConfig, got {shown(trace_configs)}"
        )
    return list(trace_configs)


def check_context(context: object) -> ssl.SSLContext | None:
    """Return the argument `ssl`.

    Raises:
        InvalidArgument: it is not a context for clients.
    """
    if context is None:
        return None
    if not isinstance(context, ssl.SSLContext):
        raise InvalidArgument(
            f"ssl: expected an ssl.SSLContext, got {shown(context)}; pass "
            f"ssl.create_default_context(cafile=…) for an authority of your own"
        )
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise InvalidArgument(
            "ssl: a context for servers cannot open connections; pass "
            "ssl.create_default_context(), or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)"
        )
    return context
