"""Order: how much longer do ordered results take while connections are reset?

Three in a hundred answers end in a reset of their connection, and the retry waits for up to half a
second. Lookups of people, lookups of Alta users, and joins run with and without `ordered` in turns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal, TypeAlias

from .answers import Shape
from .bodies import PLACE, place, record
from .clients import run, session
from .measure import Contender, Run, Watch, median, paired, rounds, serving
from .report import Cell, Ratio, Report, Table

__all__ = ["KINDS", "RESETS", "brought", "measure"]

Kind: TypeAlias = Literal["profiles", "cdp", "joins"]

KINDS: tuple[Kind, ...] = ("profiles", "cdp", "joins")
"""The calls with `ordered`."""

RESETS = 0.03
"""Share of answers that end in a reset."""

_SLOTS = {"profiles": 3, "cdp": 16, "joins": 16}
_COUNTS = {"profiles": 6_000, "cdp": 10_000, "joins": 10_000}


def brought(url: str, kind: Kind, count: int, ordered: bool) -> Run:
    """Look up `count` keys, or join as many people; count results, values, and those in order."""

    async def main() -> Run:
        from altaprofiles import Profile

        ours = session(url, _SLOTS[kind])
        people = [
            Profile.decode(record(number, 1000).replace(PLACE, place(0, 0)))
            for number in range(count if kind == "joins" else 0)
        ]
        keys = [f"{number:010}" for number in range(count)]
        places: dict[str | None, int] = {key: number for number, key in enumerate(keys)}
        if kind == "joins":
            places = {person.identity: number for number, person in enumerate(people)}
        done = found = in_order = 0
        with Watch() as watch:
            async with ours:
                async for key, value in _results(ours, kind, keys, people, ordered):
                    in_order += places[key] == done
                    done += 1
                    found += bool(value)
        return watch.run(results=done, found=found, in_order=in_order)

    return run(main())


async def _results(
    ours: Any, kind: Kind, keys: list[str], people: list[Any], ordered: bool
) -> AsyncIterator[tuple[str | None, object]]:
    if kind == "joins":
        async for customer in ours.with_cdp(people, ordered=ordered):
            yield customer.profile.identity, customer.cdp
        return
    lookups = (
        ours.profiles.get_many(keys, by="identity", ordered=ordered)
        if kind == "profiles"
        else ours.cdp.get_many(keys, by="user_id", ordered=ordered)
    )
    async for lookup in lookups:
        yield lookup.key, lookup.value


def measure(*, repeats: int = 5) -> Report:
    """Return the rates with and without `ordered`, and their ratios."""
    rows: list[list[Cell]] = []
    ratios: list[Ratio] = []
    for kind in KINDS:
        count = _COUNTS[kind]
        plain, ordered = (f"{kind}, as they complete", f"{kind}, ordered")
        contenders = [
            Contender(label, brought, {"kind": kind, "count": count, "ordered": label == ordered})
            for label in (plain, ordered)
        ]
        with serving(Shape(record_bytes=1000, resets=RESETS)) as server:
            runs = rounds(server, contenders, repeats)
        ratio = paired(runs, ordered, plain, lambda run: run.wall)
        rows += [
            [
                label,
                median(of, lambda run: run.figures["results"] / run.wall),
                median(of, lambda run: run.rss / 1e6),
                paired(runs, label, plain, lambda run: run.wall),
            ]
            for label, of in runs.items()
        ]
        ratios.append(Ratio(11, f"ordered over unordered, {kind}", ratio, 1.3, at_least=False))
    columns = ["call", "results/s", "peak MB", "time, x as they complete"]
    notes = [
        f"{RESETS:.0%} of answers end in a reset. One core; medians of {repeats} rounds.",
        f"In flight: {', '.join(f'{kind} {slots}' for kind, slots in _SLOTS.items())}.",
    ]
    return Report([Table("Ordered results", columns, rows, notes)], ratios)
