"""Exports to an S3 server: visible only when whole, and resumed after any end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from altaprofiles import ExportError, ExportLocked, Incomplete, Session, unfinished_in
from altaprofiles.emulator import Emulator

from ..support.exporting import Job, exporter
from ..support.forks import start
from ..support.integration import needs
from ..support.s3 import KEY, NOTHING, SECRET, Bucket, s3_server
from ..support.sessions import EVENT, RANGE, session_for
from ..support.tasks import PATIENCE, end_midway
from ..support.terminals import COMMAND, environment, run

pytestmark = [pytest.mark.anyio, *needs("moto", "s3fs")]

PARTS = [
    # More than two parts, which is the least that is uploaded in parts.
    {"identity": f"person-{number}", "profileData": {"about": f"{number:04}" * 300_000}}
    for number in range(16)
]


@pytest.fixture(scope="module")
def server() -> Iterator[Callable[[], Bucket]]:
    with s3_server() as make:
        yield make


@pytest.fixture
def bucket(server: Callable[[], Bucket], monkeypatch: pytest.MonkeyPatch) -> Bucket:
    bucket = server()
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(people=300) as emulator:
        yield emulator


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[Session]:
    async with session_for(emulator) as session:
        yield session


async def held(bucket: Bucket) -> None:
    await anyio.to_thread.run_sync(bucket.held.wait, PATIENCE)
    assert bucket.held.is_set()


@pytest.mark.parametrize(
    "name", ["people.ndjson", "all/people 1.ndjson.gz", "people.csv", "a/b/people.parquet"]
)
async def test_the_file_is_the_one_that_a_local_export_writes(
    session: Session, bucket: Bucket, folder: Path, name: str
) -> None:
    local = folder / Path(name).name
    await session.export(EVENT, **RANGE, to=local)
    content = local.read_bytes()
    local.unlink()
    Path(f"{local}.manifest.json").unlink()

    to = bucket.address(name)
    report = await session.export(EVENT, **RANGE, to=to)
    assert bucket.keys == [name, f"{name}.manifest.json"]
    written = bucket.read(name)
    if not name.endswith("parquet"):
        # A table has the time of its export.
        expected = content
        if name.endswith("csv"):
            assert written.count(b"\n") == expected.count(b"\n")
        else:
            assert written == expected
    assert (report.output, report.manifest) == (to, f"{to}.manifest.json")
    assert report.bytes == len(written)
    assert report.warnings == []
    manifest = json.loads(bucket.read(f"{name}.manifest.json"))
    assert (manifest["output"], manifest["sha256"]) == (to, report.sha256)
    assert f"output    {to}" in str(report)
    # The manifest is last, and nothing else was visible at any time.
    written_keys = [key.replace("%20", " ") for key in bucket.writes()]
    assert written_keys == [name, f"{name}.manifest.json"]
    assert bucket.uploads == 0
    assert list(folder.iterdir()) == []


async def test_what_was_there_stays_until_the_new_one_is_whole(bucket: Bucket) -> None:
    bucket.put("people.ndjson", b"before")
    bucket.holds = "partNumber=2"
    async with Emulator(records=PARTS) as emulator, session_for(emulator) as session:
        export = asyncio.create_task(
            session.export(to=bucket.address("people.ndjson"), event_summaries=False)
        )
        await held(bucket)
        assert bucket.read("people.ndjson") == b"before"
        assert bucket.keys == ["people.ndjson"]
        bucket.free.set()
        report = await export
    assert bucket.uploads == 0
    assert len(bucket.read("people.ndjson")) == report.bytes
    assert f"6 bytes of {report.output} are replaced although no export" in report.warnings[0]


@pytest.mark.parametrize("way", ["task", "scope", "timeout"])
async def test_a_cancelled_upload_leaves_nothing_and_is_resumed(bucket: Bucket, way: str) -> None:
    to = bucket.address("people.ndjson")
    bucket.holds = "partNumber=2"
    ending: list[Callable[[], object]] = []
    async with Emulator(records=PARTS) as emulator, session_for(emulator) as session:

        async def work() -> None:
            async def end() -> None:
                await held(bucket)
                ending[0]()
                # The cancellation arrives some turns of the loop later.
                for _ in range(20):
                    await asyncio.sleep(0)
                bucket.free.set()

            ender = asyncio.create_task(end())
            try:
                await session.export(to=to)
            finally:
                await ender

        await end_midway(way, ending, work)
        assert bucket.keys == []
        assert bucket.uploads == 0
        sent = emulator.stats.requests
        bucket.holds = NOTHING
        report = await session.export(to=to)
        assert emulator.stats.requests == sent
    assert len(bucket.read("people.ndjson")) == report.bytes


async def test_a_failed_upload_is_aborted_and_resumed_without_the_service(
    bucket: Bucket, folder: Path
) -> None:
    to = bucket.address("people.ndjson")
    async with Emulator(records=PARTS) as emulator, session_for(emulator) as session:
        bucket.refuses = "partNumber=2"
        with pytest.raises(Incomplete) as caught:
            await session.export(to=to)
        assert "16 records are in" in str(caught.value)
        assert "Access Denied" in str(caught.value)
        error: BaseException | None = caught.value
        while error is not None:
            assert type(error).__module__ == "altaprofiles.errors"
            error = error.__cause__ or error.__context__
        assert bucket.keys == []
        assert bucket.uploads == 0
        # What was assembled would take the space of the records once more.
        (work,) = folder.iterdir()
        assert not list(work.glob("upload*"))
        (unfinished,) = unfinished_in(to)
        assert unfinished.items == 16

        bucket.refuses = NOTHING
        sent = emulator.stats.requests
        report = await session.export(to=to)
        assert emulator.stats.requests == sent
    assert bucket.keys == ["people.ndjson", "people.ndjson.manifest.json"]
    assert len(bucket.read("people.ndjson")) == report.bytes
    assert list(folder.iterdir()) == []


async def test_a_bucket_that_refuses_is_found_out_before_the_service_is_asked(
    session: Session, emulator: Emulator, bucket: Bucket, folder: Path
) -> None:
    bucket.refuses = "POST"
    with pytest.raises(ExportError) as caught:
        await session.export(EVENT, **RANGE, to=bucket.address("people.csv"))
    assert str(caught.value).startswith(f"{bucket.address('people.csv')} cannot be written: ")
    assert "Access Denied" in str(caught.value)
    missing = "s3://no-such-bucket/people.csv"
    with pytest.raises(ExportError, match="bucket does not exist") as caught:
        await session.export(EVENT, **RANGE, to=missing)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert not any(emulator.stats.requests.values())
    assert list(folder.iterdir()) == []


async def test_no_error_shows_credentials(
    session: Session, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody listens there, and the URL is in the message of the error.
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{KEY}:{SECRET}@127.0.0.1:1/{SECRET}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ExportError) as caught:
        await session.export(EVENT, **RANGE, to=bucket.address("people.csv"))
    assert SECRET not in str(caught.value)
    assert KEY not in str(caught.value)


async def test_files_beside_the_output_are_uploaded_before_the_manifest_and_removed(
    session: Session, bucket: Bucket
) -> None:
    to = bucket.address("found.ndjson")
    report = await session.export_lookups(["5555555555", "nobody"], by="identity", to=to)
    assert report.not_found_file == f"{to}.not-found.txt"
    assert bucket.read("found.ndjson.not-found.txt") == b"nobody\n"
    assert bucket.writes()[-1] == "found.ndjson.manifest.json"
    assert f"{to}.not-found.txt" in str(report)
    await session.export_lookups(["5555555555"], by="identity", to=to)
    assert bucket.keys == ["found.ndjson", "found.ndjson.manifest.json"]


async def test_two_exports_to_one_file_exclude_each_other_wherever_they_gather(
    session: Session, bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = bucket.address("people.csv")
    bucket.holds = "^PUT"
    first = asyncio.create_task(session.export(EVENT, **RANGE, to=to))
    await held(bucket)
    other = folder / "other"
    other.mkdir()
    with pytest.raises(ExportLocked, match="another export is working on this output"):
        await session.export(EVENT, **RANGE, to=to, spool=other)
    bucket.free.set()
    await first
    await session.export(EVENT, **RANGE, to=to, spool=other)
    assert list(other.iterdir()) == []


async def test_several_accounts_go_into_one_file(bucket: Bucket, tmp_path: Path) -> None:
    to = bucket.address("people.csv")
    for ending in (".failed.ndjson", ".shop.failed.ndjson"):
        bucket.put(f"people.csv{ending}", b"of an earlier export")
    async with (
        Emulator(records=[{"identity": "ann"}], seed=3) as shop,
        Emulator(records=[{"identity": "bob"}], seed=4) as outlet,
        exporter(tmp_path / "processes") as processes,
    ):
        accounts = {"shop": shop.environment, "outlet": outlet.environment}
        arguments = {
            "events": [EVENT],
            "start": 20260101,
            "end": 20260131,
            "batch_size": 46,
            "to": to,
            "with_cdp": True,
        }
        job = Job(arguments=arguments, environment={}, accounts=accounts)
        outcome = await processes.run(job)
    assert outcome.report is not None, outcome
    assert outcome.report["manifest"] == f"{to}.manifest.json"
    # Nobody's lookup has failed this time.
    assert bucket.keys == ["people.csv", "people.csv.manifest.json"]
    rows = bucket.read("people.csv").decode().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ['"identity:ann"', '"identity:bob"']


# --------------------------------------------------------------------------------- the command line


def killed(env: dict[str, str], bucket: Bucket, folder: Path, *arguments: str) -> None:
    """Run a command until the bucket holds a request, and kill it."""
    before = [key for key in bucket.keys if "manifest" in key]
    with start(
        [*COMMAND, *arguments], env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert bucket.held.wait(PATIENCE)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
    assert [key for key in bucket.keys if "manifest" in key] == before
    bucket.holds = NOTHING
    bucket.free.set()


@pytest.mark.parametrize(
    "moment",
    [r"partNumber=2", r"^POST .*\?uploadId", r"manifest\.json"],
    ids=["part", "end", "manifest"],
)
async def test_killed_in_the_upload_the_same_command_goes_on_with_it(
    bucket: Bucket, folder: Path, tmp_path: Path, moment: str
) -> None:
    to = bucket.address("people.ndjson")
    command = ["export", "--everyone", "-o", to]
    async with Emulator(records=PARTS) as emulator:
        env = environment(tmp_path, emulator.environment, bucket.environment)
        bucket.holds = moment
        await anyio.to_thread.run_sync(killed, env, bucket, folder, *command)
        shown = await anyio.to_thread.run_sync(lambda: run(env, "status", cwd=folder))
        assert f"{to}\n  unfinished" in shown.stdout.decode()

        sent = emulator.stats.requests
        done = await anyio.to_thread.run_sync(lambda: run(env, *command, cwd=folder))
        assert done.code == 0, done.stderr
        assert done.stdout == f"{to}\n".encode()
        assert emulator.stats.requests == sent
    manifest = json.loads(bucket.read("people.ndjson.manifest.json"))
    assert manifest["people"] == 16
    assert manifest["bytes"] == len(bucket.read("people.ndjson"))
    assert list(folder.iterdir()) == []


async def test_status_finishes_and_discards_what_is_unfinished(
    bucket: Bucket, emulator: Emulator, folder: Path, tmp_path: Path
) -> None:
    to = bucket.address("people.csv")
    env = environment(tmp_path, emulator.environment, bucket.environment)
    days = ["--from", "2026-01-01", "--to", "2026-01-31"]

    async def command(*arguments: str) -> Any:
        return await anyio.to_thread.run_sync(lambda: run(env, *arguments, cwd=folder))

    assert "No export has written s3://" in (await command("status", to)).stderr
    for action in ("--finish-unfinished", "--discard-unfinished"):
        bucket.held.clear()
        bucket.free.clear()
        # Not the part of an upload by which a run finds out that it can write.
        bucket.holds = r"^PUT .*people\.csv\?(?!.*partNumber)"
        await anyio.to_thread.run_sync(
            partial(killed, env, bucket, folder, "export", EVENT, *days, "-o", to)
        )
        shown = await command("status", to)
        assert "unfinished" in shown.stdout.decode()
        assert f"altaprofiles status {to} --finish-unfinished" in shown.stdout.decode()
        sent = emulator.stats.requests
        done = await command("status", to, action, *(["--yes"] if "discard" in action else []))
        assert done.code == 0, done.stderr
        assert emulator.stats.requests == sent
        assert list(folder.iterdir()) == []
        assert bucket.keys == ["people.csv", "people.csv.manifest.json"]
    (line,) = (await command("status", to, "--json")).stdout.splitlines()
    success = json.loads(line)["success"]
    assert success["people"] > 0
    assert (success["present"], success["changed"]) == (True, False)
    bucket.put("people.csv", b"mine")
    assert "  changed     it has 4 bytes now" in (await command("status", to)).stdout.decode()
