"""Several windows: how much of the cap is used from the first request to the last?

Twelve chains under a cap of 3, with small pages and 100 ms of thinking time. The share is measured
by the server: busy slot-seconds, divided by 3 slots times the seconds from the first byte of the
first request to the last byte of the last answer.
"""

from __future__ import annotations

import statistics

from .answers import Shape
from .clients import DAY, run, session
from .measure import Contender, Run, Watch, note, once, serving
from .report import Cell, Ratio, Report, Table

__all__ = ["EVEN", "altaprofiles", "measure"]

THINK = 0.100
CAP = 3

EVEN = (14, 17, 20, 15, 18, 14, 16, 19, 15, 20, 17, 16)
"""The number of pages of twelve windows, which vary like the days of a month."""

_SKEWED = (40, *[4] * 11)


def altaprofiles(url: str, windows: int) -> Run:
    """Walk the windows side by side."""

    async def main() -> Run:
        ours = session(url, CAP)
        people = ours.profiles.by_event(
            "App Launched", start=DAY, end=DAY + windows - 1, windows=windows
        )
        count = 0
        with Watch() as watch:
            async with ours:
                async for page in people.pages():
                    count += len(page.records)
        return watch.run(records=count)

    return run(main())


def measure(*, repeats: int = 3) -> Report:
    """Return the used share of the cap, for windows of similar and of very different length."""
    even, even_row = _case("similar", EVEN, repeats)
    _, skewed_row = _case("very different", _SKEWED, 1)
    columns = ["windows", "pages", "busy slot-s", "seconds", "used %", "possible %"]
    notes = [
        (
            f"Cap {CAP}, {THINK * 1000:.0f} ms a request, 23 people a page; "
            f"medians of {repeats} rounds (one round for the very different windows)."
        ),
        "Possible: the pages of a chain are requested in turn, so a long chain ends alone.",
        f"Pages: {', '.join(map(str, EVEN))}; and {', '.join(map(str, _SKEWED))}.",
    ]
    return Report(
        [Table("Twelve windows", columns, [even_row, skewed_row], notes)],
        [Ratio(4, "share of the cap used by 12 windows", even, 95, True, "%")],
    )


def _case(name: str, chains: tuple[int, ...], repeats: int) -> tuple[float, list[Cell]]:
    contender = Contender(f"{name} windows", altaprofiles, {"windows": len(chains)})
    found = []
    for number in range(repeats):
        note(f"  round {number + 1} of {repeats}: {contender.label}")
        # A new server for each round, because a server counts from its start.
        with serving(Shape(think=THINK, chains=chains, unique=True)) as server:
            once(contender, server)
            found.append(server.seen())
    used = statistics.median(100 * seen.busy / (CAP * seen.seconds) for seen in found)
    requests = [pages + 1 for pages in chains]
    possible = 100 * sum(requests) / max(sum(requests), CAP * max(requests))
    busy = statistics.median(seen.busy for seen in found)
    seconds = statistics.median(seen.seconds for seen in found)
    return used, [name, sum(chains), busy, seconds, used, possible]
