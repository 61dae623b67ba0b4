"""The interface between a request and what reads its answer while it arrives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from ..flow.slices import Slices
from ..wire.messages import Response

__all__ = ["Reader"]

T_co = TypeVar("T_co", covariant=True)


class Reader(Protocol[T_co]):
    """Reads one answer, whose body it takes while it arrives if its HTTP status is 200."""

    def feed(self, piece: bytes) -> Iterable[None]:
        """Take the next piece of the body, decompressed; return the slices of work to be done now.

        Raises:
            ResponseTooLarge: a part of the body that has to be held is too large.
        """
        ...

    @property
    def is_full(self) -> bool:
        """True if `drain` must be called before more is fed."""
        ...

    async def drain(self) -> None:
        """Wait until there is room for more."""
        ...

    @property
    def size(self) -> int:
        """Length of the body so far, as it counts in reports."""
        ...

    def read(self, response: Response) -> Slices[T_co]:
        """Return the value of the answer, or raise the error that it stands for.

        Args:
            response: the answer, with the body if its status is not 200.
        """
        ...

    def close(self) -> None:
        """Free what an answer that is not read has left."""
        ...
