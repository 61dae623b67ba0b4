"""The files of one account that the processes of a machine have in common, and their users."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from msgspec import MsgspecError, Struct, msgpack

from ...credentials import naming_shared, same_host
from ...errors import ConfigurationError
from ..needs import Needs
from ..pace import Pace, Verdict
from ..sizing import Extent, Size
from .folder import Folder
from .locks import Lock
from .record import Part, Record, stored
from .seats import Seat, seated, take_seat
from .shared_pace import SharedPace
from .slots import Holders, Slots, holders

__all__ = ["Commons", "Use", "common_name", "use_of"]

logger = logging.getLogger("altaprofiles")

_VERSION = "2"
"""The form of the files. Processes with another form have files of their own."""

_PATIENCE = 10.0
"""Seconds for which a process that starts waits for one that changes the record."""

_LOOK = 1.0
"""Seconds between two looks whether a smaller figure's process has ended, or a file is removed."""

_RECORD = "record"


def common_name(url: str, owner: str) -> str:
    """Return the name of an account's folder: a digest of the host and the account.

    Args:
        url: the base URL.
        owner: the holder of the limits: an account ID, or the digest or name of an API key.
    """
    text = "\0".join((_VERSION, same_host(url), owner))
    return blake2b(text.encode(), digest_size=16).hexdigest()


_VERDICTS = msgpack.Decoder(Verdict)


class _SharedVerdict(Part):
    def __init__(self, pace: SharedPace) -> None:
        self._pace = pace

    def dump(self) -> bytes:
        return msgpack.encode(self._pace.report())

    def load(self, data: bytes, now: float) -> None:
        self._pace.adopt(_VERDICTS.decode(data), now)


class _SharedExtent(Part):
    _DECODER = msgpack.Decoder(Extent)

    def __init__(self, size: Size) -> None:
        self._size = size

    def dump(self) -> bytes:
        return msgpack.encode(self._size.extent)

    def load(self, data: bytes, now: float) -> None:
        del now
        self._size.extent = self._DECODER.decode(data)


class Commons:
    """The slots, the sizes and the pace of one account, of all processes of a machine.

    The first process starts anew, so that nothing is left of limits that were met long ago. Of
    processes with different figures the smallest holds, for as long as its process lives.

    Args:
        place: the folder that holds those of all accounts, or None for that of the user.
        name: the result of `common_name`.
        pace: the pace of this process.
        sizes: the sizes of this process, by the kind of request.

    Attributes:
        record: the values that are shared.
        slots: the slots of each kind.
        needs: the slots that single calls need, of each kind.
    """

    def __init__(
        self, place: Path | None, name: str, pace: SharedPace, sizes: Mapping[str, Size]
    ) -> None:
        self._place = place
        self._name = name
        self._pace = pace
        self._least = pace.least
        self._sizes = dict(sizes)
        self._figures = {kind: size.most for kind, size in sizes.items()}
        self._folder: Folder | None = None
        self._seat: Lock | None = None
        self._is_apart = False
        self._has_warned = False
        self._looked_at = 0.0
        parts: dict[str, Part] = {"pace": _SharedVerdict(pace)}
        self.record = Record(parts)
        self.slots = {kind: Slots(kind, self.record) for kind in sizes}
        self.needs = {kind: Needs() for kind in sizes}
        for kind, size in sizes.items():
            parts[f"{kind}.size"] = _SharedExtent(size)
            parts[f"{kind}.claim"] = self.slots[kind]
            parts[f"{kind}.needs"] = self.needs[kind]

    def open(self) -> None:
        """Make or open the files, and be counted as one of their users. Blocks for a moment.

        Raises:
            ConfigurationError: the files cannot be made or used, or another process counts the
                requests of the account in another way. The message names the fix.
        """
        with naming_shared(self._place):
            folder = Folder(self._place, self._name)
            try:
                with folder.explained():
                    self._join(folder)
            except BaseException:
                self.record.close()
                folder.close()
                raise
        self._folder = folder
        _open.add(self)

    def _join(self, folder: Folder) -> None:
        folder.check()
        lock = folder.lock(_RECORD)
        with _held(lock, folder):
            others = seated(folder)
            self._sit_down(folder, others)
            self.record.open(lock)
            if others:
                self.record.within(lambda: self._bound(others))
            else:
                folder.tidy()
                self.record.reset()
        for kind, slots in self.slots.items():
            slots.open(folder, self._sizes[kind].reach)

    @property
    def path(self) -> Path | None:
        """The folder of the files, without links; None while they are not open."""
        return None if self._folder is None else self._folder.path

    def close(self) -> None:
        """Close the files, which releases all slots. Safe to call more than once."""
        _open.discard(self)
        self.record.close()
        for slots in self.slots.values():
            slots.close()
        if self._folder is not None:
            self._folder.close()
            self._folder = self._seat = None

    def elsewhere(self) -> int:
        """Return the number of requests in flight of other processes."""
        return sum(slots.elsewhere() for slots in self.slots.values())

    def refresh(self, now: float) -> None:
        """Take over the changes of other processes."""
        self.record.refresh()
        if self._folder is None:
            return
        is_removed = not self._is_apart and self.record.is_removed()
        if now - self._looked_at < _LOOK and not is_removed:
            return
        self._looked_at = now
        if self._is_apart or not self._folder.is_whole():
            self._return_to(self._folder)
        is_bound = any(size.most < self._figures[kind] for kind, size in self._sizes.items())
        if is_bound or self._pace.least > self._least:
            folder = self._folder
            # Without a descriptor for it, or rights to it, the next look may have them.
            with suppress(ConfigurationError, OSError):
                self.record.attempt(lambda: self._bound(seated(folder)))

    def _bound(self, others: list[Seat]) -> None:
        self._pace.least = max([self._least, *(one.least for one in others)])
        for kind, size in self._sizes.items():
            figures = [one.figures[kind] for one in others if kind in one.figures]
            if (most := min([self._figures[kind], *figures])) != size.most:
                size.bound(most)

    def _return_to(self, folder: Folder) -> None:
        """Use what the names of the folder lead to now, together with those that use it already."""
        self._is_apart = True
        for slots in self.slots.values():
            slots.leave()
        if self._seat is not None:
            folder.discard(self._seat)
            self._seat = None
        try:
            try:
                folder.renew()
            finally:
                for slots in self.slots.values():
                    slots.missed()
            with folder.explained():
                has_joined = self.record.attempt(lambda: self._rejoin(folder))
        except ConfigurationError as error:
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "%s, or a file in it, was removed: this process keeps its limits by itself "
                    "until the folder can be used again (%s)",
                    folder.path,
                    error,
                )
            return
        # It may be removed in the meantime.
        if has_joined and folder.is_whole():
            self._is_apart = self._has_warned = False
            logger.warning(
                "%s, or a file in it, was removed: this process has found or made it again, and "
                "shares its limits again",
                folder.path,
            )

    def _rejoin(self, folder: Folder) -> bool:
        others = seated(folder)
        self._sit_down(folder, others)
        self._bound(others)
        for kind, slots in self.slots.items():
            slots.moved(self._sizes[kind].allowed)
        return True

    def _sit_down(self, folder: Folder, others: list[Seat]) -> None:
        """Be counted as a user of the files, besides others."""
        self._check_kinds(others, folder)
        self._seat = take_seat(folder, Seat(os.getpid(), self._figures, self._least))

    def _check_kinds(self, others: list[Seat], folder: Folder) -> None:
        for other in others:
            if other.figures.keys() != self._figures.keys():
                raise ConfigurationError(
                    f"max_in_flight: the process {other.pid} shares the account in {folder.path}, "
                    f"and either it or this one has 'auto', which counts chains, counts and "
                    f"lookups apart; use 'auto' in all processes, or a number in all of them"
                )


