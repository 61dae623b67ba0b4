"""Merges staged people into the rows of a PostgreSQL table, by the rule of `export.tables`.

`matched` can be united with that of all rows that become part of the person, or that the person
stays as, because they were fetched later.

A time that is null is earlier than any other. Tables of an earlier version had none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ...base.sql import quoted
from ..tables import OPTIONAL
from .postgres_keys import indexes_of
from .postgres_load import REPEATED, STAGE, Load, drop_repeated
from .postgres_shape import Shape
from .postgres_table import NAMELESS, row_of, texts_of

__all__ = ["Upserted", "leaves_rows", "upsert"]

LINKS = "pg_temp.altaprofiles_links"
KNOWN = "pg_temp.altaprofiles_known"
MERGED = "pg_temp.altaprofiles_merged"
KEPT = "pg_temp.altaprofiles_kept"
PLAN = "pg_temp.altaprofiles_plan"

_SAME_KEY = "old.account = {0}.account AND old.person = {0}.person"

_BY_KEY = {"account": "(account = new.account)", "person": "(person = new.person)"}
_BY_DEVICES = {"object_ids": "(object_ids && new.object_ids)"}

_KEPT_APART = ('"account"', '"person"', '"fetched_at"', '"added_at"')
"""The columns that do not decide whether a row has changed."""

_UNKNOWN = '"cdp"'
"""The column in which null says nothing, as a lookup has failed."""


_PROBE = 40
"""Rows of a table that are read in the time that one probe of its index takes, as measured."""


class Upserted(Struct, frozen=True):
    """The result of a merge.

    Attributes:
        absorbed: rows without an identity that became those of people with one.
        outdated: people who stay as a later export has fetched them.
        changed: the accounts with rows that are new or have changed.
    """

    absorbed: int
    outdated: int
    changed: frozenset[str]


def upsert(load: Load, shape: Shape, *, unites: bool) -> Upserted:
    """Merge the staged people, after `find_repeated`.

    Args:
        load: the rows, and the table.
        shape: the state of the table before.
        unites: whether `matched` is united with that of the rows of earlier runs.
    """
    absorbed = _link(load, shape)
    if unites:
        _unite(load)
    outdated = _merge(load, shape.inherited)
    _plan(load, shape)
    outdated += load.count(f"SELECT count(*) FROM {PLAN} WHERE is_outdated")
    _write(load)
    _give(load, shape.inherited)
    changed = texts_of(
        load.connection,
        f"SELECT DISTINCT account FROM {STAGE} JOIN {PLAN} USING (number) WHERE is_changed",
        [],
    )
    return Upserted(absorbed, outdated, frozenset(changed))


def leaves_rows(load: Load) -> bool:
    """Return whether the table has rows of people who are not staged, after `upsert`."""
    staged = f"SELECT FROM {STAGE} AS new WHERE {_SAME_KEY.format('new')}"
    rows = f"SELECT FROM {load.table} AS old WHERE NOT EXISTS ({staged})"
    return bool(load.count(f"SELECT EXISTS ({rows})::int"))


def _probes(load: Load, shape: Shape) -> bool:
    """Return whether an index finds devices sooner than a look at every row of the table."""
    if not (shape.is_indexed or shape.may_index):
        return False
    staged = load.count(f"SELECT count(*) FROM {STAGE}")
    # An estimate of the server's, which is -1 where there is none.
    rows = load.count(f"SELECT reltuples::bigint FROM pg_class WHERE oid = {shape.oid}")
    return staged * _PROBE < rows


def _finds(load: Load, shape: Shape, rows: str, method: str, conditions: Mapping[str, str]) -> bool:
    """Return whether the server finds `old` among some rows by all columns of one index.

    It reads all of the table instead, for each row that it is asked for, if the index cannot be
    used: with another collation than that of the column, or added in this transaction while an
    older one may still see rows that have changed since. Of an index that it can use in part, it
    reads all rows of an account. Only the server knows all the reasons.

    Args:
        load: the rows, and the table.
        shape: the state of the table.
        rows: the rows in SQL, of which those of the table are `old`.
        method: the kind of the index. Some other kinds find much else besides.
        conditions: the condition on each column of the index, as the server shows it.
    """
    connection = load.connection
    tables = connection.execute(
        f"SELECT {shape.oid}::oid UNION SELECT relid::oid FROM pg_partition_tree({shape.oid})"
    )
    names = {
        index.name
        for index in indexes_of(connection, *(oid for (oid,) in tables))
        if index.columns == {*conditions} and index.method == method
    }

    def finds(node: dict[str, Any]) -> bool:
        found = node.get("Index Cond", "")
        return node.get("Index Name") in names and all(one in found for one in conditions.values())

    ((plan,),) = row_of(connection, f"EXPLAIN (FORMAT JSON) SELECT * FROM {rows}")
    scans = [node for node in _nodes(plan["Plan"]) if _is_of_table(node)]
    # To read an empty partition costs nothing.
    return all(any(map(finds, _nodes(scan))) for scan in scans if scan["Total Cost"])


def _is_of_table(node: dict[str, Any]) -> bool:
    # Partitions have a number behind the name.
    return "Relation Name" in node and node["Alias"].startswith("old")


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a node of a plan, and all below it."""
    yield node
    for part in node.get("Plans", ()):
        yield from _nodes(part)


