"""The state of synced tables in PostgreSQL, beside their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import msgspec
import pytest

from altaprofiles import ExportError
from altaprofiles.export.sinks import Target
from altaprofiles.export.state import SyncState
from altaprofiles.tables.rows import Row

from ..support.postgres import PASSWORD, Server
from ..support.postgres_tables import (
    DAYS,
    days,
    export,
    named,
    nameless,
    origin_of,
    until,
    waits,
)
from ..support.sinks import ACCOUNT, opened, target_of

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
        "SELECT table_name, account, settings, through::text FROM crm.altaprofiles_sync"
        " ORDER BY 1, 2"
    ) == [
        (table, account, SETTINGS, f"2026-01-0{through}")
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
    with pytest.raises(ExportError, match="check constraint"):
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
    sinks = []
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
        until(lambda: waits(postgres) or closing.done())
        postgres.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'altaprofiles' AND datname = current_database()"
        )
        with pytest.raises(ExportError):
            closing.result()
        other.execute("COMMIT")
    sink.abort()
    assert target.synced(ACCOUNT) == before
    exists = postgres.rows("SELECT to_regclass('people') IS NOT NULL") == [(True,)]
    assert exists != is_new
    assert sync(target, [named("1", name="new")], 5, 1) == target.synced(ACCOUNT)
    assert days(postgres, "name") == [("new", 1, 1 if is_new else 0)]
