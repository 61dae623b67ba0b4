"""The state of synced tables in PostgreSQL, beside their rows."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest

from altaprofiles import ExportError, Incomplete, Session, SyncReport
from altaprofiles.emulator import Emulator
from altaprofiles.export.sinks import Sink, Target, postgres_server
from altaprofiles.export.state import SyncState
from altaprofiles.tables.rows import Row

from ..support.exporting import BEGUN, Exporter, Job, Outcome, exporter
from ..support.postgres import PASSWORD, Server
from ..support.postgres_tables import (
    DAYS,
    days,
    export,
    named,
    nameless,
    origin_of,
    waits,
)
from ..support.sessions import QUICK, session_for
from ..support.sinks import ACCOUNT, opened, target_of
from ..support.waiting import wait_until

SETTINGS = '{"events": ["Charged"], "since": "2026-01-01"}'


def state(through: int, day: int = 0, account: str = ACCOUNT) -> SyncState:
    """Return the state after a day of January."""
    return SyncState(
        account=account,
        settings=SETTINGS,
        through=date(2026, 1, through),
        synced_at=DAYS[day] + timedelta(microseconds=day),
    )


def sync(
    target: Target,
    records: Sequence[bytes | Row],
    through: int,
    day: int,
    account: str = ACCOUNT,
    matched: Sequence[str] = ("Charged",),
) -> SyncState:
    written = state(through, day, account)
    export(target, records, day, account, matched=matched, sync=written)
    return written


def notes_of(
    target: Target,
    records: Sequence[bytes],
    through: int,
    day: int,
    account: str = ACCOUNT,
    **options: Any,
) -> Sequence[str]:
    written = state(through, day, account)
    return export(target, records, day, account, sync=written, **options).notes


# ---------------------------------------------------------------------------------------- the state


def test_a_table_has_a_state_for_each_account(postgres: Server) -> None:
    postgres.run("CREATE SCHEMA crm")
    for to in ("people", "crm.people", "crm.100%"):
        target = target_of(postgres.url(to))
        assert target.synced(ACCOUNT) is None
        first = sync(target, [named("1")], 5, 1)
        assert target.synced(ACCOUNT) == first
        assert target.synced("other") is None
        other = sync(target, [named("1")], 2, 2, "other")
        second = sync(target, [], 6, 3)
        assert target.synced(ACCOUNT) == second
        assert target.synced("other") == other
    assert postgres.rows(
        "SELECT table_name, account, settings::jsonb - 'left', through::text"
        " FROM crm.altaprofiles_sync"
        " ORDER BY 1, 2"
    ) == [
        (table, account, msgspec.json.decode(SETTINGS), f"2026-01-0{through}")
        for table in ("100%", "people")
        for account, through in ((ACCOUNT, 6), ("other", 2))
    ]


def test_a_state_never_moves_back(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [named("1")], 5, 3)
    sync(target, [named("2")], 4, 4)
    assert target.synced(ACCOUNT) == msgspec.structs.replace(state(5, 4))
    sync(target, [named("3")], 6, 2)
    assert target.synced(ACCOUNT) == state(6, 4)
    # A backup of the table has an older state, which is then the present one.
    postgres.run("UPDATE altaprofiles_sync SET through = '2026-01-03'")
    assert target.synced(ACCOUNT) == state(3, 4)
    sync(target, [], 4, 5)
    assert target.synced(ACCOUNT) == state(4, 5)


def test_other_exports_leave_the_state(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    written = sync(target, [named("1")], 5, 1)
    export(target, [named("1")], 2)
    assert target.synced(ACCOUNT) == written
    export(target_of(postgres.url("others")), [named("1")], 2)
    export(target_of(postgres.url("others"), write="replace"), [named("1")], 2)
    export(target_of(postgres.url("appended"), write="append"), [named("1")], 2)
    assert target.synced(ACCOUNT) == written


@pytest.mark.parametrize("write", ["upsert", "replace", "append"])
def test_a_table_that_was_made_again_has_no_state(postgres: Server, write: str) -> None:
    target = target_of(postgres.url("people"), write=write)
    sync(target_of(postgres.url("people")), [named("1")], 5, 1)
    other = sync(target_of(postgres.url("other")), [named("1")], 5, 1)
    postgres.run("DROP TABLE people")
    assert target.synced(ACCOUNT) is None
    export(target, [named("1")], 2)
    assert target.synced(ACCOUNT) is None
    assert target_of(postgres.url("other")).synced(ACCOUNT) == other


def test_a_table_that_is_replaced_has_no_state(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [named("1")], 5, 1)
    export(target_of(postgres.url("people"), write="replace"), [named("1")], 2)
    assert target.synced(ACCOUNT) is None
    assert postgres.rows("SELECT * FROM altaprofiles_sync") == []


def test_rows_that_are_refused_leave_the_state(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    written = sync(target, [named("1")], 5, 1)
    postgres.run("ALTER TABLE people ADD CHECK (name IS DISTINCT FROM 'no')")
    fix = r"check constraint .*\(SQLSTATE 23514\); .* is refused again .* alter the table"
    with pytest.raises(ExportError, match=fix):
        sync(target, [named("2"), named("3", name="no")], 6, 2)
    assert target.synced(ACCOUNT) == written
    assert len(days(postgres)) == 1


def test_a_state_that_cannot_be_written_leaves_the_rows(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [named("1")], 5, 1)
    postgres.run("ALTER TABLE altaprofiles_sync ADD CHECK (through < '2026-01-06')")
    with pytest.raises(ExportError, match="check constraint"):
        sync(target, [named("2")], 6, 2)
    assert days(postgres) == [("identity:1", 1, 1)]
    assert target.synced(ACCOUNT) == state(5, 1)


OF_OTHERS = {
    "table": "CREATE TABLE altaprofiles_sync (id int)",
    "types": "CREATE TABLE altaprofiles_sync (table_name text, account text, settings json,"
    " through date, synced_at timestamptz)",
    "view": "CREATE VIEW altaprofiles_sync AS SELECT ''::text AS table_name, ''::text AS account,"
    " ''::text AS settings, now()::date AS through, now() AS synced_at",
}


@pytest.mark.parametrize("made", OF_OTHERS)
def test_another_table_in_the_place_of_the_states_is_found_first(
    postgres: Server, made: str
) -> None:
    target = target_of(postgres.url("people"))
    postgres.run(OF_OTHERS[made])
    fault = r"public\.altaprofiles_sync is not the table in which syncs keep .*; rename it, or"
    with pytest.raises(ExportError, match=fault):
        target.accept(origin_of(0, sync=state(5)))
    # Other exports do not need it.
    export(target, [named("1")])
    with pytest.raises(ExportError, match=fault):
        target.synced(ACCOUNT)
    sink = opened(target, origin=origin_of(0, sync=state(5)))
    with pytest.raises(ExportError, match=fault):
        sink.close()
    sink.abort()


# ------------------------------------------------------------------------------------------ matched


def test_events_are_added_to_those_of_the_row(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [named("1"), named("2"), nameless("a")], 1, 1, matched=["b", "É"])
    sync(target, [named("1"), nameless("a")], 2, 2, matched=["B"])
    assert days(postgres, "matched") == [
        (["B", "b", "É"], 2, 1),
        (["b", "É"], 1, 1),
        (["B", "b", "É"], 2, 1),
    ]
    versions = postgres.rows("SELECT xmin::text FROM people ORDER BY person")
    # Nothing is new.
    sync(target, [named("1"), nameless("a")], 3, 3, matched=["b"])
    assert postgres.rows("SELECT xmin::text FROM people ORDER BY person") == versions
    # An export replaces them.
    export(target, [named("1")], 4, matched=["b"])
    assert days(postgres, "matched")[0] == (["b"], 4, 1)


def test_events_of_absorbed_rows_are_added(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [nameless("a"), nameless("b")], 1, 1, matched=["Launched"])
    sync(target, [nameless("c")], 1, 1, matched=["Viewed"])
    sync(target, [named("1", "a", "c"), nameless("b", "d")], 2, 2, matched=["Charged"])
    assert days(postgres, "person, matched") == [
        ("identity:1", ["Charged", "Launched", "Viewed"], 2, 1),
        ("objectId:b", ["Charged", "Launched"], 2, 1),
    ]


def test_a_row_that_was_fetched_later_gets_the_events_alone(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [named("1", name="later"), nameless("a", "b"), named("2")], 5, 5)
    sync(target, [named("1", "x", name="earlier"), nameless("b", "c")], 4, 2, matched=["Launched"])
    both = ["Charged", "Launched"]
    assert days(postgres, "name, object_ids, matched") == [
        ("later", [], both, 5, 5),
        (None, [], ["Charged"], 5, 5),
        (None, ["a", "b"], both, 5, 5),
    ]


def test_a_row_of_a_lookup_has_no_events_to_add(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [named("1")], 1, 1)
    postgres.run("UPDATE people SET matched = NULL")
    sync(target, [named("1")], 2, 2, matched=["Launched"])
    assert days(postgres, "matched") == [(["Launched"], 2, 1)]


def test_a_trigger_that_keeps_events_is_found(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [named("1")], 5, 5)
    postgres.run(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN NEW.matched = OLD.matched; RETURN NEW; END$$",
        "CREATE TRIGGER meddles BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION meddle()",
    )
    with pytest.raises(ExportError, match=r"keeps other events for 1 people.*meddles"):
        sync(target, [named("1")], 4, 4, matched=["Launched"])
    with pytest.raises(ExportError, match=r"other values than the export.*meddles"):
        sync(target, [named("1")], 6, 6, matched=["Launched"])
    assert target.synced(ACCOUNT) == state(5, 5)


# ------------------------------------------------------------------------------------------- rights


@pytest.fixture
def guest(postgres: Server) -> Iterator[str]:
    """Create a user who may do everything with the rows of `people`; yield their name."""
    name = f"Sync_guest_of_{postgres.database}"
    export(target_of(postgres.url("people")), [named("1")])
    postgres.run(
        f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{PASSWORD}'",
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON people TO "{name}"',
    )
    yield name
    postgres.run(f'DROP OWNED BY "{name}"', f'DROP ROLE "{name}"')


def test_the_rights_of_the_guide_are_enough(postgres: Server) -> None:
    name = f"loader_of_{postgres.database}"
    text = (files("altaprofiles") / "guides" / "into-databases.md").read_text("utf-8")
    statements = re.findall(r"`(GRANT [^`]* TO loader)`", text)
    assert len(statements) == 2
    postgres.run(
        f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"REVOKE ALL ON DATABASE {postgres.database} FROM PUBLIC",
        *(
            one.replace(" crm ", f" {postgres.database} ").replace(" loader", f" {name}")
            for one in statements
        ),
    )
    try:
        target = target_of(postgres.url("buyers", user=name))
        export(target, [named("1")])
        sync(target, [named("1")], 5, 1)
        assert target.synced(ACCOUNT) == state(5, 1)
    finally:
        postgres.run(
            f"GRANT CONNECT, TEMPORARY ON DATABASE {postgres.database} TO PUBLIC",
            "GRANT USAGE ON SCHEMA public TO PUBLIC",
            f"DROP OWNED BY {name}",
            f"DROP ROLE {name}",
        )


def test_each_right_that_is_missing_is_named_before_anything_is_sent(
    postgres: Server, guest: str
) -> None:
    target = target_of(postgres.url("people", user=guest))
    origin = origin_of(1, sync=state(5, 1))

    def grant(match: str) -> str:
        with pytest.raises(ExportError, match=match) as caught:
            target.accept(origin)
        return str(caught.value).partition(" run: ")[2]

    target.check()
    assert target.synced(ACCOUNT) is None
    statement = grant("may not create the table altaprofiles_sync in public")
    assert statement == f'GRANT CREATE ON SCHEMA public TO "{guest}"'
    postgres.run(statement)
    target.accept(origin)
    postgres.run(f'REVOKE CREATE ON SCHEMA public FROM "{guest}"')
    sync(target_of(postgres.url("people")), [named("1")], 4, 0)
    rights = "SELECT, INSERT, DELETE"
    statement = grant(f"lacks the right to {rights} in public.altaprofiles_sync")
    assert statement == f'GRANT {rights} ON public.altaprofiles_sync TO "{guest}"'
    with pytest.raises(ExportError, match=r"run: GRANT SELECT, INSERT, DELETE ON public"):
        target.synced(ACCOUNT)
    postgres.run(statement)
    assert sync(target, [named("1")], 5, 1) == target.synced(ACCOUNT)


def test_a_state_that_may_not_be_deleted_is_found_first(postgres: Server, guest: str) -> None:
    replace = target_of(postgres.url("people", user=guest), write="replace")
    sync(target_of(postgres.url("people")), [named("1")], 4, 0)
    # Who may not even see the states changes nothing about them.
    postgres.run(f'GRANT SELECT ON altaprofiles_sync TO "{guest}"')
    with pytest.raises(ExportError, match=r"run: GRANT INSERT, DELETE ON public"):
        replace.accept(origin_of(1))
    postgres.run("DELETE FROM altaprofiles_sync")
    export(replace, [named("1")], 1)


# ------------------------------------------------------------------------------------------ at once


def test_syncs_of_two_tables_are_written_at_once(postgres: Server) -> None:
    """Although both have to make the table of states."""
    targets = [target_of(postgres.url(name)) for name in ("one", "two", "three")]
    sinks = [opened(target, origin=origin_of(1, sync=state(5, 1))) for target in targets]
    for sink in sinks:
        sink.write([Row(named("1"), ACCOUNT, matched=("Charged",))])
    with ThreadPoolExecutor(len(sinks)) as threads:
        for future in [threads.submit(sink.close) for sink in sinks]:
            future.result()
    assert [target.synced(ACCOUNT) for target in targets] == [state(5, 1)] * 3


def test_syncs_of_one_table_take_turns(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sinks: list[Sink] = []
    for number in range(4):
        origin = origin_of(number, sync=state(5 + number, number))
        sink = opened(target, origin=origin)
        sink.write([Row(named("1", name=str(number)), ACCOUNT, matched=(str(number),))])
        sinks.append(sink)
    with ThreadPoolExecutor(len(sinks)) as threads:
        for future in [threads.submit(sink.close) for sink in reversed(sinks)]:
            future.result()
    assert target.synced(ACCOUNT) == state(8, 3)
    assert [row[:3] for row in days(postgres, "name, matched")] == [("3", [*"0123"], 3)]


@pytest.mark.parametrize("is_new", [True, False])
def test_a_connection_that_is_cut_leaves_rows_and_state(postgres: Server, is_new: bool) -> None:
    target = target_of(postgres.url("people"))
    before: SyncState | None = None
    if not is_new:
        before = sync(target, [named("1", name="old")], 4, 0)
    sink = opened(target, origin=origin_of(1, sync=state(5, 1)))
    sink.write([Row(named("1", name="new"), ACCOUNT, matched=("Charged",))])
    with postgres.connect() as other, ThreadPoolExecutor(1) as threads:
        other.execute("BEGIN")
        if is_new:
            # As an export that is making its own does.
            other.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended("
                "'altaprofiles public.altaprofiles_sync', 0))"
            )
        else:
            # The rows are written by then.
            other.execute("LOCK TABLE altaprofiles_sync IN ACCESS EXCLUSIVE MODE")
        closing = threads.submit(sink.close)
        wait_until(lambda: waits(postgres) or closing.done())
        postgres.cut_exports()
        with pytest.raises(ExportError):
            closing.result()
        other.execute("COMMIT")
    sink.abort()
    assert target.synced(ACCOUNT) == before
    exists = postgres.rows("SELECT to_regclass('people') IS NOT NULL") == [(True,)]
    assert exists != is_new
    assert sync(target, [named("1", name="new")], 5, 1) == target.synced(ACCOUNT)
    assert days(postgres, "name") == [("new", 1, 1 if is_new else 0)]


def test_whoever_asks_for_states_does_not_wait_as_an_export_does(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = target_of(postgres.url("people"), write="upsert")
    before = sync(target, [named("1")], 4, 0)
    monkeypatch.setattr(postgres_server, "LOCK_TIMEOUT", 3600)
    monkeypatch.setattr("altaprofiles.export.sinks.postgres._PATIENCE", 1)
    with ThreadPoolExecutor(1) as threads, postgres.connect() as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE altaprofiles_sync IN ACCESS EXCLUSIVE MODE")
        reading = threads.submit(target.states)
        wait_until(reading.done)
        with pytest.raises(ExportError, match=r"lock timeout .*another session .* pg_locks"):
            reading.result()
        # An export does.
        of_export = threads.submit(target.synced, ACCOUNT)
        wait_until(lambda: waits(postgres) or of_export.done())
        other.execute("COMMIT")
        assert of_export.result() == before
    assert target.states() == [before]


# -------------------------------------------------------------------------------------- lost rows

SAVE = "CREATE TABLE saved AS SELECT * FROM people"
# As a dump of the table alone does.
RESTORE = (
    "CREATE TABLE restored (LIKE people INCLUDING ALL)",
    "INSERT INTO restored SELECT * FROM saved",
    "DROP TABLE people",
    "ALTER TABLE restored RENAME TO people",
)
REFILL = "INSERT INTO people SELECT * FROM saved"
LOSSES = {
    "restored": RESTORE,
    "emptied": ("TRUNCATE people",),
    "deleted": ("DELETE FROM people WHERE identity = '2'",),
    "data alone": ("TRUNCATE people", REFILL),
    "rows alone": ("DELETE FROM people", REFILL),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_rows_that_are_lost_are_noticed_once(postgres: Server, loss: str) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [named("1")], 4, 0)
    postgres.run(SAVE)
    sync(target, [named("1"), named("2")], 5, 1)
    assert notes_of(target, [], 5, 2) == []
    postgres.run(*LOSSES[loss])
    [note] = notes_of(target, [named("3"), named("4")], 6, 3, run="noticing")
    rows = {"emptied": "0 rows"}.get(loss, "1 row")
    assert f" has {rows} of the account {ACCOUNT}, of 2 after the last run: " in note
    # The days from the first one to that of the state before.
    assert "`late_days=5` or more, or" in note
    # A run that is killed after its commit tells the next time.
    assert notes_of(target, [named("3"), named("4")], 6, 3, run="noticing") == [note]
    assert notes_of(target, [], 7, 4) == []


def test_rows_that_are_lost_before_a_killed_run_goes_on_are_noticed(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [named("1"), named("2")], 5, 1)
    for rows in (1, 2):
        postgres.run("DELETE FROM people WHERE identity = '2'")
        [note] = notes_of(target, [named("2"), named("3")], 6, 2, run="noticing")
        assert f" has {rows} row" in note


IN_PARTITIONS = (
    (
        "CREATE TABLE people (account text, person text, PRIMARY KEY (account, person))"
        " PARTITION BY HASH (person)"
    ),
    "CREATE TABLE half PARTITION OF people FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
    "CREATE TABLE other_half PARTITION OF people FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
)


@pytest.mark.parametrize(
    ("table", "restore"),
    [
        ("plain", "restored"),
        ("plain", "data alone"),
        ("plain", "rows alone"),
        ("partitioned", "data alone"),
        ("partitioned", "rows alone"),
    ],
)
def test_rows_of_an_older_backup_are_noticed_even_if_they_are_as_many(
    postgres: Server, table: str, restore: str
) -> None:
    if table == "partitioned":
        postgres.run(*IN_PARTITIONS)
    target = target_of(postgres.url("people"))
    people = [str(number) for number in range(1, 9)]
    notes = [*notes_of(target, [named(one, name="old") for one in people], 4, 0)]
    postgres.run(SAVE)
    # Some of them, as on most nights; and a night on which nobody has changed.
    notes += notes_of(target, [named(one, name="new") for one in people[:3]], 5, 1)
    notes += notes_of(target, [named("1", name="new")], 6, 2)
    assert notes == []
    postgres.run(*LOSSES[restore])
    [note] = notes_of(target, [], 7, 3)
    assert f" has older rows of the account {ACCOUNT} than the last run has left: " in note
    assert notes_of(target, [], 8, 4) == []


def test_a_partition_of_an_older_backup_is_noticed(postgres: Server) -> None:
    postgres.run(*IN_PARTITIONS)
    target = target_of(postgres.url("people"))
    sync(target, [named(str(one), name="old") for one in range(9)], 4, 0)
    postgres.run("CREATE TABLE saved (LIKE half INCLUDING ALL)", "INSERT INTO saved TABLE half")
    (changed,) = postgres.rows("SELECT min(identity) FROM half")[0]
    sync(target, [named(changed, name="new")], 5, 1)
    postgres.run(
        "DROP TABLE half",
        "ALTER TABLE people ATTACH PARTITION saved FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
    )
    [note] = notes_of(target, [], 6, 2)
    assert f" has older rows of the account {ACCOUNT} than the last run has left: " in note


def test_a_state_of_an_earlier_version_is_read(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [named("1", name="old")], 4, 0)
    postgres.run(SAVE)
    sync(target, [named("1", name="new")], 5, 1)
    # It had the number of the table's storage as well.
    postgres.run(
        "UPDATE altaprofiles_sync SET settings ="
        ' regexp_replace(settings, \'"losses":\', \'"storage":16384,"losses":\')'
    )
    assert target.synced(ACCOUNT) == state(5, 1)
    assert notes_of(target, [], 6, 2) == []
    postgres.run("DELETE FROM people", REFILL)
    [note] = notes_of(target, [], 7, 3)
    assert f" has older rows of the account {ACCOUNT} than the last run has left: " in note


def test_a_table_whose_rows_are_all_there_is_no_loss(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    notes = [*notes_of(target, [named("1"), nameless("d")], 4, 0)]
    # Another account's rows, and a night without any.
    notes += notes_of(target, [named("1")], 4, 1, "other")
    notes += notes_of(target, [], 5, 1)
    for changes in (
        ("VACUUM FULL people",),
        ("CLUSTER people USING people_pkey",),
        (SAVE, *RESTORE),
        ("DELETE FROM people WHERE account = 'other'",),
    ):
        postgres.run(*changes)
        notes += notes_of(target, [], 5, 2)
    # A row of this account becomes that of another person.
    assert export(target, [named("2", "d")], 3).absorbed == 1
    notes += notes_of(target, [], 6, 4)
    export(target_of(postgres.url("people"), write="replace"), [], 5)
    notes += notes_of(target, [], 6, 6)
    assert notes == []


def test_a_sync_that_brings_all_days_again_has_lost_nothing(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [named("1"), named("2")], 5, 0)
    postgres.run("TRUNCATE people")
    brought = (date(2026, 1, 1), date(2026, 1, 5))
    assert notes_of(target, [named("1"), named("2")], 5, 1, days=brought) == []


def test_an_export_notices_lost_rows_as_well(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    sync(target, [named("1"), named("2")], 5, 0)
    postgres.run("DELETE FROM people WHERE identity = '2'")
    [note] = export(target, [named("3")], 1).notes
    assert " has 1 row of " in note
    assert notes_of(target, [], 6, 2) == []


# ----------------------------------------------------------------------------------- the whole sync

ROWS = "SELECT * FROM people ORDER BY account, person"
STATES = "SELECT table_name, account, settings::jsonb, through, synced_at FROM altaprofiles_sync"
# The service sends the devices of a person in another order in each query.
PEOPLE = """
SELECT account, person, profile_data, matched, added_at,
    ARRAY(SELECT id FROM unnest(object_ids) AS id ORDER BY id) AS ids
