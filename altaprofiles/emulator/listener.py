"""A server on a port of 127.0.0.1, which stops at once and leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

from aiohttp import http_exceptions, web

from .load import let_loop_turn

__all__ = ["Listener"]

_Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def _is_of_the_emulator(record: logging.LogRecord) -> bool:
    """Return whether a failure is the emulator's: a request that is not HTTP gets its answer."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, http_exceptions.HttpProcessingError)


_logger = logging.getLogger("altaprofiles.emulator")
_logger.addFilter(_is_of_the_emulator)


class _Server(web.Server):
    """aiohttp's server, with a count of its connections and access to their transports."""

    def __init__(self, handler: _Handler, on_connection: Callable[[int], None]) -> None:
        super().__init__(handler, handler_cancellation=True, access_log=None, logger=_logger)
        self._on_connection = on_connection
        self.transports: dict[web.RequestHandler, asyncio.Transport] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.transports[handler] = transport
        self._on_connection(1)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        del self.transports[handler]
        self._on_connection(-1)
        super().connection_lost(handler, exc)


class Listener:
    """Answers requests on loopback between `start` and `stop`.

    Args:
        handler: answers a request. It raises `ConnectionError` if the client has gone.
        on_connection: called with 1 for a new connection, and with -1 for one that has closed.
    """

    def __init__(self, handler: _Handler, on_connection: Callable[[int], None]) -> None:
        self._handler = handler
        self._on_connection = on_connection
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: _Server | None = None
        self._runner: web.ServerRunner | None = None
        self._listening: asyncio.Server | None = None

    @property
    def url(self) -> str | None:
        """The URL of the server, such as "http://127.0.0.1:40123", or None if it is not started."""
        if self._listening is None:
            return None
        return f"http://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"

    async def start(self, port: int) -> None:
        """Listen on a port, or on any free one for 0.

        Raises:
            OSError: the port is taken.
            RuntimeError: no event loop of asyncio runs here.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "the emulator needs the event loop of asyncio, and does not run on trio; run this "
                "with asyncio.run(…)"
            ) from None
        self._server = _Server(self._handle, self._on_connection)
        runner = web.ServerRunner(self._server, shutdown_timeout=1)
        await runner.setup()
        try:
            self._listening = await loop.create_server(
                self._server, "127.0.0.1", port, backlog=1024
            )
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Cancel the requests that are being answered, and close all connections."""
        runner, server, listening = self._runner, self._server, self._listening
        if runner is None or server is None or listening is None:
            return
        self._runner = self._server = self._listening = None
        loop = asyncio.get_running_loop()
        for one in listening.sockets:
            # Before it is closed: a connection that is accepted becomes one of the server's some
            # turns later, and never if that listens no more by then.
            with suppress(NotImplementedError):
                loop.remove_reader(one)
        await let_loop_turn()
        listening.close()
        server.pre_shutdown()
        answering = list(self._tasks)
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        await runner.cleanup()
        for transport in list(server.transports.values()):
            # It is closed already, but stays open if the client does not read.
            transport.abort()
        await let_loop_turn()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._tasks.add(task)
        try:
            return await self._handler(request)
        except ConnectionError:
            return web.Response()
        finally:
            self._tasks.discard(task)
