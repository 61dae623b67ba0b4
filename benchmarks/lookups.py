"""Bulk lookups: how many people per second can be looked up by ID, and at how much CPU time?

64 requests in flight for records of 1 KB, from nginx if it is installed, and each record decoded.
The yardstick is aiohttp with every option off: 64 workers on one iterator that only read and
decode. Slow contenders get fewer keys, because only rates are compared.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import msgspec
from msgspec import Raw, Struct, UnsetType

from .answers import Shape
from .clients import HEADERS, Loop, run, session, tuned_aiohttp
from .measure import Contender, Run, Watch, left_out, median, paired, present, rounds, serving
from .report import Cell, Ratio, Report, Table

__all__ = ["altaprofiles", "measure"]

IN_FLIGHT = 64

_OURS = "altaprofiles"
_BARE = "aiohttp tuned"
_HTTPX = "httpx"
_HTTPX2 = "httpx2"
_THREADS = "requests, 64 threads"


class _RecordBody(Struct, gc=False):
    """The members of an answer that every client has to read."""

    status: Any = None
    error: Any = None
    message: Any = None
    code: Any = None
    record: Raw | UnsetType = msgspec.UNSET


_RECORD = msgspec.json.Decoder(_RecordBody)


def _decoder() -> Callable[[bytes], object]:
    """Return a function that decodes an answer to a `Profile`, as the library does."""
    from altaprofiles import Profile

    def decode(body: bytes) -> object:
        record = _RECORD.decode(body).record
        assert isinstance(record, Raw)
        return Profile.decode(record)

    return decode


def _urls(url: str, count: int) -> list[str]:
    return [f"{url}/1/profile.json?identity={number:010}" for number in range(count)]


def altaprofiles(url: str, count: int, loop: Loop, in_flight: int = IN_FLIGHT) -> Run:
    """Look all keys up with `get_many`; count lookups, people found, and distinct keys."""

    async def main() -> Run:
        ours = session(url, in_flight)
        keys = [f"{number:010}" for number in range(count)]
        came: set[object] = set()
        lookups = found = 0
        with Watch() as watch:
            async with ours:
                async for lookup in ours.profiles.get_many(keys, by="identity"):
                    lookups += 1
                    found += lookup.value is not None
                    came.add(lookup.key)
        return watch.run(requests=lookups, found=found, keys=len(came))

    return run(main(), loop)


def aiohttp_tuned(url: str, count: int, loop: Loop) -> Run:
    """Look all keys up with 64 workers that read and decode."""
    import asyncio

    from yarl import URL

    async def main() -> Run:
        decode = _decoder()
        urls = iter([URL(text, encoded=True) for text in _urls(url, count)])

        async with tuned_aiohttp() as client:

            async def work() -> None:
                for each in urls:
                    response = await client.get(each)
                    decode(await response.read())

            with Watch() as watch:
                await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        return watch.run(requests=count)

    return run(main(), loop)


def aiohttp_defaults(url: str, count: int) -> Run:
    """Look all keys up as in aiohttp's tutorial, with `json.loads`."""
    import asyncio

    import aiohttp

    async def main() -> Run:
        urls = iter(_urls(url, count))

        async with aiohttp.ClientSession(headers=HEADERS) as client:

            async def work() -> None:
                for each in urls:
                    async with client.get(each) as response:
                        json.loads(await response.read())

            with Watch() as watch:
                await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        return watch.run(requests=count)

    return run(main())


def httpx(url: str, count: int, loop: Loop, module: str = "httpx") -> Run:
    """Look all keys up with 64 workers on httpx, or on its successor."""
    import asyncio

    httpx = import_module(module)

    async def main() -> Run:
        decode = _decoder()
        urls = iter(_urls(url, count))
        limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)

        async with httpx.AsyncClient(headers=HEADERS, limits=limits, timeout=None) as client:

            async def work() -> None:
                for each in urls:
                    decode((await client.get(each)).content)

            with Watch() as watch:
                await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        return watch.run(requests=count)

    return run(main(), loop)


def threads(url: str, count: int) -> Run:
    """Look all keys up with requests in 64 threads, one session each."""
    from concurrent.futures import ThreadPoolExecutor

    import requests

    decode = _decoder()
    urls = _urls(url, count)

    def work(number: int) -> None:
        with requests.Session() as client:
            client.headers.update(HEADERS)
            for each in urls[number::IN_FLIGHT]:
                decode(client.get(each, timeout=60).content)

    with Watch() as watch, ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(work, range(IN_FLIGHT)))
    return watch.run(requests=count)


def wrk(url: str, seconds: int) -> Run:
    """Send requests for `seconds` as fast as wrk can, and decode nothing."""
    headers = [part for name in HEADERS for part in ("-H", f"{name}: {HEADERS[name]}")]
    command = ["wrk", "-t1", f"-c{IN_FLIGHT}", f"-d{seconds}s", *headers, *_urls(url, 1)]
    with Watch() as watch:
        output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    counted = re.search(r"(\d+) requests in", output)
    assert counted is not None, output
    return watch.run(requests=int(counted[1]))


def measure(*, count: int = 20_000, repeats: int = 5) -> Report:
    """Return the rate of each contender, and the library's ratios."""
    fast: Loop = "uvloop" if find_spec("uvloop") else "asyncio"
    loops: tuple[Loop, ...] = ("uvloop", "asyncio")
    few = count // 10
    contenders = [
        *(
            Contender(
                f"{label}, {loop}",
                function,
                {"count": count, "loop": loop},
                ("uvloop",) if loop == "uvloop" else (),
            )
            for loop in loops
            for label, function in ((_OURS, altaprofiles), (_BARE, aiohttp_tuned))
        ),
        Contender("aiohttp defaults, json.loads", aiohttp_defaults, {"count": count}),
        Contender(_HTTPX, httpx, {"count": few, "loop": fast}, ("httpx", "sniffio")),
        Contender(_HTTPX2, httpx, {"count": few, "loop": fast, "module": _HTTPX2}, (_HTTPX2,)),
        Contender(_THREADS, threads, {"count": few}, ("requests",)),
        Contender("wrk, nothing decoded", wrk, {"seconds": 2}, ("$wrk",)),
    ]
    module = "benchmarks.nginx" if shutil.which("nginx") else "benchmarks.server"
    with serving(Shape(record_bytes=1000), module) as server:
        runs = rounds(server, present(contenders), repeats)

    ours, bare = f"{_OURS}, {fast}", f"{_BARE}, {fast}"
    rows: list[list[Cell]] = [
        [
            label,
            median(of, _rate),
            median(of, lambda run: 1e6 * run.cpu / run.figures["requests"]),
            paired(runs, label, bare, _rate),
            round(of[0].figures["requests"]),
        ]
        for label, of in runs.items()
    ]
    columns = ["client", "requests/s", "CPU us/request", f"x {bare}", "requests a round"]
    notes = [
        (
            f"{IN_FLIGHT} in flight, 1 KB, from {module.removeprefix('benchmarks.')} on loopback; "
            f"medians of {repeats} rounds."
        ),
        *left_out(contenders),
    ]
    return Report(
        [Table("Bulk lookups", columns, rows, notes)],
        [
            Ratio(1, f"get_many, requests/s against {name}", paired(runs, ours, name, _rate), *to)
            for name, *to in ((bare, 0.90, True), (_HTTPX, 15, True), (_THREADS, 5, True))
        ],
    )


def _rate(run: Run) -> float:
    return run.figures["requests"] / run.wall
