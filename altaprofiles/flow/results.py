"""Results that are read with `async for`, and say so where they are read with `for`, or twice."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, TypeVar

from ..errors import SessionClosed
from .lifetime import FORKED, Reading

__all__ = ["AsyncOnly", "PlainResults", "Results"]

T = TypeVar("T")

logger = logging.getLogger("altaprofiles")

_process = object()
"""Another one in each forked child. `os.getpid()` would cost more than the rest of a record."""


def _be_another() -> None:
    global _process
    _process = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_be_another)


class AsyncOnly:
    """Refuses `for`, `in` and an index with the line to write instead, as a `TypeError`."""

    # Type checkers refuse them by themselves.
    if not TYPE_CHECKING:

        def __getitem__(self, _: object) -> Never:
            # `for`, `list` and `in` call it where there is no `__iter__`. With `__iter__` this
            # would count as an Iterable, and be taken for one by code that reads both kinds. For
            # the same reason there is no `__await__`: Python's own message is clear.
            raise TypeError(
                f"{self!r} is not read with `for`, `in` or an index: write `async for … in …` in "
                f"an async function or a notebook's cell, or use altaprofiles.blocking(…) where no "
                f"event loop runs"
            )


class _ReadOnce:
    """Tells who reads the results of a call once more after their end, where there are none.

    After their own end, that is a warning. After a failure it is an error alone, because whoever
    asks for another result has gone on as if none had been lost.

    Args:
        name: the method that was called.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._process = _process
        self._asked_for = 0
        self._has_warned = False

    def _warn_of_another_reading(self, frame: object) -> None:
        """Log a warning if this begins a reading after the end of one.

        Args:
            frame: the frame of the generator behind the results, which is None after its end.
        """
        # One that was asked for a single result has had none.
        if frame is None and self._asked_for > 1 and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%r: read to its end before, and yields nothing more; call %s again",
                self,
                self._name,
            )

    def _cut_off(self, failure: str) -> RuntimeError:
        """Return the error for whoever reads on after a failure."""
        return RuntimeError(
            f"{self!r}: cut off by {failure} before, so that others are missing, and there are no "
            f"more; call {self._name} again"
        )

    def __repr__(self) -> str:
        return f"<results of {self._name}>"


class PlainResults(_ReadOnce, Generator[T, None, None]):
    """The results of one call, for `for`.

    Args:
        name: the method that was called.
        generator: yields the results.
    """

    def __init__(self, name: str, generator: Generator[T, None, None]) -> None:
        super().__init__(name)
        self._generator = generator
        self._failure: str | None = None

    def __iter__(self) -> PlainResults[T]:
        if self._failure is None:
            self._warn_of_another_reading(getattr(self._generator, "gi_frame", self))
        return self

    def __next__(self) -> T:
        return self.send(None)

    def send(self, value: None) -> T:
        if self._process is not _process:
            raise SessionClosed(FORKED)
        if self._failure is not None:
            raise self._cut_off(self._failure)
        self._asked_for += 1
        try:
            return self._generator.send(value)
        except StopIteration:
            raise
        except BaseException as error:
            self._failure = type(error).__name__
            raise

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> T:
        if value is None and traceback is None:
            # Python 3.12 warns of the others.
            return self._generator.throw(kind)
        return self._generator.throw(kind, value, traceback)

    def close(self) -> None:
        """End the work behind the results."""
        self._generator.close()


class Results(_ReadOnce, AsyncOnly, AsyncGenerator[T, None]):
    """The results of one call.

    Args:
        name: the method that was called.
        generator: yields the results.
        reading: is told which task reads them.
    """

    def __init__(self, name: str, generator: AsyncGenerator[T, None], reading: Reading) -> None:
        super().__init__(name)
        self._generator = generator
        self._reading = reading

    def __aiter__(self) -> Results[T]:
        if self._reading.failure is None:
            self._warn_of_another_reading(getattr(self._generator, "ag_frame", self))
        return self

    def __anext__(self) -> Awaitable[T]:  # type: ignore[override]
        if self._reading.failure is not None or self._process is not _process:
            # Awaited, because Python 3.11 crashes where `anext(…, default)` gets the error at once.
            return self._refuse()
        self._asked_for += 1
        self._reading.move()
        return self._generator.__anext__()

    async def _refuse(self) -> Never:
        if self._process is not _process:
            raise SessionClosed(FORKED)
        raise self._cut_off(str(self._reading.failure))

    def asend(self, value: None) -> Any:
        """Return the next result, as `__anext__` does."""
        if self._reading.failure is not None or self._process is not _process:
            return self._refuse()
        self._asked_for += 1
        self._reading.move()
        return self._generator.asend(value)

    def athrow(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
    ) -> Any:
        """Raise an exception where the generator waits."""
        if value is None and traceback is None:
            # Python 3.12 warns of the others.
            return self._generator.athrow(kind)
        return self._generator.athrow(kind, value, traceback)  # type: ignore[arg-type]

    def aclose(self) -> Any:
        """End the work behind the results, and wait until none of it is left."""
        return self._generator.aclose()
