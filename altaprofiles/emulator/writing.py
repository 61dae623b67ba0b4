"""Sends one answer, complete or damaged. The decision is made elsewhere."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from typing import TYPE_CHECKING

from aiohttp import web

from .faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .reply import Reply

__all__ = ["write"]

_PIECE = 65_536
_TAIL = 1024  # last bytes, written after the request has stopped counting as in flight
_DRIPS = 10
_DRIP_SECONDS = 0.2


async def write(
    request: web.BaseRequest, reply: Reply, faults: Collection[Fault], release: Callable[[], None]
) -> web.StreamResponse:
    """Send `reply`, and return the response for aiohttp to finish.

    `release` is called before the last bytes are sent, so that the request has ended for the
    service before the client can know that it has.

    Raises:
        ConnectionError: the client has closed the connection.
    """
    if Fault.DISCONNECT in faults:
        release()
        _transport(request).close()
        return web.Response()
    if Fault.TRUNCATED in faults:
        release()
        _write_truncated(request, reply)
        return web.Response()
    headers = reply.headers | {"Content-Type": reply.content_type}
    body = reply.body
    if Fault.GZIP in faults:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, compresslevel=1, mtime=0)
    if Fault.RESET not in faults and Fault.SLOW not in faults and len(body) <= _PIECE:
        release()
        small = web.Response(status=reply.status, headers=headers, body=body)
        await small.prepare(request)
        await small.write_eof()
        return small
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    if Fault.RESET in faults:
        await response.write(body[: max(1, len(body) // 2)])
        release()
        _reset(request)
        return response
    slow = Fault.SLOW in faults
    piece = -(-len(body) // _DRIPS) if slow else _PIECE
    tail = len(body) - (piece if slow else _TAIL)
    view = memoryview(body)
    for start in range(0, tail, piece):
        await response.write(view[start : min(start + piece, tail)])
        if slow:
            await asyncio.sleep(_DRIP_SECONDS / _DRIPS)
    release()
    await response.write(view[tail:])
    await response.write_eof()
    return response


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has closed the connection")
    return transport


def _write_truncated(request: web.BaseRequest, reply: Reply) -> None:
    # By hand: aiohttp would send a body of unknown length in chunks, which reveal the cut.
    headers = reply.headers | {"Content-Type": reply.content_type, "Connection": "close"}
    lines = [f"HTTP/1.1 {reply.status} OK", *(f"{name}: {one}" for name, one in headers.items())]
    transport = _transport(request)
    transport.write("\r\n".join([*lines, "", ""]).encode() + reply.body[: len(reply.body) // 2])
    transport.close()


def _reset(request: web.BaseRequest) -> None:
    transport = _transport(request)
    # Without lingering, closing discards unsent bytes and sends RST instead of FIN.
    linger = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
