"""`--quick`: every question on a small input, judged only by counts.

Checks that contenders send exactly the needed requests, never more at once than allowed and no
cursor twice at once, and that they return each person exactly once. The speed of the machine does
not matter.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from . import (
    compression,
    durable,
    export,
    finishing,
    growth,
    hooks,
    imports,
    limits,
    lookups,
    memory,
    ordered,
    pauses,
    services,
    shared,
    sinks,
    sizes,
    windows,
)
from .answers import ZSTD, Compression, Shape
from .clients import DAY, run, session
from .ledger import Seen
from .measure import Contender, Run, Server, Watch, once, present, serving
from .report import Check

__all__ = ["CHECKS", "everyone", "stopping_reader", "users"]

_CAP = 3
_PER_PAGE = 23
_PATIENCE = 30.0
_QUIET = 0.5


def everyone(url: str, chains: int) -> Run:
    """Walk `chains` by page; count records, people, and distinct identities."""

    async def main() -> Run:
        ours = session(url, _CAP)
        walk = ours.profiles.by_event("E", start=DAY, end=DAY + chains - 1, windows=chains)
        records = people = 0
        identities: set[str | None] = set()
        with Watch() as watch:
            async with ours:
                async for page in walk.pages():
                    records += len(page.records)
                    people += len(page.profiles)
                    identities.update(person.identity for person in page.profiles)
        return watch.run(records=records, people=people, identities=len(identities))

    return run(main())


def users(url: str, count: int, in_flight: int) -> Run:
    """Look up `count` Alta users; count lookups, users found, and distinct keys."""

    async def main() -> Run:
        ours = session(url, in_flight)
        keys = [f"user {number}" for number in range(count)]
        came = set()
        done = found = 0
        with Watch() as watch:
            async with ours:
                async for lookup in ours.cdp.get_many(keys, by="user_id"):
                    done += 1
                    found += lookup.value is not None
                    came.add(lookup.key)
        return watch.run(lookups=done, found=found, keys=len(came))

    return run(main())


def stopping_reader(url: str, prefetch: int) -> Run:
    """Hold the first page and read no further; count the pages requested by then.

    The wait for the allowed requests is long but ends early. The wait for excess ones is short.
    """
    server = Server(url)

    def requested() -> int:
        return server.seen().requests.get("get_page", 0)

    def settled() -> int:
        give_up = time.monotonic() + _PATIENCE
        while requested() <= prefetch and time.monotonic() < give_up:
            time.sleep(0.01)
        time.sleep(_QUIET)
        return requested()

    async def main() -> Run:
        ours = session(url, prefetch + 2)
        walk = ours.profiles.by_event("E", start=DAY, end=DAY, prefetch=prefetch)
        with Watch() as watch:
            async with ours:
                pages = walk.pages()
                held = await anext(pages)
                count = await asyncio.to_thread(settled)
                del held
                await pages.aclose()
        return watch.run(pages=count)

    return run(main())


def _look_up() -> list[Check]:
    arguments = {"count": 500, "loop": "asyncio", "in_flight": 16}
    with serving(Shape(think=0.005, record_bytes=1000)) as server:
        figures = once(Contender("people", lookups.altaprofiles, arguments), server).figures
        people = server.seen()
    arguments = {"count": 200, "in_flight": 8}
    with serving(Shape(think=0.005)) as server:
        found = once(Contender("users", users, arguments), server).figures
        bound = server.seen()
    return [
        *_requests("people by ID", people, get_profile=500),
        Check("people by ID, most in flight", people.peak, 16),
        Check("people by ID, lookups", int(figures["requests"]), 500),
        Check("people by ID, found", int(figures["found"]), 500),
        Check("people by ID, different keys", int(figures["keys"]), 500),
        *_requests("Alta users", bound, get_user_cdp=200),
        Check("Alta users, most in flight", bound.peak, 8),
        Check("Alta users, lookups", int(found["lookups"]), 200),
        Check("Alta users, found", int(found["found"]), 200),
        Check("Alta users, different keys", int(found["keys"]), 200),
    ]


def _put_in_order() -> list[Check]:
    checks: list[Check] = []
    for kind in ordered.KINDS:
        arguments = {"kind": kind, "count": 300, "ordered": True}
        with serving(Shape(record_bytes=1000, resets=ordered.RESETS)) as server:
            figures = once(Contender(kind, ordered.brought, arguments), server).figures
            seen = server.seen()
        operation = "get_profile" if kind == "profiles" else "get_user_cdp"
        checks += [
            *_requests(f"ordered {kind}", seen, **{operation: 300 + seen.resets}),
            *(Check(f"ordered {kind}, {what}", int(figures[what]), 300) for what in figures),
        ]
    return checks


def _walk_chain() -> list[Check]:
    plain = Shape(think=0.005, chains=(12,), unique=True)
    checks = [
        *_walked("one chain", plain),
        *_walked("one chain, cursor last", replace(plain, cursor_last=True)),
        # Transfers take so long that pages requested early fill the cap beside the first one.
        *_walked("one chain, slow link", replace(plain, rate=1e6, records=200), uses_cap=True),
    ]
    for prefetch in (0, 2, 4):
        with serving(Shape(chains=(20,), unique=True)) as server:
            reader = Contender("reader", stopping_reader, {"prefetch": prefetch})
            pages = int(once(reader, server).figures["pages"])
        name = f"a reader that stops, prefetch={prefetch}, pages requested"
        checks.append(Check(name, pages, prefetch + 1))
    return checks


def _walk_windows() -> list[Check]:
    shape = Shape(think=0.010, chains=windows.EVEN, unique=True)
    return _walked("windows", shape, uses_cap=True)


def _export() -> list[Check]:
    each_once = Contender("export", export.by_page, {"distinct": True})
    return [
        *_read_by("export", Contender("export", export.by_page), Shape(chains=(6,))),
        *_read_by("export, distinct", each_once, Shape(chains=(6,), unique=True)),
    ]


def _survive() -> list[Check]:
    # All chains hold the same people: each is written once. Only output and manifest remain.
    pages = 2
    with serving(Shape(chains=(pages,) * durable.CHAINS)) as server:
        exporting = Contender("durable", durable.durable, {"ending": "ndjson"})
        figures = once(exporting, server).figures
        seen = server.seen()
    chains = durable.CHAINS
    return [
        *_requests("durable", seen, open_chain=chains, get_page=chains * pages),
        Check("durable, records", int(figures["records"]), chains * pages * _PER_PAGE),
        Check("durable, people", int(figures["people"]), _PER_PAGE),
        Check("durable, files", int(figures["files"]), 2),
    ]


def _fill() -> list[Check]:
    checks = []
    with tempfile.TemporaryDirectory() as folder:
        for ending, needs in (("parquet", ("pyarrow",)), ("duckdb", ("pyarrow", "duckdb"))):
            arguments = {"to": str(Path(folder, f"people.{ending}")), "people": _PER_PAGE}
            sink = Contender(f"sinks, {ending}", sinks.filled, arguments, needs)
            if present([sink]):
                people = int(once(sink).figures["people"])
                checks.append(Check(sink.label, people, _PER_PAGE))
    return checks


def _end() -> list[Check]:
    # Every page of all chains holds the same people.
    checks = []
    for ending, needs in (("ndjson", ()), ("csv", ()), ("parquet", ("pyarrow",))):
        arguments = {"to": ending, "events": 2, "windows": 2}
        contender = Contender(f"finishing, {ending}", finishing.exported, arguments, needs)
        if present([contender]):
            with serving(Shape(chains=(2, 2))) as server:
                figures = once(contender, server).figures
            checks += [
                Check(f"{contender.label}, records", int(figures["records"]), 8 * _PER_PAGE),
                Check(f"{contender.label}, people", int(figures["people"]), _PER_PAGE),
            ]
    return checks


def _remember() -> list[Check]:
    # Every page of both windows holds the same people, who are returned once.
    walk = Contender("walk", memory.by_window)
    with serving(Shape(chains=(4, 4))) as server:
        people = int(once(walk, server).figures["people"])
        seen = server.seen()
    return [
        *_requests("distinct", seen, open_chain=2, get_page=8),
        Check("distinct, people", people, _PER_PAGE),
    ]


def _take_turns() -> list[Check]:
    shape = Shape(chains=(6,), unique=True)
    return [
        check
        for how in ("people", "profiles")
        for check in _read_by(f"pauses, {how}", Contender(how, pauses.walk, {"how": how}), shape)
    ]


def _read_large() -> list[Check]:
    shape = Shape(chains=(4,), record_bytes=sizes.RECORD_BYTES, unique=True, records=200)
    return [
        check
        for form in ("plain", "pretty", "surrogates")
        for how in ("export", "people", "pages")
        for check in _read_by(
            f"large records, {form}, {how}",
            Contender(how, sizes.walk, {"how": how}),
            replace(shape, form=form),
        )
    ]


def _tell_apart() -> list[Check]:
    records = 90_000
    checks = []
    for kind in ("once", "matched"):
        telling = Contender(kind, growth.told_apart, {"records": records, "kind": kind})
        written = int(once(telling).figures["written"])
        checks.append(Check(f"told apart, {kind}, written", written, growth.people_of(records)))
    read = once(Contender("limit", growth.appended, {"records": records})).figures["read"]
    return [*checks, Check("told apart, bytes read back", int(read), 24 * records)]


def _start() -> list[Check]:
    figures = once(Contender("starts", imports.starts, {"repeats": 1})).figures
    return [Check("start, commands that ended well", len(figures), len(imports.commands()))]


def _inflate() -> list[Check]:
    checks = []
    kinds: tuple[Compression, ...] = ("identity", "gzip", "zstd")
    for kind in kinds:
        walk = Contender(kind, compression.altaprofiles, {}, (ZSTD,) if kind == "zstd" else ())
        if present([walk]):
            checks += _read_by(f"compression, {kind}", walk, Shape(chains=(6,), compression=kind))
    return checks


def _walked(name: str, shape: Shape, *, uses_cap: bool = False) -> list[Check]:
    """Return the checks of a walk over all chains of `shape`.

    With `uses_cap`, the walk must reach the cap.
    """
    chains = len(shape.chains)
    with serving(shape) as server:
        figures = once(Contender(name, everyone, {"chains": chains}), server).figures
        seen = server.seen()
    people = sum(shape.chains) * shape.records
    return [
        *_requests(name, seen, open_chain=chains, get_page=sum(shape.chains)),
        Check(f"{name}, most in flight", seen.peak, _CAP, at_most=not uses_cap),
        *(
            Check(f"{name}, {what}", int(figures[what]), people)
            for what in ("records", "people", "identities")
        ),
    ]


def _read_by(name: str, contender: Contender, shape: Shape) -> list[Check]:
    """Return the checks of one `contender`, which reads one chain and counts its records."""
    with serving(shape) as server:
        figures = once(contender, server).figures
        seen = server.seen()
    pages = shape.chains[0]
    return [
        *_requests(name, seen, open_chain=1, get_page=pages),
        *(
            Check(f"{name}, {what}", int(figures[what]), pages * shape.records)
            for what in ("records", "people")
            if what in figures
        ),
    ]


def _requests(name: str, seen: Seen, **expected: int) -> list[Check]:
    """Return the checks of requests: `expected` ones only, and no cursor twice at once."""
    other = sum(count for what, count in seen.requests.items() if what not in expected)
    return [
        *(
            Check(f"{name}, {what} requests", seen.requests.get(what, 0), count)
            for what, count in expected.items()
        ),
        Check(f"{name}, other requests", other, 0),
        Check(f"{name}, cursors in flight twice", seen.repeated, 0),
    ]


def _find_limits() -> list[Check]:
    arguments = {"hidden": 8, "later": 8, "auto": True, "keys": 300}
    searched = once(Contender("found", limits.found, arguments)).figures
    plan = {"limit": 40, "keys": 100, "headers": True, "window": 2.0}
    paced = once(Contender("minute", limits.minute, plan)).figures
    return [
        Check("a hidden number at once, lookups", int(searched["lookups"]), 300),
        Check("a hidden number at once, failed", int(searched["failed"]), 0),
        Check("40 a minute, lookups", int(paced["lookups"]), 100),
        Check("40 a minute, failed", int(paced["failed"]), 0),
        Check("40 a minute, refused", int(paced["refused"]), 0),
    ]


def _share() -> list[Check]:
    arguments = {"processes": 3, "callers": 2, "seconds": 2.0, "shared": True}
    with serving(Shape(think=0.02)) as server:
        figures = once(Contender("shared", shared.together, arguments), server).figures
        seen = server.seen()
    return [
        *_requests("shared", seen, get_profile=int(figures["requests"])),
        Check("shared, most in flight", seen.peak, shared.SLOTS, at_most=True),
    ]


def _serve() -> list[Check]:
    if not services.is_possible():
        return []
    figures = services.calls(60, 0.0, workers=2).figures
    return [
        Check("services, answered", int(figures["found"]), 60),
        Check("services, refused", int(figures["refused"]), 0),
    ]


def _watch() -> list[Check]:
    each, rounds = 20, 1
    watched = replace(hooks.CALLS, arguments={"count": each, "repeats": rounds})
    if not present([watched]):
        return []
    with serving(Shape(record_bytes=1000)) as server:
        figures = once(watched, server).figures
        seen = server.seen()
    # Two of the five hooks measure the calls, and one of these traces them.
    calls = each * (rounds + 1)
    return [
        *_requests("hooks", seen, get_profile=5 * calls),
        Check("hooks, events of a function", int(figures["events"]), calls),
        Check("hooks, spans", int(figures["spans"]), calls),
        Check("hooks, durations", int(figures["durations"]), 2 * calls),
    ]


CHECKS: dict[str, Callable[[], list[Check]]] = {
    "lookups": _look_up,
    "ordered": _put_in_order,
    "chain": _walk_chain,
    "export": _export,
    "windows": _walk_windows,
    "limits": _find_limits,
    "memory": _remember,
    "durable": _survive,
    "finishing": _end,
    "sinks": _fill,
    "pauses": _take_turns,
    "imports": _start,
    "compression": _inflate,
    "sizes": _read_large,
    "growth": _tell_apart,
    "shared": _share,
    "services": _serve,
    "hooks": _watch,
}
"""The checks of each question."""
