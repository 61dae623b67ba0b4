"""Output that is compressed in pieces: the same bytes, whatever was compressed before."""

from __future__ import annotations

import asyncio
import gzip
import io
import random
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from altaprofiles import CleverTap, Session
from altaprofiles.emulator import Emulator
from altaprofiles.export.sinks import gzip_pieces
from altaprofiles.export.sinks.gzip_pieces import GzipWriter, Pieces, StoredPieces
from altaprofiles.export.sinks.gzip_stage import GzipStage

from ..support.servers import scripted
from ..support.sessions import QUICK, session_for
from ..support.waiting import until
from .test_ahead import PAGES, Held, Usage, files_without_name, rows_in

DICE = random.Random(5)  # noqa: S311
LINES = [
    b'{"a":"%b"}\n' % DICE.randbytes(DICE.choice((20, 900))).hex().encode() for _ in range(4000)
]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_pieces, "_LEAST", 30_000)
    monkeypatch.setattr(gzip_pieces, "_SPREAD", 10_000)
    monkeypatch.setattr(gzip_pieces, "_MOST", 100_000)


def compressed(lines: Sequence[bytes], size: int, stored: StoredPieces | None = None) -> bytes:
    """Return lines as the writer compresses them, which are written `size` bytes at a time."""
    file = io.BytesIO()
    writer = GzipWriter(file.write, stored)
    text = b"".join(lines)
    for start in range(0, len(text), size):
        writer.write(text[start : start + size])
    writer.finish()
    return file.getvalue()


def pieces_of(lines: Sequence[bytes]) -> list[bytes]:
    pieces = Pieces()
    return [*pieces.add(b"".join(lines)), pieces.rest()]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        LINES[:1],
        LINES,
        [b"x" * 400_000 + b"\n", *LINES[:50]],
        [b"same\n"] * 90_000,
        [b"\n"] * 9,
    ],
    ids=["none", "one", "many", "long", "alike", "empty"],
)
def test_it_is_one_member_of_the_same_bytes_however_it_is_written(lines: list[bytes]) -> None:
    text = b"".join(lines)
    found = {compressed(lines, size) for size in (997, 65_536, len(text) + 1)}
    (data,) = found
    assert gzip.decompress(data) == text
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert reader.decompress(data + b"behind") == text
    assert reader.unused_data == b"behind"
    # Not much larger than in one piece.
    assert len(data) < 1.05 * len(gzip.compress(text, 6)) + 100


@pytest.mark.parametrize("change", ["none", "header", "left out", "damaged", "lost"])
def test_pieces_that_are_compressed_before_change_nothing(tmp_path: Path, change: str) -> None:
    stored = StoredPieces(tmp_path)
    for piece in pieces_of(LINES):
        stored.put(piece)
    lines = LINES
    if change == "header":
        lines = [b'"name"\n', *LINES]
    elif change == "left out":
        lines = [line for number, line in enumerate(LINES) if number % 1000 != 500]
    elif change in ("damaged", "lost"):
        ((path, size),) = files_without_name(tmp_path)
        with path.open("r+b") as file:
            file.seek(size // 2)
            file.write(b"damage") if change == "damaged" else file.truncate()
    used = [stored.get(piece) is not None for piece in pieces_of(lines)]
    assert all(used) == (change == "none")
    # Whatever has changed, most of them are found.
    assert sum(used) > len(used) // 3
    assert compressed(lines, 5000, stored) == compressed(lines, 5000)
    stored.close()


@pytest.mark.parametrize("first_only", [False, True])
def test_chains_are_compressed_as_they_arrive_in_turn(tmp_path: Path, first_only: bool) -> None:
    found: list[StoredPieces | None] = []

    def make_sink(table: object, origin: object, stored: StoredPieces | None) -> Any:
        found.append(stored)

    stage = GzipStage(tmp_path, first_only, None, make_sink)
    # More than grow at once: some begin anew.
    chains = [LINES[start : start + 500] for start in range(0, len(LINES), 500)]
    for start in range(0, 500, 250):
        for number, lines in enumerate(chains):
            assert stage.put(b"".join(lines[start : start + 250]), number) is None
    stage.open(cast("Any", None), cast("Any", None))
    [stored] = found
    assert stored is not None
    assert compressed(LINES, 5000, stored) == compressed(LINES, 5000)
    used = [stored.get(piece) is not None for piece in pieces_of(LINES)]
    eighth = len(used) // 8
    assert any(used[:eighth])
    assert any(used[3 * eighth :]) == (not first_only)
    stage.close()


async def exported(to: Path, *, damages: bool = False, waits: bool = True) -> tuple[Any, Held]:
    """Export one chain, whose last page is awaited until others are compressed."""
    service = Held()
    async with (
        scripted(service.answer) as server,
        Session(clevertap=CleverTap("A", "P", base_url=server.url), retry=QUICK) as session,
    ):
        service.bodies = server.bodies
        task = asyncio.create_task(
            session.export("Second", start=20260101, end=20260101, windows=1, to=to, count=False)
        )
        await until(service.asked.is_set, during=task)

        def found() -> list[tuple[Path, int]]:
            return [one for one in files_without_name(to.parent) if one[1]]

        if waits:
            await until(found, during=task)
        if damages:
            for path, size in found():
                with path.open("r+b") as file:
                    file.seek(size // 2)
                    file.write(b"damage")
        service.gate.set()
        return await task, service


@pytest.mark.anyio
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
@pytest.mark.parametrize("name", ["x.ndjson.gz", "x.csv.gz"])
async def test_an_export_is_the_same_with_and_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    outputs = []
    for kind in ("ahead", "damaged", "without"):
        (tmp_path / kind).mkdir()
        if kind == "without":
            monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 0))
        to = tmp_path / kind / name
        report, service = await exported(to, damages=kind == "damaged", waits=kind != "without")
        data = to.read_bytes()
        assert report.people == PAGES * 31
        assert report.bytes == len(data)
        assert len(service.requests) == len(set(service.requests))
        plain = to.with_suffix("")
        plain.write_bytes(gzip.decompress(data))
        outputs.append(data if "ndjson" in name else rows_in(plain))
    assert outputs[0] == outputs[1] == outputs[2]


@pytest.mark.anyio
async def test_chains_that_overlap_are_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = []
    for kind in ("ahead", "without"):
        if kind == "without":
            monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 0))
        # Many people come in several of the windows.
        async with Emulator(people=1500) as emulator, session_for(emulator) as session:
            to = tmp_path / f"{kind}.ndjson.gz"
            report = await session.export(
                "App Launched", start=20260101, end=20260131, windows=6, to=to, batch_size=230
            )
        assert report.records > report.people > 0
        outputs.append(to.read_bytes())
    assert outputs[0] == outputs[1]
