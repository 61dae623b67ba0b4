"""The hooks of `on_event`, and of more than the attempts that have an end. Sends nothing."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from ..base.checks import check_called
from ..models import Attempt

if TYPE_CHECKING:
    from .service import Load

__all__ = ["Hook", "Observer", "call_all", "errors_logged"]

Hook: TypeAlias = Callable[[Attempt], object]
"""Called with each attempt after its end."""

logger = logging.getLogger("altaprofiles")


class Observer(ABC):
    """A hook of this package, which measures sessions and requests without an end as well."""

    @abstractmethod
    def __call__(self, attempt: Attempt) -> object:
        """Record an attempt that has ended."""

    @abstractmethod
    def interrupted(self, attempt: Attempt, error: BaseException) -> None:
        """Record a request that `error`, such as a cancellation, has cut off.

        The attempt has neither a status nor an error.
        """

    @abstractmethod
    def watch(self, load: Callable[[], Sequence[Load]]) -> None:
        """Measure the slots of a session, which `load` returns; a session calls it once."""


def call_all(hooks: Sequence[Callable[..., object]], *arguments: object) -> None:
    """Call every hook, also after one that fails.

    Raises:
        BaseException: what the first one raised, or the first one that ends more than the call,
            such as a `KeyboardInterrupt`. The rest is logged.
    """
    failure: BaseException | None = None
    for hook in hooks:
        try:
            check_called("on_event", hook(*arguments))
        except BaseException as error:
            failure = error if failure is None else _graver(failure, error)
    if failure is not None:
        try:
            raise failure
        finally:
            # The traceback holds this frame, which would keep the error alive.
            del failure


def _graver(first: BaseException, second: BaseException) -> BaseException:
    """Return the one of two errors to raise, and log the other one."""
    if isinstance(first, Exception) and not isinstance(second, Exception):
        first, second = second, first
    logger.error("another function of on_event failed as well", exc_info=second)
    return first


@contextmanager
def errors_logged() -> Generator[None, None, None]:
    """Log what a hook raises in the block: nothing may take the place of a cancellation."""
    try:
        yield
    except Exception:
        logger.exception("a hook of on_event failed as a request was cancelled")
