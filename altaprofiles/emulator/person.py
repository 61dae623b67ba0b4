"""One person of the emulated account."""

from __future__ import annotations

from typing import NamedTuple


class Person(NamedTuple):
    """Who somebody is. `draw` is 64 bytes of chance that decide everything else about them."""

    number: int
    draw: bytes
    identity: str | int | None
    email: str | None
    devices: list[tuple[str, str | None]]
    """Platform and objectId of each device, at most four."""
    homeless: str | None
    """The objectId of a person who has no device left."""
