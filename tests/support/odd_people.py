"""People with members of types that nobody expects, and a service that sends them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from altaprofiles import Session

from .servers import http, scripted
from .sessions import session_at

__all__ = ["NAMELESS", "ODD_PEOPLE", "TIME", "with_odd_people"]

TIME = 1767600000
_HUGE = 10**40 + 7
_SUMMARY = {"count": 3, "first_seen": TIME, "last_seen": TIME}
_PHONE = {"platform": "iOS", "objectId": "d", "push_token": "t"}


def _with(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


_MEMBERS: list[dict[str, Any]] = [
    # One whose members are as they should be.
    {
        "profileData": {"Plan": "pro"},
        "events": {"Charged": _SUMMARY, "App Launched": _SUMMARY},
        "platformInfo": [_PHONE],
        "ls": TIME,
    },
    *_with("profileData", "Plan=pro", ["pro"], 7, True),
    *_with("events", ["Charged"], "Charged", 7, {}),
    {"events": {"Charged": 3}},
    {"events": {"Charged": {"count": "many", "first_seen": "once", "last_seen": TIME + 1}}},
    {"events": {"Charged": {"count": 2, "first_seen": _HUGE, "last_seen": _HUGE}}},
    *_with("platformInfo", "iOS", _PHONE, ["iOS"], 7, [_PHONE, 7], []),
    *_with("ls", "yesterday", _HUGE, [TIME], True),
]

ODD_PEOPLE = [{"identity": str(number)} | one for number, one in enumerate(_MEMBERS)]
"""Their records. The emulator takes no such records of a test's own."""

NAMELESS: list[dict[str, str]] = [{}, {"identity": ""}]
"""The identity in records of people who have none. The emulator takes no empty one."""


@asynccontextmanager
async def with_odd_people(
    people: Sequence[dict[str, Any]] = ODD_PEOPLE,
) -> AsyncIterator[Session]:
    """Yield a session for a service that sends these people for every event."""
    body = json.dumps({"status": "success", "records": people}).encode()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b'{"status":"success","cursor":"c"}' if head[:4] == b"POST" else body))

    async with scripted(answer) as server, session_at(server) as session:
        yield session
