"""The tasks of this process that work on outputs, for the refusal of another task.

A task whose event loop stands still keeps its locks. In a terminal, IPython leaves one behind for
each cell that is interrupted, and goes on with it only while another cell awaits.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import ref

from ..errors import ExportLocked

__all__ = ["holding", "naming_holder"]


class _Holder:
    """A task that has the locks of an output."""

    def __init__(self, locks: frozenset[Path]) -> None:
        self.locks = locks
        self.loop = asyncio.get_running_loop()
        # A loop that is no longer used would keep nothing else of it.
        self._task = ref(_current())

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task, or None if it is gone."""
        return self._task()


_HOLDERS: list[_Holder] = []


@contextmanager
def holding(*locks: Path) -> Iterator[None]:
    """Know the current task as the one that has these locks, until the block ends."""
    holder = _Holder(frozenset(locks))
    _HOLDERS.append(holder)
    try:
        yield
    finally:
        _HOLDERS.remove(holder)


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
        if task is None or task is current or lock not in holder.locks:
            continue
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
            f"it is of a cell of IPython that was interrupted, it never ends by itself, and that "
            f"line may print the traceback of that cell first"
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
