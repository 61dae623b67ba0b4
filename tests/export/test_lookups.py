"""Bulk lookups to files, in process: against the emulator, and a server that remembers requests."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import pickle
import re
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow
import pyarrow.parquet
import pytest

from altaprofiles import (
    BadRequest,
    CleverTap,
    Incomplete,
    InvalidArgument,
    Profile,
    Session,
    unfinished_in,
)
from altaprofiles.emulator import Emulator
from altaprofiles.export.report import LookupProgress, LookupReport

from ..support.jobs import Halt
from ..support.servers import always, http, scripted
from ..support.sessions import QUICK
from ..support.tasks import end_midway

pytestmark = pytest.mark.anyio


class Directory:
    """Knows whom it is told, fails whom it is told, and remembers whom it was asked for."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.unknown: set[str] = set()
        self.failing: set[str] = set()
        self.refused: set[str] = set()
        self.suspicious: set[str] = set()
        self.unauthorized = False
        self.blocked: str | None = None
        self.blocked_after = 0

    async def answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        query = re.split(rb"[?&](?:identity|email|objectId)=", head)[1].split(b" ")[0].decode()
        key = unquote(query.replace("+", " "))
        self.asked[key] += 1
        if self.unauthorized:
            writer.write(http(b'{"status":"fail","error":"no","code":401}', "401 Unauthorized"))
        elif self.blocked is not None and self.asked.total() > self.blocked_after:
            writer.write(http(b"<html>No.</html>", self.blocked, "Content-Type: text/html"))
        elif key in self.failing:
            writer.write(http(b"", "503 Service Unavailable"))
        elif key in self.suspicious:
            writer.write(http(b"<html>No.</html>", "400 Bad Request", "Content-Type: text/html"))
        elif key in self.refused:
            writer.write(http(b'{"status":"fail","error":"no","code":400}', "400 Bad Request"))
        elif key in self.unknown:
            writer.write(http(b'{"status":"success","record":null}'))
        else:
            record = json.dumps({"identity": key, "odd": [1, {"kept": None}]}).encode()
            writer.write(http(b'{"status":"success","record":%b}' % record))


def session_for(url: str) -> Session:
    return Session(
        clevertap=CleverTap(account_id="TEST", passcode="PASS", base_url=url), retry=QUICK
    )


def found_in(to: Path) -> list[str | None]:
    return [Profile.decode(line).identity for line in to.read_bytes().splitlines()]


class Odd:
    """Raises whatever it is asked."""

    def __repr__(self) -> str:
        raise ValueError

    def __index__(self) -> int:
        raise ValueError


