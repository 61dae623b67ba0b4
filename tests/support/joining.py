"""One scripted server for both services: pages of records, and users by key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from altaprofiles import Alta, CleverTap, Retry, Session

from .servers import http, scripted
from .sessions import QUICK


def user(user_id: str, *anonymous_ids: str) -> dict[str, Any]:
    """Return a user as Alta sends it."""
    bound = [
        {"anonymous_id": one, "conversation_type": "WEB", "source_id": None}
        for one in anonymous_ids
    ]
    return {"user_id": user_id, "anonymous_ids": bound}


USED_UP = http(b'{"code":20022,"message":"credits"}', "403 Forbidden")
NO_TOKEN = http(b'{"code":40127,"message":"no"}', "401 Unauthorized")
REFUSED = http(b'{"code":40000,"message":"no"}', "400 Bad Request")
DOWN = http(b"", "503 Service Unavailable")


class Both:
    """The two services.

    Attributes:
        pages: the records on each page of the only chain, as JSON.
        people: what is found by ID, as JSON, by the value of the key.
        users: the users found at Alta, by key.
        answers: answers of Alta to some keys, in place of users.
        answer: the answer of Alta to every other key, or None for users.
        requests: number of requests received.
        asked: the keys that Alta was asked for, in that order.
        read: the numbers of the pages that were requested.
        before_page: awaited before a page is sent, with its number.
    """

    def __init__(self) -> None:
        self.url = ""
        self.pages: list[list[bytes]] = []
        self.people: dict[str, bytes] = {}
        self.users: dict[str, list[dict[str, Any]]] = {}
        self.answers: dict[str, bytes] = {}
        self.answer: bytes | None = None
        self.requests = 0
        self.asked: list[str] = []
        self.read: list[int] = []
        self.before_page: Callable[[int], Any] | None = None
        self.was_asked = asyncio.Event()

    def session(
        self, *, retry: Retry = QUICK, has_alta: bool = True, agent: str | None = None
    ) -> Session:
        """Return a session at both, or at CleverTap alone; `agent` is the name of Alta's."""
        return Session(
            clevertap=CleverTap("TEST", "PASS", base_url=self.url),
            alta=Alta("TOKEN", base_url=self.url, name=agent) if has_alta else None,
            retry=retry,
        )

    async def __call__(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        target = head.split(b" ")[1].decode()
        query = {name: value for name, [value] in parse_qs(urlsplit(target).query).items()}
        if "get-user-cdp" in target:
            [key] = query.values()
            self.asked.append(key)
            self.was_asked.set()
            writer.write(self.answers.get(key) or self.answer or self._users(key))
        elif "profile.json" in target:
            [key] = query.values()
            record = self.people.get(key, b"null")
            writer.write(http(b'{"status":"success","record":%b}' % record))
        elif "cursor" not in query:
            writer.write(http(b'{"status":"success","cursor":"0"}'))
        else:
            writer.write(await self._page(int(query["cursor"])))

    def _users(self, key: str) -> bytes:
        found = {one["user_id"]: one for one in self.users.get(key, [])}
        return http(json.dumps({"code": 0, "data": found}).encode())

    async def _page(self, number: int) -> bytes:
        self.read.append(number)
        if self.before_page is not None:
            await self.before_page(number)
        is_last = number + 1 == len(self.pages)
        following = b"" if is_last else b'"next_cursor":"%d",' % (number + 1)
        records = b",".join(self.pages[number])
        return http(b'{%b"status":"success","records":[%b]}' % (following, records))


@asynccontextmanager
async def both(services: Both | None = None) -> AsyncIterator[Both]:
    """Serve both services on one free port."""
    services = services or Both()
    async with scripted(services) as server:
        services.url = server.url
        yield services