def _link(load: Load, shape: Shape) -> int:
    """Find the rows that become part of another; return the number of those that are absorbed."""
    # The columns by name, as a flattened key may have the name of anything else.
    columns = "old.account, old.person, old.fetched_at, old.added_at"
    nameless = f"{load.table} AS old WHERE {NAMELESS.format('old.')}"
    sharing = (
        f"{STAGE} AS new CROSS JOIN LATERAL (SELECT {columns} FROM {nameless}"
        # Planned by itself, so that it is one probe of the index for each staged row.
        " AND old.account = new.account AND old.object_ids && new.object_ids OFFSET 0) AS old"
    )
    if not (_probes(load, shape) and _finds(load, shape, sharing, "gin", _BY_DEVICES)):
        # By single devices, which can be hashed. Overlapping lists are compared pair by pair.
        sharing = (
            f"(SELECT *, unnest(object_ids) AS id FROM {STAGE}) AS new JOIN"
            f" (SELECT {columns}, unnest(old.object_ids) AS id FROM {nameless}) AS old"
            " USING (account, id)"
        )
    load.run(
        "CREATE TEMP TABLE altaprofiles_links ON COMMIT DROP AS"
        " SELECT DISTINCT coalesce(repeated.first, new.number) AS number, new.nameless,"
        f" {columns} FROM {sharing}"
        f" LEFT JOIN {REPEATED} AS repeated ON repeated.number = new.number"
        " WHERE new.nameless OR coalesce(old.fetched_at <= new.fetched_at, true)"
    )
    load.run(
        f"DELETE FROM {LINKS} AS old USING {LINKS} AS known"
        f" WHERE NOT old.nameless AND known.nameless AND {_SAME_KEY.format('known')}"
    )
    absorbed = load.count(
        f"SELECT count(*) FROM (SELECT DISTINCT account, person FROM {LINKS}"
        " WHERE NOT nameless) AS absorbed"
    )
    load.run(
        f"INSERT INTO {LINKS} SELECT new.number, new.nameless, old.account, old.person,"
        f" old.fetched_at, old.added_at FROM {STAGE} AS new JOIN {load.table} AS old"
        f" ON {_SAME_KEY.format('new')} WHERE new.number IN (SELECT number FROM {LINKS})"
        f" AND NOT EXISTS (SELECT FROM {LINKS} AS known WHERE known.number = new.number"
        f" AND {_SAME_KEY.format('known')})"
    )
    return absorbed