async def test_keys_that_raise_errors_of_their_own_are_invalid(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    async with scripted(Directory().answer) as server, session_for(server.url) as session:
        keys: list[Any] = ["1", Odd(), Odd()]
        report = await session.export_lookups(keys, by="identity", to=to)
    assert (report.keys, report.found, report.failed) == (3, 1, 2)
    # There was no earlier run.
    assert report.resumed == 0
    failed = Path(f"{to}.failed.ndjson").read_text().splitlines()
    assert [json.loads(line)["message"].partition(",")[0] for line in failed] == [
        "keys[1]: expected text or an int",
        "keys[2]: expected text or an int",
    ]


async def test_found_and_not_found_failed_and_invalid(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    directory = Directory()
    directory.unknown = {"nobody", "none, really"}
    directory.failing = {"ill"}
    directory.refused = {"bad"}
    keys: list[Any] = ["z", "nobody", 7, "ill", "a", "bad", "", "tab\t", None, "none, really", "m"]
    # No server takes it, so that it is not asked for.
    keys.append("x" * 9000)
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(Incomplete) as caught:
            await session.export_lookups(keys, by="identity", to=to)
        report = caught.value.report
        assert isinstance(report, LookupReport)
        assert not report.complete
        # A missing value and a blank text are rows without a key, as in a file.
        assert (report.keys, report.repeated, report.skipped) == (10, 0, 2)
        assert (report.found, report.not_found, report.failed) == (4, 2, 4)
        # In the order of the keys, not in that of the answers.
        assert found_in(to) == ["z", "7", "a", "m"]
        assert to.read_bytes().splitlines()[0] == b'{"identity": "z", "odd": [1, {"kept": null}]}'
        assert report.sha256 == hashlib.sha256(to.read_bytes()).hexdigest()
        assert report.not_found_file == str(tmp_path / "people.ndjson.not-found.txt")
        assert (
            tmp_path.joinpath("people.ndjson.not-found.txt").read_bytes()
            == b"nobody\nnone, really\n"
        )
        assert report.failed_file == str(tmp_path / "people.ndjson.failed.ndjson")
        failed = [
            json.loads(line)
            for line in tmp_path.joinpath("people.ndjson.failed.ndjson").read_bytes().splitlines()
        ]
        assert [line["key"] for line in failed] == ["ill", "bad", "tab\t", "x" * 9000]
        assert [line["error"] for line in failed] == [
            "ServerError",
            "BadRequest",
            *["InvalidArgument"] * 2,
        ]
        assert failed[-1]["message"].startswith("keys[11]: ")
        assert "HTTP 503" in failed[0]["message"]
        assert "control character" in failed[2]["message"]
        assert str(tmp_path / "people.ndjson.failed.ndjson") in caught.value.missing[0]
        assert pickle.loads(pickle.dumps(caught.value)).report == report  # noqa: S301
        assert "PASS" not in repr(caught.value) + str(caught.value) + repr(report)
        # The same call asks for the one that failed, and for no other.
        directory.failing = set()
        directory.asked.clear()
        report = await session.export_lookups(keys, by="identity", to=to)
        assert directory.asked == {"ill": 1}
        assert report.complete
        assert (report.found, report.not_found, report.failed) == (5, 2, 3)
        assert (report.resumed, report.skipped) == (9, 2)
        assert "10, 9 of them answered in earlier runs" in str(report)
        assert found_in(to) == ["z", "7", "ill", "a", "m"]
    manifest = json.loads(tmp_path.joinpath("people.ndjson.manifest.json").read_bytes())
    assert manifest["sha256"] == report.sha256
    assert manifest["plan"]["keys"] == 10
    assert not tmp_path.joinpath("people.ndjson.export").exists()


@pytest.mark.parametrize(
    "column", [pd.Series(["z", None, "a", None]), pd.Series([7, None, 8], dtype="Int64")]
)
async def test_missing_values_of_a_column_are_skipped_as_those_of_a_file(
    tmp_path: Path, column: pd.Series
) -> None:
    directory = Directory()
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        to = tmp_path / "people.ndjson"
        report = await session.export_lookups(column, by="identity", to=to)
        assert (report.found, report.failed, report.repeated) == (2, 0, 0)
        assert report.skipped == column.isna().sum()
        assert f"{report.skipped} without a key, which were skipped" in str(report)
        with pytest.raises(InvalidArgument, match=r"^keys: none of \d has a value; "):
            await session.export_lookups(column[column.isna()], by="identity", to=to)
        assert len(found_in(to)) == 2


TEXTS = ["z", None, "", "a", "  ", "\u00a0", "\t"]


@pytest.mark.parametrize("column", [TEXTS, pd.Series(TEXTS), pl.Series(TEXTS)])
async def test_blank_texts_of_a_column_are_skipped_as_those_of_a_file(
    tmp_path: Path, column: Any
) -> None:
    file = tmp_path / "keys.parquet"
    pl.DataFrame({"key": TEXTS}).write_parquet(file)
    results = []
    async with scripted(Directory().answer) as server, session_for(server.url) as session:
        for name, keys in (("file", file), ("column", column)):
            to = tmp_path / f"{name}.ndjson"
            results.append(await session.export_lookups(keys, by="identity", to=to))
            assert found_in(to) == ["z", "a"]
    for report in results:
        assert (report.keys, report.skipped, report.failed, report.warnings) == (2, 5, 0, [])
        assert report.failed_file is None


async def test_a_report_names_no_file_that_is_not_there(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    blocked = tmp_path / "people.ndjson.not-found.txt"
    directory = Directory()
    directory.unknown = {"b"}

    def block(progress: LookupProgress) -> None:
        if progress.stage == "finishing":
            blocked.mkdir(exist_ok=True)

    async with scripted(directory.answer) as server, session_for(server.url) as session:
        keys: dict[str, Any] = {"keys": ["a", "b"], "by": "identity", "to": to}
        with pytest.raises(Incomplete, match=r"people\.ndjson\.not-found\.txt") as caught:
            await session.export_lookups(**keys, on_progress=block)
        report = caught.value.report
        assert isinstance(report, LookupReport)
        assert (report.not_found, report.not_found_file, report.manifest) == (1, None, None)
        blocked.rmdir()
        report = await session.export_lookups(**keys)
        assert report.not_found_file == str(blocked)
        assert report.manifest == f"{to}.manifest.json"


async def test_files_that_no_longer_hold_go(tmp_path: Path) -> None:
    to = tmp_path / "people.csv.gz"
    directory = Directory()
    directory.failing, directory.unknown = {"a"}, {"b"}
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(Incomplete):
            await session.export_lookups(["a", "b"], by="identity", to=to)
        assert tmp_path.joinpath("people.csv.gz.failed.ndjson").exists()
        assert tmp_path.joinpath("people.csv.gz.not-found.txt").exists()
        directory.failing = set()
        report = await session.export_lookups(["a", "b"], by="identity", to=to)
        assert report.failed_file is None
        assert not tmp_path.joinpath("people.csv.gz.failed.ndjson").exists()
        report = await session.export_lookups(["a", "c"], by="identity", to=to)
        assert report.not_found_file is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "people.csv.gz",
        "people.csv.gz.manifest.json",
    ]


async def test_repeats_are_asked_once_and_written_once(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    directory = Directory()
    keys: list[str | int] = ["b", "a", 5, "b", "5", "a", "c"] * 700
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        report = await session.export_lookups(keys, by="identity", to=to)
    assert set(directory.asked.values()) == {1}
    assert found_in(to) == ["b", "a", "5", "c"]
    assert (report.keys, report.repeated, report.found) == (4, 4896, 4)


async def test_any_source_of_keys(tmp_path: Path) -> None:
    directory = Directory()

    def generator() -> Iterator[str]:
        yield from ("b", "a")

    async def asynchronous() -> AsyncIterator[str]:
        for key in generator():
            await asyncio.sleep(0)
            yield key

    sources: list[Any] = [
        ["b", "a"],
        ("b", "a"),
        {"b": 1, "a": 2}.keys(),
        generator(),
        asynchronous(),
    ]
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        for number, source in enumerate(sources):
            to = tmp_path / f"{number}.ndjson"
            await session.export_lookups(source, by="identity", to=to)
            assert found_in(to) == ["b", "a"]
        to = tmp_path / "none.ndjson"
        report = await session.export_lookups([], by="identity", to=to)
        assert (report.keys, report.found, report.complete) == (0, 0, True)
        assert to.read_bytes() == b""


async def test_a_source_that_fails_is_told_as_it_is(tmp_path: Path) -> None:
    def source() -> Iterator[str]:
        yield from map(str, range(5000))
        raise OSError("the tape is torn")

    directory = Directory()
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(OSError, match=r"^the tape is torn$"):
            await session.export_lookups(source(), by="identity", to=tmp_path / "p.ndjson")
    assert not directory.asked
    assert list(tmp_path.iterdir()) == []


async def test_against_the_emulator_by_each_kind_of_key(tmp_path: Path) -> None:
    faults = {"server_error": 0.05, "truncated": 0.05, "garbled": 0.05}
    async with Emulator(people=300, seed=4, faults=faults) as emulator:
        population = emulator.population
        kinds: dict[Any, list[str]] = {
            "identity": [key for n in range(300) if (key := population.identity(n))],
            "email": [key for n in range(300) if (key := population.email(n))],
            "object_id": [key for n in range(300) for key in population.object_ids(n)],
        }
        async with Session(clevertap=emulator.clevertap, retry=QUICK) as session:
            for by, keys in kinds.items():
                to = tmp_path / f"{by}.parquet"
                report = await session.export_lookups([*keys, "nobody"], by=by, to=to)
                assert (report.found, report.not_found) == (len(set(keys)), 1)
                assert report.retries > 0


# ---------------------------------------------------------------------------------- files of keys


@pytest.mark.parametrize(
    ("name", "data", "column", "keys"),
    [
        ("k.txt", b"a\nb c\n\n  \nd", None, ["a", "b c", "d"]),
        ("k.txt", b"\xef\xbb\xbfa\r\nb\r\n", None, ["a", "b"]),
        ("ids", b"a,b\nc", None, ["a,b", "c"]),
        ("k.csv", b"name,id\nAnn,1\nBob,2\n", "id", ["1", "2"]),
        ("k.csv", b"\xef\xbb\xbfid,name\r\n1,Ann\r\n2,Bob\r\n", "id", ["1", "2"]),
        ("k.csv", b'id,name\n"a,b","x"\n"say ""hi""",y\n', "id", ["a,b", 'say "hi"']),
        ("k.csv", b"id\n7\n\n8\n", "id", ["7", "8"]),
        ("k.csv", b",n\n7,1\n8,2\n", "", ["7", "8"]),
        ("k.csv", b"identity\n7\n8\n", None, ["7", "8"]),
        ("k.csv", b"Identity\r\n7\r\n8\r\n", None, ["7", "8"]),
        ("k.csv", b"7\n8\n", None, ["7", "8"]),
        ("k.CSV", b"\xef\xbb\xbf7\r\n8", None, ["7", "8"]),
        ("k.csv", "id,n\nJosé,1\n田中,2\n".encode(), "id", ["José", "田中"]),
        ("k.csv", b"id,n\n,1\n  ,2\n9,3\n", "id", ["9"]),
        ("k.csv", b"", None, []),
        ("k.ndjson", b'"a"\n7\n\n"b"\n', None, ["a", "7", "b"]),
        ("k.jsonl", b'\xef\xbb\xbf"a"\r\n"b"', None, ["a", "b"]),
        ("k.ndjson", b'{"id":"a","x":1}\n{"x":2,"id":7}\n{"id":null}\n', "id", ["a", "7"]),
    ],
)
async def test_files(
    tmp_path: Path, name: str, data: bytes, column: str | None, keys: list[str]
) -> None:
    source, to = tmp_path / name, tmp_path / "people.parquet"
    source.write_bytes(data)
    directory = Directory()
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        for path in (source, str(source)):
            report = await session.export_lookups(path, by="identity", column=column, to=to)
            assert report.found == len(keys)
            assert list(directory.asked) == keys
    assert source.read_bytes() == data


@pytest.mark.parametrize(
    ("name", "data", "column", "words"),
    [
        (
            "k.csv",
            b"id,name\n1,Ann\n",
            None,
            r"column: .* has 2 columns \('id', 'name'\); name the one",
        ),
        (
            "k.csv",
            b"id,name\n1,Ann\n",
            "ID",
            r"column: .* 2 columns \('id', 'name'\), of which none .* 'ID'; did you mean 'id'",
        ),
        (
            "k.csv",
            b"\xef\xbb\xbfuser_id,note\n1,Ann\n",
            "userid",
            r"column: .* \('user_id', 'note'\), of which none .* 'userid'; did you mean 'user_id'",
        ),
        # The index of a DataFrame, which a caller may copy as `column`.
        ("k.csv", b",id\n1,2\n", None, r"column: .* has 2 columns \('', 'id'\); name the one"),
        (
            "k.csv",
            b"id,,\n1,2,3\n",
            "",
            r"column: .* 3 columns \('id', '', ''\), of which 2 are named ''; name exactly one",
        ),
        (
            "k.csv",
            b"Partners 2026;\nE-Mail;Name\na@b.example;Ann\n",
            "E-Mail",
            r"column: .* named 'E-Mail'; line 2 has it: .*: tail -n \+2 \S*k.csv > \S*k-list.csv$",
        ),
        (
            "k.csv",
            b"Liste vom 3.11.\n\nName\tE-Mail\nAnn\ta@b.example\n",
            "E-Mail",
            "column: .*n \\+3",
        ),
        (
            "k.csv",
            b"Partners 2026;\nE-Mail;Name\na@b.example;Ann\n",
            "email",
            r"column: .*; line 2 has it as 'E-Mail': pass that name, and to .*: tail -n \+2 .*$",
        ),
        (
            "k.csv",
            b"Partners 2026;\nEmail;email\na@b.example;Ann\n",
            "email",
            r"column: .*; line 2 has it: to .*: tail -n \+2 .*$",
        ),
        (
            "k.csv",
            b"Partners 2026;\nE-Mail;email\na@b.example;Ann\n",
            "EMAIL",
            r"column: .*; name exactly one, and remove what stands above the header, if anything",
        ),
        (
            "k.csv",
            b"Partners 2026\n-;Name\na@b.example;Ann\n",
            "",
            r"column: .*; name exactly one, and remove what stands above the header, if anything",
        ),
        (
            "k.csv",
            # As pandas writes an index, below a title. By commas, the line would be one cell.
            b"Partners 2026;\n;Email\n0;jane@example.com\n",
            "Email",
            r"column: .*; line 2 has it: to .*: tail -n \+2 .*$",
        ),
        (
            "k.csv",
            b"Partners 2026;\n;Email\n0;jane@example.com\n",
            "email",
            r"column: .*; line 2 has it as 'Email': pass that name, and to .*: tail -n \+2 .*$",
        ),
        (
            "k.csv",
            b"Partners 2026;\nE-mail:;\nName;email\nJane;jane@example.com\n",
            "email",
            r"column: .*; line 3 has it: to .*: tail -n \+3 .*$",
        ),
        (
            "k.csv",
            b"Partners 2026;\nE-mail:;\nE-mail;Name\nEMAIL;Name\n",
            "email",
            r"column: .*; line 3 has it as 'E-mail': pass that name, and to .*: tail -n \+3 .*$",
        ),
        (
            "k.csv",
            b"Partners 2026\nE-mail:;;\nEMail;Name;Town\na@b.example;Ann;Ulm\n",
            "email",
            r"column: .*; line 3 has it as 'EMail': pass that name, and to .*: tail -n \+3 .*$",
        ),
        (
            "k.csv",
            # The name in another column of another line is a value.
            b"Partners 2026\nE-Mail-Address;Channel\na@b.example;email\n",
            "email",
            r"column: .*; name exactly one, and remove what stands above the header, if anything",
        ),
        (
            "k.csv",
            b"Partners 2026\nE-Mail;Name;Channel;\na@b.example;Ann;email;\n",
            "email",
            r"column: .*; line 2 has it as 'E-Mail': pass that name, and to .*: tail -n \+2 .*$",
        ),
        (
            "k.csv",
            b"Partners 2026\n;E-Mail;Channel\n1;a@b.example;email\n",
            "email",
            r"column: .*; line 2 has it as 'E-Mail': pass that name, and to .*: tail -n \+2 .*$",
        ),
        (
            "k.csv",
            b"Export\n\nE-Mail;Address\na@b.example;Main Road 5, 89073 Ulm, Germany\n",
            "email",
            r"column: .*; line 3 has it as 'E-Mail': pass that name, and to .*: tail -n \+3 .*$",
        ),
        (
            "k.csv",
            b"Partners 2026\nName\tE-Mail\nAnn, Bo, Cat, Dan\ta@b.example\n",
            "E-Mail",
            r"column: .*; line 2 has it: to .*: tail -n \+2 .*$",
        ),
        (
            "k.csv",
            # A column without a name, and the name as a value.
            b"Partners 2026\nemail;;name\na@b.example;email;Ann\n",
            "email",
            r"column: .*; line 2 has it: to .*: tail -n \+2 .*$",
        ),
        (
            "k.csv",
            b"Partners 2026\nE-mail:\nemail\na@b.example\n",
            "email",
            r"column: .*; line 3 has it: to .*: tail -n \+3 .*$",
        ),
        (
            "k.csv",
            # Below a header the name is a value, such as that of a channel.
            b"Report\nEmail,Channel\na@b.c,email\nd@e.f,sms\n",
            "email",
            r"column: .*; line 2 has it as 'Email': pass that name, and to .*: tail -n \+2 .*$",
        ),
        (
            "k.csv",
            # Names of groups of columns.
            b"Partners 2026\nContact;;Order\nemail;name;id\na@b.example;Ann;1\nd@e.example;Bob;2\n",
            "email",
            r"column: .*; line 3 has it: to .*: tail -n \+3 .*$",
        ),
        (
            "k.csv",
            b"Partners 2026\nFrom;2026-01-01\nTo;2026-01-31\n\nemail;name\na@b.example;Ann\n",
            "email",
            r"column: .*; line 5 has it: to .*: tail -n \+5 .*$",
        ),
        (
            "k.csv",
            b"Partners 2026\nMade by Cy;for Di\nemail;name\na@b.example;Ann\n",
            "email",
            r"column: .*; line 3 has it: to .*: tail -n \+3 .*$",
        ),
        (
            "k.csv",
            # A table of sums.
            b"Partners 2026\nTotal;Open;Closed\n10;5;5\nemail;name;id\na@b.example;Ann;1\n",
            "email",
            r"column: .*; line 4 has it: to .*: tail -n \+4 .*$",
        ),
        (
            "k.csv",
            b"Partners 2026\nTotal;Open;Closed\n10;5;5\n\nemail;name\na@b.example;Ann\n",
            "email",
            r"column: .*; line 5 has it: to .*: tail -n \+5 .*$",
        ),
        (
            "k.csv",
            # The index has no cell in the header.
            b"Partners 2026\nemail;name\n0;a@b.example;Ann\n1;d@e.example;Bob\n",
            "email",
            r"column: .*; name exactly one, and remove what stands above the header, if anything",
        ),
        (
            "k.csv",
            "Übersicht\nÜber;;Öl\ngröße;ä;ö\n7;Ann;Ulm\n".encode(),
            "größe",
            r"column: .*; line 3 has it: to .*: tail -n \+3 .*$",
        ),
        (
            "k.csv",
            # The name is a value, or a title.
            b"Partners 2026\nName;Channel\nAnn;email\nBob;sms\n",
            "email",
            r"column: .*; name exactly one, and remove what stands above the header, if anything",
        ),
        (
            "k.csv",
            b"Partners 2026\nemail\nName;Town\nAnn;Ulm\n",
            "email",
            r"column: .*; name exactly one, and remove what stands above the header, if anything",
        ),
        (
            "k.csv",
            # Two tables of one width.
            b"Partners 2026\nBy;Cy\nemail;name\na@b.example;Ann\nemail;town\nd@e.example;Ulm\n",
            "email",
            r"column: .*; name exactly one, and remove what stands above the header, if anything",
        ),
        (
            "k.tsv",
            b"Partners 2026\nEmail,Name\na@b.example,Ann\n",
            "Email",
            r"column: .*; name exactly one, and remove what stands above the header, if anything",
        ),
        ("k.csv", b"Email\na@b.example\n", "email", r"column: .*; did you mean 'Email'\?$"),
        (
            "k.csv",
            # Lines of old Macs, which `tail` takes for one.
            b"Partners 2026;\rE-Mail;Name\ra@b.example;Ann\r",
            "E-Mail",
            r"column: .*; name exactly one, and remove what stands above the header, if anything",
        ),
        (
            "k.csv",
            b"Partners 2026;\nE-Mail;Name\na@b.example;Ann\n",
            "Mail",
            r"column: .*; name exactly one, and remove what stands above the header, if anything",
        ),
        ("k.csv", b"id,id\n1,2\n", "id", "column: .* 2 columns .*, of which 2 are named 'id'"),
        ("k.csv", b"", "id", "column: .* has 0 columns, of which none are named 'id'"),
        ("k.csv", b"id,name\n1,Ann\n2\n", "name", "keys: line 3 of .* has 1 column,"),
        (
            "k.csv",
            b"id;name\n1;Ann\n",
            None,
            r"column: .* 2 columns separated by semicolons \('id', 'name'\); name the one",
        ),
        ("k.csv", b"id\tname\n1\tA\n", None, "column: .* 2 columns separated by tabs .*; name"),
        (
            "k.csv",
            b"\xef\xbb\xbf7;Ann\r\n8;Bo",
            None,
            "column: .* 2 columns separated by semicolons; name .* does, or save it as .txt if",
        ),
        (
            "k.csv",
            b"id;name\n1;Ann\n",
            "ID",
            r"column: .* 2 columns separated by semicolons \('id', 'name'\), .* mean 'id'",
        ),
        ("k.csv", b"id;x;id\n1;2;3\n", "id", "column: .* 3 columns .*, of which 2 are named 'id'"),
        ("k.csv", b'"id";"x\n1;2\n', "id", "keys: line 1 of .* is not valid CSV: text follows"),
        ("k.csv", b"id;name\n1;Ann\n2\n", "id", "keys: line 3 of .* has 1 column, .* line has 2"),
        (
            "k.csv",
            b"sep=;\nid;x\n1\n",
            "id",
            "keys: line 3 of .* but the header behind its sep=; has 2",
        ),
        (
            "k.csv",
            b"sep=;\nid,x\n1,2\n",
            "id",
            "column: the header behind its sep=; of .* has 1 col",
        ),
        ("k.tsv", b"id;n\tx\n1\t2\n", "id", "column: .* 2 columns separated by tabs, of which"),
        ("k.csv", b"id\n1\n2,3\n", None, "keys: line 3 of .* has 2 columns"),
        ("k.csv", b"id\n\xff\xfe\n", None, "keys: .* is not UTF-8"),
        ("k.txt", "a\n".encode("utf-16"), None, "keys: .* is not UTF-8"),
        ("k.txt", b"a\n", "id", "column: got 'id', but k.txt is read as text"),
        ("k.ndjson", b'"a"\nb\n', None, "keys: line 2 of .* is not JSON"),
        ("k.ndjson", b'{"id":1}\n', None, "column: line 1 of .* holds an object; name the key"),
        ("k.ndjson", b'{"id":1}\n{"id":2}\n', "ID", "keys: no row of .* has a key in 'ID', 2 look"),
        ("k.ndjson", b'"a"\n', "id", "column: got 'id', but line 1 of .* is not an object"),
        ("k.ndjson", b"1.5\n", None, "keys: line 1 of .* holds a number with a fraction, which is"),
        ("k.ndjson", b"true\n", None, "keys: line 1 of .* holds a boolean, which is"),
        ("k.ndjson", b'{"id":["a"]}\n', "id", "keys: line 1 of .* holds .*not an identifier"),
    ],
)
async def test_wrong_files(
    tmp_path: Path, name: str, data: bytes, column: str | None, words: str
) -> None:
    source = tmp_path / name
    source.write_bytes(data)
    directory = Directory()
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(InvalidArgument, match=f"^{words}") as caught:
            await session.export_lookups(
                source, by="identity", column=column, to=tmp_path / "people.ndjson"
            )
    assert not directory.asked
    # A first line or a cell may be somebody's: it is the error's value, not part of its text.
    assert not {one for one in ("Ann", "7;", "1.5", "True") if one in str(caught.value)}
    if "first line" in words or " named " in words or "value of type" in words:
        assert caught.value.value is not None
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("first", "column"),
    [
        ("Ann,555", None),
        ("Ann,555", "mail"),
        ("Ann,555", "Anne"),
        # A value of somebody may be the name of a column elsewhere, or look like one.
        ("Ann,555,email", "mail"),
        ("Ann,555,phone", None),
        ("Ann,ann_555_id,email", "ann_556_id"),
        ("Ann 555 id,phone", "ann_555"),
    ],
)
async def test_a_first_line_that_may_be_somebody_is_not_shown(
    tmp_path: Path, first: str, column: str | None
) -> None:
    source = tmp_path / "k.csv"
    source.write_text(f"{first}\n{first.replace('555', '556')}\n")
    async with scripted(Directory().answer) as server, session_for(server.url) as session:
        with pytest.raises(InvalidArgument, match=r"^column: .* has [23] columns") as caught:
            await session.export_lookups(
                source, by="identity", column=column, to=tmp_path / "people.ndjson"
            )
    told = str(caught.value).replace(repr(column), "").replace(str(tmp_path), "")
    assert "'Ann" not in told
    assert "555" not in told
    assert caught.value.value == first.split(",")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"by": "name"}, "by"),
        ({"by": None}, "by"),
        ({"keys": 3}, "keys"),
        ({"keys": None}, "keys"),
        ({"keys": b"abc"}, "keys"),
        # In another order in each process.
        ({"keys": {"a", "b"}}, "keys: got a set"),
        ({"keys": frozenset({"a"})}, "keys: got a set"),
        ({"keys": "missing.csv"}, "keys"),
        ({"keys": "."}, "keys"),
        ({"column": "id"}, "column"),
    ],
)
async def test_bad_input_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = Directory()
    arguments: dict[str, Any] = {"keys": ["a"], "by": "identity", "to": "people.ndjson", **changes}
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(InvalidArgument, match=f"^{name}\\b"):
            await session.export_lookups(**arguments)
    assert not directory.asked
    assert list(tmp_path.iterdir()) == []


