"""The secret of one service that a function returns: asked for once for all who wait. Never sends.

The function runs in the background of the session, so that a caller who is cancelled, or whose
deadline ends, stops no other caller's wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial

from ..credentials import SecretFunction
from ..errors import ConfigurationError, InvalidArgument, MissingCredentials, SessionClosed
from ..flow.lifetime import Spawn, is_cancelled_here
from ..redaction import Secret

__all__ = ["Rotation"]

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
        check: raises `InvalidArgument` unless a value, given with its type, can be the secret.
        accept: called with each new secret.

    Attributes:
        current: the secret; empty until the function has returned one.
        previous: the secret before it, which answers that are still arriving may echo.
        answers: how often the function has returned a secret.
    """

    def __init__(
        self,
        function: SecretFunction,
        check: Callable[[str, str], None],
        accept: Callable[[Secret], None],
    ) -> None:
        self.current = self.previous = Secret()
        self.answers = 0
        self._function = function
        self._check = check
        self._accept = accept
        self._question: _Question | None = None
        self._is_proven = False

    async def ready(self, spawn: Spawn) -> None:
        """Wait until there is a secret, and none is being asked for.

        Args:
            spawn: runs the function in the background.

        Raises:
            MissingCredentials: the function has failed.
            SessionClosed: the session was closed.
        """
        if self.is_asking or not self.current:
            await self._ask(spawn)

    @property
    def is_asking(self) -> bool:
        """True while the function runs."""
        return self._question is not None

    async def renewed(self, refused: Secret, answers: int, spawn: Spawn) -> bool:
        """Return whether there is another secret than the one that the service has refused.

        The function is asked, unless it has been since the request was begun.

        Args:
            refused: the secret of the request.
            answers: the value of `answers` when the request began to wait for its slot.
            spawn: as for `ready`.

        Raises:
            MissingCredentials, SessionClosed: as from `ready`.
        """
        # One that was accepted has been valid, however long the request has waited.
        if refused == self.current and (answers == self.answers or self._is_proven):
            await self._ask(spawn)
        return refused != self.current

    def accepted(self, secret: Secret) -> None:
        """Note that the service has accepted a secret."""
        self._is_proven = self._is_proven or secret == self.current

    async def _ask(self, spawn: Spawn) -> None:
        argument = self._function.argument
        question = self._question
        if question is not None and question in _answering.get():
            raise ConfigurationError(
                f"{argument}: its function uses the session that waits for it; use another session "
                f"in the function"
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
            raise SessionClosed("this Session was closed while the call waited; open a new one")
        if question.error is not None:
            raise question.error

    async def _answer(self, question: _Question) -> None:
        _answering.set(_answering.get() | {question})
        try:
            kind, secret = await self._function.ask()
        except asyncio.CancelledError as error:
            if is_cancelled_here():
                raise
            question.cause = error
        except Exception as error:
            question.cause = error
        else:
            self._take(question, kind, secret)

    def _take(self, question: _Question, kind: str, secret: Secret) -> None:
        try:
            self._check(secret, kind)
        except InvalidArgument as error:
            question.fault = str(error)
            return
        self.answers += 1
        self._is_proven = False
        if secret != self.current:
            self.previous, self.current = self.current, secret
            self._accept(secret)

    def _end(self, question: _Question, error: BaseException | None) -> None:
        self._question = None
        question.error = error
        question.ended.set()
