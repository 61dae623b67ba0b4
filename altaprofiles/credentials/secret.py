"""A secret that a function returns each time it is asked for. Keeps no secret."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from inspect import isawaitable, iscoroutinefunction, signature
from typing import Any, Self, TypeAlias, TypeVar, cast

from ..errors import InvalidArgument
from ..redaction import Secret, as_secret

__all__ = ["SecretFunction", "SecretSource", "hidden"]

SecretSource: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A passcode or a token, or a function that returns it, also an async one."""


T = TypeVar("T")


class SecretFunction(Secret):
    """The function of a caller that returns a secret: a `Secret` whose text is not known yet.

    Its `repr` shows nothing, because a bound method or a partial function may hold the secret.

    Args:
        argument: the argument of the credentials that it is the value of.
        function: takes no argument, and returns text or an awaitable of text.
    """

    __slots__ = ("_function", "argument")

    _function: Callable[[], Any]
    argument: str

    def __new__(cls, argument: str, function: Callable[[], Any]) -> Self:
        secret = super().__new__(cls)
        secret.argument, secret._function = argument, function
        return secret

    def check(self) -> None:
        """Raise `ConfigurationError` if the function cannot be called without arguments."""
        if not self._can_be_called:
            raise InvalidArgument(
                f"{self.argument}: expected text, or a function without arguments that returns it; "
                f"this function needs arguments"
            )

    @property
    def _can_be_called(self) -> bool:
        try:
            parameters = signature(self._function)
        except (TypeError, ValueError):
            # Some functions in C do not say what they take.
            return True
        try:
            parameters.bind()
        except TypeError:
            return False
        return True

    async def ask(self) -> tuple[str, Secret]:
        """Return the type of the value that the function returns, and the value.

        A plain function runs in a thread of its own. A task that is cancelled leaves it behind, and
        so does the end of the process.

        Raises:
            Exception: whatever the function raises.
        """
        # No local holds the function, because its `repr` may show what a traceback must not.
        if self._is_async:
            return hidden(await self._function())
        found = await _in_thread(self._call)
        return found if isinstance(found, tuple) else hidden(await found)

    @property
    def _is_async(self) -> bool:
        function = self._function
        return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)

    def _call(self) -> tuple[str, Secret] | Awaitable[object]:
        value = self._function()
        return value if isawaitable(value) else hidden(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretFunction) and other._function == self._function

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._function)


async def _in_thread(function: Callable[[], T]) -> T:
    # Not a worker of anyio or asyncio, for which the process waits at its end.
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()
    context = copy_context()

    def end(value: T | None, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((value, error))

    def run() -> None:
        value, failure = None, None
        try:
            value = context.run(function)
        except BaseException as error:
            failure = error
        # The loop may have ended meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(end, value, failure)

    threading.Thread(target=run, name="altaprofiles secret", daemon=True).start()
    value, failure = await ended
    if failure is not None:
        raise failure
    return cast("T", value)


def hidden(value: object) -> tuple[str, Secret]:
    """Return the type of a value, and the value as a `Secret`, which is empty if it is not text."""
    return type(value).__name__, as_secret(value)