async def test_keys_that_a_program_has_changed_are_said(tmp_path: Path) -> None:
    directory = Directory()
    spaced, marked = [" a", "b "], ["'7000000732", "' c", "'"]
    numbers = ["9.19876543210E11", "9.2e+11", "1E+5", "5,55556E+09"]
    # Real ones, and such as are found.
    changed = {*spaced, *marked, *numbers}
    directory.unknown = {*changed, "12E5", "a b", "E1.5", "1.5", "5,5", "5,5E9a", "O'Neil", "a'"}
    keys = [*directory.unknown, " found ", "1.5E5", "'found"]
    to = tmp_path / "people.ndjson"
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        report = await session.export_lookups(keys, by="identity", to=to)
        assert report.found == 3
        blanks, apostrophes, rounded = report.warnings
        assert blanks.startswith("2 keys not found have blanks at an end")
        assert apostrophes.startswith("3 keys not found have an apostrophe in front")
        assert rounded.startswith("4 keys not found are numbers as a spreadsheet shortens them")


async def test_e_mail_addresses_with_capitals_that_are_not_found_are_said(tmp_path: Path) -> None:
    directory = Directory()
    directory.unknown = {"Ann@X.example", "BO@x.example", "cy@x.example"}
    keys = [*directory.unknown, "Di@x.example"]
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        report = await session.export_lookups(keys, by="email", to=tmp_path / "people.ndjson")
        [capitals] = report.warnings
        assert capitals.startswith(
            "2 keys not found have upper-case letters, which stay as they are"
        )
        # They are sent as they are written.
        assert {*keys} == {*directory.asked}
        # An ID may have them.
        other = await session.export_lookups(["A1", "x"], by="identity", to=tmp_path / "i.ndjson")
        assert other.warnings == []