def _unite(load: Load) -> None:
    """Add the events of the rows of earlier runs to those of the staged ones, and the reverse.

    Only a row that was fetched later keeps its other columns.
    """
    people = (
        f"SELECT number, account, person FROM {LINKS} UNION SELECT number, account, person"
        f" FROM {STAGE} WHERE number NOT IN (SELECT number FROM {REPEATED})"
    )
    # Only the rows that have something to give or to get.
    load.run(
        f"CREATE TEMP TABLE {KNOWN.partition('.')[2]} ON COMMIT DROP AS"
        " SELECT number, old.account, old.person, old.fetched_at, old.matched"
        f" FROM ({people}) AS known JOIN {STAGE} AS new USING (number)"
        f" JOIN {load.table} AS old ON {_SAME_KEY.format('known')}"
        " WHERE old.fetched_at > new.fetched_at OR NOT old.matched <@ new.matched"
    )
    # In the order of code points, whatever that of the database.
    united = "array_agg(DISTINCT event ORDER BY event) AS matched"
    of_earlier = (
        f"SELECT number, {united} FROM (SELECT number,"
        ' unnest(known.matched || new.matched) COLLATE "C" AS event'
        f" FROM {KNOWN} AS known JOIN {STAGE} AS new USING (number)"
        " WHERE NOT known.matched <@ new.matched) AS each GROUP BY number"
    )
    load.run(
        f"UPDATE {STAGE} AS new SET matched = earlier.matched FROM ({of_earlier}) AS earlier"
        " WHERE earlier.number = new.number"
    )
    later = (
        f"(SELECT account, person, {united} FROM (SELECT known.account, known.person,"
        ' unnest(new.matched) COLLATE "C" AS event'
        f" FROM {KNOWN} AS known JOIN {STAGE} AS new USING (number)"
        " WHERE known.fetched_at > new.fetched_at) AS each GROUP BY account, person) AS later"
    )
    lacks_events = f"{_SAME_KEY.format('later')} AND old.matched IS DISTINCT FROM later.matched"
    load.run(
        f"UPDATE {load.table} AS old SET matched = later.matched FROM {later} WHERE {lacks_events}"
    )
    if load.triggers:
        lacking = load.count(
            f"SELECT count(*) FROM {load.table} AS old, {later} WHERE {lacks_events}"
        )
        load.require(not lacking, f"the table keeps other events for {lacking:,} people")


def _merge(load: Load, columns: Sequence[str]) -> int:
    """Delete the rows that become part of another; return the number of people left out.

    Those are people of whom the table has a row that was fetched later.
    """
    load.run(
        "CREATE TEMP TABLE altaprofiles_merged ON COMMIT DROP AS SELECT number, new.fetched_at,"
        " coalesce(bool_or(old.fetched_at > new.fetched_at), false) AS is_outdated,"
        f" {_earliest('old.added_at')} AS added_at"
        f" FROM {LINKS} AS old JOIN {STAGE} AS new USING (number) GROUP BY number, new.fetched_at"
    )
    drop_repeated(load)
    if columns:
        _keep(load, columns)
    outdated = load.run(
        f"DELETE FROM {STAGE} AS new USING {MERGED} AS merged"
        " WHERE new.number = merged.number AND merged.is_outdated"
    )
    if outdated:
        earlier = (
            f"(SELECT account, person, {_earliest('merged.added_at')} AS added_at"
            f" FROM {LINKS} AS later JOIN {MERGED} AS merged USING (number)"
            " WHERE later.fetched_at > merged.fetched_at GROUP BY account, person) AS earlier"
        )
        is_later = (
            f"{_SAME_KEY.format('earlier')} AND old.added_at IS DISTINCT FROM earlier.added_at"
        )
        load.run(
            f"UPDATE {load.table} AS old SET added_at = earlier.added_at FROM {earlier}"
            f" WHERE {is_later}"
        )
        if load.triggers:
            later = load.count(
                f"SELECT count(*) FROM {load.table} AS old, {earlier} WHERE {is_later}"
            )
            load.require(not later, f"the table keeps other times for {later:,} people")
    gone = (
        f"SELECT DISTINCT account, person FROM {LINKS} AS old"
        f" JOIN {MERGED} AS merged USING (number)"
        " WHERE coalesce(old.fetched_at <= merged.fetched_at, true) AND NOT EXISTS"
        f" (SELECT FROM {STAGE} AS new WHERE {_SAME_KEY.format('new')})"
    )
    load.run(
        f"DELETE FROM {load.table} AS old USING ({gone}) AS gone WHERE {_SAME_KEY.format('gone')}"
    )
    if load.triggers:
        remaining = load.count(
            f"SELECT count(*) FROM {load.table} AS old JOIN ({gone}) AS gone"
            f" ON {_SAME_KEY.format('gone')}"
        )
        # They would be in the table twice.
        load.require(not remaining, f"the table keeps {remaining:,} old rows of people")
    return outdated


