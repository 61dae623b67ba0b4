"""The state of a table or folder that `Session.sync` keeps up to date. No I/O."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..base.zones import is_to_come, today

__all__ = ["Left", "Lost", "SyncState", "number_of"]


class Lost(Struct, frozen=True, array_like=True):
    """The rows of one account of which some were gone when a run began to write.

    Attributes:
        run: the run that has found it.
        rows, before: the number of rows that it found, and of those that the run before had left.
        days: the number of days from the first one to the last that had been brought.
    """

    run: str
    rows: int
    before: int
    days: int


class Left(Struct, frozen=True):
    """The rows of one account as a run has left them in a database.

    Rows that are deleted, or restored from an older backup, leave the state as it is.

    Attributes:
        rows: their number.
        latest: the latest time at which one of them was fetched, in microseconds since 1970.
        losses: what that run has found, if rows were gone, and before it what some other runs have.
            One that is killed before it has told so runs again, and no longer sees it in the rows.
    """

    rows: int
    latest: int | None
    losses: tuple[Lost, ...] = ()

    @classmethod
    def of(cls, settings: str) -> Self | None:
        """Return what the settings in a row of a database say of the rows; None if nothing."""
        found = _LEFT.search(settings)
        return None if found is None else msgspec.json.decode(found[1], type=cls)

    def beside(self, settings: str) -> str:
        """Return settings as a row of a database has them, with this as the last member."""
        comma = "" if settings == "{}" else ","
        return f'{settings[:-1]}{comma}"left":{msgspec.json.encode(self).decode()}}}'


_LEFT = re.compile(r',?"left":(\{[^{}]*\})(?=\}$)')


class SyncState(Struct, frozen=True, kw_only=True):
    """The state of the rows of one account.

    It moves in the transaction that changes the rows, so that it is true of them at any time.

    Attributes:
        account: the account.
        settings: what the rows are bound to, as a JSON object: another sync would bring others.
        through: the last day that the rows have.
        synced_at: the time at which the export that brought that day was begun.
    """

    account: str
    settings: str
    through: date
    synced_at: datetime

    @classmethod
    def of_row(cls, account: str, settings: str, through: date, synced_at: int) -> Self:
        """Return the state of a row of a database, in which the time is a number.

        Args:
            account, settings, through: the attributes.
            synced_at: microseconds since 1970.
        """
        time = _EPOCH + timedelta(microseconds=synced_at)
        settings = _LEFT.sub("", settings)
        return cls(account=account, settings=settings, through=through, synced_at=time)

    @property
    def is_ahead(self) -> bool:
        """True if a clock that was ahead of this machine's has brought the rows.

        Its days may not have been over then, in whatever time zone they end.
        """
        return is_to_come(self.synced_at.timestamp()) or self.through > today(UTC)

    def beyond(self, before: SyncState | None) -> SyncState:
        """Return this state, or what is later in that of the same rows before.

        Days that were brought by a clock that was ahead do not count.
        """
        if before is None or before.is_ahead:
            return self
        through = max(before.through, self.through)
        return replace(self, through=through, synced_at=max(before.synced_at, self.synced_at))

    @property
    def since(self) -> date:
        """The first day that the rows have."""
        return msgspec.json.decode(self.settings, type=_Since).since

    @property
    def synced_at_number(self) -> int:
        """The time as `of_row` takes it."""
        return number_of(self.synced_at)


def number_of(time: datetime) -> int:
    """Return a time as microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


class _Since(Struct):
    since: date


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
