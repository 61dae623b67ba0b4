"""A client of the emulator that writes bytes, and shares nothing with the library's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import quote_plus

from altaprofiles.emulator import Emulator

Headers = Mapping[str, str]
NO_HEADERS: Headers = {}
JANUARY = {"event_name": "App Launched", "from": 20260101, "to": 20260131}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> int:
        return int(self.json["code"])


def request_bytes(e: Emulator, method: str, target: str, body: bytes, headers: Headers) -> bytes:
    sent = {
        "Host": "localhost",
        "Connection": "close",
        "Content-Length": str(len(body)),
        "X-CleverTap-Account-Id": e.environment["CLEVERTAP_ACCOUNT_ID"],
        "X-CleverTap-Passcode": e.environment["CLEVERTAP_PASSCODE"],
        "Authorization": f"Bearer {e.environment['ALTA_TOKEN']}",
        **headers,
    }
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def sent(
    e: Emulator, method: str, target: str, body: bytes = b"", headers: Headers = NO_HEADERS
) -> AsyncIterator[asyncio.StreamReader]:
    """Send a request, yield the reader of its answer, and close the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(e.url.rpartition(":")[2]))
    try:
        writer.write(request_bytes(e, method, target, body, headers))
        yield reader
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def parse(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert len(body) == int(headers.get("content-length", len(body)))
    return Answer(int(status.split()[1]), headers, body)


async def ask(
    e: Emulator, method: str, target: str, body: bytes = b"", headers: Headers = NO_HEADERS
) -> Answer:
    async with sent(e, method, target, body, headers) as reader:
        return parse(await reader.read())


async def opened(e: Emulator, query: str = "", body: dict[str, Any] = JANUARY) -> str:
    answer = await ask(e, "POST", f"/1/profiles.json{query}", json.dumps(body).encode())
    assert answer.status == 200
    assert answer.json["status"] == "success"
    return str(answer.json["cursor"])


async def page(e: Emulator, cursor: str, headers: Headers = NO_HEADERS) -> Answer:
    return await ask(e, "GET", f"/1/profiles.json?cursor={cursor}", headers=headers)


async def walked(e: Emulator, cursor: str | None) -> list[Answer]:
    """Return the pages of a chain."""
    pages = []
    while cursor is not None:
        answer = await page(e, cursor)
        assert answer.json["status"] == "success"
        pages.append(answer)
        cursor = answer.json.get("next_cursor")
    return pages


def records(pages: list[Answer]) -> list[Any]:
    return [record for answer in pages for record in answer.json.get("records", [])]


async def cdp(e: Emulator, **keys: str) -> Answer:
    query = "&".join(f"{name}={quote_plus(value)}" for name, value in keys.items())
    return await ask(e, "GET", f"/v1/user/get-user-cdp?{query}")