FROM people ORDER BY account, person
"""
# So that all processes have the same steps.
ONE_CHAIN: dict[str, Any] = {"events": ["App Launched"], "windows": 1}
BOTH = ("before", "after")
NIGHT = 86_400 * 10**9


def job_of(postgres: Server, emulator: Emulator, until: int, **options: Any) -> Job:
    """Return the job of a sync in a process of its own, on the night after its last day."""
    arguments = {
        "events": ["App Launched", "Charged"],
        "since": 20260101,
        "until": until,
        "late_days": 1,
        "timezone": "UTC",
        "to": postgres.url("people"),
        **options,
    }
    return Job(
        arguments=arguments,
        environment=emulator.environment,
        begun=BEGUN + (until - 20260101) * NIGHT,
    )


def keep(postgres: Server) -> None:
    """Make a backup of the table and its state, as they are now."""
    for table in ("people", "altaprofiles_sync"):
        postgres.run(f"CREATE TABLE kept_{table} AS TABLE {table}")


def restore(postgres: Server) -> None:
    for table in ("people", "altaprofiles_sync"):
        postgres.run(f"TRUNCATE {table}", f"INSERT INTO {table} TABLE kept_{table}")


@pytest.fixture
async def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Exporter]:
    # Manifests of tables are in the current folder.
    monkeypatch.chdir(tmp_path)
    async with exporter(tmp_path / "processes") as processes:
        yield processes


forks = pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills with signals")


@pytest.mark.anyio
@forks
async def test_a_sync_that_is_repeated_changes_nothing(
    postgres: Server, processes: Exporter
) -> None:
    async with Emulator(people=300, seed=2) as emulator:
        job = job_of(postgres, emulator, 20260103)
        first = await processes.run(job)
        assert first.report is not None, first
        assert first.report["through"] == "2026-01-03"
        rows = postgres.rows(PEOPLE)
        assert rows
        # At once, later, and with an earlier end.
        for other in (job, job.but(begun=job.begun + NIGHT), job_of(postgres, emulator, 20260102)):
            again = await processes.run(other)
            assert again.report is not None, again
            assert again.report["through"] == "2026-01-03"
            assert postgres.rows(PEOPLE) == rows


@pytest.mark.anyio
@forks
async def test_a_sync_that_is_killed_at_any_step_is_as_if_it_had_not_been(
    postgres: Server, processes: Exporter
) -> None:
    """It has changed neither rows nor state, or both; and the next one completes it."""
    async with Emulator(people=60, seed=2) as emulator:
        begun = await processes.run(job_of(postgres, emulator, 20260102, **ONE_CHAIN))
        assert begun.report is not None, begun
        keep(postgres)
        before = (postgres.rows(PEOPLE), postgres.rows(STATES))
        job = job_of(postgres, emulator, 20260104, **ONE_CHAIN)
        whole = await processes.run(job.but(listed=True))
        assert whole.report is not None, whole
        after = (postgres.rows(PEOPLE), postgres.rows(STATES))
        assert after != before
        moments = [(number, "", when) for number in range(0, len(whole.steps), 9) for when in BOTH]
        for number, kind, when in [*moments, *((0, "postgres commit", when) for when in BOTH)]:
            restore(postgres)
            killed = await processes.run(job.but(die=(number, when), die_in=kind))
            assert killed.signal == signal.SIGKILL, (number, when)
            now = (postgres.rows(PEOPLE), postgres.rows(STATES))
            if kind:
                assert now == (after if when == "after" else before)
            assert now in (before, after), (number, when)
            outcome = await processes.run(job)
            assert outcome.report is not None, outcome
            assert (postgres.rows(PEOPLE), postgres.rows(STATES)) == after, (number, when)


@pytest.mark.anyio
@forks
async def test_lost_rows_are_told_by_the_run_that_was_killed_whoever_wrote_in_between(
    postgres: Server, processes: Exporter
) -> None:
    other = {"start": 20260101, "end": 20260104, "write": "upsert"}
    async with Emulator(people=60, seed=2) as emulator:
        of_sync = job_of(postgres, emulator, 20260102, **ONE_CHAIN)
        to = of_sync.arguments["to"]
        of_export = of_sync.but(arguments={"events": "Charged", "to": to, **other})
        assert (await processes.run(of_sync)).report is not None
        for until, is_of_sync in ((20260103, True), (20260104, False), (20260105, True)):
            next_sync = job_of(postgres, emulator, until, **ONE_CHAIN)
            export = of_export.but(begun=next_sync.begun)
            dying, others = (next_sync, export) if is_of_sync else (export, next_sync)
            postgres.run("DELETE FROM people WHERE person IN (SELECT min(person) FROM people)")
            killed = await processes.run(dying.but(die=(0, "after"), die_in="postgres commit"))
            assert killed.signal == signal.SIGKILL
            if until == 20260105:
                # They are lost to the export as well.
                postgres.run("DELETE FROM people WHERE person IN (SELECT min(person) FROM people)")
            for job, notes in ((others, until == 20260105), (dying, True), (dying, False)):
                outcome = await processes.run(job)
                assert outcome.report is not None, outcome
                told = [text for text in outcome.report["warnings"] if "after the last run" in text]
                assert len(told) == notes, (until, outcome)


@pytest.mark.anyio
@forks
async def test_two_processes_sync_one_table(
    postgres: Server, processes: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Emulator(people=200, seed=2) as emulator:
        alone = await processes.run(job_of(postgres, emulator, 20260103))
        assert alone.report is not None, alone
        expected = (postgres.rows(PEOPLE), postgres.rows(STATES))
        for is_new in (True, False):
            postgres.run("TRUNCATE altaprofiles_sync", "DELETE FROM people")
            if is_new:
                postgres.run("DROP TABLE people, altaprofiles_sync")
            async with AsyncExitStack() as stack:
                runs: list[Coroutine[Any, Any, Outcome]] = []
                for name in ("one", "other"):
                    # As on two machines, which see nothing of each other.
                    folder = tmp_path / f"{name} {is_new}"
                    folder.mkdir()
                    monkeypatch.chdir(folder)
                    process = await stack.enter_async_context(exporter(folder / "results"))
                    runs.append(process.run(job_of(postgres, emulator, 20260103)))
                outcomes = await asyncio.gather(*runs)
            assert [one.message for one in outcomes if one.report is None] == []
            assert (postgres.rows(PEOPLE), postgres.rows(STATES)) == expected


@pytest.mark.anyio
@forks
async def test_a_table_that_was_restored_is_continued_from_its_state(
    postgres: Server, processes: Exporter
) -> None:
    async with Emulator(people=200, seed=2) as emulator:
        for until in (20260102, 20260104):
            outcome = await processes.run(job_of(postgres, emulator, until))
            assert outcome.report is not None, outcome
            if until == 20260102:
                keep(postgres)
        rows = postgres.rows(ROWS)
        restore(postgres)
        assert postgres.rows(ROWS) != rows
        outcome = await processes.run(job_of(postgres, emulator, 20260104))
        assert outcome.report is not None, outcome
        assert outcome.report["first"] == "2026-01-02"
        assert postgres.rows(ROWS) == rows


@pytest.mark.anyio
async def test_a_sync_whose_connection_is_cut_is_completed_by_the_next(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with (
        Emulator(people=200, seed=2) as emulator,
        Session(clevertap=emulator.clevertap, retry=QUICK) as session,
    ):

        async def run(until: int) -> SyncReport:
            return await session.sync(
                "App Launched",
                since=20260101,
                until=until,
                timezone="UTC",
                to=postgres.url("people"),
            )

        await run(20260102)
        before = (postgres.rows(ROWS), postgres.rows(STATES))
        with postgres.connect() as other:
            other.execute("BEGIN")
            # States can be read, and not written: the rows are written by then.
            other.execute("LOCK TABLE altaprofiles_sync IN SHARE MODE")
            syncing = asyncio.ensure_future(run(20260103))
            await asyncio.to_thread(wait_until, lambda: waits(postgres) or syncing.done())
            postgres.cut_exports()
            with pytest.raises(Incomplete):
                await syncing
            other.execute("COMMIT")
        assert (postgres.rows(ROWS), postgres.rows(STATES)) == before
        sent = session.stats.requests
        report = await run(20260103)
        # Everything has been fetched before.
        assert session.stats.requests == sent
        assert str(report.through) == "2026-01-03"
    assert len(postgres.rows(ROWS)) > len(before[0])


@pytest.mark.anyio
async def test_a_right_that_is_missing_is_named_before_any_request(
    postgres: Server, guest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with (
        Emulator(people=20) as emulator,
        Session(clevertap=emulator.clevertap, retry=QUICK) as session,
    ):
        with pytest.raises(ExportError, match=rf'GRANT CREATE ON SCHEMA public TO "{guest}"'):
            await session.sync(
                "App Launched",
                since=20260101,
                until=20260102,
                timezone="UTC",
                to=postgres.url("people", user=guest),
            )
        assert session.stats.requests == 0


@pytest.mark.anyio
async def test_an_export_needs_no_right_to_the_states(
    postgres: Server, guest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The files beside a table of a server are in the current folder.
    monkeypatch.chdir(tmp_path)
    sync(target_of(postgres.url("people")), [named("1")], 4, 0)
    async with Emulator(people=60, seed=2) as emulator, session_for(emulator) as session:
        report = await session.export(
            "Charged", start=20260101, end=20260105, to=postgres.url("people", user=guest)
        )
    assert (report.complete, report.warnings) == (True, [])
