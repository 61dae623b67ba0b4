"""An event loop in a thread beside the caller. An interruption of the caller ends it as well."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import copy_context
from typing import Any

from anyio.from_thread import BlockingPortal

__all__ = ["LoopThread"]


class LoopThread:
    """An event loop in a thread of its own, in which something is open until the loop ends.

    `start_blocking_portal` of anyio waits for its thread for ever if Ctrl-C comes before the loop
    runs. Here, whatever interrupts `start` or `end` leaves a thread that ends by itself.

    Args:
        inner: what is opened in the loop, and closed there.

    Attributes:
        loop: the loop, once it runs.
    """

    def __init__(self, inner: AbstractAsyncContextManager[Any]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._inner = inner
        self._portal: Future[BlockingPortal] = Future()
        self._stop = asyncio.Event()
        self._is_ended = False
        # A process does not wait for a daemon, such as one that nobody could end.
        self._thread = threading.Thread(target=copy_context().run, args=[self._run], daemon=True)

    def start(self) -> BlockingPortal:
        """Return what runs functions in the loop, once all is open. Raises what opening raises."""
        try:
            self._thread.start()
            return self._portal.result()
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Close what is open, end the loop, and wait for the thread, unless this is it.

        Safe to call more than once.
        """
        # In this order, as the loop does the same in the other one.
        self._is_ended = True
        if self.loop is not None:
            # It may be closed already.
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._stop.set)
        if self._thread.is_alive() and not self.is_current:
            self._thread.join()

    @property
    def is_ended(self) -> bool:
        """True once `end` was called."""
        return self._is_ended

    @property
    def is_current(self) -> bool:
        """True in the thread itself."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._portal.done():
                self._portal.set_exception(error)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        if self._is_ended:
            return
        async with self._inner, BlockingPortal() as portal:
            self._portal.set_result(portal)
            await self._stop.wait()
            await portal.stop(cancel_remaining=True)
