"""A table in a DuckDB file: who made it, in which mode, and how its columns fit those of an export.

`altaprofiles_runs` in the same file says which tables this library has made. It has a row for each
table that holds the people of all runs or of the last one, and for a table of `append` a row for
each run. It changes in
the transaction that changes the table. A unique key would say less: it could not name the runs, it
would have to be held in memory, and DuckDB checks it before a transaction is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ...base.wording import numbered
from ...errors import ConfigurationError, ExportError
from ...tables.layout import CORE_COLUMNS, Column, ColumnKind, Kind
from ..tables import OPTIONAL, Content, Origin
from .target import Write

__all__ = [
    "OWN_PREFIX",
    "RUNS",
    "RUNS_COLUMNS",
    "TYPES",
    "DuckTable",
    "Fit",
    "folded",
    "is_named",
    "quoted",
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

_KINDS = {type_: kind for kind, type_ in TYPES.items()}

_OTHER_NAME = "name another table with `table`, or drop or rename this one"


def quoted(name: str) -> str:
    """Return `name` as an identifier in SQL."""
    return '"{}"'.format(name.replace('"', '""'))


_FOLDING = str.maketrans(ascii_uppercase, ascii_lowercase)


def folded(name: str) -> str:
    """Return a name as DuckDB compares it: without the case of ASCII letters, and only of those."""
    return name.translate(_FOLDING)


def is_named(column: str, name: str = "?") -> str:
    """Return the condition in SQL that a column has a table's name."""
    # The function `lower` ignores the case of more letters than DuckDB does in names.
    letters = f"'{ascii_uppercase}', '{ascii_lowercase}'"
    return f"translate({column}, {letters}) = translate({name}, {letters})"


