"""The keys of a bulk lookup: from an iterable, or from one column of a file."""

from __future__ import annotations

import logging
import os
import re
import shlex
import stat
from bisect import bisect_right
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, suppress
from itertools import chain, count, islice, pairwise, tee
from operator import itemgetter
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from anyio.lowlevel import checkpoint
from msgspec import Raw

from ..base.checks import check_key, check_no_database, is_missing, shown
from ..base.jsontext import elements, members, parts, plain_text
from ..base.paths import path_text, status_of
from ..base.wording import meant, numbered
from ..errors import AltaProfilesError, ConfigurationError, DecodeError, InvalidArgument
from ..flow.fanout import Items, check_items
from ..flow.handover import Ended, Handover
from ..flow.item_reader import ItemReader
from ..models import Key
from ..tables.parts import NULL
from .csv_rows import csv_rows
from .key_lines import split_lines
from .key_tables import duckdb_keys, in_brackets, parquet_keys
from .threads import Threads, read_ahead

__all__ = [
    "HEAD",
    "KeyFile",
    "Keys",
    "Placed",
    "are_letters_of",
    "as_text_key",
    "check_keys",
    "columns_in",
    "in_batches",
    "is_absent",
    "key_in_file",
]

logger = logging.getLogger("altaprofiles")

_TITLES = 10
"""Most lines above a header, which are looked for in advice only."""
_LONGEST_TITLE = 65536
"""Most bytes of one of them."""

Keys: TypeAlias = Items[Key] | str | os.PathLike[str]
"""Identifiers, or the path of a file of identifiers."""

_CSV, _NDJSON, _PARQUET, _DUCKDB = (
    (".csv", ".tsv"),
    (".ndjson", ".jsonl"),
    (".parquet",),
    (".duckdb",),
)
_TABLES = _CSV + _NDJSON + _PARQUET + _DUCKDB


def check_keys(
    keys: Keys, by: str, column: str | None, keys_table: str | None = None
) -> Items[Key] | KeyFile:
    """Return the source of the keys.

    Args:
        keys: as the caller passed them.
        by: the kind of identifier.
        column: the column of a file, or None.
        keys_table: the table of a DuckDB file, or None.

    Raises:
        ConfigurationError: `keys` is neither a file nor an iterable with an order, or `column` or
            `keys_table` does not apply.
    """
    if isinstance(keys, str | os.PathLike):
        return KeyFile(keys, by, column, keys_table)
    check_items("keys", keys)
    if isinstance(keys, set | frozenset):
        # Its order differs between processes, so that an export could not be resumed.
        raise InvalidArgument("keys: got a set, which has no order; pass sorted(keys)")
    if column is not None:
        raise InvalidArgument(
            f"column: got {shown(column)}, but the keys are not a file; pass the path of one "
            f"with columns (.csv, .ndjson, .parquet), or leave it out: each key is used whole"
        )
    if keys_table is not None:
        raise InvalidArgument(
            f"keys_table: got {shown(keys_table)}, but the keys are not a file; leave it out, "
            "or pass "
            f"the path of a DuckDB file"
        )
    return keys


@runtime_checkable
class Placed(Protocol):
    """A source of keys that knows where each of them stands."""

    def place_of(self, index: int) -> str:
        """Return the place of a key that has just been read, in words."""


