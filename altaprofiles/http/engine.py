"""The life of one call: wait for a slot, send, read, report, retry.

The only module that retries. Knows no endpoint; its callers read the answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from functools import partial
from itertools import count
from types import GeneratorType
from typing import Any, TypeVar, overload

import anyio
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from ..base.calls import CallName, naming
from ..base.deadline import Deadline
from ..base.wording import DOCTOR, GARBLED, after_failure, numbered
from ..errors import (
    AltaProfilesError,
    ConnectError,
    DecodeError,
    NotReady,
    RateLimited,
    RequestTimeout,
    SessionClosed,
    StatusError,
    TransportError,
    Unauthorized,
)
from ..flow.lifetime import Lifetime, Reading, State, Work
from ..flow.slices import Slices, finish
from ..models import Attempt, Stats
from ..redaction import masked
from ..wire.messages import Request, Response
from ..wire.reading import checked, read_date
from .hooks import Hook, Observer, call_all, errors_logged
from .limits import Cap, Turn
from .reader import Reader
from .retry import Budget, Retry, Tries
from .rotation import Rotation
from .service import Service
from .transport import Limits, OnHead, Timeout, Transport

__all__ = ["Engine"]

T = TypeVar("T")

logger = logging.getLogger("altaprofiles")


class _Call(Struct, frozen=True):
    """The arguments of `Engine.call`.

    The garbage collector must see it: the traceback of an error leads back to the error through
    `on_head`.
    """

    service: Service
    request: Request
    read: Callable[[Response], Any]
    bulk: bool
    on_head: OnHead | None
    number: int
    new_reader: Callable[[int], Reader[Any]] | None = None

    def attempt(
        self,
        tries: Tries,
        started: float,
        response: Response | None,
        error: AltaProfilesError | None = None,
    ) -> Attempt:
        """Return the report on an attempt that has just ended."""
        return Attempt(
            api=self.service.api,
            operation=self.request.operation,
            number=tries.number,
            seconds=time.monotonic() - started,
            status=None if response is None else response.status,
            bytes=0 if response is None else response.size,
            error=error,
            delay=None,
            call=self.number,
            method=self.request.method,
            host=self.service.peer.hostname,
            port=self.service.peer.port,
            waited=started - tries.queued_at,
            bulk=self.bulk,
            url=self.service.peer.address(self.request),
        )


class _Options(Struct, frozen=True):
    """The options of a session or of a view of it: see `Session.with_options`."""

    retry: Retry
    limits: Limits
    hooks: tuple[Hook, ...]
    observers: tuple[Observer, ...]
    deadline: float | None = None
    bulk: bool | None = None


class Engine:
    """Sends requests while it is open."""

    def __init__(
        self,
        *,
        transport: Transport,
        retry: Retry,
        timeout: Timeout,
        hooks: Sequence[Hook],
    ) -> None:
        self.stats = Stats()
        self._tallies = [self.stats]
        self._transport = transport
        self._own = self._options = _Options(
            retry, transport.limits(timeout), tuple(hooks), _observers(hooks)
        )
        self._budget = Budget(retry.budget, time.monotonic())
        self._lifetime = Lifetime(transport)
        self._numbers = count(1)
        self._whole: Deadline | None = None
        self._failed: Callable[[AltaProfilesError], object] | None = None
        self._retried: Callable[[AltaProfilesError], object] | None = None
        self._dated: Callable[[Service, float], object] | None = None

    async def open(self) -> None:
        """Open the connection pool and start the host of background tasks."""
        await self._lifetime.open()

    async def aclose(self, drain: float = 0.0) -> None:
        """Cancel every background task and close every connection. Safe to call more than once.

        Args:
            drain: the seconds that work under way may take to end before.
        """
        await self._lifetime.aclose(drain)

    def under_way(self, work: Work | None = None) -> AbstractContextManager[None]:
        """Count a block as work that `aclose` may wait for, with all calls in it.

        Args:
            work: the work, if code outside of the block joins it as well.

        Raises:
            SessionClosed: the session is not open, or takes nothing new.
        """
        return self._lifetime.under_way(work)

    def check_open(self) -> None:
        """Raise `SessionClosed` unless this event loop can send requests now."""
        self._lifetime.check_open()

    @property
    def state(self) -> State:
        """The state: "new", "open", "draining" or "closed"."""
        return self._lifetime.state

    @property
    def is_closed(self) -> bool:
        """True once nothing is sent any more."""
        return self._lifetime.is_closed

    @property
    def is_running(self) -> bool:
        """True while it is open in this process, and its event loop runs and does not end."""
        return self._lifetime.is_running

    @property
    def is_inherited(self) -> bool:
        """True in a process that was forked while the session was open."""
        return self._lifetime.is_inherited

    def counting(
        self,
        tally: Stats,
        failed: Callable[[AltaProfilesError], object],
        retried: Callable[[AltaProfilesError], object],
        dated: Callable[[Service, float], object],
    ) -> Engine:
        """Return this engine over the same connections, counting in `tally` as well.

        Args:
            tally: counts the requests.
            failed: called with the error of each call, and with the last one of a call that is
                cancelled while it is repeated.
            retried: called with the error of each attempt that has failed and is followed by
                another. An answer that is not ready yet is not a failure, unless it takes long,
                nor is a refused secret that is renewed.
            dated: called for each answer that has the time of its service, with the service, and
                the seconds by which this machine's clock is at least ahead of it, or if negative,
                at most behind.
        """
        counting = copy(self)
        counting._tallies = [*self._tallies, tally]  # noqa: SLF001
        counting._failed = failed  # noqa: SLF001
        counting._retried = retried  # noqa: SLF001
        counting._dated = dated  # noqa: SLF001
        return counting

    def viewed(
        self,
        *,
        retry: Retry | UnsetType | None,
        timeout: Timeout | UnsetType | None,
        deadline: float | UnsetType | None,
        bulk: bool | UnsetType | None,
        hooks: Sequence[Hook],
    ) -> Engine:
        """Return this engine over the same connections and budget: see `Session.with_options`."""
        limits = self._transport.limits(timeout) if isinstance(timeout, Timeout) else timeout
        own, present = self._own, self._options
        view = copy(self)
        view._options = _Options(  # noqa: SLF001
            retry=_chosen(retry, present.retry, own.retry),
            limits=_chosen(limits, present.limits, own.limits),
            hooks=(*present.hooks, *hooks),
            observers=(*present.observers, *_observers(hooks)),
            deadline=_chosen(deadline, present.deadline, own.deadline),
            bulk=_chosen(bulk, present.bulk, own.bulk),
        )
        return view

    @property
    def options(self) -> list[str]:
        """The options that differ from the defaults, in words. What a hook holds is not shown."""
        present, found = self._options, []
        if present.retry != Retry():
            found.append(f"retry={present.retry}")
        if present.limits.timeout != Timeout():
            found.append(f"timeout={present.limits.timeout}")
        if present.deadline is not None:
            found.append(f"deadline={present.deadline:g} s")
        if present.bulk is not None:
            found.append(f"bulk={present.bulk}")
        if present.hooks:
            found.append("on_event=…")
        return found

    @property
    def budget(self) -> int:
        """The `Retry.budget` of the session."""
        return self._own.retry.budget

    @contextmanager
    def within(self, deadline: float | UnsetType | None) -> Generator[Engine, None, None]:
        """Give this engine for a whole single call, which may send several requests.

        Args:
            deadline: its longest duration, in seconds; UNSET for the one of the view, if any. Where
                there is none, `Retry.deadline` holds for each request.

        Raises:
            ConfigurationError: `deadline` is no duration, or the session cannot be used.
        """
        if deadline is UNSET:
            deadline = self._options.deadline
        engine = self
        if deadline is not None:
            engine = copy(self)
            engine._whole = Deadline.of(deadline)  # noqa: SLF001
        with self.under_way():
            yield engine

    def reading(self) -> Reading:
        """Return what runs the job behind one iteration, while the engine is open."""
        return self._lifetime.reading()

    @property
    def base_delay(self) -> float:
        """That of `Retry`, in seconds."""
        return self._options.retry.base_delay

    async def pause(self, seconds: float) -> None:
        """Sleep, or until the engine is closed."""
        await self._lifetime.pause(seconds)

    @overload
    def call(
        self,
        service: Service,
        request: Request,
        read: Callable[[Response], Slices[T]],
        *,
        bulk: bool = False,
        on_head: OnHead | None = None,
    ) -> Awaitable[T]: ...

    @overload
    def call(
        self,
        service: Service,
        request: Request,
        read: Callable[[Response], T],
        *,
        bulk: bool = False,
        on_head: OnHead | None = None,
    ) -> Awaitable[T]: ...

    def call(
        self,
        service: Service,
        request: Request,
        read: Callable[[Response], Any],
        *,
        bulk: bool = False,
        on_head: OnHead | None = None,
    ) -> Awaitable[Any]:
        """Send `request`, retrying as `Retry` allows, and return the result of `read`.

        Args:
            service: the account to use, with its cap.
            request: the request.
            read: turns a response into a value, at once or in slices, or raises the error that the
                response stands for. It runs after the slot has been released.
            bulk: whether the call belongs to a chain or a bulk lookup. Such a call waits behind
                single ones, and its retries are not taken from the session's budget.
            on_head: receives the first bytes of each answer; see `Transport.send`.

        Raises:
            AltaProfilesError: the error of the last attempt.
        """
        is_bulk = bulk if self._options.bulk is None else self._options.bulk
        call = _Call(service, request, read, is_bulk, on_head, next(self._numbers))
        return self._begin(call, None if bulk else self._budget)

    def stream(
        self,
        service: Service,
        request: Request,
        new_reader: Callable[[int], Reader[T]],
        *,
        on_head: OnHead | None = None,
    ) -> Awaitable[T]:
        """Send `request` as bulk work, as `call` does, and read its answer while it arrives.

        Args:
            service, request, on_head: as for `call`.
            new_reader: returns the reader of the answer to one attempt. It is called with the most
                bytes that the reader may hold.

        Raises:
            AltaProfilesError: the error of the last attempt.
        """
        is_bulk = True if self._options.bulk is None else self._options.bulk
        number = next(self._numbers)
        call = _Call(service, request, _unread, is_bulk, on_head, number, new_reader)
        return self._begin(call, None)

    def _begin(self, call: _Call, budget: Budget | None) -> Awaitable[Any]:
        options, whole = self._options, self._whole
        if whole is None and (deadline := options.retry.deadline) is not None:
            whole = Deadline.of(deadline)
        tries = Tries(options.retry, budget, math.inf if whole is None else whole.ends)
        if options.observers or self._failed is not None:
            return self._watched(whole, call, tries)
        return self._within(whole, call, tries)

    async def _watched(self, whole: Deadline | None, call: _Call, tries: Tries) -> Any:
        """Do the same as `_within`, and report a request that is cut off, and the failure."""
        try:
            return await self._within(whole, call, tries)
        except BaseException as error:
            failure = error if isinstance(error, AltaProfilesError) else _reason(call, tries)
            if self._failed is not None and failure is not None:
                self._failed(failure)
            if tries.cut_off_from is not None:
                attempt = call.attempt(tries, tries.cut_off_from, None)
                cut_off = [
                    partial(observer.interrupted, attempt, error)
                    for observer in self._options.observers
                ]
                with errors_logged():
                    call_all(cut_off)
            raise

    def _within(self, whole: Deadline | None, call: _Call, tries: Tries) -> Awaitable[Any]:
        if whole is None:
            return self._attempts(call, tries)
        return self._until(whole, call, tries)

    async def _until(self, whole: Deadline, call: _Call, tries: Tries) -> Any:
        # Before the scope, which another kind of event loop may not have.
        self._lifetime.check_open()
        tries.queued_at = time.monotonic()
        # The scope would end a call that has no time only at its first wait.
        if whole.left > 0:
            with anyio.move_on_after(whole.left):
                return await self._attempts(call, tries)
        if tries.is_waiting and call.service.is_refusing:
            # It explains more than the deadline does.
            refusal = call.service.refusal()
            self._unsent(call, tries, refusal)
            raise refusal
        text = f"{call.request.operation} did not finish within {whole}: {self._state(call, tries)}"
        timeout = RequestTimeout(after_failure(text, tries.failure))
        timeout.locate(call.service.api, call.request.operation)
        if tries.is_waiting and (advice := _advice_on_slots(call)) is not None:
            timeout.add_note(advice)
        if tries.sent < max(tries.number, 1):
            self._unsent(call, tries, timeout)
        elif (sent_at := tries.cut_off_from) is not None:
            tries.cut_off_from = None
            self._report(call.attempt(tries, sent_at, None, timeout))
        raise timeout from tries.failure

    def _state(self, call: _Call, tries: Tries) -> str:
        """Return the state of a call that is out of time, in words."""
        rotation = call.service.rotation
        if tries.is_asking and rotation is not None:
            wait = f"the function of {rotation.argument} had not returned; "
        elif tries.cut_off_from is not None and tries.is_connecting:
            wait = f"it waited for the connection to {self._transport.place(call.service.peer)}; "
        elif tries.cut_off_from is not None:
            wait = "it waited for an answer; "
        elif tries.is_waiting:
            cap = call.service.cap(call.request.operation)
            awaited = "its turn in the pace of requests"
            is_full = cap.is_full
            # One that others have just given back may be free for the moment.
            if is_full or call.service.pace.is_free:
                holders = cap.holders() if is_full else ""
                by = f", held by {holders}" if holders else ""
                awaited = f"one of {numbered(cap.allowed, 'slot')}{by}"
            wait = f"it waited for {awaited}; "
        else:
            wait = "it waited before the next attempt; " if tries.sent else ""
        sent = numbered(tries.requests, "request") if tries.requests else "no request"
        return f"{wait}{sent} {'was' if tries.requests < 2 else 'were'} sent"

    async def _attempts(self, call: _Call, tries: Tries) -> Any:
        service = call.service
        cap = service.cap(call.request.operation)
        name = CallName(service.api, call.request.operation)
        rotation = service.rotation
        while True:
            tries.number += 1
            answers, used = 0, service.secret
            with naming(name):
                if rotation is None:
                    turn = await self._turn(call, cap, tries)
                else:
                    turn, answers = await self._turn_with_secret(call, cap, tries, rotation)
                    used = rotation.current
            response = None
            started = time.monotonic()
            tries.begin()
            limit = self._transport.max_response_bytes
            reader = None if call.new_reader is None else call.new_reader(limit)
            try:
                response = await self._send(call, cap, turn, tries, reader)
                if not response.body.isascii():
                    response = await _checked(response)
                if reader is not None and response.taken:
                    response = replace(response, taken=reader.size)
                value = call.read(response) if reader is None else reader.read(response)
                if isinstance(value, GeneratorType):
                    value = await finish(value)
            except AltaProfilesError as failure:
                error = self._closing(failure) or failure
                if reader is not None:
                    reader.close()
            except BaseException:
                service.pace.failed(turn.pace)
                tries.cut_off_from = started
                if reader is not None:
                    reader.close()
                raise
            else:
                self._budget.deposit()
                if rotation is not None:
                    rotation.accepted(used)
                service.succeeded(cap, turn, started)
                if self._options.hooks:
                    self._report(call.attempt(tries, started, response))
                return value

            # Frames and contexts hold the body: it may be megabytes, and may echo the request.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            error.locate(service.api, call.request.operation)
            # Not the present one, which may be another since the request was sent.
            secrets = (used, *self._transport.secrets(service.peer))
            error.redact(partial(masked, secrets=secrets, keys=_keys(call, error)))
            is_repeated = tries.refusals > 0
            if service.failed(cap, turn, error, is_repeated=is_repeated):
                self._warn_of_closing(service, error)
            attempt = call.attempt(tries, started, response, error)
            response = reader = None
            tries.failure = error
            renewed = (
                None
                if rotation is None
                else partial(self._renewed, call, tries, rotation, used, answers)
            )
            delay = await self._delay(service, tries, error, attempt, renewed)
            if delay is None:
                if isinstance(error, ConnectError) and not error.permanent:
                    error.add_note(DOCTOR)
                if isinstance(error, DecodeError) and error.path == "$":
                    error.add_note(GARBLED)
                try:
                    raise error
                finally:
                    # The traceback holds this frame, which would keep the error alive.
                    del error, attempt
                    tries.failure = None
            is_usual = tries.is_renewed
            if isinstance(error, NotReady):
                is_usual = not _waits_long(tries, error)
            if self._retried is not None and not is_usual:
                self._retried(error)
            await self._pause(service, delay)

    async def _delay(
        self,
        service: Service,
        tries: Tries,
        error: AltaProfilesError,
        attempt: Attempt,
        renewed: Callable[[bool], Awaitable[bool]] | None,
    ) -> float | None:
        """Return the seconds before the next attempt, or None if there is none; report `attempt`.

        Args:
            service: the service.
            tries: the attempts of the call.
            error: the error of this one.
            attempt: the report on it.
            renewed: returns whether there is another secret than that of the attempt, if a function
                returns it. It is called with whether the attempt before was refused as well.
        """
        delay = None
        try:
            # Not counted as a failure: the secret was, and the service is well.
            tries.is_renewed = (
                renewed is not None
                and isinstance(error, Unauthorized)
                and await renewed(tries.is_renewed)
            )
            if tries.is_renewed:
                delay = 0.0
            else:
                decision = tries.failed(
                    error, time.monotonic(), random.random, service.pace.closed_since
                )
                for tally in self._tallies:
                    tally.not_ready += decision.not_ready
                    tally.throttles += decision.throttled
                delay = decision.delay
        except Exception:
            self._report(attempt)
            raise
        except BaseException:
            with errors_logged():
                self._report(attempt)
            raise
        self._report(attempt if delay is None else replace(attempt, delay=delay))
        return delay

    async def _turn_with_secret(
        self, call: _Call, cap: Cap, tries: Tries, rotation: Rotation
    ) -> tuple[Turn, int]:
        """Wait for the secret and a turn. Return the number of secrets before the wait as well."""
        answers = None
        while True:
            # A task of another event loop must not join the waiters of this one.
            self._lifetime.check_open()
            tries.is_asking = True
            await rotation.ready(self._lifetime.spawn)
            tries.is_asking = False
            answers = rotation.answers if answers is None else answers
            turn = await self._turn(call, cap, tries)
            if rotation.is_ready:
                return turn, answers
            # Another call was refused meanwhile, and this one would be, too.
            cap.release(turn)

    async def _renewed(
        self,
        call: _Call,
        tries: Tries,
        rotation: Rotation,
        used: str,
        answers: int,
        is_repeated: bool,
    ) -> bool:
        """Return whether there is another secret than `used`, which the service has refused."""
        spawn = self._lifetime.spawn
        with naming(CallName(call.service.api, call.request.operation)):
            tries.is_asking = True
            found = await rotation.renewed(used, answers, spawn, is_repeated=is_repeated)
            tries.is_asking = False
            return found

    def _closing(self, failure: AltaProfilesError) -> SessionClosed | None:
        """Return the error of a call whose connection broke because the session was closed."""
        if isinstance(failure, TransportError) and self._lifetime.is_closed:
            try:
                self._lifetime.check_open()
            except SessionClosed as closed:
                return closed
        return None

    def _warn_of_closing(self, service: Service, error: AltaProfilesError) -> None:
        longest = self._options.retry.throttle_timeout
        wait = getattr(error, "retry_after", None) or 0.0
        if wait > longest:
            logger.warning(
                "%s asks for a wait of %.0f s, and calls wait for at most %g s, so that they fail "
                "until then: %s",
                service.api,
                wait,
                longest,
                error,
            )
        else:
            logger.warning(
                "every request to %s waits until it serves again, for at most %g s: %s%s",
                service.api,
                longest,
                error,
                service.take_sharing_advice(),
            )

    async def _turn(self, call: _Call, cap: Cap, tries: Tries) -> Turn:
        """Wait for a slot, and until the service may be asked."""
        # Checked here as well: a task of another event loop must not join the waiters of this one.
        self._lifetime.check_open()
        tries.is_waiting = True
        queued_at = tries.queued_at = time.monotonic()
        try:
            turn = await cap.acquire(
                bulk=call.bulk, ends=tries.ends, patience=tries.retry.throttle_timeout
            )
        except RateLimited as refusal:
            self._unsent(call, tries, refusal)
            raise
        tries.is_waiting = False
        if tries.refusals and call.service.pace.closed_since is None:
            tries.queued += time.monotonic() - queued_at
        try:
            self._lifetime.check_open()
        except BaseException:
            cap.release(turn)
            raise
        return turn

    async def _send(
        self, call: _Call, cap: Cap, turn: Turn, tries: Tries, reader: Reader[Any] | None
    ) -> Response:
        """Return the response. Releases the slot, even after an error."""
        for tally in self._tallies:
            tally.requests += 1
        # Not that of the answer, which may take minutes to arrive.
        sent_at = time.time()
        try:
            response = await self._transport.send(
                call.request,
                call.service.peer,
                self._options.limits,
                call.on_head,
                reader,
                tries.connected,
            )
        except BaseException as error:
            # The socket of an abandoned request closes on the next turn of the loop. The service
            # counts the request until then, so the slot must not be free earlier.
            asyncio.get_running_loop().call_soon(partial(cap.release, turn))
            if not isinstance(error, asyncio.CancelledError) or _is_being_cancelled():
                raise
        else:
            call.service.answered(response)
            if self._dated is not None and (date := read_date(response.headers)) is not None:
                self._dated(call.service, sent_at - date)
            cap.release(turn, is_answered=True)
            for tally in self._tallies:
                tally.bytes += response.size
            return response
        # The caller was not cancelled: closing the pool cancels its name resolution, and aiohttp
        # passes that cancellation on.
        self._lifetime.check_open()
        raise TransportError("the connection pool cancelled the request")

    async def _pause(self, service: Service, delay: float) -> None:
        for tally in self._tallies:
            tally.retries += 1
        service.pausing += 1
        try:
            await self._lifetime.pause(delay)
        finally:
            service.pausing -= 1

    def _unsent(self, call: _Call, tries: Tries, error: AltaProfilesError) -> None:
        """Report that a call ends while it waits to send a request."""
        error.locate(call.service.api, call.request.operation)
        tries.number = max(tries.number, 1)
        for tally in self._tallies:
            tally.unsent += 1
        attempt = call.attempt(tries, time.monotonic(), None, error)
        self._report(replace(attempt, seconds=0.0, sent=False))

    def _report(self, attempt: Attempt) -> None:
        if attempt.error is not None:
            logger.debug(
                "%s %s, attempt %d: %s%s; %s",
                attempt.api,
                attempt.operation,
                attempt.number,
                attempt.error,
                _excerpt(attempt.error),
                "giving up" if attempt.delay is None else f"next attempt in {attempt.delay:.2f} s",
            )
        call_all(self._options.hooks, attempt)


def _waits_long(tries: Tries, error: NotReady) -> bool:
    """Return whether a call has waited long for an answer; log it the first time."""
    waited = tries.waited(time.monotonic())
    if waited < _LONG:
        return False
    if not tries.is_long:
        tries.is_long = True
        longest = tries.retry.ready_timeout
        logger.info("waiting for %.0f s so far, of at most %g s: %s", waited, longest, error)
    return True


def _unread(response: Response) -> None:
    """Stand for the reader of a call whose answers are read while they arrive."""


def _reason(call: _Call, tries: Tries) -> AltaProfilesError | None:
    """Return the error that a call waits for the end of, or None if it waits for an answer."""
    if tries.is_waiting and call.service.is_refusing:
        refusal = call.service.refusal()
        refusal.locate(call.service.api, call.request.operation)
        return refusal
    return tries.failure


def _observers(hooks: Sequence[Hook]) -> tuple[Observer, ...]:
    return tuple(hook for hook in hooks if isinstance(hook, Observer))


def _chosen(value: T | UnsetType | None, present: T, own: T) -> T:
    """Return an option of a view: the present one if it is left out, the session's for None."""
    if value is UNSET:
        return present
    return own if value is None else value


def _advice_on_slots(call: _Call) -> str | None:
    """Return the next step if other processes hold every slot, else None."""
    cap = call.service.cap(call.request.operation)
    if cap.in_flight or not cap.is_full or not (holders := cap.holders()):
        return None
    return (
        f"If it stays so, look into {holders}: one that is stopped keeps its slots until it goes "
        f"on or is ended."
    )


def _keys(call: _Call, error: AltaProfilesError) -> list[str]:
    """Return the keys of the request to mask in an error."""
    keys = call.request.keys
    # The words of the system hold numbers of their own, which a short key would make unreadable.
    is_of_system = isinstance(error, TransportError)
    return [key for key in keys if len(key) >= _SHORTEST or not is_of_system]


_LONG = 10.0
"""Seconds from which on a wait for an answer that is "not ready" is reported."""

_SHORTEST = 6


def _excerpt(error: AltaProfilesError) -> str:
    excerpt = error.excerpt if isinstance(error, DecodeError | StatusError) else ""
    return f", got {excerpt!r}" if excerpt else ""


async def _checked(response: Response) -> Response:
    slices = checked(response)
    try:
        next(slices)
    except StopIteration as done:
        # A small body, as of most answers.
        small: Response = done.value
        return small
    return await finish(slices)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