class Fit(Struct, frozen=True):
    """The way in which the columns of an export fit a table.

    Attributes:
        kinds: the type in which the values of each flattened key are read, in order.
        missing: columns to add to the table.
        clashing: flattened columns of another type in the table. They become text if the export
            has any value for them.
        wider: columns of whole numbers in the export, and of any numbers in the table.
        retyped: columns of another type in the table that is replaced, in which no value stays.
        others: columns of the table that the library has not made.
        left_out: flattened columns that this export lacks.
        inherited: other columns of which rows can keep the value that they have.
    """

    kinds: dict[str, Kind]
    missing: Sequence[Column] = ()
    clashing: Sequence[str] = ()
    wider: Sequence[str] = ()
    retyped: Sequence[Column] = ()
    others: Sequence[str] = ()
    left_out: Sequence[str] = ()
    inherited: Sequence[str] = ()


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
        indexes: the names of the indexes on it.
        runs: the runs that it has rows of, as far as they are known, and the number of those.
    """

    label: str
    name: str
    columns: dict[str, str]
    mode: str | None
    own: frozenset[str]
    required: dict[str, bool]
    indexes: Sequence[str]
    runs: dict[str, int]

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
        required = connection.execute(
            "SELECT column_name, column_default IS NOT NULL FROM information_schema.columns"
            f" {_WHERE_NAMED} AND is_nullable = 'NO'",
            [name],
        ).fetchall()
        indexes = connection.execute(
            f"SELECT index_name FROM duckdb_indexes() WHERE {is_named('table_name')}"
            " AND schema_name = current_schema() AND database_name = current_database()"
            " ORDER BY index_name",
            [name],
        ).fetchall()
        return cls(
            label=label,
            name=name,
            columns=_columns(connection, name),
            mode=rows[0][0] if rows else None,
            own=frozenset(folded(column) for row in rows for column in row[2]),
            required=dict(required),
            indexes=[index for (index,) in indexes],
            runs={row[1]: row[3] for row in rows},
        )

    def replaced(self) -> DuckTable:
        """Return the state of this table after all rows were deleted."""
        if self._is_of_before():
            # It is made anew.
            return replace(self, columns={}, mode=None, own=frozenset())
        return replace(self, runs={})

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
                "write it once with write='replace' (--write replace), then as before"
                if write == "upsert"
                else _OTHER_NAME
            )
            raise ExportError(
                f"{self.label} was made by an earlier version of this library, and has no column "
                f"'account'; {fix}"
            )
        needed = {
            column.name: TYPES[column.kind]
            for column in content.columns({}, None)
            if column.name not in OPTIONAL
        }
        types = {folded(name): type_ for name, type_ in self.columns.items()}
        if self.mode is None or any(name not in types for name in needed):
            raise ExportError(
                f"something else than an export of {content.of} has made {self.label}; "
                f"{_OTHER_NAME}"
            )
        for name, type_ in needed.items():
            if types[name] != type_:
                raise ExportError(
                    f"the column {name!r} of {self.label} is {types[name]} instead of {type_}; "
                    f"change it back, or {_OTHER_NAME}"
                )
        if "rowid" in types:
            raise ExportError(
                f"{self.label} has a column 'rowid', which hides the numbers of rows; rename it"
            )
        if self.mode == "repeating" and write != "replace":
            once = "" if write == "append" else " once"
            raise ExportError(
                f"{self.label} was made with write='replace' and distinct=False, so that people "
                f"can be in it more than once; write it{once} with write='replace', or "
                f"{_OTHER_NAME}"
            )
        if (self.mode == "append") != (write == "append"):
            made = "'append'" if self.mode == "append" else "'upsert' or 'replace'"
            raise ExportError(
                f"{self.label} was made with write={made}, and cannot be used with "
                f"write={write!r}; write as before, or {_OTHER_NAME}"
            )

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

    def fit(self, columns: Sequence[Column], keys: Mapping[str, Kind | None], write: Write) -> Fit:
        """Return how the columns of an export fit those of the table.

        Args:
            columns: the columns of the export.
            keys: the flattened keys, which are the last columns.
            write: the way in which rows are written.

        Raises:
            ConfigurationError: a key has a type of its own, and its column another one that has to
                stay.
        """
        present = {folded(name): type_ for name, type_ in self.columns.items()}
        lifted = columns[len(columns) - len(keys) :]
        read: dict[str, Kind] = {}
        clashing, wider, retyped = [], [], []
        for (key, named), column in zip(keys.items(), lifted, strict=True):
            kind: Kind = column.kind  # type: ignore[assignment]
            type_ = present.get(folded(column.name), TYPES[kind])
            read[key] = kind
            if type_ == TYPES[kind]:
                continue
            if write == "replace":
                retyped.append(column)
                continue
            if named is not None:
                raise ConfigurationError(_clash(self.label, key, column.name, named, type_))
            if type_ == "DOUBLE" and kind == "int64":
                wider.append(column.name)
                continue
            read[key] = "text"
            if type_ != "VARCHAR":
                clashing.append(column.name)
        names = {folded(column.name) for column in columns}
        lacking = [name for name in self.columns if folded(name) not in names]
        own = [name for name in lacking if folded(name) in self.own]
        return Fit(
            read,
            [column for column in columns if present and folded(column.name) not in present],
            clashing,
            wider,
            retyped,
            others=[name for name in lacking if folded(name) not in self.own],
            left_out=[name for name in own if folded(name) not in OPTIONAL],
            # Null in a row of which a lookup has failed.
            inherited=[name for name in own if folded(name) in OPTIONAL]
            + [*{"cdp"} & names & {*present}],
        )

    def check_values(self, content: Content, keys: Mapping[str, Kind | None], write: Write) -> None:
        """Raise `ExportError` if the values of an export may not go into the columns, after all.

        DuckDB would refuse them when everything has been fetched.

        Args:
            content: the kind of rows.
            keys: the flattened keys.
            write: the way in which rows are written.
        """
        columns = content.columns(keys, None)
        names = {folded(column.name) for column in columns}
        for name, has_default in self.required.items():
            if folded(name) in content.identifies:
                continue
            if folded(name) in names | self.own or not has_default:
                raise ExportError(
                    f"the column {name!r} of {self.label} must not be null, but an export may have "
                    f"no value for it; drop that constraint, or {_OTHER_NAME}"
                )
        if not self.indexes:
            return
        present = {folded(name): type_ for name, type_ in self.columns.items()}
        lifted = columns[len(columns) - len(keys) :]
        for (key, named), column in zip(keys.items(), lifted, strict=True):
            type_ = present.get(folded(column.name))
            stays = "VARCHAR" if write != "replace" else None
            if type_ is None or type_ == (TYPES[named] if named else stays):
                continue
            raise ExportError(
                f"the type of the column {column.name!r} of {self.label} may have to change with "
                f"the values of an export, but DuckDB changes no type in a table with an index "
                f"({', '.join(self.indexes)}); drop the index, or name the type that the column "
                f"has: flatten={{{key!r}: {_KINDS.get(type_, 'text')!r}}}"
            )

    def additions(self, fit: Fit) -> list[str]:
        """Return the statements that add the missing columns."""
        return [
            f"ALTER TABLE {self.quoted} ADD COLUMN {quoted(column.name)} {TYPES[column.kind]}"
            for column in fit.missing
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


def _clash(label: str, key: str, column: str, named: Kind, type_: str) -> str:
    kind = _KINDS.get(type_)
    fix = f"name {kind!r}" if kind in ("bool", "int64", "double", "text", "timestamp") else ""
    return (
        f"flatten: {key!r} has the type {named!r} ({TYPES[named]}), but the column {column!r} of "
        f"{label} is {type_}; {fix or 'drop that column'}, or write it once with write='replace' "
        f"(--write replace)"
    )
