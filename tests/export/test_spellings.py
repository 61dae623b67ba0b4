"""One table under several spellings of its URL: one output, whatever earlier runs have left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from altaprofiles.emulator import Emulator
from altaprofiles.export.outputs import outputs_at

from ..support.jobs import Halt
from ..support.outputs import folder_of
from ..support.postgres import Server
from ..support.sessions import EVENT, RANGE, session_for

URL = "postgresql://u@127.0.0.1:5432/db/t"
SAME = [
    "postgresql://u@127.0.0.1/db/t",
    "postgres://u@127.0.0.1/db/t",
    "POSTGRESQL://127.0.0.1:5432/db/t",
    "postgresql://other:secret@127.0.0.1:/db/t?sslmode=disable",
    "postgresql://u@127.0.0.1/d%62/%74",
]
OTHERS = [
    "postgresql://u@127.0.0.1:5433/db/t",
    "postgresql://u@127.0.0.1/DB/t",
    "postgresql://u@127.0.0.1/db/T",
    "postgresql://u@127.0.0.2/db/t",
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGOPTIONS", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_all_spellings_of_a_table_are_one_output() -> None:
    assert {folder_of(one) for one in [URL, *SAME]} == {folder_of(URL)}
    assert len({folder_of(one) for one in [URL, *OTHERS]}) == 1 + len(OTHERS)
    hosts = [
        "postgresql://A.Example,b.example:5432/d/t",
        "postgresql://a.example:5432,B.example/d/t",
    ]
    assert len({folder_of(one) for one in hosts}) == 1
    # Names of files tell upper case from lower case.
    sockets = ["postgresql://%2Frun%2FPG/d/t", "postgresql://%2Frun%2Fpg/d/t"]
    assert len({folder_of(one) for one in sockets}) == 2
    assert folder_of("postgresql://[::1]:5432/d/t") == folder_of("postgresql://[::1]/d/t")


def test_tables_whose_names_differ_in_what_files_cannot_hold_are_apart() -> None:
    tables = [
        "postgresql://h/d/a_b",
        "postgresql://h/d/a%20b",
        "postgresql://h/d/a%24b",
        "postgresql://h/d%20d/t",
        "postgresql://h/d_d/t",
        "postgresql://h/d/t",
        "postgresql://h/d/t?options=-csearch_path%3Dn",
        "postgresql://h/d/t?options=-csearch_path%3Ds",
        "postgresql:///d/t?host=one",
        "postgresql:///d/t?host=two",
        "postgresql://h/d/t?port=6001",
        "postgresql://h/d_d/a_b",
        "postgresql://h/d/d_a_b",
        "postgresql://h:6000/d/t",
        "postgresql://h/6000_d/t",
        "postgresql://h/6000/d_t",
        "postgresql://h/6000.d/t",
        "postgresql:///h/d_t",
        "postgresql://h,d/t/u",
        "postgresql://h,d/t_u/v",
        "postgresql://h/d/t_u_v",
    ]
    folders = [folder_of(one) for one in tables]
    assert len({*folders}) == len(tables)
    # What leads to the same table is no part of it.
    assert folder_of(f"{tables[6]}&sslmode=disable") == folders[6]
    assert folder_of("postgresql://me@h:5432/d/a%20b?application_name=x") == folders[1]
    assert folders[0].name == "h_d_a_b.export"


def test_names_of_files_hold_no_option_of_a_url() -> None:
    folder = folder_of("postgresql://h/d/t?options=-c%20app.key%3Dtoken")
    assert "token" not in str(folder)


@pytest.mark.anyio
async def test_an_append_resumes_its_own_table_only(tmp_path: Path, postgres: Server) -> None:
    postgres.run("CREATE SCHEMA crm")
    schemas = ("public", "crm")
    one, two = (postgres.url(f"t?options=-csearch_path%3D{name}") for name in schemas)

    def halt(progress: Any) -> None:
        if progress.records >= 100:
            raise Halt

    async with Emulator(people=300) as emulator, session_for(emulator) as session:
        append: dict[str, Any] = {**RANGE, "batch_size": 23, "write": "append"}
        with pytest.raises(Halt):
            await session.export(EVENT, **append, to=one, on_progress=halt)
        assert (await session.export(EVENT, **append, to=two)).resumed == 0
        report = await session.export(EVENT, **append, to=one)
    assert report.resumed >= 100
    counts = [postgres.rows(f"SELECT count(*) FROM {name}.t")[0][0] for name in schemas]
    assert counts == [report.people] * 2


def test_the_usual_port_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    without, usual, own = (f"postgresql://h{port}/d/t" for port in ("", ":5432", ":6543"))
    assert folder_of(without) == folder_of(usual) != folder_of(own)
    monkeypatch.setenv("PGPORT", "6543")
    assert folder_of(without) == folder_of(own) != folder_of(usual)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("h:6000/d/t", "h/d/t?port=6000"),
        ("h:6000/d/t", "/d/t?host=h&port=6000"),
        ("h/d/t", "/d/t?host=h"),
        ("h/d/t", "other/d/t?host=H"),
        ("h/d/t", "other/d/t?hostaddr=h"),
        ("h/d/t", "h:6000/d/t?port=5432"),
        ("h:6000,i:6000/d/t", "h,i/d/t?port=6000"),
        ("[::1]/d/t", "/d/t?host=::1"),
        ("%2Frun%2Fpg/d/t", "/d/t?host=/run/pg"),
    ],
)
def test_options_of_a_url_name_the_place_as_well(tmp_path: Path, one: str, other: str) -> None:
    assert folder_of(f"postgresql://{one}") == folder_of(f"postgresql://{other}")
    # That of the host which the option replaces is another table's.
    (tmp_path / "other_d_t.export").mkdir()
    (tmp_path / "h_6000_d_t.export").mkdir()
    assert folder_of(f"postgresql://{one}") == folder_of(f"postgresql://{other}")


@pytest.mark.parametrize(
    ("variable", "value", "same"),
    [
        ("PGHOST", "h", "h/d/t"),
        ("PGHOST", "/run/pg", "%2Frun%2Fpg/d/t"),
        ("PGHOSTADDR", "127.0.0.9", "127.0.0.9/d/t"),
        ("PGPORT", "6000", ":6000/d/t"),
        ("PGOPTIONS", "-c search_path=crm", "/d/t?options=-c%20search_path%3Dcrm"),
        ("PGSERVICE", "crm", "/d/t?service=crm"),
    ],
)
def test_the_environment_stands_for_what_a_url_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, same: str
) -> None:
    short = "postgresql:///d/t"
    without = folder_of(short)
    without.mkdir()
    monkeypatch.setenv(variable, value)
    assert folder_of(short) != without
    # Whatever it is, what the URL says itself counts.
    own = "postgresql://a:5432/d/t?hostaddr=10.0.0.1&options=-cwork_mem%3D64MB&service=one"
    with_own = folder_of(own)
    by_environment = folder_of(short)
    monkeypatch.delenv(variable)
    assert folder_of(f"postgresql://{same}") == by_environment
    assert folder_of(own) == with_own


def test_other_options_of_the_environment_lead_to_the_same_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without = folder_of(URL)
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=0")
    assert folder_of(URL) == without


@pytest.mark.parametrize("left", ["127.0.0.1_5432_db_t", "127.0.0.1_db_t"])
@pytest.mark.parametrize("by", ["manifest", "unfinished", "spool"])
def test_what_earlier_runs_have_left_is_found_by_any_spelling(
    tmp_path: Path, left: str, by: str
) -> None:
    spool = tmp_path / "spool" if by == "spool" else None
    if spool is not None:
        spool.mkdir()
    if by == "manifest":
        (tmp_path / f"{left}.manifest.json").write_text("{}")
    else:
        ((spool or tmp_path) / f"{left}.export").mkdir()
    for one in [URL, *SAME]:
        assert folder_of(one, spool).name == f"{left}.export", one


def test_each_spelling_keeps_what_it_has_left_itself(tmp_path: Path) -> None:
    names = {URL: "127.0.0.1_5432_db_t", SAME[0]: "127.0.0.1_db_t", SAME[-1]: "127.0.0.1_d_62_t"}
    for name in names.values():
        (tmp_path / f"{name}.export").mkdir()
    for one, name in names.items():
        assert folder_of(one).name == f"{name}.export"


@pytest.mark.anyio
async def test_a_table_is_resumed_and_shown_by_another_spelling(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", str(postgres.port))
    url = postgres.url("spelled")
    short = url.replace(f":{postgres.port}/", "/").replace("postgresql://", "postgres://")
    assert short != url

    def halt(progress: Any) -> None:
        if progress.records >= 100:
            raise Halt

    async with Emulator(people=300) as emulator, session_for(emulator) as session:
        with pytest.raises(Halt):
            await session.export(EVENT, **RANGE, to=url, batch_size=23, on_progress=halt)
        [state] = outputs_at(short, table=None, spool=None)
        assert len(state.unfinished) == 1
        report = await session.export(EVENT, **RANGE, to=short, batch_size=23)
        assert report.resumed >= 100
        [state] = outputs_at(url, table=None, spool=None)
        assert state.success is not None
        assert not state.unfinished
    assert len([*tmp_path.glob("*.manifest.json")]) == 1


@pytest.mark.anyio
async def test_the_default_tables_of_a_database_are_told_apart(postgres: Server) -> None:
    url = postgres.url()
    async with Emulator(people=9) as emulator, session_for(emulator) as session:
        await session.export(EVENT, **RANGE, to=url)
        await session.export_lookups(["nobody"], by="user_id", to=url)
    people, bindings = outputs_at(url, table=None, spool=None)
    assert people.option is None
    assert bindings.option is not None
    [found] = outputs_at(url, table=bindings.option, spool=None)
    assert found.success == bindings.success
    assert f"--table {bindings.option}" in bindings.command
