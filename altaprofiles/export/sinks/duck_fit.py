"""The way in which the columns of an export fit those of a DuckDB table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from ...base.sql import quoted
from ...errors import ExportError, InvalidArgument
from ...tables.layout import KINDS, Column, Kind
from ..formats import Write
from ..tables import OPTIONAL, Content, to_keep_values
from .duck_table import OTHER_NAME, TYPES, DuckTable, as_text, folded

__all__ = ["Fit", "check_values", "fit"]

_KINDS = {TYPES[kind]: kind for kind in KINDS}


class Fit(Struct, frozen=True):
    """The way in which the columns of an export fit a table.

    Attributes:
        kinds: the type in which the values of each flattened key are read, in order.
        missing: columns to add to the table.
        clashing: flattened columns of another type in the table. They become text if the export
            has any value for them.
        wider: columns of whole numbers in the export, and of any numbers in the table.
        real: columns of any numbers in the export, and of whole numbers in the table.
        retyped: columns of another type in the table, in which there is no value, or none stays
            because the table is replaced.
        others: columns of the table that the library has not made.
        left_out: flattened columns that this export lacks.
        inherited: other columns of which rows can keep the value that they have.
    """

    kinds: dict[str, Kind]
    missing: Sequence[Column] = ()
    clashing: Sequence[str] = ()
    wider: Sequence[str] = ()
    real: Sequence[str] = ()
    retyped: Sequence[Column] = ()
    others: Sequence[str] = ()
    left_out: Sequence[str] = ()
    inherited: Sequence[str] = ()


def fit(
    table: DuckTable,
    columns: Sequence[Column],
    content: Content,
    keys: Mapping[str, Kind | None],
    write: Write,
) -> Fit:
    """Return how the columns of an export fit those of the table.

    Args:
        table: the table.
        columns: the columns of the export.
        content: the kind of rows.
        keys: the flattened keys, which are the last columns.
        write: the way in which rows are written.

    Raises:
        ConfigurationError: a key has a type of its own, and its column another one that has to
            stay.
    """
    present = {folded(name): type_ for name, type_ in table.columns.items()}
    lifted = columns[len(columns) - len(keys) :]
    read: dict[str, Kind] = {}
    clashing, wider, real, retyped = [], [], [], []
    for (key, named), column in zip(keys.items(), lifted, strict=True):
        kind: Kind = column.kind  # type: ignore[assignment]
        type_ = present.get(folded(column.name), TYPES[kind])
        read[key] = kind
        if type_ == TYPES[kind]:
            continue
        is_empty = folded(column.name) in table.empty and (named is not None or kind != "text")
        if write == "replace" or is_empty:
            retyped.append(column)
            continue
        if named is not None:
            clash = _clash(table.label, key, column.name, named, type_)
            if named == "text":
                change = as_text(table.name, column.name, type_)
                clash += f"; or, {to_keep_values(change, content, write)}"
            raise InvalidArgument(clash)
        if type_ == "DOUBLE" and kind == "int64":
            wider.append(column.name)
            continue
        read[key] = "text"
        if type_ == "BIGINT" and kind == "double":
            real.append(column.name)
        elif type_ != "VARCHAR":
            clashing.append(column.name)
    names = {folded(column.name) for column in columns}
    lacking = [name for name in table.columns if folded(name) not in names]
    own = [name for name in lacking if folded(name) in table.own]
    return Fit(
        read,
        [column for column in columns if present and folded(column.name) not in present],
        clashing,
        wider,
        real,
        retyped,
        others=[name for name in lacking if folded(name) not in table.own],
        left_out=[name for name in own if folded(name) not in OPTIONAL],
        # Null in a row of which a lookup has failed.
        inherited=[name for name in own if folded(name) in OPTIONAL]
        + [*{"cdp"} & names & {*present}],
    )


def check_values(
    table: DuckTable, content: Content, keys: Mapping[str, Kind | None], write: Write
) -> None:
    """Raise `ExportError` if the values of an export may not go into the columns, after all.

    DuckDB would refuse them when everything has been fetched.

    Args:
        table: the table.
        content: the kind of rows.
        keys: the flattened keys.
        write: the way in which rows are written.
    """
    columns = content.columns(keys, None)
    names = {folded(column.name) for column in columns}
    for name, has_default in table.required.items():
        if folded(name) in content.identifies:
            continue
        is_own = folded(name) in names | table.own
        if is_own or not has_default:
            default = "" if is_own else ", or SET DEFAULT with a value of yours"
            # With any index, DuckDB alters no column of the table.
            indexes = ", ".join(table.indexes)
            first = f"drop the index ({indexes}) first, then " if indexes else ""
            raise ExportError(
                f"the column {name!r} of {table.label} must not be null, but an export may have "
                f"no value for it; {first}run: ALTER TABLE {table.quoted} ALTER COLUMN "
                f"{quoted(name)} DROP NOT NULL{default}; or {OTHER_NAME}"
            )
    if not table.indexes:
        return
    present = {folded(name): type_ for name, type_ in table.columns.items()}
    lifted = columns[len(columns) - len(keys) :]
    for (key, named), column in zip(keys.items(), lifted, strict=True):
        type_ = present.get(folded(column.name))
        stays = "VARCHAR" if write != "replace" else None
        if type_ is None or type_ == (TYPES[named] if named else stays):
            continue
        raise ExportError(
            f"the type of the column {column.name!r} of {table.label} may have to change with "
            f"the values of an export, but DuckDB changes no type in a table with an index "
            f"({', '.join(table.indexes)}); drop the index, or name the type that the column "
            f"has: flatten={{{key!r}: {_KINDS.get(type_, 'text')!r}}}"
        )


def _clash(label: str, key: str, column: str, named: Kind, type_: str) -> str:
    kind = _KINDS.get(type_)
    fix = f"name {kind!r}" if kind else "drop that column"
    return (
        f"flatten: {key!r} has the type {named!r} ({TYPES[named]}), but the column {column!r} of "
        f"{label} is {type_}; {fix}, or export into it once, all its events, days and accounts, "
        f"with write='replace' (--write replace)"
    )
