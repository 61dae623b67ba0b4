"""The hooks of `on_event`, and of more than the attempts that have an end. Sends nothing."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from ..models import Attempt

if TYPE_CHECKING:
    from .service import Load

__all__ = ["Hook", "Observer", "errors_logged"]

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


@contextmanager
def errors_logged() -> Generator[None, None, None]:
    """Log what a hook raises in the block: nothing may take the place of a cancellation."""
    try:
        yield
    except Exception:
        logger.exception("a hook of on_event failed as a request was cancelled")
