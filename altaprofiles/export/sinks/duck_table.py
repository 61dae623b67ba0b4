"""A table in a DuckDB file: who made it, and in which mode.

`altaprofiles_runs` in the same file says which tables this library has made. It has a row for each
table that holds the people of all runs or of the last one, and for a table of `append` a row for
each run. It changes in the transaction that changes the table. A unique key would say less: it
could not name the runs, it would have to be held in memory, and DuckDB checks it before a
transaction is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ...base.sql import literal, quoted
from ...base.wording import numbered
from ...errors import ExportError
from ...tables.layout import CORE_COLUMNS, RESERVED, Column, ColumnKind, key_of
from ..formats import Write
from ..state import number_of
from ..tables import OPTIONAL, Content, Origin, to_restore

__all__ = [
    "OTHER_NAME",
    "OWN_PREFIX",
    "RUNS",
    "RUNS_COLUMNS",
    "TYPES",
    "DuckTable",
    "as_text",
    "definitions",
    "folded",
    "is_named",
]

OWN_PREFIX = "altaprofiles_"
"""The beginning of the names of the tables in which the library keeps its own records."""

RUNS = f"{OWN_PREFIX}runs"

RUNS_COLUMNS = {
    "table_name": "VARCHAR",
    "mode": "VARCHAR",
    "run": "VARCHAR",
    "columns": "VARCHAR[]",
    "written_at": "TIMESTAMP WITH TIME ZONE",
    "rows": "BIGINT",
}

TYPES: dict[ColumnKind, str] = {
    "text": "VARCHAR",
    "texts": "VARCHAR[]",
    "json": "JSON",
    "bool": "BOOLEAN",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
}

OTHER_NAME = "name another table with `table`, or rename this one"
"""The advice on a table that cannot be used."""


def definitions(columns: Sequence[Column]) -> str:
    """Return new columns in SQL, with their types."""
    return ", ".join(f"{quoted(one.name)} {TYPES[one.kind]}" for one in columns)


def as_text(table: str, column: str, type_: str) -> str:
    """Return the statement that makes text of a column.

    Args:
        table: the name of the table.
        column: the name of the column.
        type_: its type.
    """
    name = quoted(column)
    key = key_of(column).replace("~", "~0").replace("/", "~1")
    text = f"CAST({name} AS VARCHAR)"
    if type_ == TYPES["timestamp"]:
        # As CleverTap writes dates, where that loses nothing.
        text = (
            f"CASE WHEN epoch_us({name}) % 1000000 = 0"
            f" THEN '$D_' || (epoch_us({name}) // 1000000)"
            f" ELSE strftime(make_timestamp(epoch_us({name})), '%Y-%m-%dT%H:%M:%S.%fZ') END"
        )
    # A cast writes 7.0 where 7 was sent.
    text = f"coalesce(json_extract_string(profile_data, {literal(f'/{key}')}), {text})"
    text = f"CASE WHEN {name} IS NOT NULL THEN {text} END"
    return f"ALTER TABLE {quoted(table)} ALTER COLUMN {name} TYPE VARCHAR USING {text}"


_FOLDING = str.maketrans(ascii_uppercase, ascii_lowercase)


def folded(name: str) -> str:
    """Return a name as DuckDB compares it: without the case of ASCII letters, and only of those."""
    return name.translate(_FOLDING)


def is_named(column: str, name: str = "?") -> str:
    """Return the condition in SQL that a column has a table's name."""
    # The function `lower` ignores the case of more letters than DuckDB does in names.
    letters = f"'{ascii_uppercase}', '{ascii_lowercase}'"
    return f"translate({column}, {letters}) = translate({name}, {letters})"


