"""The programs of the guide run against an S3 server and the emulator."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from altaprofiles.emulator import Emulator

from ..support.guides import GUIDES, document_at, program_name, write_programs
from ..support.integration import needs
from ..support.s3 import Bucket, s3_server
from ..support.tasks import PATIENCE
from ..support.terminals import emulated, environment

pytestmark = needs("dask", "dlt", "moto", "s3fs")

GUIDE = "in-a-lake.md"
PEOPLE = [
    {"identity": "ann", "email": "ann@example.com"},
    {"identity": "bob", "profileData": {"plan": "gold"}},
    {"identity": "cy", "email": "cy@example.com"},
]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(records=PEOPLE) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_server() as make:
        yield make()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, emulator: Emulator, bucket: Bucket) -> Path:
    """Return a folder with the programs. The bucket has the people."""
    folder = tmp_path_factory.mktemp("programs")
    write_programs(GUIDE, folder)
    printed = run(folder, emulator, bucket, "export_people.py")
    assert printed == f"{bucket.address('crm/people.parquet')}\n"
    assert bucket.keys == ["crm/people.parquet", "crm/people.parquet.manifest.json"]
    return folder


def run(folder: Path, emulator: Emulator, bucket: Bucket, *command: str) -> str:
    """Run a program, and return what it prints."""
    env = environment(
        folder,
        emulator.environment,
        bucket.environment,
        LAKE=bucket.address("crm"),
        SPOOL=str(folder),
        AWS_ALLOW_HTTP="true",
        DLT_DATA_DIR=str(folder / "dlt"),
        RUNTIME__DLTHUB_TELEMETRY="false",
    )
    done = subprocess.run(
        [sys.executable, *command],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=6 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_is_a_program_that_runs_here() -> None:
    names = [program_name(example.parsed) for example in document_at(GUIDES / GUIDE).examples()]
    assert names == [
        "export_people.py",
        "with_polars.py",
        "with_dask.py",
        "with_dlt.py",
        "airflow_tasks.py",
        "airflow_nightly.py",
    ]


@pytest.mark.parametrize("program", ["with_polars.py", "with_dask.py"])
def test_a_reader_finds_the_people(
    folder: Path, emulator: Emulator, bucket: Bucket, program: str
) -> None:
    assert run(folder, emulator, bucket, program) == "2\n"


def test_dlt_merges_by_person(folder: Path, emulator: Emulator, bucket: Bucket) -> None:
    for _ in range(2):
        run(folder, emulator, bucket, "with_dlt.py")
        with closing(duckdb.connect(str(folder / "lake.duckdb"), read_only=True)) as database:
            rows = database.execute("SELECT identity, email FROM crm.people ORDER BY 1").fetchall()
        assert rows == [("ann", "ann@example.com"), ("bob", None), ("cy", "cy@example.com")]


def test_the_callable_of_a_task_exports_its_day(
    folder: Path, emulator: Emulator, bucket: Bucket
) -> None:
    call = "from airflow_tasks import export_day; print(export_day('2026-01-31'))"
    to = bucket.address("crm/launched/2026-01-31.parquet")
    assert run(folder, emulator, bucket, "-c", call) == f"{to}\n"
    assert bucket.read("crm/launched/2026-01-31.parquet")[:4] == b"PAR1"
