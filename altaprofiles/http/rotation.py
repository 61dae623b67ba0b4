"""The secret of one service that a function returns: asked for once for all who wait. Never sends.

The function runs in the background of the session, so that a caller who is cancelled, or whose
deadline ends, stops no other caller's wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial

from ..credentials import SecretFunction, Source
from ..errors import ConfigurationError, InvalidArgument, MissingCredentials, SessionClosed
from ..flow.lifetime import Spawn, closed_meanwhile, is_cancelled_here
from ..redaction import Secret

__all__ = ["Rotation"]

logger = logging.getLogger("altaprofiles")

_SLOW = 10.0
"""Seconds after which a run of the function is worth a warning."""

_SETTLED = (1.0, 20.0)
"""Seconds in which the function is not asked again for a secret, after an answer that did not help.

The first number after the first one, and twice as long after each further one, up to the second. A
service can refuse single calls whatever their secret. Meanwhile, a secret that has changed after
all goes unnoticed.
"""

_answering: ContextVar[frozenset[_Question]] = ContextVar("answering", default=frozenset())
"""The runs of functions that this task, or its thread, belongs to."""


class _Question:
    """One run of the function.

    Attributes:
        ended: set once it is over.
        fault: the fault of the secret that it has returned.
        cause: the exception that it has raised.
        error: the exception that has ended it from outside.
    """

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.fault: str | None = None
        self.cause: BaseException | None = None
        self.error: BaseException | None = None


class Rotation:
    """A secret that changes.

    Args:
        function: the function that returns it.
        check: raises `InvalidArgument` unless a value, given with its type and source, can be the
            secret.
        accept: called with each new secret.

    Attributes:
        current: the secret; empty until the function has returned one.
        answers: how often the function has returned a secret.
        argument: the argument of the credentials that the function is the value of.
    """

    def __init__(
        self,
        function: SecretFunction,
        check: Callable[[str, str, Source], None],
        accept: Callable[[Secret], None],
    ) -> None:
        self.current = Secret()
        self.answers = 0
        self.argument = function.argument
        self._function = function
        self._check = check
        self._accept = accept
        self._question: _Question | None = None
        self._is_proven = False
        self._same_at = self._refused_at = -math.inf
        self._pause = _SETTLED[0]

    async def ready(self, spawn: Spawn) -> None:
        """Wait until there is a secret to send.

        Args:
            spawn: runs the function in the background.

        Raises:
            MissingCredentials: the function has failed.
            SessionClosed: the session was closed.
        """
        if not self.is_ready:
            await self._ask(spawn)

    @property
    def is_ready(self) -> bool:
        """True if there is a secret, unless it is asked for again and was never accepted.

        One that was accepted is sent meanwhile: the refusal may be of a single call.
        """
        return bool(self.current) and (self._question is None or self._is_proven)

    async def renewed(self, refused: str, answers: int, spawn: Spawn, *, is_repeated: bool) -> bool:
        """Return whether there is another secret than the one that the service has refused.

        The function is asked, unless it has been since the request was begun, or a short time ago
        without a use.

        Args:
            refused: the secret of the request.
            answers: the value of `answers` when the request began to wait for its slot.
            spawn: as for `ready`.
            is_repeated: whether the service had refused the request before, with another secret.
                There is then no other one.

        Raises:
            MissingCredentials, SessionClosed: as from `ready`.
        """
        if is_repeated:
            if refused == self.current and not self._is_settled:
                self._refused_at = self._settle()
            return False
        # One that was accepted has been valid, however long the request has waited.
        is_due = answers == self.answers or self._is_proven
        if refused == self.current and is_due and not self._is_settled:
            await self._ask(spawn)
        return refused != self.current

    @property
    def _is_settled(self) -> bool:
        # A new secret that was refused counts once it is accepted: before, it may be wrong.
        last = max(self._same_at, self._refused_at if self._is_proven else -math.inf)
        return self._question is None and time.monotonic() < last + self._pause

    def _settle(self) -> float:
        """Note an answer that did not help, and return the time."""
        now = time.monotonic()
        last = max(self._same_at, self._refused_at)
        shortest, longest = _SETTLED
        if now >= last + 3 * self._pause:
            self._pause = shortest
        elif now >= last + self._pause:
            # Not for each of the requests that were in flight together.
            self._pause = min(2 * self._pause, longest)
        return now

    def accepted(self, secret: str) -> None:
        """Note that the service has accepted a secret."""
        self._is_proven = self._is_proven or secret == self.current

    async def _ask(self, spawn: Spawn) -> None:
        argument = self.argument
        question = self._question
        if question is not None and question in _answering.get():
            raise ConfigurationError(
                f"{argument}: its function uses the session that waits for it, or a task that the "
                f"function has started does; use another session there"
            )
        if question is None:
            question = _Question()
            spawn(partial(self._answer, question), partial(self._end, question))
            self._question = question
        await question.ended.wait()
        if question.fault is not None:
            raise MissingCredentials(
                f"{argument}: the value that its function returned cannot be used: "
                f"{question.fault.removeprefix(f'{argument}: ')}"
            )
        if (cause := question.cause) is not None:
            raise MissingCredentials(
                f"{argument}: its function raised {type(cause).__name__}, which is the cause of "
                f"this error"
            ) from cause
        if isinstance(question.error, SessionClosed):
            raise closed_meanwhile()
        if question.error is not None:
            raise question.error

    async def _answer(self, question: _Question) -> None:
        _answering.set(_answering.get() | {question})
        warning = asyncio.get_running_loop().call_later(
            _SLOW,
            logger.warning,
            "%s: its function has not returned for %g s, and calls wait for it; set a time limit "
            "in the function",
            self.argument,
            _SLOW,
        )
        try:
            kind, secret = await self._function.ask()
        except asyncio.CancelledError as error:
            if is_cancelled_here():
                raise
            question.cause = error
        except (Exception, SystemExit) as error:
            # A function that ends the process, as wrappers of commands do, must not end a server.
            question.cause = error
        else:
            self._take(question, kind, secret)
        finally:
            warning.cancel()

    def _take(self, question: _Question, kind: str, secret: Secret) -> None:
        try:
            self._check(secret, kind, "function")
        except InvalidArgument as error:
            question.fault = str(error)
            return
        self.answers += 1
        if secret == self.current:
            self._same_at = self._settle()
            return
        self.current = secret
        self._is_proven = False
        self._same_at = self._refused_at = -math.inf
        self._accept(secret)

    def _end(self, question: _Question, error: BaseException | None) -> None:
        self._question = None
        question.error = error
        question.ended.set()
