"""Results that are read with `async for`, and say so where they are read with `for`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, TypeVar

from .lifetime import Reading

__all__ = ["AsyncOnly", "Results"]

T = TypeVar("T")


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


class Results(AsyncOnly, AsyncGenerator[T, None]):
    """The results of one call.

    Args:
        name: the method that was called.
        generator: yields the results.
        reading: is told which task reads them.
    """

    def __init__(self, name: str, generator: AsyncGenerator[T, None], reading: Reading) -> None:
        self._name = name
        self._generator = generator
        self._reading = reading

    def __anext__(self) -> Awaitable[T]:  # type: ignore[override]
        self._reading.move()
        return self._generator.__anext__()

    def asend(self, value: None) -> Any:
        """Return the next result, as `__anext__` does."""
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
        """End the work behind the results."""
        return self._generator.aclose()

    def __repr__(self) -> str:
        return f"<results of {self._name}>"
