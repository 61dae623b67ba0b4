"""The tasks of this process that work on outputs, for the refusal of another task.

A task whose event loop stands still keeps its locks. In a terminal, IPython leaves one behind for
each cell that is interrupted, and goes on with it only while another cell awaits. One whose event
loop was closed never goes on. Then its locks are taken from it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import ref

from ..errors import ExportLocked

__all__ = ["free_left_behind", "holding", "naming_holder"]


class _Holder:
    """A task that has the locks of an output."""

    def __init__(
        self, locks: frozenset[Path], free: Callable[[], object], writes: Callable[[], bool]
    ) -> None:
        self.locks = locks
        self.loop = asyncio.get_running_loop()
        self._free = free
        self._writes = writes
        self._turn = threading.Lock()
        self._process = os.getpid()
        # A loop that is no longer used would keep nothing else of it.
        self._task = ref(_current())

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task, or None if it is gone."""
        return self._task()

    @property
    def is_inherited(self) -> bool:
        """True in a process that was forked meanwhile, which has not the threads of the task."""
        return self._process != os.getpid()

    @property
    def can_be_freed(self) -> bool:
        """True if nothing goes on with the task, and it has nothing of the output itself open."""
        return self.loop.is_closed() and not self._writes() and not self.is_inherited

    def free(self) -> None:
        """Release the locks. Blocking."""
        with self._turn:
            # Another event loop may have done so meanwhile.
            if self in _HOLDERS:
                self._free()
                _HOLDERS.remove(self)


_HOLDERS: list[_Holder] = []


@contextmanager
def holding(*locks: Path, free: Callable[[], object], writes: Callable[[], bool]) -> Iterator[None]:
    """Know the current task as the one that has these locks, until the block ends.

    Args:
        locks: the locks.
        free: releases them, and all else that the task holds, once its event loop is closed.
            Blocking; it waits for the threads of the task.
        writes: returns whether the task has the output itself open, which `free` does not close.
    """
    holder = _Holder(frozenset(locks), free, writes)
    _HOLDERS.append(holder)
    try:
        yield
    finally:
        # It may have been freed.
        with suppress(ValueError):
            _HOLDERS.remove(holder)


def free_left_behind(lock: Path) -> None:
    """Release a lock that a task of this process has whose event loop is closed. Blocking."""
    for holder in _HOLDERS.copy():
        if lock in holder.locks and holder.can_be_freed:
            holder.free()


@contextmanager
def naming_holder(lock: Path) -> Iterator[None]:
    """Let a refusal name the task of this process that has a lock, if one does.

    Args:
        lock: the lock that the block acquires. The block does nothing else that could be refused.

    Raises:
        ExportLocked: as the block does.
    """
    try:
        yield
    except ExportLocked as error:
        sentence = _holder_of(lock)
        if sentence is None:
            raise
        refusal = ExportLocked(f"{error}. {sentence}")
        vars(refusal).update(vars(error))
        cause = error
    else:
        return
    # Outside of the handler, whose error says less.
    raise refusal from cause.__cause__


def _holder_of(lock: Path) -> str | None:
    """Return the sentence that names the task, or None if it is of another process."""
    current, loop = _current(), asyncio.get_running_loop()
    for holder in _HOLDERS.copy():
        task = holder.task
        if task is None or task is current or lock not in holder.locks or holder.is_inherited:
            continue
        if holder.loop.is_closed():
            return (
                "It is held by a task of this process that was writing the output when its event "
                "loop was closed, and that nothing can end; restart the process"
            )
        if holder.loop is not loop:
            return "It is held in another event loop of this process"
        name = task.get_name()
        held = f"It is held by the task {name!r} of this process"
        if not _is_in_ipython():
            # It may be the whole program, which must not be ended for one export.
            return held
        return (
            f"{held}; if it still runs, such as an export of another account into this table, "
            f"await one after the other; to end it: `import asyncio; await asyncio.wait([task for "
            f"task in asyncio.all_tasks() if task.get_name() == {name!r} and task.cancel()])`. If "
            f"it is of a cell of IPython that was interrupted, it goes on while another cell "
            f"awaits something, such as `await asyncio.sleep(60)`, and only then; that line may "
            f"print the traceback of that cell first"
        )
    return None


def _is_in_ipython() -> bool:
    module = sys.modules.get("IPython")
    return module is not None and module.get_ipython() is not None


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("no task is running")
    return task
