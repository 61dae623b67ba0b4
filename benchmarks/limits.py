"""Limits that the client does not know: how much of them does it use, and what does it cost?

The emulator has a hidden number of requests at once, or per minute, and does not state it.
`max_in_flight="auto"` looks for the first; the pace of a service finds the second. Both run in one
process: a request takes 100 ms, so that the service is the bottleneck.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from .clients import run
from .measure import Contender, Run, Watch, note, once
from .report import Cell, Ratio, Report, Table

__all__ = ["SEARCH", "found", "measure", "minute"]

THINK = 0.1
SEARCH = 1200
"""Keys that a search may take."""
_KEYS = 2 * SEARCH
_TAIL = 100  # last keys, which no others keep company


def found(
    hidden: int, later: int, auto: bool, neighbour: int = 0, by_id: bool = False, keys: int = _KEYS
) -> Run:
    """Look up `keys` with a number that is found or known, under a cap of `hidden` at once.

    Args:
        hidden: the cap of the service.
        later: the cap from the end of the search on.
        auto: whether the number is found; if not, it is `later`.
        neighbour: requests at once of another program, from the end of the search on.
        by_id: whether CleverTap is asked, in place of Alta.
        keys: number of keys.
    """
    most: Any = "auto" if auto else later - neighbour

    async def main() -> Run:
        from altaprofiles.emulator import Emulator

        async with (
            Emulator(
                people=keys, think=THINK, alta_max_in_flight=hidden, lookups_max_in_flight=hidden
            ) as emulator,
            _busy(emulator, neighbour) as begin,
        ):

            def change() -> None:
                emulator.alta_max_in_flight = emulator.lookups_max_in_flight = later
                begin()

            return await _look_up(emulator, most, keys, by_id, change)

    return run(main())


@asynccontextmanager
async def _busy(emulator: Any, slots: int) -> AsyncIterator[Callable[[], None]]:
    """Yield a function that begins to keep `slots` of the service busy, until the block ends.

    That program never yields: it asks again at once after a refusal.
    """
    import aiohttp

    tasks: list[asyncio.Task[None]] = []
    url = f"{emulator.url}/v1/user/get-user-cdp?user_id=user_1"
    headers = {"Authorization": f"Bearer {emulator.alta.token}"}
    async with aiohttp.ClientSession(headers=headers) as client:

        async def keep_asking() -> None:
            while True:
                async with client.get(url) as response:
                    await response.read()
                if response.status == 429:
                    await asyncio.sleep(0.005)

        def begin() -> None:
            tasks.extend(asyncio.create_task(keep_asking()) for _ in range(slots))

        try:
            yield begin
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _look_up(
    emulator: Any, most: Any, keys: int, by_id: bool, change: Callable[[], object]
) -> Run:
    from altaprofiles import Alta, CleverTap, RateLimited, Session

    refusals: list[int] = []
    answered: list[float] = []
    names = [f"user_{number}" for number in range(keys)]
    session = Session(
        alta=Alta(emulator.alta.token, base_url=emulator.url, max_in_flight=most),
        clevertap=CleverTap(
            emulator.clevertap.account_id,
            emulator.clevertap.passcode,
            base_url=emulator.url,
            max_in_flight=most,
        ),
        on_event=lambda attempt: (
            refusals.append(len(answered))
            if isinstance(attempt.error, RateLimited)
            else answered.append(perf_counter())
        ),
    )
    async with session:
        lookups = (
            session.profiles.get_many(names, by="identity")
            if by_id
            else session.cdp.get_many(names, by="user_id")
        )
        done = failed = 0
        with Watch() as watch:
            async for lookup in lookups:
                done += 1
                failed += lookup.error is not None
                if done == keys // 2:
                    change()
    # The new limit has to be found as well: its figures are those of the last quarter.
    first = keys // 2 if keys <= _KEYS else 3 * keys // 4
    last = max(len(answered) - _TAIL, first + 1)
    return watch.run(
        lookups=done,
        failed=failed,
        refused=len(refusals),
        refused_in_search=sum(number < SEARCH for number in refusals),
        refused_once_settled=sum(number >= first for number in refusals),
        settled=keys - first,
        rate=(last - first) / (answered[last - 1] - answered[first - 1]),
    )


def minute(limit: int, keys: int, headers: bool, window: float = 60.0) -> Run:
    """Look up `keys` with 16 requests at once, under a limit per minute."""

    async def main() -> Run:
        from altaprofiles import RateLimited, Session
        from altaprofiles.emulator import Emulator

        refusals: list[int] = []
        answered = 0

        def on_event(attempt: Any) -> None:
            nonlocal answered
            if isinstance(attempt.error, RateLimited):
                refusals.append(answered)
            else:
                answered += 1

        async with (
            Emulator(
                people=keys,
                think=THINK,
                alta_per_minute=limit,
                window_seconds=window,
                rate_limit_headers=headers,
            ) as emulator,
            Session(alta=emulator.alta, on_event=on_event) as session,
        ):
            names = [f"user_{number}" for number in range(keys)]
            failed = 0
            with Watch() as watch:
                async for lookup in session.cdp.get_many(names, by="user_id"):
                    failed += lookup.error is not None
        return watch.run(
            lookups=answered,
            failed=failed,
            refused=len(refusals),
            refused_once_settled=sum(number >= keys // 2 for number in refusals),
        )

    return run(main())


def _pair(name: str, hidden: int, later: int, **others: Any) -> tuple[list[Cell], float, float]:
    arguments = {"hidden": hidden, "later": later, **others}
    note(f"  {name}")
    ours = once(Contender(name, found, {**arguments, "auto": True})).figures
    best = once(Contender(name, found, {**arguments, "hidden": later, "auto": False})).figures
    share = 100 * ours["rate"] / best["rate"]
    settled = 100 * ours["refused_once_settled"] / ours["settled"]
    row: list[Cell] = [
        name,
        best["rate"],
        ours["rate"],
        share,
        100 * ours["refused_in_search"] / SEARCH,
        settled,
        int(ours["failed"]),
    ]
    return row, share, settled


def measure() -> Report:
    """Return the share of hidden limits that is used, and the share of requests refused."""
    longer = {"keys": 4 * SEARCH}
    cases = [
        *(_pair(f"{hidden} at once", hidden, hidden) for hidden in (3, 8, 16, 60)),
        _pair("16 at once, profiles by ID", 16, 16, by_id=True),
        _pair("16, then 8", 16, 8, **longer),
        _pair("8, then 16", 8, 16, **longer),
        _pair("16, then another program takes 8", 16, 16, neighbour=8, **longer),
    ]
    columns = [
        "limit of the service",
        "known: answers/s",
        "found: answers/s",
        "share %",
        "refused % of the search",
        "refused % once settled",
        "failed",
    ]
    notes = [
        (
            f"{THINK * 1000:.0f} ms a request. The search is the first {SEARCH:,} keys. Settled is "
            "the second half, and after a change the last quarter."
        ),
        "Known: max_in_flight is the limit itself.",
    ]
    rows = [row for row, _, _ in cases]
    shares = [share for _, share, _ in cases]
    settled = [share for _, _, share in cases]
    plans: list[list[Cell]] = []
    refused: list[float] = []
    taken: list[float] = []
    for limit, keys, headers in ((100, 250, False), (100, 250, True), (600, 6000, False)):
        note(f"  {limit} a minute, {keys} keys, headers: {headers}")
        arguments = {"limit": limit, "keys": keys, "headers": headers}
        done = once(Contender("minute", minute, arguments))
        figures = done.figures
        share = 100 * figures["refused"] / (figures["lookups"] + figures["refused"])
        refused.append(share)
        taken.append(100 * keys / limit * 60 / done.wall)
        plans.append(
            [
                f"{limit} a minute, {'stated' if headers else 'hidden'}",
                keys,
                int(figures["lookups"] - figures["failed"]),
                done.wall,
                taken[-1],
                share,
                100 * figures["refused_once_settled"] / (keys / 2),
            ]
        )
    plan_columns = [
        "limit of the service",
        "keys",
        "brought",
        "seconds",
        "share %",
        "refused %",
        "refused % of the second half",
    ]
    plan_notes = ["Windows of 60 s. A share above 100 % has a part of a window for nothing."]
    return Report(
        [
            Table("Requests at once, found", columns, rows, notes),
            Table("Requests per minute", plan_columns, plans, plan_notes),
        ],
        [
            Ratio(8, "auto over the known limit, at least", min(shares), 90, True, "%"),
            Ratio(8, "requests refused once settled, at most", max(settled), 1, False, "%"),
            Ratio(9, "refused of 250 keys under 100 a minute", max(refused[:2]), 15, False, "%"),
            Ratio(9, "share of a hidden 600 a minute", taken[2], 90, True, "%"),
        ],
    )
