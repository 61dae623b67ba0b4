"""One day's Parquet file in a folder of `Session.sync`: its rows of before, and its new rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ...errors import ExportError
from ...tables.arrow import schema_of
from ...tables.columns import lifted_again
from ...tables.layout import Column, key_of
from ...tables.rows import Row, Table
from .files import PartialFile
from .parquet import GROUP_ROWS, Groups, explained

__all__ = ["DayFile", "Earlier", "accounts_in", "is_damaged", "names_in", "types_in"]

_KEY = ("account", "person", "added_at")
_ACCOUNTS = b"altaprofiles.accounts"


class Earlier:
    """The rows that a day has already.

    Args:
        path: the day's file, which need not exist.
        account: the account whose rows are replaced.
        remedy: what to do about a file that is damaged, or no file.

    Attributes:
        has_own, has_others: whether there are rows of that account, and of others.
        accounts: the accounts that the day was synced for, also if they have no row; none if there
            is no file, and None if it is of an earlier version.

    Raises:
        ExportError: it is not a file of this library.
    """

    def __init__(self, path: Path, account: str, remedy: str) -> None:
        from pyarrow import compute, parquet

        self._path = path
        self._remedy = remedy
        self._account = account
        self.schema: Any = None
        self.has_own = self.has_others = False
        self.accounts: Sequence[str] | None = ()
        if not path.exists():
            return
        with explained(str(path), "read", remedy):
            schema = parquet.read_schema(path)
            if not {*_KEY} <= {*schema.names}:
                raise ExportError(
                    f"{path} is not of `sync`: it lacks {', '.join(_KEY)}; move it away"
                )
            rows = parquet.read_table(path, columns=[*_KEY], partitioning=None)
            own = rows.filter(compute.equal(rows["account"], account))
        self.schema = schema
        self.accounts = _accounts(schema)
        self.has_own = own.num_rows > 0
        self.has_others = own.num_rows < rows.num_rows
        self._people = own["person"].combine_chunks()
        self._added_at = own["added_at"].combine_chunks()

    def added_at(self, people: Any, otherwise: Any) -> Any:
        """Return when each person came into the file first, of those who are in it."""
        from pyarrow import compute

        if not self.has_own:
            return otherwise
        places = compute.index_in(people, value_set=self._people)
        return compute.coalesce(compute.take(self._added_at, places), otherwise)

    def clashing(self, columns: Sequence[Column]) -> set[str]:
        """Return the names of columns that other accounts' rows make text, by another type."""
        if not self.has_others:
            return set()
        types = {field.name.casefold(): field.type for field in self.schema}
        return {
            field.name
            for field in schema_of([column for column in columns if column.kind != "text"])
            if types.get(field.name.casefold(), field.type) != field.type
        }

    def others(self, schema: Any) -> Iterable[Any]:
        """Yield the rows of other accounts, in tables of a schema that has all their columns."""
        import pyarrow
        from pyarrow import compute, parquet

        if not self.has_others:
            return
        # Most readers ignore case in names.
        names = {name.casefold(): name for name in self.schema.names}
        name = str(self._path)
        with explained(name, "read", self._remedy), parquet.ParquetFile(self._path) as file:
            for batch in file.iter_batches(GROUP_ROWS):
                table = pyarrow.Table.from_batches([batch])
                table = table.filter(compute.not_equal(table["account"], self._account))
                columns = [
                    _cast(table, table[names[field.name.casefold()]], field)
                    if field.name.casefold() in names
                    else pyarrow.nulls(table.num_rows, field.type)
                    for field in schema
                ]
                yield pyarrow.Table.from_arrays(columns, schema=schema)


def _cast(table: Any, cells: Any, field: Any) -> Any:
    """Return a column of a table as another field. Text is as it was sent, which no cast knows."""
    import pyarrow
    from pyarrow import compute

    if cells.type == field.type or not pyarrow.types.is_string(field.type):
        return cells.cast(field.type)
    data = (part and part.encode() for part in table["profile_data"].to_pylist())
    [texts] = lifted_again([*data], {key_of(field.name): "text"})
    return compute.coalesce(pyarrow.array(texts, field.type), cells.cast(field.type))


