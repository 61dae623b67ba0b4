"""Names of calls: the service and the operation that an error of a call bears."""

from __future__ import annotations

import sys
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import CO_ASYNC_GENERATOR, iscoroutinefunction, signature
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar, cast

from ..errors import AltaProfilesError

__all__ = ["CallName", "NameOf", "name_of", "named", "naming"]

P = ParamSpec("P")
T = TypeVar("T")

NameOf: TypeAlias = "Callable[[Mapping[str, Any]], CallName | None]"
"""Returns the name of a call from its arguments, or None if it concerns no service alone.

It is not called with arguments that the method does not have.
"""


class CallName(NamedTuple):
    """The name of a call, as in `Attempt.api` and `Attempt.operation`."""

    service: str
    operation: str


class naming:  # noqa: N801
    """Lets errors of a block bear the name of a call, unless they bear one already.

    It also cuts off the frames behind the block, which say nothing to a caller.

    Args:
        name: the name; with None the errors keep theirs.
    """

    def __init__(self, name: CallName | None) -> None:
        self._name = name
        self._outer = _OUTER

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Of this object: modules have no names any more where the end of a process collects it.
        if not isinstance(error, self._outer):
            return
        if traceback is not None:
            _shorten(traceback)
            _shorten_causes(error)
        if isinstance(error, AltaProfilesError) and self._name is not None:
            if error.service is None:
                error.locate(*self._name)
            elif error.operation is None and error.service == self._name.service:
                error.operation = self._name.operation


_OUTER = (AltaProfilesError, CancelledError, KeyboardInterrupt)
"""Errors whose text says all, so that the place in the library says nothing.

The button that stops a cell of a notebook cancels what it awaits. Every other error is the caller's
own or a bug, and keeps its frames.
"""


def _shorten(traceback: TracebackType) -> None:
    """Cut off the frames of the library behind the called method, which fill a notebook's cell."""
    last = traceback
    # The frame of a generator is what the caller reads; that of `named` stands before the method.
    if not last.tb_frame.f_code.co_flags & CO_ASYNC_GENERATOR:
        last = last.tb_next or last
    frame = last.tb_next
    while frame is not None:
        # A callback or an iterable of the caller's stays.
        if not _is_inside(frame):
            last = frame
        frame = frame.tb_next
    last.tb_next = None


def _shorten_causes(error: BaseException) -> None:
    """Leave of each error behind another one the place alone that raised it.

    It ends at the first one that the caller has to do with, or that may be a bug.
    """
    seen = {id(error)}
    cause = _cause(error)
    while cause is not None and id(cause) not in seen and _is_outer(cause):
        seen.add(id(cause))
        frame = cause.__traceback__
        while frame is not None:
            # Its last frame is that of the call which failed.
            cause.__traceback__, frame = frame, frame.tb_next
        cause = _cause(cause)


def _cause(error: BaseException) -> BaseException | None:
    """Return the error that is shown above another one."""
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_outer(cause: BaseException) -> bool:
    frame = cause.__traceback__
    while frame is not None:
        if not _is_inside(frame):
            return False
        frame = frame.tb_next
    return isinstance(cause, (*_OUTER, OSError)) or _package(type(cause).__module__) in _OTHERS


def _is_inside(frame: TracebackType) -> bool:
    return _package(str(frame.tb_frame.f_globals.get("__name__"))) in _PACKAGES


def _package(module: str) -> str:
    return module.partition(".")[0]


_OTHERS = frozenset({"aiohttp", "duckdb", "_duckdb", "msgspec", "psycopg", "pyarrow", "sqlite3"})
"""Packages whose own errors tell of a service, a disk, a database or a record."""

_PACKAGES = frozenset({_package(__name__), "anyio", "fsspec", *_OTHERS, *sys.stdlib_module_names})
"""The library, and what its own calls wait and run in."""


def named(name: CallName | NameOf) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator of a method, plain or async, that names its errors as `naming` does.

    Args:
        name: the name of the call, or a function that returns it from the arguments.
    """

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        find = _bound(name, method)
        if iscoroutinefunction(method):

            @wraps(method)
            async def call(*args: P.args, **kwargs: P.kwargs) -> Any:
                with naming(find(*args, **kwargs)):
                    try:
                        running = method(*args, **kwargs)
                    finally:
                        # They may hold a password, which a traceback with locals would show.
                        del args, kwargs
                    return await running
        else:

            @wraps(method)
            def call(*args: P.args, **kwargs: P.kwargs) -> Any:
                with naming(find(*args, **kwargs)):
                    return method(*args, **kwargs)

        vars(call)[_NAME_OF] = find
        return cast("Callable[P, T]", call)

    return decorate


def _bound(
    name: CallName | NameOf, method: Callable[..., object]
) -> Callable[..., CallName | None]:
    """Return a function that takes the arguments of `method`, and returns the name of the call."""
    known = signature(method)

    def find(*args: Any, **kwargs: Any) -> CallName | None:
        if isinstance(name, CallName):
            return name
        try:
            arguments = known.bind(*args, **kwargs).arguments
        except TypeError:
            # The method raises it, in its own name.
            return None
        return name(arguments)

    return find


_NAME_OF = "_altaprofiles_name_of"


def name_of(method: Callable[..., object], /, *args: Any, **kwargs: Any) -> CallName | None:
    """Return the name of a call of a method that is `named`, with these arguments."""
    find: Callable[..., CallName | None] = vars(method)[_NAME_OF]
    return find(*args, **kwargs)
