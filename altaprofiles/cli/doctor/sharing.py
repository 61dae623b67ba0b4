"""The limits that an account shares with other processes, and their use at present."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from ...accounts import Resolved
from ...base.wording import numbered, processes
from ...credentials import Alta, CleverTap
from ...errors import ConfigurationError
from ...http.machine.commons import Use, common_name, use_of
from ..exits import Exit
from .findings import Finding

__all__ = ["check_sharing"]


async def check_sharing(service: str, found: Resolved[Any]) -> Finding:
    """Return the finding on the processes that keep the limits of an account together.

    Args:
        service: the name of the service.
        found: the credentials and their source.
    """
    account = found.credentials
    if account.shared is False:
        return Finding(f"{service}: each process keeps the limits by itself")
    place = None if account.shared is True else Path(account.shared)
    try:
        use, apart = await anyio.to_thread.run_sync(_uses_of, place, account)
    except ConfigurationError as error:
        return Finding(f"{service}: {found.in_its_words(str(error))}", None, Exit.USAGE)
    users = "shared by no process now"
    if use.pids:
        pids = ", ".join(map(str, use.pids))
        users = f"shared by {numbered(len(use.pids), 'process')} now ({pids})"
    names = processes(use.holders.pids, use.holders.apart)
    holders = f" by {names}" if names else ""
    others = ""
    if apart:
        takes, keeps = ("takes", "keeps") if len(apart) == 1 else ("take", "keep")
        others = f"; {processes(apart)} {takes} the key from a function, and {keeps} limits apart"
    rate = "" if use.rate is None else f", at {use.rate:.3g} requests a second after refusals"
    return Finding(
        f"{service}: the processes of this machine keep the limits together, in {use.folder}; "
        f"{users}, with {numbered(use.held, 'slot')} in use{holders}{rate}{others}"
    )


def _uses_of(place: Path | None, account: CleverTap | Alta) -> tuple[Use, list[int]]:
    """Return the use of an account, and the processes that know its key by a name only. Blocks."""
    use = use_of(place, common_name(account.url, account.owner))
    apart: list[int] = []
    if isinstance(account, Alta) and account.name is not None:
        by_name = common_name(account.url, account.name)
        if (use.folder.parent / by_name).exists():
            apart = use_of(place, by_name).pids
    return use, apart