def _keep(load: Load, columns: Sequence[str]) -> None:
    """Set aside the values of rows of which others become part, and of those others."""
    by_key = "(old.account, old.person) = (new.account, new.person)"
    values = ", ".join(f"old.{quoted(name)} AS k{place}" for place, name in enumerate(columns))
    load.run(
        f"CREATE TEMP TABLE {KEPT.partition('.')[2]} ON COMMIT DROP AS WITH finals AS ("
        f"SELECT number, account, person FROM {STAGE} JOIN {MERGED} USING (number)"
        " WHERE NOT is_outdated UNION ALL (SELECT DISTINCT ON (number) number, old.account,"
        f" old.person FROM {LINKS} AS old JOIN {STAGE} AS new USING (number)"
        " WHERE old.fetched_at > new.fetched_at"
        f' ORDER BY number, {by_key} DESC, old.fetched_at DESC, old.person COLLATE "C")),'
        " given AS (SELECT DISTINCT ON (old.account, old.person) number,"
        f" old.account AS from_account, old.person AS from_person FROM {LINKS} AS old"
        f" JOIN {STAGE} AS new USING (number)"
        " WHERE coalesce(old.fetched_at <= new.fetched_at, true)"
        f" ORDER BY old.account, old.person, {by_key} DESC, number),"
        " heirs AS (SELECT account, person, from_account, from_person"
        " FROM given JOIN finals USING (number)"
        " UNION SELECT account, person, account, person FROM finals)"
        f" SELECT new.account, new.person, row_number() OVER (PARTITION BY new.account, new.person"
        f' ORDER BY {by_key} DESC, old.fetched_at DESC NULLS LAST, old.person COLLATE "C")'
        f" AS place, bool_or({by_key}) OVER (PARTITION BY new.account, new.person) AS has_own,"
        f" {values} FROM heirs AS new JOIN {load.table} AS old"
        " ON old.account = new.from_account AND old.person = new.from_person"
    )


def _give(load: Load, columns: Sequence[str]) -> None:
    """Give rows the values of those that have become part of them, where they have none."""
    for place, name in enumerate(columns):
        lacks = f"old.{quoted(name)} IS NULL AND kept.value IS NOT NULL"
        if name not in OPTIONAL:
            # A row with a new key has the column's default.
            lacks = f"(NOT kept.has_own OR {lacks})"
        load.run(
            f"UPDATE {load.table} AS old SET {quoted(name)} = kept.value FROM"
            f" (SELECT DISTINCT ON (account, person) account, person, has_own, k{place} AS value"
            f" FROM {KEPT} ORDER BY account, person, k{place} IS NULL, place) AS kept"
            f" WHERE {_SAME_KEY.format('kept')} AND {lacks}"
        )


