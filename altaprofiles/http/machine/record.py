"""Values that processes share: a few hundred bytes in a locked file. Never waits for the lock."""

from __future__ import annotations

import asyncio
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from msgspec import MsgspecError, Raw, msgpack

from .locks import Lock

__all__ = ["Part", "Record", "stored"]

T = TypeVar("T")

_HEAD = struct.Struct("<III")  # checksum and length of the content, and the number of the change
_MOST = 1 << 16
_TRIES = 40  # a change takes some 10 us, and another process on another core may be in one
_PAUSE = 0.001
_LONGEST_QUEUE = 1000


class Part(Protocol):
    """An object whose value is shared. It decides by its value alone."""

    def dump(self) -> bytes:
        """Return the value as MessagePack."""
        ...

    def load(self, data: bytes, now: float) -> None:
        """Take over the value of another process; raise `MsgspecError` for another form."""
        ...


class Record:
    """The shared value of each part, which is changed by one process at a time.

    A change loads the values of others, and stores the result before the lock is released. A
    process that is killed in the middle of it leaves a wrong checksum: then the next one stores its
    own values.

    Args:
        parts: the parts by name.
    """

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        self._lock: Lock | None = None
        self._head = b""
        self._content: dict[str, bytes] = {}
        self._changes = 0
        self._is_within = False
        self._queue: deque[Callable[[], object]] = deque(maxlen=_LONGEST_QUEUE)
        self._timer: asyncio.TimerHandle | None = None

    def open(self, lock: Lock) -> None:
        """Use an open file, whose descriptor is its lock as well."""
        self._lock, self._head, self._content = lock, b"", {}

    def reset(self) -> None:
        """Store the values of this process in place of all others. It holds the lock already."""
        self._head, self._content = b"", {}
        self._store()

    def close(self) -> None:
        """Use the file no more."""
        self._lock = None
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def is_removed(self) -> bool:
        """Return whether the file has no name any more, as after its folder was removed."""
        return self._lock is not None and os.fstat(self._lock.number).st_nlink == 0

    def refresh(self) -> None:
        """Take over the changes of other processes. Costs one short read if there are none."""
        lock = self._lock
        if lock is not None and lock.read(_HEAD.size) != self._head:
            self.attempt(_nothing)

    def change(self, operation: Callable[[], T]) -> T | None:
        """Run an operation on the parts, with the values of all processes, and store the result.

        Returns:
            Its result; None if it runs later, because another process is in a change, or never,
            because the file is closed.
        """
        if self._lock is None:
            return None
        if self._is_within:
            return operation()
        if self._locked():
            return self._run(self._lock, operation)
        self._queue.append(operation)
        self._wake_later()
        return None

    def attempt(self, operation: Callable[[], T]) -> T | None:
        """Run an operation as `change` does; return None without it if another one is in a change.

        Operations that `change` has put off run before it.
        """
        if self._is_within:
            return operation()
        return self._run(self._lock, operation) if self._lock and self._locked() else None

    def within(self, operation: Callable[[], T]) -> T:
        """Run an operation as `change` does, while this process holds the lock already."""
        self._is_within = True
        try:
            self._load()
            while self._queue:
                self._queue.popleft()()
            result = operation()
        finally:
            self._is_within = False
        self._store()
        return result

    def _locked(self) -> bool:
        lock = self._lock
        return lock is not None and any(lock.take() for _ in range(_TRIES))

    def _run(self, lock: Lock, operation: Callable[[], T]) -> T:
        try:
            return self.within(operation)
        finally:
            lock.drop()

    def _wake_later(self) -> None:
        if self._queue and self._timer is None and self._lock is not None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE, self._later)

    def _later(self) -> None:
        self._timer = None
        self.attempt(_nothing)
        self._wake_later()

    def _load(self) -> None:
        if self._lock is None:
            return
        data = self._lock.read(_MOST)
        head = data[: _HEAD.size]
        if self._head and head == self._head:
            return
        content = _content(data)
        if content is None:
            self._head = b""
            return
        self._head = head
        self._changes = _HEAD.unpack(head)[2]
        now = time.monotonic()
        for name, part in self._parts.items():
            value = content.get(name)
            if value is not None and value != self._content.get(name):
                try:
                    part.load(value, now)
                except MsgspecError:
                    # Of another version. This process stores its own value.
                    continue
        self._content = content

    def _store(self) -> None:
        if self._lock is None:
            return
        content = self._content | {name: part.dump() for name, part in self._parts.items()}
        if content == self._content and self._head:
            return
        self._content = content
        self._changes = (self._changes + 1) & 0xFFFFFFFF
        body = msgpack.encode({name: Raw(value) for name, value in content.items()})
        self._head = _HEAD.pack(zlib.crc32(body), len(body), self._changes)
        # On a full disk, as after a kill, the checksum is wrong.
        self._lock.write(self._head + body)


def stored(lock: Lock) -> dict[str, bytes]:
    """Return the value of each part in an open file; empty without a whole record."""
    return _content(lock.read(_MOST)) or {}


def _nothing() -> None:
    """Change nothing: the changes of others are taken over all the same."""


def _content(data: bytes) -> dict[str, bytes] | None:
    """Return the value of each part, or None without a whole record."""
    if len(data) < _HEAD.size:
        return None
    checksum, length, _ = _HEAD.unpack_from(data)
    body = data[_HEAD.size : _HEAD.size + length]
    if len(body) != length or zlib.crc32(body) != checksum:
        return None
    try:
        raw = msgpack.decode(body, type=dict[str, Raw])
    except MsgspecError:
        return None
    return {name: bytes(value) for name, value in raw.items()}
