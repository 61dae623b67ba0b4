"""The account that a task works for, of a run of several accounts. Logs name it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

__all__ = ["account_of_task", "in_account_of_task", "of_account", "working_for"]

T = TypeVar("T")

_ACCOUNT: ContextVar[str | None] = ContextVar("altaprofiles account", default=None)


def account_of_task() -> str | None:
    """Return the name of the account, or None if the run has only one."""
    return _ACCOUNT.get()


@contextmanager
def working_for(account: str | None) -> Iterator[None]:
    """Name the account that the block works for, with the tasks it starts; None changes nothing."""
    if account is None:
        yield
        return
    before = _ACCOUNT.set(account)
    try:
        yield
    finally:
        _ACCOUNT.reset(before)


def of_account(account: str, job: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
    """Return a job of a task, which works for the account."""

    async def named() -> T:
        with working_for(account):
            return await job()

    return named


def in_account_of_task(call: Callable[[], T]) -> Callable[[], T]:
    """Return a call for another thread, which works for the account of this task."""
    # Not the whole context of the task: what runs in a thread would look like a part of a loop.
    account = _ACCOUNT.get()
    if account is None:
        return call

    def named() -> T:
        with working_for(account):
            return call()

    return named
