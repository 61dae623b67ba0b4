"""The seats in a folder: a locked file for each process that uses it, with its figures."""

from __future__ import annotations

import os

from msgspec import MsgspecError, Struct, msgpack

from .folder import Folder
from .locks import Lock

__all__ = ["Seat", "seated", "take_seat"]

_END = ".seat"


class Seat(Struct, frozen=True):
    """A process that uses the files.

    Attributes:
        pid: its ID.
        figures: the number of slots that it was given of each kind.
        least: the seconds between two starts that it was given.
    """

    pid: int
    figures: dict[str, int]
    least: float


_DECODER = msgpack.Decoder(Seat)


def take_seat(folder: Folder, seat: Seat) -> Lock:
    """Write a seat that nobody holds; return its lock, which is held until it is closed."""
    number = 0
    while not (lock := folder.lock(f"{number}{_END}")).take():
        folder.discard(lock)
        number += 1
    try:
        with os.fdopen(lock.number, "r+b", closefd=False) as file:
            file.truncate()
            file.write(msgpack.encode(seat))
    except OSError:
        folder.discard(lock)
        raise
    return lock


def seated(folder: Folder) -> list[Seat]:
    """Return the seats that others hold."""
    seats: list[Seat] = []
    for name in folder.names(_END):
        if folder.holds(name):
            continue
        lock = folder.lock(name)
        try:
            if not lock.is_free():
                os.lseek(lock.number, 0, os.SEEK_SET)
                seats.append(_DECODER.decode(os.read(lock.number, 1 << 16)))
        except MsgspecError:
            continue
        finally:
            folder.discard(lock)
    return seats
