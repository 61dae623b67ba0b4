"""Addresses in buckets: what is refused before any request. Needs no bucket."""

from __future__ import annotations

import importlib
import sys
import traceback
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import altaprofiles
from altaprofiles import InvalidArgument, MissingExtra
from altaprofiles.emulator import Emulator

from ..support.sessions import EVENT, RANGE, session_for
from ..support.terminals import environment, run

pytestmark = pytest.mark.anyio

PACKAGE = Path(altaprofiles.__file__).parent
SECRET = "wJalrXUtnFEMI"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def refusal(kind: type[Exception] = InvalidArgument, **arguments: Any) -> str:
    """Return the message of an export that is refused before any request."""
    async with Emulator(people=1) as emulator, session_for(emulator) as session:
        with pytest.raises(kind) as caught:
            await session.export(EVENT, **RANGE, **arguments)
        assert not any(emulator.stats.requests.values())
    assert list(Path.cwd().iterdir()) == []
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    ours = [frame.locals for frame in frames if PACKAGE in Path(frame.filename).parents]
    assert len(ours) > 1
    assert SECRET not in str(ours)
    error: BaseException | None = caught.value
    while error is not None:
        assert type(error).__module__ == "altaprofiles.errors"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return str(caught.value)


@pytest.mark.parametrize(
    "to",
    [
        f"s3://AKIA:{SECRET}@bucket/people.parquet",
        f"S3://AKIA:{SECRET}@bucket/people.parquet",
        f"s3://AKIA:{SECRET}/x@bucket/people.parquet",
        f"s3://{SECRET}@bucket/people.parquet",
        f"gs://user:{SECRET}@bucket/people.csv",
        f"az://container@{SECRET}.dfs.core.windows.net/people.csv",
        f"az://container/people.csv?sig={SECRET}",
        f"s3://bucket/people.csv#{SECRET}",
        f"s3://{SECRET}%40bucket/people.csv",
        f"s3:/AKIA:{SECRET}@bucket/people.csv",
        f"s3a://AKIA:{SECRET}@bucket/people.csv",
    ],
)
async def test_credentials_in_an_address_are_refused_and_never_shown(to: str) -> None:
    message = await refusal(to=to)
    assert message.startswith("to: ")
    assert SECRET not in message
    assert "AKIA" not in message


@pytest.mark.parametrize("command", [["export", "--everyone", "-o"], ["status"]])
async def test_the_command_line_does_not_print_them(tmp_path: Path, command: list[str]) -> None:
    env = environment(tmp_path, CLEVERTAP_ACCOUNT_ID="id", CLEVERTAP_PASSCODE="passcode")
    done = run(env, *command, f"s3://AKIA:{SECRET}@bucket/people.csv", cwd=tmp_path)
    assert done.code == 2
    assert "holds no credentials" in done.stderr
    assert SECRET not in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"to": "s3://bucket/people.duckdb"},
            "'s3://bucket/people.duckdb' is of the format duckdb",
        ),
        ({"to": "s3://bucket/people.csv", "format": "duckdb"}, "is of the format duckdb"),
        ({"to": "s3://bucket/people.csv", "format": "postgres"}, "to: not a URL that can be"),
        ({"to": "gs://bucket/people/"}, "to: 'gs://bucket/people/' is a folder"),
        ({"to": "az://container/"}, "write s3://bucket/people.parquet"),
        ({"to": "s3://people.parquet"}, "write s3://bucket/people.parquet"),
        ({"to": "s3:///people.parquet"}, "write s3://bucket/people.parquet"),
        ({"to": Path("s3://bucket/people.csv")}, "pass the URL as text"),
        ({"to": "s3://bucket/people.csv\n"}, "cannot be printed"),
        ({"to": "s3://bucket/people\udcff.csv"}, "cannot be printed"),
        (
            {"to": "s3://bucket/people.txt"},
            ".csv, .parquet (ndjson and csv also with .gz or .zst), or pass `format`, one of",
        ),
        ({"to": "s3://bucket/p", "format": "xml"}, "'xml'; use one of ndjson, csv, parquet"),
        ({"to": "s3://bucket/people.csv", "write": "append"}, "write: 'append' applies to"),
        ({"to": "gs://bucket/people.parquet", "write": "upsert"}, "write: 'upsert' applies to"),
        ({"to": "s3://bucket/people.parquet", "table": "people"}, "table: applies to"),
        ({"to": "s3a://bucket/people.parquet"}, "or s3://bucket/key"),
    ],
)
async def test_what_a_bucket_cannot_hold_is_refused(arguments: dict[str, Any], words: str) -> None:
    assert words in await refusal(**arguments)


@pytest.mark.parametrize(
    "to",
    [
        "s3://bucket/people.parquet",
        "s3://bucket/people/",
        "S3://bucket",
        f"s3://AKIA:{SECRET}@bucket/people/",
    ],
)
async def test_a_sync_to_a_bucket_is_refused_for_what_it_is(to: str) -> None:
    async with Emulator(people=1) as emulator, session_for(emulator) as session:
        with pytest.raises(
            InvalidArgument, match=r"^to: an output in a bucket \(s3://\)"
        ) as caught:
            await session.sync(EVENT, since=date(2026, 1, 1), to=to)
        assert not any(emulator.stats.requests.values())
    assert "sync into a folder here" in str(caught.value)
    assert "file name" not in str(caught.value)
    assert SECRET not in str(caught.value)


async def test_without_fsspec_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    message = await refusal(MissingExtra, to="s3://bucket/people.csv")
    assert message.endswith("needs fsspec; install it with: pip install 'altaprofiles[remote]'")


@pytest.mark.parametrize(
    ("to", "module"),
    [
        ("s3://bucket/people.csv", "s3fs"),
        ("gs://bucket/people.csv", "gcsfs"),
        ("az://container/people.csv", "adlfs"),
    ],
)
async def test_without_the_module_for_a_bucket_the_error_names_it(
    monkeypatch: pytest.MonkeyPatch, to: str, module: str
) -> None:
    importlib.import_module("fsspec")
    loaded: dict[str, object] = vars(sys.modules["fsspec.registry"])["_registry"]
    monkeypatch.delitem(loaded, to.partition(":")[0], raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    message = await refusal(MissingExtra, to=to)
    assert message == (
        f"to: {to!r} needs {module} beside fsspec; install it with: pip install {module}"
    )
