"""One person of the emulated account."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Person"]


class Person(NamedTuple):
    """The identifiers of one person, and the chance that decides the rest of the record."""

    number: int
    draw: bytes
    """64 random bytes."""
    identity: str | int | None
    email: str | None
    devices: list[tuple[str, str | None]]
    """Platform and objectId of each device, at most four."""
    homeless: str | None
    """The objectId of a person without any device, else None."""
