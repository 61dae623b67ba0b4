"""One request's life: cap, send, interpret, retry.

The only place that retries. Knows neither endpoints nor what an answer means.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Generator
from copy import copy
from functools import partial
from typing import Any, TypeVar, overload

import anyio

from ..base.verdicts import can_pass
from ..errors import AltaProfilesError, NotReady, RateLimited, RequestTimeout, TransportError
from ..flow.lifetime import Lifetime, Spawn
from ..flow.slices import Slices, finish
from ..models import Attempt, Stats
from ..wire.messages import Request, Response
from .retry import MAX_RETRY_AFTER, Budget, Retry
from .service import Service
from .transport import Transport

__all__ = [
    "Engine",
]

T = TypeVar("T")

logger = logging.getLogger("altaprofiles")


class Engine:
    """Sends requests for as long as it is open."""

    def __init__(
        self,
        *,
        transport: Transport,
        retry: Retry,
        on_event: Callable[[Attempt], object] | None,
    ) -> None:
        self.stats = Stats()
        self._tallies = [self.stats]
        self._transport = transport
        self._retry = retry
        self._on_event = on_event
        self._budget = Budget(retry.budget, time.monotonic())
        self._lifetime = Lifetime(transport)

    async def open(self) -> None:
        """Open the connection pool, and what runs in the background."""
        await self._lifetime.open()

    async def aclose(self) -> None:
        """End every background task and close every connection. Safe to call more than once."""
        await self._lifetime.aclose()

    def check_open(self) -> None:
        """Raise `ConfigurationError` unless requests can be sent here and now."""
        self._lifetime.check_open()

    def counting(self, tally: Stats) -> Engine:
        """Return the same engine, which counts in `tally`, too, what is asked through it."""
        counting = copy(self)
        counting._tallies = [*self._tallies, tally]  # noqa: SLF001
        return counting

    @property
    def spawn(self) -> Spawn:
        """Runs a job in the background, for as long as this is open."""
        return self._lifetime.spawn

    @overload
    def call(
        self,
        service: Service,
        request: Request,
        read: Callable[[Response], Slices[T]],
        *,
        bulk: bool = False,
        on_head: Callable[[bytes], bool] | None = None,
    ) -> Awaitable[T]: ...

    @overload
    def call(
        self,
        service: Service,
        request: Request,
        read: Callable[[Response], T],
        *,
        bulk: bool = False,
        on_head: Callable[[bytes], bool] | None = None,
    ) -> Awaitable[T]: ...

    def call(
        self,
        service: Service,
        request: Request,
        read: Callable[[Response], Any],
        *,
        bulk: bool = False,
        on_head: Callable[[bytes], bool] | None = None,
    ) -> Awaitable[Any]:
        """Return what `read` makes of the answer to `request`, trying again while that can help.

        Args:
            service: whom to ask, and under which cap.
            request: what to ask.
            read: turns a response into a value, at once or in slices, or raises what it stands for.
                It runs after the slot has been given back.
            bulk: part of a chain or a bulk lookup: waits behind single calls, and its retries are
                not taken from the session's budget.
            on_head: sees the beginning of each answer; see `Transport.send`.

        Raises:
            AltaProfilesError: what the last try ended with.
        """
        if (deadline := self._retry.deadline) is None:
            return self._attempts(service, request, read, bulk, on_head, math.inf)
        return self._within(deadline, service, request, read, bulk, on_head)

    async def _within(
        self,
        deadline: float,
        service: Service,
        request: Request,
        read: Callable[[Response], Any],
        bulk: bool,
        on_head: Callable[[bytes], bool] | None,
    ) -> Any:
        ends = time.monotonic() + deadline
        with anyio.move_on_after(deadline):
            return await self._attempts(service, request, read, bulk, on_head, ends)
        raise RequestTimeout(
            f"{service.api}: {request.operation} was not done within the deadline of {deadline} s"
        )

    async def _attempts(
        self,
        service: Service,
        request: Request,
        read: Callable[[Response], Any],
        bulk: bool,
        on_head: Callable[[bytes], bool] | None,
        ends: float,
    ) -> Any:
        failures = polls = 0
        ready_by = math.inf
        while True:
            began = await self._turn(service, bulk)
            response = None
            started = time.monotonic()
            try:
                response = await self._send(service, request, bulk, on_head)
                value = read(response)
                if isinstance(value, Generator):
                    value = await finish(value)
            except AltaProfilesError as failure:
                error = failure
            else:
                self._budget.deposit()
                service.cap.succeeded()
                if self._on_event is not None:
                    number = failures + polls + 1
                    self._tell(service, request, number, started, response, None, None)
                return value

            # Frames and contexts hold the body, which may be megabytes, and may echo the request.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            error.redact(service.secret)
            now = time.monotonic()
            if isinstance(error, NotReady):
                for tally in self._tallies:
                    tally.not_ready += 1
                polls += 1
                if polls == 1:
                    ready_by = now + self._retry.ready_timeout
                delay = min(self._retry.delay(polls, random.random), max(ready_by - now, 0.0))
                again = now < ready_by
            else:
                failures += 1
                delay = self._retry.delay(failures, random.random)
                again = (
                    can_pass(error)
                    and failures < self._retry.attempts
                    and (bulk or self._budget.withdraw(now))
                )
            asked = getattr(error, "retry_after", None) or 0.0
            delay = max(delay, asked)
            # A wait that the deadline would end is none: the error says more than the deadline.
            again = again and asked <= MAX_RETRY_AFTER and now + delay < ends
            if isinstance(error, RateLimited):
                for tally in self._tallies:
                    tally.throttles += 1
                service.cap.throttled(began)
            number = failures + polls
            self._tell(service, request, number, started, response, error, delay if again else None)
            if not again:
                try:
                    raise error
                finally:
                    # This frame is in the traceback: with these it would keep the body alive, and
                    # the error itself.
                    del error, response
            for tally in self._tallies:
                tally.retries += 1
            service.pausing += 1
            try:
                await self._lifetime.pause(delay)
            finally:
                service.pausing -= 1

    async def _turn(self, service: Service, bulk: bool) -> int:
        """Wait for a slot, and for the pace with the slot in hand; return when it began."""
        # Before, too: from another event loop nobody may wait with those of this one.
        self._lifetime.check_open()
        began = await service.cap.acquire(bulk=bulk)
        try:
            self._lifetime.check_open()
            if service.pace is not None and (wait := service.pace.reserve(time.monotonic())) > 0:
                # Paced before they have a slot, requests could wait for one and start at once.
                await self._lifetime.pause(wait)
                self._lifetime.check_open()
        except BaseException:
            service.cap.release(bulk=bulk)
            raise
        return began

    async def _send(
        self,
        service: Service,
        request: Request,
        bulk: bool,
        on_head: Callable[[bytes], bool] | None,
    ) -> Response:
        """Return the response, and give the slot back."""
        for tally in self._tallies:
            tally.requests += 1
        try:
            response = await self._transport.send(request, service.peer, on_head)
        except BaseException as error:
            # The socket of an abandoned request is closed on the loop's next turn. Until then the
            # service still counts it, so the slot is not free earlier.
            asyncio.get_running_loop().call_soon(partial(service.cap.release, bulk=bulk))
            if not isinstance(error, asyncio.CancelledError) or _is_being_cancelled():
                raise
        else:
            service.cap.release(bulk=bulk)
            for tally in self._tallies:
                tally.bytes += len(response.body)
            return response
        # Nobody cancelled the caller: closing the pool cancels its own name resolution, and that
        # comes out of it as if the caller had been.
        self._lifetime.check_open()
        raise TransportError(f"{service.api}: the connection pool gave up on the request")

    def _tell(
        self,
        service: Service,
        request: Request,
        number: int,
        started: float,
        response: Response | None,
        error: AltaProfilesError | None,
        delay: float | None,
    ) -> None:
        if error is not None:
            logger.debug(
                "%s %s, try %d: %s; %s",
                service.api,
                request.operation,
                number,
                error,
                "no further try" if delay is None else f"next try in {delay:.2f} s",
            )
        if self._on_event is not None:
            self._on_event(
                Attempt(
                    api=service.api,
                    operation=request.operation,
                    number=number,
                    seconds=time.monotonic() - started,
                    status=None if response is None else response.status,
                    bytes=0 if response is None else len(response.body),
                    error=error,
                    delay=delay,
                )
            )


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
