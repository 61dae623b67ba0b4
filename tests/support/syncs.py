"""Parts of a sync of several accounts, as a command has them."""

from __future__ import annotations

import os
from typing import Any

from altaprofiles import Session
from altaprofiles.export.output import Output
from altaprofiles.export.sync import Sync
from altaprofiles.session import sync_part

__all__ = ["sync_part_of"]

_USUAL: dict[str, Any] = {
    "until": None,
    "late_days": 0,
    "timezone": "UTC",
    "on_progress": None,
    "event_properties": (),
    "profile_fields": (),
    "query": None,
    "windows": "auto",
    "batch_size": 92,
    "app": False,
    "event_summaries": True,
    "profile": True,
    "with_cdp": False,
    "cdp_key": "identity",
    "cdp_by": "user_id",
}


def sync_part_of(
    session: Session, event: str, name: str, to: str | os.PathLike[str], **options: Any
) -> Sync:
    """Return the sync of one account.

    Args:
        session: the session of the account.
        event: the event.
        name: the name of the account.
        to: the output.
        options: the arguments of `Session.sync` that differ from the usual ones.
    """
    return sync_part(session, event, name=name, output=Output(to=to), **(_USUAL | options))