class DuckTable(Struct, kw_only=True):
    """The state of a table.

    Attributes:
        label: the table in messages.
        name: its name.
        columns: the type of each column, by name; empty if there is no such table.
        mode: "keyed" with a row for each person, "repeating" with each person as often as the last
            export brought it, "append", or None if the library has not made it.
        own: the columns that the library has made, folded.
        required: the columns that may not be null. Whether each one has a default.
        defaulted: the columns with a default.
        indexes: the names of the indexes on it.
        runs: the runs that it has rows of, as far as they are known, and the number of those.
        empty: the columns of flattened keys without any value, folded. Empty if there is an index,
            as DuckDB then changes no type.
    """

    label: str
    name: str
    columns: dict[str, str]
    mode: str | None
    own: frozenset[str]
    required: dict[str, bool]
    defaulted: frozenset[str]
    indexes: Sequence[str]
    runs: dict[str, int]
    empty: frozenset[str] = frozenset()

    @classmethod
    def read(cls, connection: Any, name: str, file: str) -> DuckTable:
        """Return the state of a table.

        Args:
            connection: the open file.
            name: the table's name.
            file: the file in messages.

        Raises:
            ExportError: it is not a table.
        """
        label = f"the table {name!r} in {file}"
        found = connection.execute(
            f"SELECT table_type FROM information_schema.tables {_WHERE_NAMED}", [name]
        ).fetchone()
        if found is not None and found[0] != "BASE TABLE":
            raise ExportError(
                f"{file}: {name!r} is a {found[0].lower()}, not a table; pass another name as "
                f"`table`"
            )
        recorded = _columns(connection, RUNS)
        if recorded and recorded != RUNS_COLUMNS:
            raise ExportError(
                f"{file}: something else has made the table {RUNS!r}, in which the library notes "
                f"its runs; rename it"
            )
        rows: list[tuple[str, str, list[str], int]] = []
        if found is not None and recorded:
            rows = connection.execute(
                f"SELECT mode, run, columns, rows FROM {RUNS} WHERE {is_named('table_name')}",
                [name],
            ).fetchall()
        defaults = connection.execute(
            "SELECT column_name, column_default IS NOT NULL, is_nullable = 'NO'"
            f" FROM information_schema.columns {_WHERE_NAMED}",
            [name],
        ).fetchall()
        indexes = connection.execute(
            f"SELECT index_name FROM duckdb_indexes() WHERE {is_named('table_name')}"
            " AND schema_name = current_schema() AND database_name = current_database()"
            " ORDER BY index_name",
            [name],
        ).fetchall()
        columns = _columns(connection, name)
        own = frozenset(folded(column) for row in rows for column in row[2])
        lifted = [one for one in columns if folded(one) in own.difference(RESERVED)]
        return cls(
            label=label,
            name=name,
            columns=columns,
            mode=rows[0][0] if rows else None,
            own=own,
            required={column: has for column, has, is_required in defaults if is_required},
            defaulted=frozenset(column for column, has, _ in defaults if has),
            indexes=[index for (index,) in indexes],
            runs={row[1]: row[3] for row in rows},
            empty=frozenset(
                folded(column)
                for column in ([] if indexes else lifted)
                if not connection.execute(
                    f"SELECT 1 FROM {quoted(name)} WHERE {quoted(column)} IS NOT NULL LIMIT 1"
                ).fetchone()
            ),
        )

    def replaced(self) -> DuckTable:
        """Return the state of this table after all rows were deleted."""
        if self._is_of_before():
            # It is made anew.
            return replace(self, columns={}, mode=None, own=frozenset())
        return replace(self, runs={})

    def holds(self, connection: Any, origin: Origin) -> bool:
        """Return whether it has any row that an export has appended."""
        if origin.run not in self.runs:
            return False
        if {"account", "fetched_at"} <= self.columns.keys():
            (is_there,) = connection.execute(
                f"SELECT EXISTS (FROM {self.quoted} WHERE list_contains($accounts, account)"
                " AND epoch_us(fetched_at) = $time)",
                {"accounts": [*origin.accounts], "time": number_of(origin.fetched_at)},
            ).fetchone()
            return bool(is_there)
        # Bindings have no time. Of some that are deleted nobody knows whose they were; those that
        # are there twice can be told by their values, and those that are missing cannot.
        (rows,) = connection.execute(f"SELECT count(*) FROM {self.quoted}").fetchone()
        return bool(rows > sum(self.runs.values()) - self.runs[origin.run])

    def has_rows(self, connection: Any) -> bool:
        """Return whether there is a row in it."""
        if not self.exists:
            return False
        (has_rows,) = connection.execute(f"SELECT EXISTS (FROM {self.quoted})").fetchone()
        return bool(has_rows)

    @property
    def exists(self) -> bool:
        return bool(self.columns)

    @property
    def quoted(self) -> str:
        """The table in SQL."""
        return quoted(self.name)

    def check_mode(self, content: Content, write: Write) -> None:
        """Raise `ExportError` unless rows of this kind can be written in this way."""
        if not self.exists:
            return
        if self._is_of_before():
            if write == "replace":
                return
            fix = (
                "export into it once with write='replace' (--write replace), then as before"
                if write == "upsert"
                else OTHER_NAME
            )
            raise ExportError(
                f"{self.label} was made by an earlier version of this library, and has no column "
                f"'account'; {fix}"
            )
        needed = {
            column.name: TYPES[column.kind]
            for column in content.columns({}, None)
            if column.name not in OPTIONAL or content.of == "bindings"
        }
        types = {folded(name): type_ for name, type_ in self.columns.items()}
        lacking = {name: type_ for name, type_ in needed.items() if name not in types}
        if self.mode is not None and 0 < len(lacking) < len(needed) / 2:
            raise ExportError(
                f"{self.label} lacks {', '.join(map(repr, lacking))}; "
                f"{self._to_restore(lacking, content, write)}; otherwise {OTHER_NAME}"
            )
        if self.mode is None or lacking:
            raise ExportError(
                f"something else than an export of {content.of} has made {self.label}; {OTHER_NAME}"
            )
        for name, type_ in needed.items():
            if types[name] != type_:
                raise ExportError(
                    f"the column {name!r} of {self.label} is {types[name]} instead of {type_}; "
                    f"change it back (ALTER TABLE {self.quoted} ALTER COLUMN {quoted(name)} TYPE "
                    f"{type_}), or {OTHER_NAME}"
                )
        if "rowid" in types:
            raise ExportError(
                f"{self.label} has a column 'rowid', which hides the numbers of rows; rename it"
            )
        if self.mode == "repeating" and write != "replace":
            once = "" if write == "append" else " once"
            raise ExportError(
                f"{self.label} was made with write='replace' and `distinct=False`, so that people "
                f"can be in it more than once; export into it{once} with write='replace' "
                f"(--write replace), or {OTHER_NAME}"
            )
        if self.mode == "append" and write != "append":
            raise ExportError(
                f"{self.label} was made with write='append': only an export with write='append' "
                f"(--write append) can add to it; {OTHER_NAME}"
            )
        if self.mode != "append" and write == "append":
            raise ExportError(
                f"{self.label} was made with write='upsert' or write='replace', and cannot be "
                f"used with write='append'; write as before, or {OTHER_NAME}"
            )

    def _to_restore(self, lacking: Mapping[str, str], content: Content, write: Write) -> str:
        """Return the advice on columns that were renamed or dropped."""
        statements = [
            f"ALTER TABLE {self.quoted} ADD COLUMN {quoted(name)} {type_}"
            for name, type_ in lacking.items()
        ]
        if {*content.identifies, "identity", "object_ids"} & lacking.keys():
            # Rows are found by them.
            statements = []
        them = "it" if len(lacking) == 1 else "them"
        return to_restore("; ".join(statements), them, content, write)

    def _is_of_before(self) -> bool:
        """Return whether a version without the column `account` has made it."""
        first = [*self.columns.items()][: len(CORE_COLUMNS)]
        return first == [(column.name, TYPES[column.kind]) for column in CORE_COLUMNS] and not (
            {"account", "person"} & self.columns.keys()
        )

    def check_accounts(self, connection: Any, origin: Origin) -> None:
        """Raise `ExportError` if the table has rows of accounts that the export does not bring."""
        if "account" not in self.columns:
            return
        marks = ", ".join("?" for _ in origin.accounts)
        found = connection.execute(
            f"SELECT account, count(*) FROM {self.quoted}"
            f" WHERE account IS NULL OR account NOT IN ({marks})"
            " GROUP BY account ORDER BY account",
            [*origin.accounts],
        ).fetchall()
        if found:
            rows = numbered(sum(count for _, count in found), "row")
            accounts = ", ".join(str(account) for account, _ in found)
            raise ExportError(
                f"{self.label} has {rows} of other accounts ({accounts}), which write='replace' "
                f"would delete; write with write='upsert', or name another table with `table`"
            )

    def additions(self, columns: Sequence[Column]) -> list[str]:
        """Return the statements that add columns."""
        return [
            f"ALTER TABLE {self.quoted} ADD COLUMN {definitions([column])}" for column in columns
        ]


_WHERE_NAMED = (
    f"WHERE {is_named('table_name')} AND table_schema = current_schema()"
    " AND table_catalog = current_database()"
)


def _columns(connection: Any, name: str) -> dict[str, str]:
    return dict(
        connection.execute(
            f"SELECT column_name, data_type FROM information_schema.columns {_WHERE_NAMED}"
            " ORDER BY ordinal_position",
            [name],
        ).fetchall()
    )
