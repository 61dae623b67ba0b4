"""The state of a table or folder that `Session.sync` keeps up to date. No I/O."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Self

from msgspec import Struct

__all__ = ["SyncState"]


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
        return cls(account=account, settings=settings, through=through, synced_at=time)

    @property
    def synced_at_number(self) -> int:
        """The time as `of_row` takes it."""
        return (self.synced_at - _EPOCH) // timedelta(microseconds=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
