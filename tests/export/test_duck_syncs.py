"""Tables in DuckDB files that `Session.sync` keeps: events are united, and a state moves along."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from altaprofiles import ExportError
from altaprofiles.export.state import SyncState
from altaprofiles.export.tables import Origin
from altaprofiles.tables.rows import Row

from ..support.sinks import filled, opened, put_in_place, target_of
from ..support.tables import record, time_of

TO = "crm.duckdb"


def state(day: int, hour: int = 0, account: str = "A") -> SyncState:
    return SyncState(
        account=account,
        settings='{"since":"2026-01-01"}',
        through=date(2026, 1, day),
        synced_at=time_of(hour),
    )


def load(
    folder: Path,
    hour: int,
    *people: tuple[str | None, Sequence[str], Sequence[str]],
    sync: SyncState | None = None,
    account: str = "A",
    **options: Any,
) -> Sequence[str]:
    """Write people to a table: the identity, devices and events of each. Return the notes."""
    target = target_of(folder / TO, **options)
    target.check()
    at = Origin(f"run {hour}", (account,), time_of(hour), sync)
    rows = [
        Row(record(identity, devices, hour), account, matched=tuple(events))
        for identity, devices, events in people
    ]
    return filled(target, rows, at).notes


def change(folder: Path, *statements: str) -> None:
    with duckdb.connect(str(folder / TO)) as connection:
        for statement in statements:
            connection.execute(statement)


def table(folder: Path, columns: str = "person, matched, (profile_data->>'value')::int") -> Any:
    with duckdb.connect(str(folder / TO), read_only=True) as connection:
        return connection.execute(f"SELECT {columns} FROM profiles ORDER BY person").fetchall()


def synced(folder: Path, account: str = "A", **options: Any) -> SyncState | None:
    return target_of(folder / TO, **options).synced(account)


def test_events_are_united_by_a_sync_and_replaced_by_an_export(tmp_path: Path) -> None:
    load(tmp_path, 1, ("a", ["1"], ["Charged"]), sync=state(1))
    load(tmp_path, 2, ("a", ["1"], ["App Launched", "Viewed"]), sync=state(2))
    assert table(tmp_path) == [("identity:a", ["App Launched", "Charged", "Viewed"], 2)]
    load(tmp_path, 3, ("a", ["1"], ["Viewed"]))
    assert table(tmp_path) == [("identity:a", ["Viewed"], 3)]


def test_events_of_absorbed_rows_are_united_as_well(tmp_path: Path) -> None:
    load(
        tmp_path,
        1,
        (None, ["1"], ["Charged"]),
        (None, ["2"], ["Viewed"]),
        (None, ["3"], ["Viewed"]),
        sync=state(1),
    )
    load(tmp_path, 2, ("a", ["1", "2"], ["App Launched"]), sync=state(2))
    assert table(tmp_path) == [
        ("identity:a", ["App Launched", "Charged", "Viewed"], 2),
        ("objectId:3", ["Viewed"], 1),
    ]


def test_nameless_people_are_united_by_a_shared_device(tmp_path: Path) -> None:
    load(tmp_path, 1, (None, ["2"], ["Charged"]), sync=state(1))
    load(tmp_path, 2, (None, ["1", "2"], ["Viewed"]), sync=state(2))
    assert table(tmp_path) == [("objectId:1", ["Charged", "Viewed"], 2)]


def test_a_row_that_was_fetched_later_stays_but_gets_the_events(tmp_path: Path) -> None:
    load(tmp_path, 5, ("a", ["1"], ["Viewed"]), (None, ["2"], ["Viewed"]), sync=state(5))
    load(tmp_path, 2, ("a", ["1"], ["Charged"]), (None, ["2"], ["Viewed"]), sync=state(2))
    assert table(tmp_path) == [
        ("identity:a", ["Charged", "Viewed"], 5),
        ("objectId:2", ["Viewed"], 5),
    ]
    load(tmp_path, 3, ("a", ["1"], ["App Launched"]))
    assert table(tmp_path)[0] == ("identity:a", ["Charged", "Viewed"], 5)


def test_a_row_that_has_all_of_it_is_left_alone(tmp_path: Path) -> None:
    times = "person, epoch_us(fetched_at), epoch_us(added_at)"
    people = ("a", ["1"], ["Charged", "Viewed"])
    load(tmp_path, 1, people, sync=state(1))
    before = table(tmp_path, times)
    target = target_of(tmp_path / TO)
    # The same record, by one of its events.
    at = Origin("run 2", ("A",), time_of(2), state(2))
    sink = opened(target, [], at)
    sink.write([Row(record("a", ["1"], 1), "A", matched=("Viewed",))])
    put_in_place(sink)
    assert table(tmp_path, times) == before
    assert table(tmp_path)[0][1] == ["Charged", "Viewed"]


def test_a_row_without_events_gets_those_of_a_sync(tmp_path: Path) -> None:
    load(tmp_path, 1, ("a", ["1"], []), sync=None)
    with duckdb.connect(str(tmp_path / TO)) as connection:
        connection.execute("UPDATE profiles SET matched = NULL")
    load(tmp_path, 2, ("a", ["1"], ["Charged"]), sync=state(2))
    assert table(tmp_path) == [("identity:a", ["Charged"], 2)]


def test_a_table_has_a_state_for_each_account_which_never_moves_back(tmp_path: Path) -> None:
    assert synced(tmp_path) is None
    load(tmp_path, 1, sync=state(5, 1))
    load(tmp_path, 2, account="B", sync=state(3, 2, "B"))
    load(tmp_path, 3, table="Others", sync=state(9, 3))
    load(tmp_path, 4, sync=state(4, 4))
    assert synced(tmp_path) == state(5, 4)
    assert synced(tmp_path, "B") == state(3, 2, "B")
    assert synced(tmp_path, "C") is None
    assert synced(tmp_path, table="others") == state(9, 3)
    assert target_of(tmp_path / TO).states() == [state(5, 4), state(3, 2, "B")]


def test_other_exports_leave_the_state_unless_they_replace_the_table(tmp_path: Path) -> None:
    load(tmp_path, 1, ("a", ["1"], ["Charged"]), sync=state(5, 1))
    load(tmp_path, 2, ("b", ["2"], ["Charged"]))
    assert synced(tmp_path) == state(5, 1)
    load(tmp_path, 3, ("b", ["2"], ["Charged"]), write="replace")
    assert synced(tmp_path) is None
    load(tmp_path, 4, ("b", ["2"], ["Charged"]), sync=state(2, 4))
    assert synced(tmp_path) == state(2, 4)


LOSSES = {
    "restored": (
        "DELETE FROM profiles",
        "INSERT INTO profiles SELECT * FROM saved",
    ),
    "emptied": ("DELETE FROM profiles",),
    "deleted": ("DELETE FROM profiles WHERE identity = 'b'",),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_rows_that_are_lost_are_noticed_once(tmp_path: Path, loss: str) -> None:
    def notes(hour: int, *people: Any) -> Sequence[str]:
        return load(tmp_path, hour, *people, sync=state(hour, hour))

    people = [("a", ["1"], ["Charged"]), ("b", ["2"], ["Charged"])]
    found = [*notes(3, people[0])]
    change(tmp_path, "CREATE TABLE saved AS FROM profiles")
    # The account of another sync, and rows that become those of another person.
    found += [*notes(4, *people), *notes(5)]
    found += load(tmp_path, 5, (None, ["3"], []), sync=state(5, 5, "B"), account="B")
    found += load(tmp_path, 5, ("c", ["3"], []), account="B")
    found += load(tmp_path, 6, sync=state(6, 6, "B"), account="B")
    assert found == []
    change(tmp_path, *LOSSES[loss])
    [note] = notes(7, ("d", ["4"], []), ("e", ["5"], []))
    rows = {"emptied": "0 rows"}.get(loss, "1 row")
    assert note.startswith(
        f"the table 'profiles' in {tmp_path / TO} has {rows} of the account A, of 2 "
    )
    assert "`late_days=5` or more, or" in note
    # A run that is killed after its commit tells the next time.
    assert notes(7, ("d", ["4"], []), ("e", ["5"], [])) == [note]
    assert notes(8) == []


def test_rows_of_an_older_backup_are_noticed_even_if_they_are_as_many(tmp_path: Path) -> None:
    load(tmp_path, 1, ("a", ["1"], ["Charged"]), sync=state(1))
    change(tmp_path, "CREATE TABLE saved AS FROM profiles")
    load(tmp_path, 2, ("a", ["1"], ["Viewed"]), sync=state(2))
    change(tmp_path, *LOSSES["restored"])
    [note] = load(tmp_path, 3, sync=state(3))
    assert " has older rows of the account A than the last run has left: " in note


def test_rows_that_are_refused_leave_the_state(tmp_path: Path) -> None:
    load(tmp_path, 1, ("a", ["1"], ["Charged"]), sync=state(5, 1))
    with duckdb.connect(str(tmp_path / TO)) as connection:
        connection.execute("ALTER TABLE altaprofiles_sync RENAME COLUMN through TO until")
    before = table(tmp_path)
    with pytest.raises(ExportError, match="something else has made the table 'altaprofiles_sync'"):
        load(tmp_path, 2, ("a", ["1"], ["Viewed"]), sync=state(6, 2))
    assert table(tmp_path) == before


def test_times_are_kept_to_the_microsecond(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 1, 12, 30, 15, 123_456, tzinfo=UTC)
    load(
        tmp_path,
        1,
        sync=SyncState(account="Ä'\"", settings="{}", through=date(1999, 1, 1), synced_at=moment),
        account="Ä'\"",
    )
    found = synced(tmp_path, "Ä'\"")
    assert found is not None
    assert (found.synced_at, found.through, found.settings) == (moment, date(1999, 1, 1), "{}")
