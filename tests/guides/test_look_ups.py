"""The guide's table of a customer list tells what was found, in DuckDB and in PostgreSQL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from altaprofiles import Session
from altaprofiles.emulator import Emulator

from ..support.guides import block_of, function_of
from ..support.postgres import Server

RECORDS = [
    {"identity": "1", "email": "Ann@example.com"},
    {"identity": "2", "email": "bob@example.com"},
]
LIST = [
    # Each line is a row of the list, and its answer.
    ("Ann", "Ann@example.com", "1", "found"),
    ("Ann again", "Ann@example.com", "1", "found"),
    ("Bob", "BOB@example.com", "2", "found in lower case"),
    ("Bob", "bob@example.com", "2", "found"),
    ("Cat", "cat@example.com", None, "not found"),
    ("Dan", None, None, "no address"),
]


@pytest.mark.anyio
async def test_each_row_of_a_list_has_an_answer(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{name},{email or ''}\n" for name, email, *_ in LIST)
    Path("customers.csv").write_text(f"name,email\n{rows}")
    missing = ["bob@example.com", "cat@example.com"]
    async with (
        Emulator(records=RECORDS) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):

        async def look_up(keys: Any, to: str, **options: Any) -> None:
            await session.export_lookups(keys, by="email", to=to, **options)

        await look_up("customers.csv", "found.parquet", column="email")
        await look_up(missing, "lowered.parquet")
        found, lowered = postgres.url("found"), postgres.url("lowered")
        await look_up("customers.csv", found, column="email", write="append")
        await look_up(missing, lowered, write="append")
    names: dict[str, Any] = {}
    code = block_of("look-ups.md", "found in lower case")
    exec(code, names)  # noqa: S102
    assert sorted(names["answers"].fetchall(), key=str) == sorted(LIST, key=str)
    assert len(Path("answers.csv").read_text().splitlines()) == 1 + len(LIST)
    (query,) = re.findall(r'"""(.*?)"""', code, re.DOTALL)
    postgres.run("CREATE TABLE customers (name text, email text)")
    with postgres.connect() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY customers FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write(Path("customers.csv").read_text())
        connection.commit()
    assert sorted(postgres.rows(query), key=str) == sorted(LIST, key=str)


@pytest.mark.anyio
async def test_an_anonymous_id_of_several_users_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bindings = {"user1": ["phone", "tablet"], "user2": ["laptop"], "user3": ["tablet", "laptop"]}
    async with Emulator(bindings=bindings) as emulator, Session(alta=emulator.alta) as session:
        await function_of("look-ups.md", "shared_ids")(session)
    # Nobody has asked for user3.
    shared = [("laptop", ["user2", "user3"]), ("tablet", ["user1", "user3"])]
    assert f"{shared}\n" in capsys.readouterr().out
