"""A pool of connections that carry one answer for each request.

HTTP/1.1 does not number its messages: on a connection, the n-th answer belongs to the n-th request.
aiohttp keeps bytes that arrive on an idle connection, and takes them for the answer to the next
request. From then on, every answer on that connection is the answer to an earlier request.

Here, bytes that no request waits for end the connection and are dropped. A complete answer stands.
One case cannot be recognised: an answer that the server sends before it has read the request, and
that arrives when the request has already been written.
"""

from __future__ import annotations

import asyncio
import re
import select
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

__all__ = ["Connector", "failures", "on_connection", "send_once"]

on_connection: ContextVar[Callable[[], object] | None] = ContextVar("on_connection", default=None)
"""Called once the request of this task has a connection, through a proxy if there is one."""

failures: ContextVar[list[Exception]] = ContextVar("failures")
"""The failures of the request of this task, so far."""

_LARGEST_HEAD = 128 * 1024
"""Most bytes in front of a body: status line and headers, and all interim answers (1xx).

By default, aiohttp refuses a header of 8 KiB. Headers of 64 KiB are in use.
"""

_LIMITS = dict.fromkeys(("max_line_size", "max_field_size", "max_headers"), _LARGEST_HEAD)

# An empty line. aiohttp's parsers accept lines that end without CR.
_END_OF_HEAD = re.compile(rb"\n\r*\n")
_LENGTH = re.compile(rb"\n[Cc]ontent-[Ll]ength: ?([0-9]{1,9})\r?\n")
_LAST_CHUNK = b"\r\n0\r\n\r\n"


async def send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request, or raise the failure with which it was sent before.

    aiohttp repeats a GET whose connection breaks before an answer. No hook would see that request,
    and neither attempts nor requests per minute would count it. As a middleware, this raises the
    error of the first one again.
    """
    earlier = failures.get()
    if earlier:
        raise earlier[0]
    try:
        return await handler(request)
    except Exception as error:
        earlier.append(error)
        raise


class Connector(aiohttp.TCPConnector):
    """A pool without a limit: the caps on requests in flight bound the number of connections.

    Args:
        context: the settings of TLS; None for those of the system.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(limit=0, resolver=_Resolver(), ssl=True if context is None else context)
        # Private to aiohttp: a version that renames it fails in mypy and in test_connections.py.
        self._factory: Any = partial(_Connection, loop=self._loop)

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Return a connection: an idle one, or a new one."""
        connection = await super().connect(*args, **kwargs)
        if (called := on_connection.get()) is not None:
            called()
        return connection


class _Resolver(aiohttp.ThreadedResolver):
    """The name resolution of the system. Fails with `OSError` only."""

    async def resolve(self, *args: Any, **kwargs: Any) -> Any:
        try:
            addresses = await super().resolve(*args, **kwargs)
        except UnicodeError as error:
            # Python encodes the name by IDNA before it asks the system.
            reason = f"the name cannot be resolved ({error})"
        else:
            if addresses:
                return addresses
            reason = "the name has no address"
        raise OSError(None, reason)


class _Connection(ResponseHandler):
    """Counts the bytes of each answer, and takes no others.

    aiohttp's parser gets a head by itself, and then no byte more than the body has. Given all at
    once, it discards a complete answer if the bytes behind it are not HTTP.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._awaits: Literal["head", "body"] | None = None
        self._poll: select.poll | None = None
        self._head_size = 0
        self._last = b""
        """Last bytes that have arrived: enough to find the end of a head or of a chunked body."""
        self._body: aiohttp.StreamReader | None = None
        self._is_chunked = False
        self._left: int | None = None
        """Bytes of the body that have not arrived, if it has a `Content-Length`."""

    def set_response_params(self, **params: Any) -> None:
        """Await the answer to a request that will be written next."""
        self._awaits = "head"
        self._head_size = 0
        self._last = b""
        params.update(_LIMITS)
        super().set_response_params(**params)

    def is_connected(self) -> bool:
        """Return whether the connection can be used: an idle one only while nothing arrives."""
        if not super().is_connected():
            return False
        # Bytes may have arrived since the event loop last looked.
        return self._awaits is not None or not self._has_unread()

    def data_received(self, data: bytes) -> None:
        """Take bytes of an answer; without any, resume the parser after a pause."""
        if not data or (self._awaits == "head" and not self._head_size and _is_exact(data)):
            super().data_received(data)
            return
        while data and self._awaits == "head":
            data = self._take_head(data)
        if data and self._awaits == "body":
            self._take_body(data)
        elif data:
            self._drop()

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take an answer from the parser: its head, and the stream of its body."""
        message, body = data
        if self._awaits != "head":
            self._drop()
        elif message.code == 101:
            self._fail("HTTP 101, which the request did not ask for")
        elif not 100 <= message.code < 200:
            super().feed_data(data, size)
            if body.is_eof():
                self._awaits = None
                return
            length = message.headers.get("Content-Length")
            self._awaits = "body"
            self._last = b"\r\n"
            self._is_chunked = message.chunked
            self._left = None if length is None or message.chunked else int(length)
            self._body = body
            body.on_eof(self._is_complete)

    def _take_head(self, data: bytes) -> bytes:
        """Give the parser the head, and return the bytes behind it."""
        seen = self._last + data
        found = _END_OF_HEAD.search(seen)
        end = len(data) if found is None else found.end() - len(self._last)
        self._last = seen[-3:] if found is None else b""
        self._head_size += end
        if self._head_size > _LARGEST_HEAD:
            self._fail(f"over {_LARGEST_HEAD:,} bytes of headers")
            return b""
        super().data_received(data[:end])
        return b"" if self.exception() else data[end:]

    def _take_body(self, data: bytes) -> None:
        """Give the parser the bytes of the body only."""
        if self._is_chunked:
            self._last = (self._last + data[-len(_LAST_CHUNK) :])[-len(_LAST_CHUNK) :]
        elif self._left is not None:
            if len(data) > self._left:
                self.force_close()
                data = data[: self._left]
            self._left -= len(data)
        super().data_received(data)
        if self.exception() is not None and self._body is not None:
            # aiohttp leaves a reader waiting if the parser fails amid a body.
            self._body.set_exception(aiohttp.ClientPayloadError())

    def _is_complete(self) -> None:
        """Await nothing more: called at the end of the body, before the pool gets the connection.

        Bytes behind the last chunk have gone to the parser. Those that are only a part of a head
        leave no other trace.
        """
        self._awaits = self._body = None
        if self._is_chunked and self._last != _LAST_CHUNK:
            self.force_close()

    def _fail(self, reason: str) -> None:
        self.set_exception(HttpProcessingError(message=reason))
        self._drop()

    def _drop(self) -> None:
        """Close the connection at once, without reading what is still to come."""
        self.force_close()
        if self.transport is not None:
            self.transport.abort()

    def _has_unread(self) -> bool:
        """Return whether bytes wait in the socket, or its end."""
        if self.transport is None:
            return False
        if self._poll is None:
            socket = self.transport.get_extra_info("socket")
            if not hasattr(select, "poll"):
                return bool(select.select([socket], [], [], 0)[0])
            self._poll = select.poll()
            self._poll.register(socket, select.POLLIN)
        return bool(self._poll.poll(0))


def _is_exact(data: bytes) -> bool:
    """Return whether `data` is one answer of known length and nothing else, as most are.

    Should the parser read the length in another way, bytes are left over that are a whole head or
    not HTTP. Either ends the connection.
    """
    end = data.find(b"\r\n\r\n")
    length = _LENGTH.search(data, 0, end + 2)
    return length is not None and end + 4 + int(length[1]) == len(data)