class _held:  # noqa: N801
    """Holds a lock while the block runs, after waiting for it."""

    def __init__(self, lock: Lock, folder: Folder) -> None:
        self._lock = lock
        self._folder = folder

    def __enter__(self) -> None:
        ends = time.monotonic() + _PATIENCE
        while not self._lock.take():
            if time.monotonic() > ends:
                raise ConfigurationError(
                    f"shared: a process that is stopped holds {self._folder.path / _RECORD}; let "
                    f"it go on or end it, or let `shared` be another folder"
                )
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self._lock.drop()


class Use(Struct, frozen=True):
    """The use of an account's files at present.

    Attributes:
        folder: their folder.
        pids: the IDs of the processes that share them.
        held: slots that are held.
        holders: the processes that hold them.
        rate: the learned rate, in requests per second, or None without one.
    """

    folder: Path
    pids: list[int]
    held: int
    holders: Holders
    rate: float | None = None


def use_of(place: Path | None, name: str) -> Use:
    """Return the use of an account's files. They are made if they are missing. Blocks for a moment.

    Raises:
        ConfigurationError: as from `Commons.open`.
    """
    with naming_shared(place):
        folder = Folder(place, name)
        try:
            with folder.explained():
                folder.check()
                lock = folder.lock(_RECORD)
                with _held(lock, folder):
                    pids = sorted({seat.pid for seat in seated(folder)})
                    slots = [folder.lock(slot) for slot in folder.names(".slot")]
                    held = sum(not slot.is_free() for slot in slots)
                    holding = holders(slots)
                    rate = _rate_in(stored(lock)) if pids else None
            return Use(folder.path, pids, held, holding, rate)
        finally:
            folder.close()


def _rate_in(content: Mapping[str, bytes]) -> float | None:
    """Return the learned rate that a record has."""
    pace, now = Pace(), time.monotonic()
    with suppress(KeyError, MsgspecError):
        pace.adopt(_VERDICTS.decode(content["pace"]), now)
    return pace.rate(now)


_open: weakref.WeakSet[Commons] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a forked child, close the files of the parent: otherwise its locks outlive it."""
    for commons in list(_open):
        commons.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
