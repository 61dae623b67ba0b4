"""How contenders talk to the server: the library's session, and what its peers have in common.

Peers are imported where they are used: each contender is alone in its process, and its memory and
start are its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

if TYPE_CHECKING:
    import aiohttp

    from altaprofiles import Session

__all__ = [
    "DAY",
    "HEADERS",
    "OPENING",
    "PAGE",
    "Loop",
    "PageBody",
    "aiohttp_pages",
    "opening_url",
    "page_url",
    "run",
    "session",
    "tuned_aiohttp",
]

T = TypeVar("T")

Loop = Literal["asyncio", "uvloop"]

DAY = 20260101
"""The day that opens the first chain of the server; the next day opens the next one."""

HEADERS = {
    "X-CleverTap-Account-Id": "BENCH",
    "X-CleverTap-Passcode": "BENCH",
    "Content-Type": "application/json",
}

OPENING = msgspec.json.encode({"event_name": "App Launched", "from": DAY, "to": DAY})
"""The body that opens the first chain."""


class PageBody(Struct, gc=False):
    """What of a page's body a walk and an export need."""

    records: list[Raw] = []
    next_cursor: str | None = None


PAGE = msgspec.json.Decoder(PageBody)


def opening_url(url: str) -> str:
    """Return where `OPENING` is posted to."""
    return f"{url}/1/profiles.json?batch_size=4991"


def page_url(url: str, cursor: str) -> str:
    """Return where the page of `cursor` is."""
    return f"{url}/1/profiles.json?cursor={cursor}"


def run(main: Coroutine[Any, Any, T], loop: Loop = "asyncio") -> T:
    """Return what `main` returns, run on a loop of that kind."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def session(url: str, max_in_flight: int = 3) -> Session:
    """Return a session for the server at `url`."""
    from altaprofiles import Alta, CleverTap, Session

    return Session(
        clevertap=CleverTap("BENCH", "BENCH", base_url=url, max_in_flight=max_in_flight),
        alta=Alta("BENCH", base_url=url, max_in_flight=max_in_flight),
    )


def tuned_aiohttp() -> aiohttp.ClientSession:
    """Return an aiohttp session without all that costs time and can be switched off."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=HEADERS,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
    )


async def aiohttp_pages(client: aiohttp.ClientSession, url: str) -> AsyncIterator[PageBody]:
    """Yield each page of the first chain, one after the other."""
    from yarl import URL

    async with client.post(opening_url(url), data=OPENING) as response:
        cursor: str | None = msgspec.json.decode(await response.read())["cursor"]
    while cursor is not None:
        async with client.get(URL(page_url(url, cursor), encoded=True)) as response:
            page = PAGE.decode(await response.read())
        cursor = page.next_cursor
        yield page
