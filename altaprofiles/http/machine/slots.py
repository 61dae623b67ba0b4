"""Slots that processes share: one locked file for each request in flight, and lines before them.

Never waits: whoever gets no slot asks again after the time that `Slots.take` returns.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from msgspec import Struct, msgpack

from ...errors import ConfigurationError
from .folder import Folder
from .locks import Lock
from .record import Record

__all__ = ["Holders", "Slots", "holders"]

_PID, _NAMESPACE = 4, 8  # bytes of each in the file of a slot


class Holders(Struct, frozen=True):
    """The processes that hold slots.

    Attributes:
        own: whether this process does.
        pids: the IDs of others, in order.
        apart: the IDs of others in other containers, which are IDs there.
    """

    own: bool
    pids: list[int]
    apart: list[int]


class _Claim(Struct, array_like=True, frozen=True):
    """The claim of bulk work, in the line of some process, to the next slot.

    Attributes:
        until: the clock reading until which it holds. Its process renews it while it waits.
        passed: slots that single calls have taken in the meantime.
    """

    until: float = 0.0
    passed: int = 0


_CLAIM = msgpack.Decoder(_Claim)


class Slots:
    """The slots of one kind of request, of all processes of a machine.

    The rules, and the reason for each:

    1. *A slot is a file, and whoever holds its lock has it.* The system drops the locks of a
       process that ends, however it ends. The holder writes its ID into the file, so that those
       who wait for a process that is stopped can name it.
    2. *Only the head of the line takes a slot*: the process that holds the lock of the line. The
       others ask for that lock every few milliseconds, and the head asks for a slot more often.
       With locks alone, the process that has just released a slot would take it again each time.
    3. *A process that has taken or released a slot lets those that wait go first*, for as long as
       one of them needs to ask.
    4. *Single calls go before bulk work*: each kind has a line, and the head of the line of bulk
       work waits while there is another head. But bulk work without a slot gets the next one after
       `FAVOURED` single calls have gone before it.
    5. *A head that leaves a slot free is passed.* Its process may be stopped, as by Ctrl-Z.

    Attributes:
        queued_at: the clock reading since which this process waits, or None.
    """

    FAVOURED = 3
    """Slots in a row for single calls while bulk work without one waits."""

    _TOKENS = 16  # most single calls that are counted
    _SLOW = 0.004  # seconds between two questions of those in line
    _LONG = 0.1  # seconds in line, after which one asks more often
    _FAST = 0.001  # of its head, at first
    _SLOWEST = 0.010  # of its head, after a long wait
    _SHARE = 0.02  # of its wait so far, between two questions of the head
    _LEASE = 0.050  # seconds for which a claim holds
    _PATIENCE = 0.25  # seconds that a slot is seen free before the head is passed

    def __init__(self, kind: str, record: Record) -> None:
        self._kind = kind
        self._record = record
        self._folder: Folder | None = None
        self._slots: list[Lock] = []
        self._above: list[Lock] = []  # slots that were held, of before the cap was as small
        self._held: list[Lock] = []
        self._bare = 0  # requests in flight that have no slot
        self._lines: dict[bool, Lock] = {}
        self._waiting: dict[bool, Lock] = {}
        self._asking: dict[bool, Lock] = {}
        self._places: list[Lock] = []
        self._tokens: list[Lock] = []
        self._calls: list[Lock] = []
        self._claim = _Claim()
        self._served_at = -math.inf
        self._led_since = 0.0
        self._free_since: float | None = None
        self.queued_at: float | None = None

    def open(self, folder: Folder, slots: int) -> None:
        """Open the files of the lines, and of the first `slots` slots."""
        for bulk, name in ((False, "single"), (True, "bulk")):
            self._lines[bulk] = folder.lock(f"{self._kind}.{name}.line")
            self._waiting[bulk] = folder.lock(f"{self._kind}.{name}.waiting")
            # Another descriptor of the same file, because one would not see its own lock.
            self._asking[bulk] = folder.lock(f"{self._kind}.{name}.waiting")
        self._places = [*self._lines.values(), *self._waiting.values()]
        for number in range(min(slots, self._TOKENS)):
            self._tokens.append(folder.lock(f"{self._kind}.{number}.call"))
        for number in range(slots):
            self._slots.append(folder.lock(f"{self._kind}.{number}.slot"))
        self._folder = folder
        self._look_above(folder)

    def _look_above(self, folder: Folder) -> None:
        """Find the slots that are held of processes with larger figures."""
        while self._above:
            folder.discard(self._above.pop())
        known = {f"{self._kind}.{number}.slot" for number in range(len(self._slots))}
        for name in folder.names(".slot"):
            if name.startswith(f"{self._kind}.") and name not in known:
                lock = folder.lock(name)
                if lock.is_free():
                    folder.discard(lock)
                else:
                    self._above.append(lock)

    def missed(self) -> None:
        """Forget the slots that another process has since `Folder.renew`, in whole or in part."""
        held = [slot for slot in self._held if slot.is_held]
        self._bare += len(self._held) - len(held)
        for slot in held:
            _sign(slot)
        self._held = held
        self._calls = [token for token in self._calls if token.is_held]

    def moved(self, slots: int) -> None:
        """Take slots for the requests in flight that have lost theirs, as far as they are free.

        To be called once the folder is whole again.

        Args:
            slots: the number of slots.
        """
        slots = min(slots, len(self._slots))
        while self._bare and (slot := self._free_slot(slots)) is not None:
            self._bare -= 1
            self._held.append(slot)
        if self._folder is not None:
            self._look_above(self._folder)

    def close(self) -> None:
        """Forget all files, which the folder closes."""
        self._folder = None
        self._slots.clear()
        self._above.clear()
        self._held.clear()
        self._bare = 0
        self._tokens.clear()
        self._calls.clear()

    def take(
        self, now: float, slots: int, reach: int, *, bulk: bool, starves: bool, is_open: bool
    ) -> float:
        """Take a slot if it is the turn of this process, else stand in line.

        Args:
            now: a clock reading.
            slots: the number of slots.
            reach: the number of files that may be locked: more than `slots` after it has shrunk.
            bulk: whether it is for bulk work.
            starves: whether the bulk work of this process has no slot.
            is_open: whether a request may start now. If not, this process only stands in line.

        Returns:
            0 if it has one, else the seconds after which to ask again.
        """
        if self._folder is None:
            return self._SLOW
        if self.queued_at is None:
            if self._yields(now, bulk):
                return self._served_at + self._SLOW - now
            self.queued_at = now
        is_head = self._leads(now, bulk)
        may_take = is_head and self._may_pass(now, bulk, starves)
        if not is_open:
            self._free_since = None
            return self._SLOW
        slot = None
        if len(self._slots) < reach:
            self._grow(reach)
            slots = min(slots, len(self._slots))
        if (may_take or self._sees_free_slot(now, slots)) and self._has_room(slots):
            slot = self._free_slot(slots)
        if slot is None:
            if not is_head:
                # Those that have waited for long ask twice as often.
                least = 0.25 if now - self.queued_at > self._LONG else 0.5
                return self._SLOW * random.uniform(least, 2 * least)  # noqa: S311
            if bulk and starves and self._claim.until < now + self._LEASE / 2:
                self._record.change(lambda: self._renew(now + self._LEASE))
            return self._pause(now)
        self._held.append(slot)
        if self._bare:
            self._bare -= 1
            return self._pause(now)
        self._served_at = now
        self.leave()
        if self._claim.until > now:
            self._record.change(self._taken_by_bulk if bulk else self._taken_by_single)
        return 0.0

    def give(self, now: float) -> None:
        """Count one request in flight less. It releases a slot unless another one has none."""
        if self._bare:
            self._bare -= 1
        elif self._held:
            self._held.pop().drop()
            self._served_at = now

    def begin_call(self) -> int:
        """Count a single call, which waits or is in flight; return the number of them at present.

        It is counted by a locked file, so that one of a process that is killed counts no more.
        """
        for number, token in enumerate(self._tokens, start=1):
            if not token.is_held and token.take():
                self._calls.append(token)
                return number
        return len(self._tokens)

    def end_call(self, others: int) -> None:
        """Count a single call no more, of which this process has so many others."""
        if len(self._calls) > others:
            self._calls.pop().drop()

    def leaves_free(self, slots: int, needed: int) -> bool:
        """Return whether one slot more for bulk work would leave fewer free than calls may need.

        Args:
            slots: the number of slots.
            needed: slots that the single calls of all processes have needed at once lately.
        """
        calls = sum(not token.is_free() for token in self._tokens)
        held = sum(not slot.is_free() for slot in self._slots[:slots])
        return held + 1 + max(0, needed - calls) > slots

    def leave(self) -> None:
        """Leave the line: nobody here waits any more, or has got the slot."""
        if self.queued_at is None:
            return
        for lock in self._places:
            if lock.is_held:
                lock.drop()
        self.queued_at = self._free_since = None

    def elsewhere(self) -> int:
        """Return the number of slots that other processes hold."""
        slots = (*self._slots, *self._above)
        return sum(not slot.is_held and not slot.is_free() for slot in slots)

    def holders(self) -> Holders:
        """Return the processes that hold slots, this one among them."""
        return holders((*self._slots, *self._above))

    def taken_at(self, slots: int) -> list[int]:
        """Return the times at which the first `slots` slots were last taken, in nanoseconds.

        They are those of the file system's clock, and only fit for a comparison.
        """
        # Whoever takes a slot writes to its file.
        return [os.fstat(slot.number).st_mtime_ns for slot in self._slots[:slots]]

    def is_full(self, slots: int) -> bool:
        """Return whether every one of the first `slots` slots is held."""
        return not any(slot.is_free() for slot in self._slots[:slots])

    def dump(self) -> bytes:
        """Return the claim of bulk work, for `Record`."""
        return msgpack.encode(self._claim)

    def load(self, data: bytes, now: float) -> None:
        """Take over the claim of bulk work, from `Record`."""
        claim = _CLAIM.decode(data)
        self._claim = _Claim(min(claim.until, now + self._LEASE), claim.passed)

    def _yields(self, now: float, bulk: bool) -> bool:
        since = now - self._served_at
        return 0 <= since < self._SLOW and not self._asking[bulk].is_free()

    def _leads(self, now: float, bulk: bool) -> bool:
        """Return whether this process is the head of a line; if not, stand in it."""
        line, waiting = self._lines[bulk], self._waiting[bulk]
        if not line.is_held:
            # Those of the other line as well.
            for lock in self._places:
                if lock is not waiting and lock.is_held:
                    lock.drop()
            if not line.take():
                waiting.take(shared=True)
                return False
            waiting.drop()
            self._led_since = now
        return True

    def _may_pass(self, now: float, bulk: bool, starves: bool) -> bool:
        """Return whether the head of a line may take a slot before that of the other one."""
        is_due = self._claim.until > now and self._claim.passed >= self.FAVOURED
        if not bulk:
            return not is_due
        is_first = self._lines[False].is_free() and self._asking[False].is_free()
        return is_first or (is_due and starves)

    def _renew(self, until: float) -> None:
        is_new = self._claim.until < until - self._LEASE
        self._claim = _Claim(until, 0 if is_new else self._claim.passed)

    def _taken_by_bulk(self) -> None:
        self._claim = _Claim()

    def _taken_by_single(self) -> None:
        self._claim = _Claim(self._claim.until, self._claim.passed + 1)

    def _sees_free_slot(self, now: float, slots: int) -> bool:
        """Return whether a slot has been free at each look for so long that no head can want it."""
        if self.queued_at is None or now - self.queued_at < self._PATIENCE:
            return False
        if not any(slot.is_free() for slot in self._slots[:slots]):
            self._free_since = None
        elif self._free_since is None:
            self._free_since = now
        return self._free_since is not None and now - self._free_since >= self._PATIENCE

    def _has_room(self, slots: int) -> bool:
        """Return whether fewer slots are held than there are now, those of before included."""
        above = [*self._slots[slots:], *self._above]
        held = sum(not slot.is_free() for slot in above)
        return not held or held + sum(not slot.is_free() for slot in self._slots[:slots]) < slots

    def _free_slot(self, slots: int) -> Lock | None:
        # Two that look at the same time look at different ones first.
        start = int(random.random() * slots)  # noqa: S311
        for number in range(start, start + slots):
            slot = self._slots[number % slots]
            if not slot.is_held and slot.take():
                _sign(slot)
                return slot
        return None

    def _pause(self, now: float) -> float:
        # Many slots take longer to look at.
        least = max(self._FAST, 2e-5 * len(self._slots))
        return min(max(least, self._SHARE * (now - self._led_since)), self._SLOWEST)

    def _grow(self, slots: int) -> None:
        folder = self._folder
        # Without a descriptor for one more, those that are open have to do.
        with suppress(ConfigurationError):
            while folder is not None and len(self._slots) < slots:
                self._slots.append(folder.lock(f"{self._kind}.{len(self._slots)}.slot"))
            if folder is not None:
                # None counts twice.
                self._look_above(folder)


def holders(slots: Iterable[Lock]) -> Holders:
    """Return the processes that hold slots.

    Processes of an earlier version, which write no ID, are left out.
    """
    this = (os.getpid(), _namespace())
    found = {this if slot.is_held else _signature(slot) for slot in slots if not slot.is_free()}
    near: list[int] = []
    apart: list[int] = []
    for pid, space in found - {this}:
        is_here = not space or not this[1] or space == this[1]
        # Another one with the number of this process is in another container.
        (near if is_here and pid != this[0] else apart).append(pid)
    return Holders(this in found, sorted(filter(None, near)), sorted(filter(None, apart)))


def _sign(slot: Lock) -> None:
    pid = os.getpid().to_bytes(_PID, "little")
    # The versions that know no namespaces replace the first number only, and so its copy differs.
    slot.write(pid + _namespace().to_bytes(_NAMESPACE, "little") + pid)


def _signature(slot: Lock) -> tuple[int, int]:
    """Return the ID of the process that has signed a slot, and its namespace or 0."""
    data = slot.read(_PID + _NAMESPACE + _PID)
    pid, space, copy = data[:_PID], data[_PID:-_PID], data[-_PID:]
    known = space if len(space) == _NAMESPACE and pid == copy else b""
    return int.from_bytes(pid, "little"), int.from_bytes(known, "little")


@cache
def _namespace() -> int:
    """Return what identifies the processes that this one counts among, or 0 if it is not known."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


if hasattr(os, "register_at_fork"):
    # A child may be the first of a container.
    os.register_at_fork(after_in_child=_namespace.cache_clear)
