"""The tasks of this process that work on outputs, for the refusal of another task.

A task whose event loop stands still keeps its locks. In a terminal, IPython leaves one behind for
each cell that is interrupted, and goes on with it only while another cell awaits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

from ..errors import ExportLocked
from .place import Place

__all__ = ["holding", "naming_holder"]


class _Holder:
    """A task that works on an output."""

    def __init__(self, place: Place) -> None:
        self.outputs = _outputs(place)
        self.loop = asyncio.get_running_loop()
        # A loop that is no longer used would keep nothing else of it.
        self._task = ref(_current())

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task, or None if it is gone."""
        return self._task()


_HOLDERS: list[_Holder] = []


@contextmanager
def holding(place: Place) -> Iterator[None]:
    """Know the current task as one that works on the output of `place`, until the block ends."""
    holder = _Holder(place)
    _HOLDERS.append(holder)
    try:
        yield
    finally:
        _HOLDERS.remove(holder)


@contextmanager
def naming_holder(place: Place) -> Iterator[None]:
    """Let a refusal name the task of this process that works on the output of `place`, if one does.

    Raises:
        ExportLocked: as the block does.
    """
    try:
        yield
    except ExportLocked as error:
        text = _holder_of(place)
        if text is None:
            raise
        refusal = ExportLocked(text)
        vars(refusal).update(vars(error))
        cause = error
    else:
        return
    # Outside of the handler, whose error says less.
    raise refusal from cause.__cause__


def _holder_of(place: Place) -> str | None:
    """Return the refusal that names the task, or None if it is of another process."""
    current, loop = _current(), asyncio.get_running_loop()
    for holder in _HOLDERS.copy():
        task = holder.task
        if task is None or task is current or not holder.outputs & _outputs(place):
            continue
        if holder.loop is not loop:
            return (
                "another export is working on this output, in another event loop of this process; "
                "wait for it, or stop it there"
            )
        name = task.get_name()
        return (
            f"another export is working on this output, in the task {name!r} of this process; wait "
            f"for it, or end it: `await asyncio.wait([task for task in asyncio.all_tasks() if "
            f"task.get_name() == {name!r} and task.cancel()])`. If it is of a cell of IPython that "
            f"was interrupted, it never ends by itself"
        )
    return None


def _outputs(place: Place) -> frozenset[str]:
    return frozenset((str(place.folder), place.target.name))


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("no task is running")
    return task