def types_in(path: Path) -> tuple[dict[str, Any], bool]:
    """Return the Arrow type of each column of a day's file, and whether it has rows.

    Names are in lower case. There are none of either in a file that is missing or cannot be read.
    """
    from pyarrow import parquet

    # One that this run replaces is read again, with an error that names it.
    with suppress(ExportError, OSError), explained(str(path), "read"):
        found = parquet.read_metadata(path)
        schema = found.schema.to_arrow_schema()
        # Most readers ignore case in names.
        return {field.name.casefold(): field.type for field in schema}, found.num_rows > 0
    return {}, False


def is_damaged(path: Path) -> bool:
    """Return whether the end of a day's file, which is read first, cannot be read."""
    from pyarrow import parquet

    try:
        with suppress(OSError), explained(str(path), "read"):
            parquet.read_metadata(path)
    except ExportError:
        return True
    return False


def names_in(path: Path) -> Sequence[str]:
    """Return the names of the columns of a day's file; none if it cannot be read."""
    from pyarrow import parquet

    with suppress(ExportError, OSError), explained(str(path), "read"):
        names: Sequence[str] = parquet.read_schema(path).names
        return names
    return ()


def accounts_in(path: Path) -> Sequence[str] | None:
    """Return the accounts that a day's file says it was synced for; None if it does not say."""
    from pyarrow import parquet

    with suppress(ExportError, OSError), explained(str(path), "read"):
        return _accounts(parquet.read_schema(path))
    return None


def _accounts(schema: Any) -> Sequence[str] | None:
    content = (schema.metadata or {}).get(_ACCOUNTS)
    try:
        return None if content is None else msgspec.json.decode(content, type=list[str])
    except msgspec.DecodeError:
        return None


class DayFile:
    """A day's new file: the rows of one account, and then those that other accounts have.

    Args:
        path: its path until it is put in place.
        table: the columns, and the cells of the new rows.
        earlier: the rows that the day has.
        accounts: the accounts that the day has been synced for.

    Attributes:
        path: its path.
    """

    def __init__(self, path: Path, table: Table, earlier: Earlier, accounts: Sequence[str]) -> None:
        from pyarrow import parquet

        self.path = path
        self._name = str(path)
        self._earlier = earlier
        self._groups = Groups(table, self._write_group)
        self._schema = self._groups.schema
        known = {name.casefold() for name in self._schema.names}
        for field in earlier.schema if earlier.has_others else ():
            if field.name.casefold() not in known:
                self._schema = self._schema.append(field)
        self._partial = PartialFile(path, path)
        try:
            with explained(self._name):
                self._writer = parquet.ParquetWriter(
                    self._partial.file,
                    self._schema.with_metadata({_ACCOUNTS: msgspec.json.encode(accounts)}),
                    compression="zstd",
                )
        except BaseException:
            self._partial.discard()
            raise

    def write(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        self._groups.add(rows)

    def close(self) -> os.stat_result:
        """Add the rows that stay, make the file durable, and return its status."""
        self._groups.flush()
        with explained(self._name):
            for table in self._earlier.others(self._schema):
                self._writer.write_table(table)
            self._writer.close()
        return self._partial.settle()

    def abort(self) -> None:
        """Drop the file. Never raises."""
        # Closing writes the footer, and the disk may be full.
        with suppress(Exception):
            self._writer.close()
        self._partial.discard()

    def _write_group(self, table: Any, rows: int) -> None:
        import pyarrow

        with explained(self._name):
            place = table.column_names.index("added_at")
            added_at = self._earlier.added_at(table["person"], table["added_at"])
            table = table.set_column(place, table.schema.field(place), added_at)
            for field in [*self._schema][len(table.column_names) :]:
                table = table.append_column(field, pyarrow.nulls(table.num_rows, field.type))
            self._writer.write_table(table, row_group_size=rows)
