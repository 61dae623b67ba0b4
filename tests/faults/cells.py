"""One cell of the matrix: a call, a fault, and the rule that holds whatever the fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from altaprofiles import (
    Alta,
    AltaProfilesError,
    Attempt,
    CleverTap,
    RequestTimeout,
    Retry,
    Session,
    Timeout,
)

from .account import STRANGER
from .calls import CALLS, Call, Found
from .catalog import BOMB_LIMIT
from .server import Fault, WireServer, serving

__all__ = ["PATIENCE", "QUICK", "Wrong", "check_usable", "session_for", "try_cell"]

PATIENCE = 120.0
"""Time, in seconds, after which a call counts as hung. No call that ends comes near it."""

QUICK = Retry(attempts=5, base_delay=0.001, max_delay=0.002, ready_timeout=1.0)


class Wrong(AssertionError):
    """The rule was broken."""


def session_for(server: WireServer, *, slow: bool = False, **options: Any) -> Session:
    """Return a session on the account that `server` serves."""
    return Session(
        clevertap=CleverTap("ACCOUNT", "PASSCODE", base_url=server.url),
        alta=Alta("TOKEN", base_url=server.url, max_in_flight=3),
        **{
            "retry": QUICK,
            "timeout": Timeout(read=0.2, total=0.6) if slow else Timeout(read=10, total=40),
            "max_response_bytes": BOMB_LIMIT,
            "trace_configs": [server.watch()],
            **options,
        },
    )


async def run_call(call: Call, session: Session, folder: Path) -> Found | AltaProfilesError:
    """Make a call; return what it found or its error. Any other end breaks the rule."""
    found: Found | AltaProfilesError
    try:
        async with asyncio.timeout(PATIENCE):
            found = await call.run(session, folder)
    except AltaProfilesError as error:
        found = error
    except TimeoutError:
        raise Wrong(f"hung for {PATIENCE} s") from None
    except Exception as error:
        raise Wrong(f"a foreign exception: {error!r}") from error
    if isinstance(found, AltaProfilesError):
        text = str(found).strip()
        if STRANGER in text:
            raise Wrong(f"the answer to nobody's question was read: {text}")
        if not text or text.endswith(":"):
            raise Wrong(f"an error without words: {found!r}")
        return found
    if not call.is_sound(found):
        raise Wrong(describe(call, found))
    return found


def describe(call: Call, found: Found) -> str:
    """Return what is lost, doubled or another's in `found`."""
    expected, items = [*map(repr, call.expected)], [*map(repr, found.items)]
    lost = [item[:80] for item in expected if item not in items]
    foreign = [item[:80] for item in items if item not in expected]
    return f"{len(items)} of {len(expected)} items; lost {lost[:3]}; foreign {foreign[:3]}"


async def check_usable(session: Session, server: WireServer, folder: Path) -> None:
    """Raise `Wrong` unless `session` does its work as if nothing had happened."""
    server.disarm()
    # One lookup more than there are slots, twice: a slot that was lost stops them.
    for name in ("get-identity", "get-many", "people", "cdp-user"):
        found = await run_call(CALLS[name], session, folder)
        if isinstance(found, AltaProfilesError) or not CALLS[name].is_right(found):
            raise Wrong(f"afterwards, {name}: {found!r}")


async def try_cell(call: Call, fault: Fault, at: int, folder: Path) -> str:
    """Try one cell, and return "right" or "error".

    Raises:
        Wrong: the rule was broken.
    """
    tasks = asyncio.all_tasks()
    async with serving() as server:
        attempts: list[Attempt] = []
        async with session_for(server, slow=fault.slow, on_event=attempts.append) as session:
            server.arm(fault, at=at, times=1000 if fault.outcome == "read" else 1)
            found = await run_call(call, session, folder)
            if not server.struck:
                raise Wrong("the fault was never met")
            await check_usable(session, server, folder)
        await _none_left(server, tasks)
    waited = [one.error for one in attempts if isinstance(one.error, RequestTimeout)]
    if waited and not fault.slow and "408" not in fault.name:
        raise Wrong(f"only a time limit ended it: {waited[0]}")
    if isinstance(found, AltaProfilesError):
        ended = "error"
    else:
        ended = "right" if call.is_right(found) else "error"
    wanted = "right" if fault.outcome == "read" else fault.outcome
    if wanted not in ("either", ended):
        raise Wrong(f"expected {fault.outcome}, got {found!r}"[:500])
    return ended


async def _none_left(server: WireServer, before: set[asyncio.Task[Any]]) -> None:
    """Wait until the connections and the tasks of a closed session are gone."""
    try:
        async with asyncio.timeout(PATIENCE):
            while server.connections or asyncio.all_tasks() - before:
                await asyncio.sleep(0.001)
    except TimeoutError:
        left = asyncio.all_tasks() - before
        raise Wrong(f"left behind: {len(server.connections)} connections, {left}") from None


@asynccontextmanager
async def usable(**options: Any) -> AsyncIterator[tuple[WireServer, Session]]:
    """Serve the account, and give a session on it."""
    async with serving() as server, session_for(server, **options) as session:
        yield server, session
