"""The keys of a bulk lookup: from an iterable, or from one column of a file."""

from __future__ import annotations

import csv
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import msgspec
from anyio.lowlevel import checkpoint

from ..base.checks import check_key
from ..base.wording import numbered
from ..errors import ConfigurationError
from ..flow.fanout import Items, check_items
from ..models import Key
from .threads import Threads

__all__ = ["KeyFile", "Keys", "as_text_key", "check_keys", "in_batches"]

Keys: TypeAlias = Items[Key] | str | os.PathLike[str]
"""Identifiers, or the path of a file of identifiers."""

_CSV, _NDJSON = (".csv",), (".ndjson", ".jsonl")


def check_keys(keys: Keys, by: str, column: str | None) -> Items[Key] | KeyFile:
    """Return the source of the keys.

    Args:
        keys: as the caller passed them.
        by: the kind of identifier.
        column: the column of a file, or None.

    Raises:
        ConfigurationError: `keys` is neither a file nor an iterable with an order, or `column` does
            not apply.
    """
    if isinstance(keys, str | os.PathLike):
        return KeyFile(Path(keys), by, column)
    check_items("keys", keys)
    if isinstance(keys, set | frozenset):
        # Its order differs between processes, so that an export could not be resumed.
        raise ConfigurationError("keys: got a set, which has no order; pass sorted(keys)")
    if column is not None:
        raise ConfigurationError(
            f"column: got {column!r}, but the keys are not a file; leave it out, or pass a path"
        )
    return keys


class KeyFile:
    """One column of a CSV or NDJSON file, or the lines of any other. Blocking.

    Args:
        path: the file, in UTF-8, with or without a byte-order mark.
        by: the kind of identifier.
        column: the CSV column or the JSON key that holds the identifiers.

    Raises:
        ConfigurationError: there is no such file, or `column` does not apply to it.
    """

    def __init__(self, path: Path, by: str, column: str | None) -> None:
        self.path = path
        self._by = by
        self._column = column
        ending = path.suffix.lower()
        self._read = (
            self._csv if ending in _CSV else self._ndjson if ending in _NDJSON else self._text
        )
        # Not `is_file`, which refuses a pipe: `lookup <(…)`.
        if not path.exists() or path.is_dir():
            raise ConfigurationError(
                "keys: there is no file of that name; to look up a single key, pass it in a list",
                value=str(path),
            )
        if column is not None and ending not in _CSV + _NDJSON:
            raise ConfigurationError(
                f"column: got {column!r}, but {path.name} is read as text with one key a line; "
                f"leave it out, or give the file the ending .csv or .ndjson"
            )

    def __iter__(self) -> Iterator[str]:
        """Yield each key, in the order of the file. Blank ones are skipped.

        Raises:
            ConfigurationError: the file cannot be read, or its content does not match its ending.
        """
        try:
            for key in self._read():
                if key.strip():
                    yield key
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                f"keys: {self.path} is not UTF-8 ({error.reason}); save it as UTF-8"
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"keys: {self.path} cannot be read: {error.strerror}"
            ) from None
        except csv.Error as error:
            raise ConfigurationError(f"keys: {self.path} is not valid CSV: {error}") from None

    def _text(self) -> Iterator[str]:
        with self.path.open(encoding="utf-8-sig", newline=None) as file:
            for line in file:
                yield line.rstrip("\n")

    def _csv(self) -> Iterator[str]:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            first = next(rows, [])
            place = self._place(first)
            if self._column is None and not self._names_keys(first):
                yield from first
            for row in rows:
                if row:
                    if len(row) != len(first):
                        raise ConfigurationError(
                            f"keys: line {rows.line_num} of {self.path} has {len(row)} columns, "
                            f"but the first line has {len(first)}; correct the file"
                        )
                    yield row[place]

    def _place(self, first: list[str]) -> int:
        """Return the index of the column that holds the keys."""
        if len(first) == 1 and {";", "\t"} & set(first[0]):
            raise ConfigurationError(
                f"column: {self.path} does not seem to be separated by commas, as its first line "
                f"has a semicolon or a tab; save it with commas, or as .txt if that line is a key",
                value=first[0],
            )
        if self._column is None:
            if len(first) > 1:
                raise ConfigurationError(
                    f"column: {self.path} has {len(first)} columns; name the one that holds the "
                    f"keys, as its first line does",
                    value=first,
                )
            return 0
        if first.count(self._column) != 1:
            raise ConfigurationError(
                f"column: {first.count(self._column) or 'none'} of the "
                f"{numbered(len(first), 'column')} in the first line of {self.path} are named "
                f"{self._column!r}; name exactly one",
                value=first,
            )
        return first.index(self._column)

    def _names_keys(self, first: list[str]) -> bool:
        """Return True if the only column has a header, which must be the name of `by`."""
        return [_letters(cell) for cell in first] == [_letters(self._by)]

    def _ndjson(self) -> Iterator[str]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip(_BLANK):
                    yield self._member(line.removeprefix(b"\xef\xbb\xbf"), number)

    def _member(self, line: bytes, number: int) -> str:
        where = f"line {number} of {self.path}"
        try:
            value = _JSON.decode(line)
        except msgspec.DecodeError as error:
            raise ConfigurationError(f"keys: {where} is not JSON: {error}") from None
        if isinstance(value, dict):
            if self._column is None:
                raise ConfigurationError(
                    f"column: {where} holds an object; name the key that holds the identifier"
                )
            if self._column not in value:
                raise ConfigurationError(f"column: {where} has no {self._column!r}")
            value = value[self._column]
        elif self._column is not None:
            raise ConfigurationError(
                f"column: got {self._column!r}, but {where} is not an object; leave it out"
            )
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ConfigurationError(
                f"keys: {where} holds a value of type {type(value).__name__}, which is not an "
                f"identifier; write it as text",
                value=value,
            )
        return str(value)


_JSON = msgspec.json.Decoder()
_BLANK = b" \t\r\n\xef\xbb\xbf"


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()


async def in_batches(source: Items[Key] | KeyFile, threads: Threads) -> AsyncGenerator[list[Key]]:
    """Yield all keys in batches of some thousands, the last one shorter and possibly empty.

    A file is read in a worker thread, and any other iterable in the caller's.
    """
    batch: list[Key] = []
    if isinstance(source, AsyncIterable):
        items = aiter(source)
        try:
            async for key in items:
                batch.append(key)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
            yield batch
        except BaseException:
            if isinstance(items, AsyncGenerator):
                # Closed by the task that read it, because its cancel scopes cannot be left in
                # another. An error from closing must not hide the first one.
                with suppress(Exception, BaseExceptionGroup):
                    await items.aclose()
            raise
        return
    keys = iter(source)
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


_BATCH = 2000


def as_text_key(index: int, key: object) -> tuple[str, ConfigurationError | None]:
    """Return a key as text, and the error of an invalid one.

    The text of an invalid key begins with a NUL, so that it cannot collide with a valid key.

    Args:
        index: the key's index, for the message.
        key: the key.
    """
    try:
        return check_key(f"keys[{index}]", key), None
    except ConfigurationError as error:
        text = key if isinstance(key, str) else repr(key)
        return "\0" + text.encode("utf-8", "backslashreplace").decode(), error
