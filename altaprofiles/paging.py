"""Cursor chains: each walked in sequence, its next pages fetched while earlier ones are read.

Knows no API: what opens a chain and what fetches a page are passed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from hashlib import blake2b

import anyio
import msgspec
from msgspec import Struct

from .errors import AltaProfilesError, CursorError, CursorLoop, DecodeError
from .handover import INTERRUPTED, Ended, Handover, Spawn
from .models import Page, Profile

__all__ = ["Chain", "Distinct", "walk"]


class Chain(Struct, frozen=True):
    """One cursor walk.

    Attributes:
        open: returns the first cursor.
        fetch: returns the page of a cursor.
    """

    open: Callable[[], Awaitable[str]]
    fetch: Callable[[str], Awaitable[Page]]


async def walk(
    chains: Sequence[Chain], *, prefetch: int, spawn: Spawn
) -> AsyncGenerator[Page, None]:
    """Yield the pages of all `chains`, those of one chain in server order.

    The chains are walked side by side and their pages come as they arrive. Of each chain at most
    `prefetch + 1` pages exist at once, the one being read included, however slow the reader is.

    Raises:
        CursorLoop: the service repeated a cursor within a chain.
        AltaProfilesError: a chain could not be opened or a page not be fetched. Pages that had
            arrived by then are yielded first.
    """
    handover: Handover[tuple[Page, asyncio.Semaphore]] = Handover()

    async def follow(chain: Chain) -> None:
        allowance = asyncio.Semaphore(prefetch + 1)
        used: set[bytes] = set()
        cursor: str | None = await chain.open()
        while cursor is not None:
            # A cursor can have 2.4 KB; a chain can have many.
            mark = blake2b(cursor.encode(), digest_size=16).digest()
            if mark in used:
                raise CursorLoop(
                    f"the service repeated a cursor after {len(used)} pages of its chain; "
                    f"the chain cannot end, open a new one"
                )
            used.add(mark)
            await allowance.acquire()
            try:
                page = await chain.fetch(cursor)
            except AltaProfilesError as error:
                if not isinstance(error, CursorError):
                    error.add_note(
                        f"This was page {len(used)} of its chain, and all earlier ones were "
                        f"delivered; to go on there: cursor={cursor!r}"
                    )
                raise
            handover.put((page, allowance))
            cursor = page.next_cursor

    async def follow_all() -> None:
        walked = 0
        async with anyio.create_task_group() as group:

            async def run(chain: Chain) -> None:
                nonlocal walked
                with handover.ended_by_failure(group):
                    await follow(chain)
                    walked += 1

            for chain in chains:
                group.start_soon(run, chain)
        if walked < len(chains):
            # The group takes a child that somebody else cancelled for one that is done.
            raise AltaProfilesError(INTERRUPTED)

    cancel = spawn(follow_all, handover.close)
    try:
        while True:
            try:
                page, allowance = await handover.get()
            except Ended:
                return
            yield page
            del page
            allowance.release()
    finally:
        cancel()


class Distinct:
    """Tells people apart: one is an `identity`, and without one any shared `objectId`.

    Remembers one text per person with an identity, and one per device of the others.
    """

    def __init__(self) -> None:
        self._identities: set[str] = set()
        self._devices: set[str] = set()

    def is_new(self, profile: Profile) -> bool:
        """Whether this person has not been seen here; from now on it has.

        A profile with neither identity nor device is always new: nothing shows that it is not.
        """
        if identity := profile.identity:
            new = identity not in self._identities
            self._identities.add(identity)
            return new
        try:
            devices = profile.object_ids
        except DecodeError:
            # One odd record must not end the walk. It is delivered, and fails when it is looked at.
            return True
        new = not devices or self._devices.isdisjoint(devices)
        self._devices.update(devices)
        return new

    def filtered(self, page: Page) -> Page:
        """Return `page` with its new people only."""
        kept = [profile for profile in page.profiles if self.is_new(profile)]
        if len(kept) == len(page.profiles):
            return page
        return msgspec.structs.replace(page, profiles=kept)
