"""Unfinished exports that earlier versions have left, and the service to finish them at.

As a script, this module makes such a sample with the version of `altaprofiles` that it finds:
`python -m tests.support.unfinished tests/samples/unfinished/version-2`. A sample is made once, by
the last release that writes a version of the journal, and stays as it is.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from altaprofiles import CleverTap, Session

from .servers import http, scripted
from .sessions import QUICK

SAMPLES = Path(__file__).parent.parent / "samples" / "unfinished"

PAGES = 6
EVENTS = ["Charged", "Viewed"]
KEYS = [f"key {n}" for n in range(240)]
UNKNOWN, REFUSED = frozenset(KEYS[3::7]), frozenset(KEYS[5::49])

ARGUMENTS: dict[str, dict[str, Any]] = {
    "events": {"events": EVENTS, "start": 20260101, "end": 20260110, "windows": 2},
    "keys": {"keys": KEYS, "by": "identity"},
}
METHODS = {"events": "export", "keys": "export_lookups"}


class Service:
    """The service that the samples were exported from.

    Attributes:
        url: its address.
        requests: the first line of every request.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[str] = []

    async def answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        line = head.split(b"\r\n", 1)[0].decode()
        self.requests.append(line)
        query = {name: value for name, [value] in parse_qs(urlsplit(line.split()[1]).query).items()}
        if line.startswith("POST"):
            opened = json.loads(body)
            cursor = f"{opened['event_name']}-{opened['from']}-0"
            writer.write(http(json.dumps({"status": "success", "cursor": cursor}).encode()))
        elif "cursor" in query:
            writer.write(http(json.dumps(_page(query["cursor"])).encode()))
        else:
            writer.write(_person(query["identity"]))

    def start(self, kind: str, to: Path, **options: Any) -> Any:
        """Return the coroutine of the export, in a session of its own."""

        async def run() -> Any:
            account = CleverTap(account_id="TEST", passcode="PASS", base_url=self.url)
            async with Session(clevertap=account, retry=QUICK) as session:
                return await getattr(session, METHODS[kind])(**ARGUMENTS[kind], to=to, **options)

        return run()

    def bring(self, sample: Path, to: Path) -> Path:
        """Copy a sample to where an export to `to` resumes it, and return its folder.

        Its journal gets the address of this service and the time of today, because addresses
        differ and cursors grow old.
        """
        folder = to.with_name(f"{to.name}.export")
        shutil.copytree(sample, folder)
        db = sqlite3.connect(folder / "journal.sqlite")
        [[plan]] = db.execute("select value from state where name = 'plan'")
        now = json.dumps({**json.loads(plan), "host": self.url}).encode()
        with db:
            db.execute("update state set value = ? where name = 'plan'", (now,))
            db.execute("update chains set since = ?", (time.time(),))
        db.close()
        return folder


def _page(cursor: str) -> dict[str, Any]:
    event, start, number = cursor.split("-")
    # The first did the other event as well.
    who = [f"{start} {number}", f"{event} {start} {number}", f"Zoë {cursor}"]
    page: dict[str, Any] = {"status": "success", "records": [{"identity": one} for one in who]}
    if number == "2":
        page["records"] = []
    if int(number) + 1 < PAGES:
        page["next_cursor"] = f"{event}-{start}-{int(number) + 1}"
    return page


def _person(key: str) -> bytes:
    if key in REFUSED:
        return http(b'{"status":"fail","error":"no","code":400}', "400 Bad Request")
    record = None if key in UNKNOWN else {"identity": key, "name": "Zoë"}
    return http(json.dumps({"status": "success", "record": record}).encode())


@asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    """Serve the people of the samples."""
    service = Service()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        await service.answer(head, server.bodies[-1], writer)

    async with scripted(answer) as server:
        service.url = server.url
        yield service


class _Halt(Exception):
    pass


def _halting(after: int) -> Callable[[Any], None]:
    def on_progress(progress: Any) -> None:
        if progress.done >= after and progress.fetching:
            raise _Halt

    return on_progress


async def _make(folder: Path) -> None:
    async with serving() as service:
        for kind, after in (("events", 9), ("keys", 100)):
            to = folder / "people.ndjson"
            try:
                await service.start(kind, to, on_progress=_halting(after))
            except _Halt:
                folder.joinpath("people.ndjson.export").rename(folder / kind)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    asyncio.run(_make(folder))