def _plan(load: Load, shape: Shape) -> None:
    """Decide on every staged row: whether it is written, and with which times."""
    differs = [
        *(f"NOT ({_same(name, value)})" for name, value in _values(load).items()),
        *(f"old.{name} IS NOT NULL" for name in load.nulls),
    ]
    columns = ", ".join(f"old.{name}" for name in (*_KEPT_APART, *_values(load), *load.nulls))
    same_key = _SAME_KEY.format("new")
    # One probe of the index for each staged row, as later for each one that is written. A join by
    # hashes or by sorting would put the documents of the whole table into temporary files.
    known = (
        f"{STAGE} AS new LEFT JOIN LATERAL (SELECT {columns} FROM {load.table} AS old"
        f" WHERE {same_key} OFFSET 0) AS old ON true"
    )
    if not _finds(load, shape, known, "btree", _BY_KEY):
        known = f"{STAGE} AS new LEFT JOIN {load.table} AS old ON {same_key}"
    load.run(
        "CREATE TEMP TABLE altaprofiles_plan ON COMMIT DROP AS SELECT new.number,"
        " old.person IS NULL AS is_new,"
        " coalesce(old.fetched_at > new.fetched_at, false) AS is_outdated,"
        " CASE WHEN old.person IS NULL THEN true WHEN old.fetched_at > new.fetched_at THEN false"
        f" ELSE {' OR '.join(differs)} END AS is_changed,"
        " old.fetched_at AS known_fetched_at, old.added_at AS known_added_at,"
        " CASE WHEN merged.number IS NOT NULL THEN merged.added_at"
        " WHEN old.person IS NULL THEN new.added_at ELSE old.added_at END AS added_at"
        f" FROM {known}"
        f" LEFT JOIN {MERGED} AS merged ON merged.number = new.number"
    )


_TIMES = {
    '"fetched_at"': (
        "CASE WHEN plan.is_changed THEN new.fetched_at ELSE plan.known_fetched_at END"
    ),
    '"added_at"': "plan.added_at",
}


def _write(load: Load) -> None:
    """Write the rows that are new or have changed; leave all others alone."""
    planned = f"{STAGE} AS new JOIN {PLAN} AS plan USING (number)"
    is_written = "plan.is_changed OR plan.added_at IS DISTINCT FROM plan.known_added_at"
    values = {
        '"account"': "new.account",
        '"person"': "new.person",
        **_values(load),
        **_TIMES,
        **load.nulls,
    }
    updates = [
        f"{name} = coalesce(excluded.{name}, old.{name})"
        if name == _UNKNOWN
        else f"{name} = excluded.{name}"
        for name in values
        if name not in _KEPT_APART[:2]
    ]
    if rows := load.count(f"SELECT count(*) FROM {PLAN} AS plan WHERE {is_written}"):
        # Else the server would sort all documents, not knowing that few are written.
        load.run(f"ANALYZE {PLAN}")
        taken = load.run(
            f"INSERT INTO {load.table} AS old ({', '.join(values)})"
            f" SELECT {', '.join(values.values())}"
            f" FROM {planned} WHERE {is_written} ORDER BY number"
            f" ON CONFLICT (account, person) DO UPDATE SET {', '.join(updates)}"
        )
        load.check_taken(taken, rows)
    same = " AND ".join(_same(name, value) for name, value in {**_values(load), **_TIMES}.items())
    load.check_values(f"{_SAME_KEY.format('new')} AND (plan.is_outdated OR {same})", planned)


def _same(name: str, value: str) -> str:
    """Return the condition that a row keeps its value of a column, as it is that of the new one."""
    same = f"old.{name} IS NOT DISTINCT FROM {value}"
    return f"({value} IS NULL OR {same})" if name == _UNKNOWN else same


def _values(load: Load) -> dict[str, str]:
    """Return the new value of every column that decides whether a row has changed, in SQL."""
    return {
        name: f"new.{staged}" for name, staged in load.columns.items() if name not in _KEPT_APART
    }


def _earliest(time: str) -> str:
    return f"CASE WHEN bool_or({time} IS NULL) THEN NULL ELSE min({time}) END"