@pytest.mark.parametrize("ending", [".csv", ".ndjson", ".txt", ".parquet"])
async def test_an_invalid_key_of_a_file_is_named_by_its_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"ids{ending}"
    long = "x" * 9000
    cells = ["a", "", *(f"k{number}" for number in range(2500)), long, "", "b", long + "y"]
    if ending == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"identity": cells}), path)
    elif ending == ".ndjson":
        path.write_text("".join(json.dumps({"identity": cell}) + "\n" for cell in cells))
    else:
        path.write_text("".join(f"{cell}\n" for cell in ["identity", *cells][ending == ".txt" :]))
    is_header = ending == ".csv"
    word = "row" if ending == ".parquet" else "line"
    async with scripted(Directory().answer) as server, session_for(server.url) as session:
        to = tmp_path / "people.ndjson"
        column = None if ending == ".txt" else "identity"
        report = await session.export_lookups(path, by="identity", column=column, to=to)
    assert report.failed == 2
    failed = Path(f"{to}.failed.ndjson").read_text().splitlines()
    assert [json.loads(line)["message"].partition(": ")[0] for line in failed] == [
        f"{word} {cells.index(key) + 1 + is_header} of {path}" for key in (long, long + "y")
    ]


@pytest.mark.parametrize(
    "name", ["people.ndjson", "people.ndjson.not-found.txt", "people.ndjson.failed.ndjson"]
)
async def test_the_file_of_keys_is_never_overwritten(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    source.write_bytes(b'"a"\n')
    directory = Directory()
    directory.unknown = directory.failing = set()
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(InvalidArgument, match=f"keys: .*{name}.* is written by this"):
            await session.export_lookups(source, by="identity", to=tmp_path / "people.ndjson")
    assert source.read_bytes() == b'"a"\n'
    assert not directory.asked


# ---------------------------------------------------------------------------- interrupted, and on

KEYS = [f"key {n}" for n in range(700)]


async def test_the_same_keys_from_elsewhere_are_resumed(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    directory = Directory()
    directory.unknown = set(KEYS[::7])
    reports: list[LookupProgress] = []

    def on_progress(progress: LookupProgress) -> None:
        if progress.answered >= 200:
            raise Halt

    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(Halt):
            await session.export_lookups(KEYS, by="identity", to=to, on_progress=on_progress)
        before = len(directory.asked)
        # Of another type: the same keys all the same.
        report = await session.export_lookups(
            iter(KEYS), by="identity", to=to, on_progress=reports.append
        )
    assert found_in(to) == [key for key in KEYS if key not in directory.unknown]
    # Only those that were under way when it ended.
    again = [key for key, times in directory.asked.items() if times > 1]
    assert len(again) == before - reports[-1].resumed <= 16
    answered = [progress.answered for progress in reports if progress.stage == "asking"]
    assert answered == sorted(answered)
    assert answered[0] == reports[-1].resumed >= 200
    assert answered[-1] == reports[-1].keys == 700
    assert reports[-1].finished == report.found


# ------------------------------------------------------------------------ what others do meanwhile


@pytest.mark.parametrize("status", ["403 Forbidden", "400 Bad Request", "503 Out of Service"])
async def test_a_proxy_that_refuses_settles_nothing(tmp_path: Path, status: str) -> None:
    to = tmp_path / "people.ndjson"
    to.write_bytes(b"last week's\n")
    directory = Directory()
    directory.blocked, directory.blocked_after = status, 30
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(Incomplete, match="does not answer") as caught:
            await session.export_lookups(KEYS, by="identity", to=to)
        assert "run the same lookup again" in str(caught.value)
        # Nothing is asked for long, and nothing is put in place.
        assert len(directory.asked) < (70 if status.startswith("503") else 160)
        assert to.read_bytes() == b"last week's\n"
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "people.ndjson",
            "people.ndjson.export",
        ]
        directory.blocked = None
        told: list[LookupProgress] = []
        report = await session.export_lookups(KEYS, by="identity", to=to, on_progress=told.append)
    assert next(progress.resumed for progress in told if progress.stage == "asking") >= 10
    assert (report.complete, report.found, report.failed) == (True, len(KEYS), 0)
    assert found_in(to) == KEYS


async def test_a_few_keys_that_a_proxy_refuses_are_asked_again(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    directory = Directory()
    directory.blocked = "403 Forbidden"
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(Incomplete, match="the service does not answer: CleverTap answered"):
            await session.export_lookups(KEYS[:3], by="identity", to=to)
        assert not to.exists()
        directory.blocked = None
        report = await session.export_lookups(KEYS[:3], by="identity", to=to)
    assert report.complete
    assert found_in(to) == KEYS[:3]
    assert set(directory.asked.values()) == {2}


@pytest.mark.parametrize("ending", ["ndjson", "csv", "parquet", "duckdb"])
async def test_keys_that_the_service_all_refuses_leave_the_output_as_it_is(
    tmp_path: Path, ending: str
) -> None:
    to = tmp_path / f"people.{ending}"
    directory = Directory()
    keys = ["a\x01b", *KEYS[:12]]
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        export = partial(session.export_lookups, by="identity", to=to, write="replace")
        report = await export(KEYS[:12])
        before = to.read_bytes()
        directory.refused = set(KEYS)
        # A second run asks again, because nothing that it could build on was answered.
        for asked in (1, 2):
            with pytest.raises(BadRequest) as caught:
                await export(keys)
            told = "No key was accepted, so nothing was written."
            assert told in caught.value.__notes__
            assert to.read_bytes() == before
            assert directory.asked[KEYS[3]] == 1 + asked
        directory.refused = {KEYS[2]}
        report = await export(keys)
    assert (report.complete, report.found, report.failed) == (True, 11, 2)


async def test_refusals_of_an_ended_run_are_no_reason_to_replace_an_output(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    to.write_text("theirs")
    directory = Directory()
    directory.refused = set(KEYS)

    def end(progress: LookupProgress) -> None:
        if progress.failed == 3:
            raise Halt

    async with scripted(directory.answer) as server, session_for(server.url) as session:
        export = partial(session.export_lookups, KEYS[:3], by="identity", to=to)
        with pytest.raises(Halt):
            await export(on_progress=end)
        with pytest.raises(BadRequest):
            await export()
        assert to.read_text() == "theirs"
        directory.refused = set()
        assert (await export()).found == 3


async def test_a_refusal_does_not_stand_for_an_answer_that_is_missing(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    directory = Directory()
    directory.failing, directory.refused = set(KEYS[:2]), {KEYS[2]}
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        export = partial(session.export_lookups, by="identity", to=to)
        with pytest.raises(Incomplete) as caught:
            await export(KEYS[:3])
        assert "the service does not answer: CleverTap answered HTTP 503" in str(caught.value)
        # A later run asks for the refused key again, too.
        assert "nothing of it has been kept" in str(caught.value)
        [left] = unfinished_in(to)
        assert (left.done, left.goal) == (0, 3)
        # Once another key was answered, the refusal is an answer.
        with pytest.raises(Incomplete) as caught:
            await export(KEYS[:4])
    assert "no answer for 2 keys" in str(caught.value)
    assert "HTTP 400" not in str(caught.value)


async def test_keys_that_are_all_refused_are_no_answers_to_resume_with(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    directory = Directory()
    directory.refused = set(KEYS)
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(BadRequest) as caught:
            await session.export_lookups(["a\x01b", *KEYS[:2]], by="identity", to=to)
    assert "resume" not in " ".join([str(caught.value), *caught.value.__notes__])


async def test_one_answer_is_singular(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    directory = Directory()
    directory.blocked, directory.blocked_after = "503 Out of Service", 1
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(Incomplete, match=r"1 answer is in .*again to resume it"):
            await session.export_lookups(KEYS[:20], by="identity", to=to)


async def test_keys_that_a_firewall_never_lets_through_do_not_keep_the_others(
    tmp_path: Path,
) -> None:
    to = tmp_path / "people.ndjson"
    directory = Directory()
    directory.suspicious = {f"../{number}" for number in range(30)}
    keys = [*KEYS[:40], *sorted(directory.suspicious)]
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        # In the second run no other keys are left to ask for.
        for _ in range(2):
            with pytest.raises(Incomplete, match="no answer for 30 keys"):
                await session.export_lookups(keys, by="identity", to=to)
            assert found_in(to) == KEYS[:40]
        directory.suspicious = set()
        report = await session.export_lookups(keys, by="identity", to=to)
    assert report.complete
    assert found_in(to) == keys


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ([KEYS[0], "tab\t", KEYS[3]], "1 key was refused and stays without an answer"),
        ([KEYS[0], "tab\t", KEYS[1], KEYS[3]], "2 keys were refused and stay without an answer"),
        ([KEYS[0], KEYS[3]], None),
    ],
)
async def test_refused_keys_are_a_warning(
    tmp_path: Path, keys: list[str], sentence: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys refused by this library and keys refused by the service count alike."""
    to = tmp_path / "people.ndjson"
    directory = Directory()
    directory.refused = {KEYS[1]}
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with caplog.at_level(logging.WARNING, "altaprofiles"):
            report = await session.export_lookups(keys, by="identity", to=to)
    assert report.complete
    expected = [] if sentence is None else [f"{sentence}, see {to}.failed.ndjson"]
    assert report.warnings == caplog.messages == expected


@pytest.mark.parametrize(
    ("name", "lines", "column", "sentence"),
    [
        ("k.csv", ["Customer", *KEYS[:3]], None, "name its column if it is a header"),
        ("k.csv", ["Customer", *KEYS[:3]], "Customer", None),
        ("k.csv", ["identity", *KEYS[:3]], None, None),
        ("k.csv", KEYS[:3], None, None),
        ("k.csv", ['" "', "unknown", *KEYS[:3]], None, None),
        ("k.csv", [KEYS[0], "unknown"], None, None),
        ("k.txt", ["Identity", *KEYS[:3]], None, "leave it out if it is a header"),
        ("k.txt", ["unknown", *KEYS[:3]], None, None),
        (None, ["identity", *KEYS[:3]], None, "leave it out if it is a header"),
        (None, ["Customer", *KEYS[:3]], None, None),
    ],
)
async def test_a_header_that_was_looked_up_is_a_warning(
    tmp_path: Path, name: str | None, lines: list[str], column: str | None, sentence: str | None
) -> None:
    keys: Any = lines
    if name is not None:
        keys = tmp_path / name
        keys.write_text("".join(f"{line}\n" for line in lines))
    directory = Directory()
    directory.unknown = {"Customer", "identity", "Identity", "unknown"}
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        report = await session.export_lookups(
            keys, by="identity", column=column, to=tmp_path / "p.ndjson"
        )
    subject = "the first key" if name is None else f"the first line of {keys}"
    expected = [] if sentence is None else [f"{subject} was looked up, and is nobody's; {sentence}"]
    assert report.warnings == expected


IDENTITIES = "if the keys are identities, pass by='identity' (--by identity)"
ADDRESSES = "if the keys are e-mail addresses, pass by='email' (--by email)"


@pytest.mark.parametrize(
    ("by", "keys", "have", "fix"),
    [
        ("email", ["Customer", "1", "2"], "none of the 3 keys has an @", IDENTITIES),
        ("email", ["1", "jack@example.com"], None, None),
        ("email", ["1", "2", "jack@example.com"], "only 1 of 3 keys has an @", IDENTITIES),
        ("email", [*"1234", "a@b.example", "c@"], "only 2 of 6 keys have an @", IDENTITIES),
        (
            "email",
            ["1"],
            "the key has no @",
            "if the key is an identity, pass by='identity' (--by identity)",
        ),
        ("identity", ["Mail", "a@", "b@"], "2 of 3 keys have an @", ADDRESSES),
        ("identity", ["1", "2", "jack@example.com"], None, None),
        ("identity", ["a@", "b@"], "each of the 2 keys has an @", ADDRESSES),
        (
            "identity",
            ["a@"],
            "the key has an @",
            "if the key is an e-mail address, pass by='email' (--by email)",
        ),
        (
            "identity",
            ["n/a", "none", *(f"{n}@example.com" for n in range(3))],
            "3 of 5 keys have an @",
            ADDRESSES,
        ),
        ("object_id", ["Mail", "jack@example.com"], "1 of 2 keys has an @", ADDRESSES),
    ],
)
async def test_keys_of_another_kind_are_said_if_nobody_has_them(
    tmp_path: Path, by: Any, keys: list[str], have: str | None, fix: str | None
) -> None:
    directory = Directory()
    directory.unknown = {*keys}
    (source := tmp_path / "k.csv").write_text("".join(f"{key}\n" for key in keys))
    to = tmp_path / "p.ndjson"
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        report = await session.export_lookups(source, by=by, to=to)
    hints = [text for text in report.warnings if "; if " in text]
    advice = f"0 people in {to}; {have}, which every e-mail address has; {fix}"
    assert hints == ([] if fix is None else [advice])
    # One piece of advice, and not another that leads elsewhere.
    assert any("is a header" in text for text in report.warnings) == (fix is None)


async def test_one_key_without_an_answer(tmp_path: Path) -> None:
    directory = Directory()
    directory.failing = {KEYS[0]}
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(Incomplete, match="no answer for 1 key, see"):
            await session.export_lookups(KEYS[:3], by="identity", to=tmp_path / "p.ndjson")


async def test_keys_that_the_service_refuses_do_not_end_it(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    directory = Directory()
    directory.refused = set(KEYS[:50])
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        report = await session.export_lookups(KEYS[:60], by="identity", to=to)
        assert (report.complete, report.found, report.failed) == (True, 10, 50)
        # Nor do they hide that it has gone since.
        directory.failing = set(KEYS[50:])
        directory.asked.clear()
        with pytest.raises(Incomplete, match="does not answer"):
            await session.export_lookups(KEYS, by="identity", to=to)
    assert len(directory.asked) < 100


@pytest.mark.parametrize("way", ["task", "scope", "timeout"])
async def test_cancelled_while_a_file_of_keys_is_read(tmp_path: Path, way: str) -> None:
    to, source = tmp_path / "people.ndjson", tmp_path / "keys.txt"
    source.write_text("\n".join(KEYS[:50] * 400))
    told: list[LookupProgress] = []
    ending: list[Any] = []

    def on_progress(progress: LookupProgress) -> None:
        told.append(progress)
        if len(told) == 2:
            ending[0]()

    arguments: dict[str, Any] = {"keys": source, "by": "identity", "to": to}
    directory = Directory()
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        await end_midway(
            way,
            ending,
            lambda: session.export_lookups(**arguments, on_progress=on_progress),
        )
        # Two of ten batches.
        assert [progress.stage for progress in told] == ["reading"] * 2
        assert not directory.asked
        assert [path.name for path in tmp_path.iterdir()] == ["keys.txt"]
        report = await session.export_lookups(**arguments)
    assert (report.keys, report.repeated) == (50, 19_950)
    assert found_in(to) == KEYS[:50]


async def test_a_source_with_a_task_group_open_when_on_progress_raises(tmp_path: Path) -> None:
    log: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            async with anyio.create_task_group():
                for number in range(5000):
                    yield str(number)
        finally:
            log.append("closed")

    def on_progress(progress: LookupProgress) -> None:
        raise Halt

    directory = Directory()
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        with pytest.raises(Halt):
            await session.export_lookups(
                source(), by="identity", to=tmp_path / "p.ndjson", on_progress=on_progress
            )
        assert log == ["closed"]
    for _ in range(20):
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------ invalid keys


async def test_an_invalid_key_is_not_taken_for_one_that_reads_like_it(tmp_path: Path) -> None:
    to = tmp_path / "people.ndjson"
    directory = Directory()
    keys: list[Any] = [
        None,
        "None",
        float("nan"),
        "nan",
        "5",
        pd.NaT,
        pd.NA,
        1.5,
        np.float64("nan"),
    ]
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        report = await session.export_lookups(keys, by="identity", to=to)
    assert directory.asked == {"None": 1, "nan": 1, "5": 1}
    assert found_in(to) == ["None", "nan", "5"]
    assert (report.keys, report.skipped, report.found, report.failed) == (4, 5, 3, 1)
    [failed] = tmp_path.joinpath("people.ndjson.failed.ndjson").read_bytes().splitlines()
    failure = json.loads(failed)
    assert (failure["key"], failure["error"]) == ("1.5", "InvalidArgument")
    assert failure["message"].startswith("keys[7]: ")


@pytest.mark.parametrize("keys", [[None, float("nan")], ["\t"], ["", "", ""], [None] * 5000])
async def test_a_source_of_invalid_keys_only(tmp_path: Path, keys: list[Any]) -> None:
    directory = Directory()
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        fault = r"^keys: none of [\d,]+ (can be asked for: |has a value; )"
        with pytest.raises(InvalidArgument, match=fault):
            await session.export_lookups(keys, by="identity", to=tmp_path / "people.ndjson")
    assert not directory.asked
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "data", "column", "said"),
    [
        (
            "k.txt",
            b"\n7\tAnn\n8\tBob\n",
            None,
            (
                r"line 2 of .*k\.txt: holds the control character U\+0009 at index 1; .*"
                r"; if this is a TSV file, give it the ending \.tsv"
            ),
        ),
        ("k.txt", b"7\x01\n", None, r"line 1 of .*k\.txt: holds the .* U\+0001 .*the call"),
        ("k.csv", b"identity,x\n\n,y\n7\x01,y\n", "identity", r"line 4 of .*k\.csv: holds the "),
        ("k.ndjson", b'\n{"a":"7\\t"}\n', "a", r"line 2 of .*k\.ndjson: holds the .*the call"),
    ],
)
async def test_a_file_of_invalid_keys_only_is_refused_with_the_line(
    tmp_path: Path, name: str, data: bytes, column: str | None, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    async with scripted(always(http(b"{}"))) as server, session_for(server.url) as session:
        with pytest.raises(InvalidArgument) as caught:
            await session.export_lookups(
                path, by="identity", column=column, to=tmp_path / "people.ndjson"
            )
    assert re.fullmatch(rf"keys: none of \d can be asked for: {said}.*", str(caught.value))
    assert not server.heads


async def test_blank_rows_take_no_memory(tmp_path: Path) -> None:
    """Keys are named by their line, and the lines of all keys are not kept for that."""
    peaks = []
    # The first one imports what is imported once.
    for rows in (10, 100, 40_000):
        path = tmp_path / f"{rows}.csv"
        path.write_text("id,email\n" + "1,\n2,ann@example.com\n" * rows + "3,a\x01b\n")
        directory = Directory()
        async with scripted(directory.answer) as server, session_for(server.url) as session:
            tracemalloc.start()
            try:
                report = await session.export_lookups(
                    path, by="email", column="email", to=tmp_path / f"{rows}.ndjson"
                )
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
        assert (report.keys, report.repeated, report.skipped) == (2, rows - 1, rows)
        failed = Path(str(report.failed_file)).read_text()
        assert f"line {2 * rows + 2} of {path}: holds the control character" in failed
    assert peaks[2] < peaks[1] + 2_500_000, peaks


# ------------------------------------------------------------------------------ files, and where


async def test_two_outputs_that_differ_in_their_ending_only(tmp_path: Path) -> None:
    directory = Directory()
    directory.unknown, directory.refused = {"nobody"}, {"bad"}
    async with scripted(directory.answer) as server, session_for(server.url) as session:
        one = await session.export_lookups(
            ["ok", "nobody", "bad"], by="identity", to=tmp_path / "v.csv"
        )
        await session.export_lookups(["ok"], by="identity", to=tmp_path / "v.parquet")
        two = await session.export_lookups(["bad", "ok"], by="identity", to=tmp_path / "v.ndjson")
    assert (one.not_found, one.failed, two.not_found, two.failed) == (1, 1, 0, 1)
    names = {path.name for path in tmp_path.iterdir()}
    assert {name for name in names if "failed" in name or "not-found" in name} == {
        "v.csv.failed.ndjson",
        "v.csv.not-found.txt",
        "v.ndjson.failed.ndjson",
    }
    assert tmp_path.joinpath("v.csv.not-found.txt").read_bytes() == b"nobody\n"


async def test_a_relative_file_of_keys_is_that_of_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    here.joinpath("keys.txt").write_text("\n".join(KEYS))
    async with scripted(Directory().answer) as server, session_for(server.url) as session:
        monkeypatch.chdir(here)
        await session.export_lookups(
            "keys.txt", by="identity", to="p.ndjson", on_progress=lambda _: os.chdir(elsewhere)
        )
    assert found_in(here / "p.ndjson") == KEYS
    assert list(elsewhere.iterdir()) == []


async def test_progress_is_told_while_keys_arrive(tmp_path: Path) -> None:
    told: list[LookupProgress] = []

    def on_progress(progress: LookupProgress) -> None:
        told.append(progress)
        if len(told) == 2:
            raise InterruptedError

    async def keys() -> AsyncIterator[str]:
        yield "1"
        await anyio.sleep(30)

    async with scripted(Directory().answer) as server, session_for(server.url) as session:
        with pytest.raises(InterruptedError):
            await session.export_lookups(
                keys(), by="identity", to=tmp_path / "p.ndjson", on_progress=on_progress
            )
    assert [progress.stage for progress in told] == ["reading", "reading"]
    assert told[-1].pace == 0


async def test_progress_tells_of_a_wait_for_a_stated_rate_limit(tmp_path: Path) -> None:
    told: list[LookupProgress] = []
    none_left = ("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 3")
    nobody = http(b'{"status":"success"}', "200 OK", *none_left)
    async with scripted(always(nobody)) as server, session_for(server.url) as session:
        report = await session.export_lookups(
            map(str, range(4)), by="identity", to=tmp_path / "p.ndjson", on_progress=told.append
        )
        limit = session.stats.limits["CleverTap"]
    assert (report.not_found, limit.remaining) == (4, 0)
    waits = [at for at in told if at.wait]
    assert waits
    for at in waits:
        assert at.throttled
        assert limit.reset is not None
        assert at.waits_until is not None
        assert at.waits_until <= limit.reset + 1
        assert re.search(r", waiting for the rate limit until \d\d:\d\d:\d\d UTC, ", str(at))
    assert not told[-1].wait
