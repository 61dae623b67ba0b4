"""A service whose chains end early with success, as CleverTap's at times do."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from altaprofiles import CleverTap, Retry, Session

from .servers import http, read_request

WHOLE = 1_000_000
"""Pages of a chain that is not cut short."""


class Busy:
    """A service with one page of ten people per window and `pages`, and with made-up failures.

    Attributes:
        pages: the pages of each whole chain, by the first day of its window.
        sent: how many of its pages each opening of a window sends, in turn; the last one repeats.
            0 is one page without records. By the first day, 0 for every other window.
        counted: the count by the first day, or None if the count fails; else the true one.
        asked: the number of requests, by kind and first day.
        echo: how each page repeats a cursor of its chain, by the number of the page.
    """

    def __init__(self, *sent: int, pages: int = 3) -> None:
        self.pages: dict[int, int] = {}
        self.sent: dict[int, list[int]] = {0: list(sent) or [WHOLE]}
        self.counted: dict[int, int | None] = {}
        self.asked: Counter[tuple[str, int]] = Counter()
        self.echo: Callable[[int], dict[str, int]] = lambda number: {}
        self._pages = pages
        self._chains: dict[str, tuple[int, int]] = {}

    def begin(self, day: int) -> str:
        """Open a chain, and return its first cursor."""
        self.asked["open", day] += 1
        sent = self.sent.get(day, self.sent[0])
        now = sent[min(self.asked["open", day], len(sent)) - 1]
        chain = f"k{len(self._chains)}"
        self._chains[chain] = day, min(now, self._pages_of(day))
        return f"{chain}.0"

    def true_count(self, start: int, end: int) -> int:
        return sum(10 * self._pages_of(day) for day in range(start, end + 1))

    def _pages_of(self, day: int) -> int:
        return self.pages.get(day, self._pages)

    def people(self, *days: int) -> list[str]:
        return [
            f"{day}-{page}-{who}"
            for day in days
            for page in range(self._pages_of(day))
            for who in range(10)
        ]

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head, body = await read_request(reader)
                writer.write(self.answer(head.split(b"\r\n", 1)[0].decode(), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def answer(self, line: str, body: bytes) -> bytes:
        if line.startswith("POST"):
            query = json.loads(body)
            day = query["from"]
            if "/counts/" in line:
                self.asked["count", day] += 1
                count = self.counted.get(day, self.true_count(day, query["to"]))
                if count is None:
                    return http(b"", "503 Service Unavailable")
                return http(b'{"status":"success","count":%d}' % count)
            return http(b'{"status":"success","cursor":"%b"}' % self.begin(day).encode())
        chain, _, number = line.split("cursor=")[1].split(" ")[0].partition(".")
        day, pages = self._chains[chain]
        self.asked["page", day] += 1
        page: dict[str, Any] = {"status": "success", "records": []}
        echoes = self.echo(int(number))
        page |= {name: f"{chain}.{earlier}" for name, earlier in echoes.items()}
        if pages:
            page["records"] = [{"identity": f"{day}-{number}-{who}"} for who in range(10)]
            if int(number) + 1 < pages:
                page["next_cursor"] = f"{chain}.{int(number) + 1}"
        return http(json.dumps(page).encode())


class Uncounted(Busy):
    """A service that refuses the credentials for counts."""

    def answer(self, line: str, body: bytes) -> bytes:
        if "/counts/" in line:
            return http(b'{"status":"fail","error":"Invalid Credentials","code":401}')
        return super().answer(line, body)


def busy_session(port: int, **retry: Any) -> Session:
    return Session(
        clevertap=CleverTap(
            account_id="TEST", passcode="PASS", base_url=f"http://127.0.0.1:{port}"
        ),
        retry=Retry(**{"attempts": 2, "base_delay": 0.0005, "max_delay": 0.001, **retry}),
    )
