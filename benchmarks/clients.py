"""Sessions and requests of contenders: the library's session, and code that its peers share.

Peers are imported where they are used. Each contender has a process of its own, and none pays for
another's imports in memory or start-up time.
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
"""The day that opens the server's first chain. Each following day opens the next chain."""

HEADERS = {
    "X-CleverTap-Account-Id": "BENCH",
    "X-CleverTap-Passcode": "BENCH",
    "Content-Type": "application/json",
}

OPENING = msgspec.json.encode({"event_name": "App Launched", "from": DAY, "to": DAY})
"""The body that opens the first chain."""


class PageBody(Struct, gc=False):
    """The members of a page's body that a walk and an export need."""

    records: list[Raw] = []
    next_cursor: str | None = None


PAGE = msgspec.json.Decoder(PageBody)


def opening_url(url: str) -> str:
    """Return the URL to post `OPENING` to."""
    return f"{url}/1/profiles.json?batch_size=4991"


def page_url(url: str, cursor: str) -> str:
    """Return the URL of the page of `cursor`."""
    return f"{url}/1/profiles.json?cursor={cursor}"


def run(main: Coroutine[Any, Any, T], loop: Loop = "asyncio") -> T:
    """Run `main` on that kind of event loop, and return its result."""
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
    """Return an aiohttp session with every costly option switched off."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=HEADERS,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
    )


async def aiohttp_pages(client: aiohttp.ClientSession, url: str) -> AsyncIterator[PageBody]:
    """Yield each page of the first chain, requested one after the other."""
    from yarl import URL

    async with client.post(opening_url(url), data=OPENING) as response:
        cursor: str | None = msgspec.json.decode(await response.read())["cursor"]
    while cursor is not None:
        async with client.get(URL(page_url(url, cursor), encoded=True)) as response:
            page = PAGE.decode(await response.read())
        cursor = page.next_cursor
        yield page