class KeyFile:
    """One column of a CSV, NDJSON, Parquet or DuckDB file, or the lines of any other. Blocking.

    Args:
        path: the file, in UTF-8, with or without a byte-order mark.
        by: the kind of identifier.
        column: the column or the JSON key that holds the identifiers.
        keys_table: the table of a DuckDB file.

    Attributes:
        path: the file.
        skipped: rows and objects without a key that have been read.
        is_pipe: whether it is a pipe or a device, a read of which may wait for ever.
        is_bare: whether the first line of a CSV file was read as a key.

    Raises:
        ConfigurationError: there is no such file, or `column` or `keys_table` does not apply to it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        by: str,
        column: str | None,
        keys_table: str | None = None,
    ) -> None:
        self.path = Path(path_text("keys", path))
        for argument, name in (("column", column), ("keys_table", keys_table)):
            if isinstance(name, str):
                check_no_database(argument, name)
        self.skipped = 0
        self.is_bare = False
        self._by = by
        self._column = column
        self.table = keys_table
        self._number = 0
        self._head = "first line"
        # The indexes at which a line less the index of its key changes, as behind a blank line.
        self._offsets: list[tuple[int, int]] = []
        ending = self.path.suffix.lower()
        self._read = self._reader(ending)
        status = status_of("keys", self.path)
        # A pipe is a file as well: `lookup <(…)`.
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise InvalidArgument(
                "keys: a folder has that name; name a file in it", value=str(path)
            )
        if status is None:
            raise InvalidArgument(
                "keys: there is no file of that name; to look up a single key, pass it in a list",
                value=str(path),
            )
        self.is_pipe = not stat.S_ISREG(status.st_mode)
        if ending in _NOT_TEXT:
            raise InvalidArgument(f"keys: {str(path)!r} is not text: {_NOT_TEXT[ending]}")
        if keys_table is not None and ending not in _DUCKDB:
            raise InvalidArgument(
                f"keys_table: got {shown(keys_table)}, but {self.path.name} is no DuckDB file; "
                "leave it "
                f"out"
            )
        if column is not None and ending not in _TABLES:
            raise InvalidArgument(
                f"column: got {shown(column)}, but {self.path.name} is read as text with one key a "
                f"line; if it has columns, give it the ending .csv (.tsv for tabs), or .ndjson for "
                f"JSON lines; else leave it out"
            )

    def _reader(self, ending: str) -> Callable[[], Iterator[str | None]]:
        if ending in _CSV:
            return self._csv
        if ending in _NDJSON:
            return self._ndjson
        if ending in _PARQUET:
            return lambda: self._rows(parquet_keys(self.path, self._column))
        if ending in _DUCKDB:
            return lambda: self._rows(duckdb_keys(self.path, self.table, self._column))
        return self._text

    def __iter__(self) -> Iterator[str]:
        """Yield each key, in the order of the file. Blank ones are skipped.

        Raises:
            ConfigurationError: the file cannot be read, its content does not match its ending, or
                it changes while it is read.
        """
        index = 0
        self.skipped = 0
        self._offsets = [(0, 0)]
        try:
            for key in self._read():
                if key is None or not key.strip():
                    self.skipped += self._is_table
                    continue
                if self._number - index != self._offsets[-1][1]:
                    self._offsets.append((index, self._number - index))
                index += 1
                yield key
        except OSError as error:
            raise InvalidArgument(f"keys: {self.path} cannot be read: {error.strerror}") from None
        if not index and self.skipped:
            where, fix = "", "fill it, or pass another file"
            if self._column is not None:
                where, fix = f" in {self._column!r}", "name another column"
            raise InvalidArgument(
                f"keys: no row of {self.path} has a key{where}, {self.skipped:,} looked at; {fix}"
            )
        if not index:
            logger.warning("%s holds no keys: nothing is looked up", self.path)

    @property
    def _is_table(self) -> bool:
        """True if the file consists of rows, one of which may lack a key."""
        return self.path.suffix.lower() in _TABLES

    def place_of(self, index: int) -> str:
        """Return the line, or the row of a table without lines, of a key that has been read."""
        _, offset = self._offsets[self._place_in_offsets(index)]
        has_lines = self.path.suffix.lower() not in (*_PARQUET, *_DUCKDB)
        return f"{'line' if has_lines else 'row'} {index + offset} of {self.path}"

    def forget_places(self, index: int) -> None:
        """Forget the places of keys before `index`: a file may have millions of blank rows."""
        del self._offsets[: self._place_in_offsets(index)]

    def _place_in_offsets(self, index: int) -> int:
        return bisect_right(self._offsets, index, key=itemgetter(0)) - 1

    def advice_on(self, fault: str) -> str:
        """Return advice on the fault of a key, or nothing."""
        is_table = self._read == self._text and "U+0009" in fault
        return (
            "; if this is a TSV file, give it the ending .tsv, and name the column"
            if is_table
            else ""
        )

    def _rows(self, rows: Iterator[tuple[int, str | None]]) -> Iterator[str | None]:
        before = _version(self.path.stat())
        for self._number, key in rows:
            yield key
        if before != _version(self.path.stat()):
            raise self._changed()

    def _changed(self) -> ConfigurationError:
        return InvalidArgument(
            f"keys: {self.path} was changed while it was read; repeat the call when it is complete"
        )

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Yield each line with its number, from 1."""
        with self.path.open("rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            pieces = iter(lambda: file.read(_PIECE), b"")
            lines = split_lines(pieces, str(self.path), self._to_utf_8)
            yield from enumerate(chain.from_iterable(lines), 1)
            if _version(before) != _version(os.fstat(file.fileno())):
                raise self._changed()

    def _to_utf_8(self) -> str:
        in_excel = ", in Excel as CSV UTF-8" if self.path.suffix.lower() in _CSV else ""
        converted = self._shell_command("iconv -f WINDOWS-1252 -t UTF-8", "utf-8")
        return f"save it as UTF-8{in_excel}, or, if it is Windows-1252, run: {converted}"

    def _shell_command(self, command: str, to: str) -> str:
        """Return a command line that writes the file anew, beside itself."""
        marks = chain([""], (f"-{number}" for number in count(2)))
        files = (
            self.path.with_name(f"{self.path.stem}-{to}{mark}{self.path.suffix}") for mark in marks
        )
        new = next(one for one in files if not one.exists())
        words = (
            shlex.quote(f"./{one}" if str(one).startswith("-") else str(one))
            for one in (self.path, new)
        )
        return f"{command} {' > '.join(words)}"

    def _text(self) -> Iterator[str]:
        lines = self._lines()
        # Of a pipe, the next line may come only once the key before has its answer.
        head = [] if self.is_pipe else [*islice(lines, HEAD)]
        if (words := columns_in([line for _, line in head])) is not None:
            logger.warning(
                "%s seems to have columns%s, and is read as text with one key a line; if it has, "
                "give it the ending .csv, and name the column of the keys",
                self.path,
                words,
            )
        for number, line in chain(head, lines):
            self._number = number
            # A mark in the middle is left over from files that were joined.
            yield line.rstrip("\r\n").removeprefix(_MARK)

    def _csv(self) -> Iterator[str]:
        lines = self._lines()
        number, line = next(lines, (1, ""))
        is_marked = line.startswith(_MARK)
        line = line.removeprefix(_MARK)
        if named := _NAMED_SEPARATOR.fullmatch(line):
            separator = self._check_separator(named[1])
            self._head = f"header behind its sep={separator}"
        else:
            separator, lines = self._separator(chain([(number, line)], lines), is_marked)
        rows = csv_rows(lines, str(self.path), separator)
        self._number, first, _ = next(rows, (0, [], False))
        place = self._place(self._names(first, is_marked), separator)
        cells = self._cells(rows, place, first, separator)
        if self._column is None and not are_letters_of(self._by, *first):
            self.is_bare = any(map(str.strip, first))
            cells = chain(first, cells)
        yield from map(_unguarded, cells) if is_marked else cells

    def _check_separator(self, named: str) -> str:
        """Return the separator that the first line of a file for Excel names."""
        if named not in _BETWEEN:
            raise InvalidArgument(
                f"keys: the first line of {self.path} says that its cells are separated by "
                f"{named!r}; save it with commas, semicolons or tabs"
            )
        return named

    @property
    def _separators(self) -> str:
        """The characters that may separate the cells."""
        return "\t" if self.path.suffix.lower() == ".tsv" else ",;\t"

    def _separator(
        self, lines: Iterator[tuple[int, str]], is_marked: bool
    ) -> tuple[str, Iterator[tuple[int, str]]]:
        """Return what separates the cells, and all lines.

        It is what makes the column one of the cells of the first row. A comma may stand in a name.
        """
        lines, *heads = tee(lines, 1 + len(self._separators))
        fits = {self._separators[0]: (False, 0)}
        for separator, head in zip(self._separators, heads, strict=True):
            with suppress(InvalidArgument):
                _, row, _ = next(csv_rows(head, str(self.path), separator), (0, [], False))
                row = self._names(row, is_marked)
                fits[separator] = sum(one == self._column for one in row) == 1, len(row)
        return max(fits, key=fits.__getitem__), lines

    def _names(self, first: list[str], is_marked: bool) -> list[str]:
        """Return the cells of the first row, of which `column` is one as it is shown or was."""
        is_shown = not is_marked or self._column in first
        return first if is_shown else [*map(_unguarded, first)]

    def _cells(
        self,
        rows: Iterator[tuple[int, list[str], bool]],
        place: int,
        first: list[str],
        separator: str,
    ) -> Iterator[str]:
        width = len(first)
        others: set[str] = set()
        if width == 1 and self._column is None and self.path.suffix.lower() != ".tsv":
            # Nothing else shows what separates cells.
            others = {*_BETWEEN}.difference(separator, *first)
        for number, row, is_quoted in rows:
            self._number = number
            if others and not is_quoted and (found := others.intersection(row[0])):
                raise InvalidArgument(
                    f"keys: line {number} of {self.path} seems to have columns"
                    f"{_BETWEEN[max(found)]}, but the {self._head} has only one; name each column "
                    f"there, or, if that is a part of the key, name its column in the call"
                )
            if len(row) != width:
                raise InvalidArgument(
                    f"keys: line {number} of {self.path} has "
                    f"{numbered(len(row), 'column')}, but the {self._head} has {width}; correct "
                    f"the file"
                )
            yield row[place]

    def _place(self, first: list[str], separator: str) -> int:
        """Return the index of the column that holds the keys."""
        known = _known_names(first, self._column)
        count = numbered(len(first), "column")
        count += _BETWEEN[separator] * (len(first) > 1 and separator != ",")
        count += in_brackets(known, is_all=len(known) == len(first))
        if self._column is None:
            if len(first) > 1:
                other = ", or save it as .txt if that line is a key" if separator == ";" else ""
                raise InvalidArgument(
                    f"column: {self.path} has {count}; name the one that holds the "
                    f"keys, as its {self._head} does{other}",
                    value=first,
                )
            return 0
        found = first.count(self._column)
        if found != 1:
            close = None if found else meant(self._column, known)
            # Only a header has a name in each column.
            is_header = all(first) and len(first) > 1
            fix = "name exactly one" if close is None else f"did you mean {close}?"
            if not is_header:
                may_be_below = not found and not self.is_pipe and self._head == "first line"
                below = self._header_below(self._column) if may_be_below else None
                if below is not None and self._ends_in_newlines(*below):
                    line, name = below
                    header = self._shell_command(f"tail -n +{line}", "list")
                    fix = f"line {line} has it"
                    fix += ": " if name == self._column else f" as {name!r}: pass that name, and "
                    fix += f"to remove what stands above it, run: {header}"
                elif close is None:
                    fix += ", and remove what stands above the header, if anything"
            raise InvalidArgument(
                f"column: the {self._head} of {self.path} has {count}, of "
                f"which {found or 'none'} {'is' if len(first) == 1 else 'are'} named "
                f"{self._column!r}; {fix}",
                value=first,
            )
        return first.index(self._column)

    def _header_below(self, column: str) -> tuple[int, str] | None:
        """Return the line below a title that is the header, and its name of the column.

        Of several columns, the header is the first line with as many cells as most lines have:
        below it the name would be a value, and above it part of a title. The name may be in other
        case and punctuation, unless another line or column has it exactly. If the header lacks the
        name, there may be another table above or below it, of which one line alone is the header.
        """
        tables = [self._rows_below(separator) for separator in self._separators]
        (_, width), table = max(((_shape(rows), rows) for rows in tables), key=itemgetter(0))
        header = [one for one in table if len(one[1]) == width and _may_be_header(one[1])]
        letters = _letters(column)
        near: list[tuple[int, str]] = []
        for number, row in header[:1] or [*chain(*tables)]:
            if row.count(column) == 1:
                return number, column
            # By a separator that it lacks, a line is one cell.
            names = [cell for cell in row if not {*self._separators}.intersection(cell)]
            alike = [name for name in names if "" != letters == _letters(name)]
            if len(alike) == 1:
                near.append((number, alike[0]))
        if near:
            return near[0]
        others = {number for table in tables for number in _headers(table, column)}
        return (others.pop(), column) if len(others) == 1 else None

    def _rows_below(self, separator: str) -> list[tuple[int, list[str]]]:
        """Return each line below the first one with its cells."""
        rows = []
        for number, line in islice(self._lines(), 1, _TITLES + 1):
            with suppress(InvalidArgument):
                for _, row, _ in csv_rows([(number, line)], str(self.path), separator):
                    rows.append((number, row))
        return rows

    def _ends_in_newlines(self, number: int, name: str) -> bool:
        """Return whether what `tail` takes for the line `number` is that line, which has `name`."""
        with self.path.open("rb") as file:
            lines = [file.readline(_LONGEST_TITLE) for _ in range(number)]
        return name.encode() in lines[-1]

    def _ndjson(self) -> Iterator[str | None]:
        for number, line in self._lines():
            self._number = number
            text = line.removeprefix(_MARK)
            if text.strip(_BLANK):
                yield self._member(text, number)

    def _member(self, line: str, number: int) -> str | None:
        where = f"line {number} of {self.path}"
        try:
            value = self._value(line.strip(_BLANK).encode(), where)
            text = plain_text(value, whole=True, exact=True)
        except DecodeError as error:
            raise InvalidArgument(f"keys: {where} is not JSON: {error}") from None
        if text is None:
            return None
        first = bytes(value)[:1]
        if first != b'"' and not _WHOLE.fullmatch(text):
            raise InvalidArgument(
                f"keys: {where} holds {_KINDS.get(first, 'a number with a fraction')}, which is "
                f"not an identifier; write it as text",
                value=text,
            )
        return text

    def _value(self, line: bytes, where: str) -> Raw:
        """Return the identifier in a line of NDJSON, even beside a part that cannot be decoded."""
        if not line.startswith(b"{"):
            if self._column is not None:
                raise InvalidArgument(
                    f"column: got {self._column!r}, but {where} is not an object; leave it out"
                )
            values = elements(b"[%b]" % line)
            if len(values) != 1:
                raise InvalidArgument(f"keys: {where} holds several values; write one a line")
            return values[0]
        if self._column is None:
            raise InvalidArgument(
                f"column: {where} holds an object; name the key that holds the identifier"
            )
        found = parts(line)
        if self._column not in found:
            # As a person in an export without that key.
            return NULL
        if _is_repeated(self._column, line):
            raise InvalidArgument(
                f"column: {where} has {self._column!r} more than once; correct the file"
            )
        return found[self._column]


def _shape(rows: list[tuple[int, list[str]]]) -> tuple[int, int]:
    """Return how many rows have several cells, all the same number of them, and that number."""
    widths = Counter(len(row) for _, row in rows if len(row) > 1)
    return max(((count, width) for width, count in widths.items()), default=(0, 0))


def _may_be_header(row: list[str]) -> bool:
    """Return whether a row of several cells is no title that is padded with separators."""
    # The name that a header of two columns lacks is that of an index.
    return bool(row[1]) if len(row) == 2 else sum(map(bool, row)) > 1


def _headers(rows: list[tuple[int, list[str]]], column: str) -> Iterator[int]:
    """Yield each line that has the column once, among names, and a key right below it."""
    filled = [(number, row) for number, row in rows if any(row)]
    for (number, row), (_, below) in pairwise(filled):
        is_header = row.count(column) == 1 and not any(map(_VALUE.fullmatch, row))
        # A header that is one cell short, as of an index, would be refused as well.
        is_whole = is_header and len(row) == len(below)
        if is_whole and _LIKE_KEY.search(below[row.index(column)]):
            yield number


_VALUE = re.compile(r".*@.*|[\W\d_]+")
"""A cell that hardly any header has: without letters, or an address."""

_LIKE_KEY = re.compile(r"[\d@]")
"""A character that nearly every identifier has, and hardly any name of a column."""

_NAMED_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The line by which Excel is told the separator of a CSV file."""

HEAD = 10
"""Lines of a text in which columns are looked for."""

_BETWEEN = {
    ",": " separated by commas",
    ";": " separated by semicolons",
    "\t": " separated by tabs",
}


def _unguarded(cell: str) -> str:
    """Return a cell without the apostrophe that `bom` puts before it.

    `bom` also puts a mark at the file's start.
    """
    return cell[1:] if _GUARDED.match(cell) else cell


_BLANK = " \t\r\n"
_MARK = "\ufeff"
_PIECE = 1 << 18
_GUARDED = re.compile("'++[=@\t\r+-]")

_PACKED = "unpack it, and pass the file that it holds"
_NOT_TEXT = {
    **dict.fromkeys((".gz", ".zst", ".bz2", ".xz", ".zip"), _PACKED),
    ".json": "give it the ending .ndjson if each line is a value of its own",
    ".xlsx": "save it as CSV UTF-8",
}
"""The fix for files that would be read as one key a line, by ending."""


def _version(status: os.stat_result) -> tuple[int, int] | None:
    """Return a value that differs once a regular file has been changed."""
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _is_repeated(name: str, line: bytes) -> bool:
    """Return whether an object has more than one member of this name, which decoding hides."""
    if b"\\" not in line and line.count(b'"%b"' % name.encode()) == 1:
        return False
    names = [plain_text(key) for key, _ in members(line)]
    return names.count(name) > 1


_WHOLE = re.compile("-?[0-9]+")
_KINDS = {b"t": "a boolean", b"f": "a boolean", b"[": "a list", b"{": "an object"}
"""Values that are not an identifier, by their first character."""


def are_letters_of(name: str, *texts: str) -> bool:
    """Return whether there is one text, and it is `name` but for case and punctuation."""
    return [_letters(text) for text in texts] == [_letters(name)]


_NAMES = {
    *("identity", "email", "emailaddress", "emailid", "mail", "phone", "phonenumber", "mobile"),
    *("name", "firstname", "lastname", "surname", "username", "person", "account", "customer"),
    *("id", "key", "accountid", "anonymousid", "clevertapid", "clientid", "contactid", "crmid"),
    *("customerid", "deviceid", "externalid", "memberid", "objectid", "personid", "profileid"),
    *("subscriberid", "userid", "city", "country", "created", "date", "note", "plan", "tags"),
}
"""Names that columns of people often have, in small letters, without punctuation."""


def _known_names(first: Sequence[str], column: str | None) -> list[str]:
    """Return the cells of a first line that are nobody's data, whatever that line is.

    A line without names of columns is somebody's row. One of its cells may be "email" all the same.
    A column without a name shows as empty text, which is what `column` takes for it.
    """
    names = _NAMES if column is None else _NAMES | {_letters(column)}
    return [cell for cell in first if not cell.strip() or _letters(cell) in names]


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()


async def in_batches(source: Items[Key] | KeyFile, threads: Threads) -> AsyncGenerator[list[Key]]:
    """Yield all keys in batches of some thousands, the last one shorter and possibly empty.

    A file is read in a worker thread, an async iterable in a task of its own, and any other
    iterable in the caller's.
    """
    if isinstance(source, AsyncIterable):
        async with aclosing(_async_batches(source)) as batches:
            async for batch in batches:
                yield batch
        return
    keys = iter(source)
    if isinstance(source, KeyFile) and source.is_pipe:
        async with aclosing(read_ahead(iter(lambda: list(islice(keys, _BATCH)), []))) as batches:
            async for batch in batches:
                yield batch
        return
    try:
        while True:
            if isinstance(source, KeyFile):
                batch = await threads.run(lambda: list(islice(keys, _BATCH)))
            else:
                # The caller's own iterable, which may not be safe to use in another thread.
                batch = list(islice(keys, _BATCH))
            await checkpoint()
            yield batch
            if len(batch) < _BATCH:
                return
    finally:
        # As an async one is. The thread may still read a file.
        if isinstance(keys, Generator) and not isinstance(source, KeyFile):
            keys.close()


_BATCH = 2000


async def _async_batches(source: AsyncIterable[Key]) -> AsyncGenerator[list[Key]]:
    handover: Handover[Key] = Handover()
    reader = ItemReader(source, handover.put, _BATCH)
    batch: list[Key] = []
    reader.start().add_done_callback(lambda _: handover.close(reader.failure))
    try:
        with suppress(Ended):
            while True:
                batch += await handover.get_all()
                if len(batch) >= _BATCH:
                    yield batch
                    reader.give_back(len(batch))
                    batch = []
        if not reader.is_complete:
            raise AltaProfilesError(
                "keys: the reading of the iterable was cancelled, so keys are missing; to end the "
                "lookup, cancel the task that awaits it"
            )
        yield batch
    finally:
        await reader.aclose()


def as_text_key(
    index: int, key: object, place: str | None = None
) -> tuple[str, ConfigurationError | None]:
    """Return a key as text, and the error of an invalid one.

    The text of an invalid key begins with a NUL, so that it cannot collide with a valid key.

    Args:
        index: the key's index, for the message.
        key: the key.
        place: where the key stands, for the message; by default in `keys`.
    """
    try:
        return check_key(place or f"keys[{index}]", key), None
    except ConfigurationError as error:
        text = str.__str__(key) if isinstance(key, str) else _shown(index, key)
        return "\0" + text.encode("utf-8", "backslashreplace").decode(), error


def columns_in(lines: Iterable[str]) -> str | None:
    """Return what separates the cells, if all lines have the same number of them, as tables do."""
    rows = [line for line in lines if line.strip()]
    for separator, words in _BETWEEN.items():
        numbers = {line.count(separator) for line in rows}
        # Keys with tabs are refused.
        if len(rows) > 1 and len(numbers) == 1 and numbers != {0} and separator != "\t":
            return words
    return None


_MISSING = frozenset({"\0None", "\0nan", "\0<NA>", "\0NaT"})
"""Missing values as `as_text_key` returns them, which no text is: those texts are valid keys."""


def is_absent(key: object) -> bool:
    """Return whether `key` is a missing value or a blank text, as a cell without a key is."""
    return is_missing(key) or (isinstance(key, str) and not key.strip())


def key_in_file(text: str) -> str | None:
    """Return a key that `as_text_key` returned as it is written to a file; None if it is missing.

    A missing value would otherwise be somebody's key once that file is looked up.
    """
    return None if text in _MISSING else text.removeprefix("\0")


def _shown(index: int, key: object) -> str:
    try:
        return str(key) if is_missing(key) else repr(key)
    except Exception:
        # Of whatever class `key` is, and the same in each run.
        return f"{type(key).__name__} {index}"
