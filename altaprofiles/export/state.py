"""The state of a table or folder that `Session.sync` keeps up to date. No I/O."""

from __future__ import annotations

from datetime import date, datetime

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
