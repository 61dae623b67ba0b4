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
from ..errors import ConfigurationError
from ..flow.fanout import Items, check_items
from ..models import Key
from .threads import Threads

__all__ = ["KeyFile", "Keys", "as_text_key", "check_keys", "in_batches"]

Keys: TypeAlias = Items[Key] | str | os.PathLike[str]
"""Identifiers, or the path of a file that holds them."""

_CSV, _NDJSON = (".csv",), (".ndjson", ".jsonl")


def check_keys(keys: Keys, by: str, column: str | None) -> Items[Key] | KeyFile:
    """Return where the keys come from.

    Raises:
        ConfigurationError: it is neither an iterable nor a file that can be read.
    """
    if isinstance(keys, str | os.PathLike):
        return KeyFile(Path(keys), by, column)
    check_items("keys", keys)
    if isinstance(keys, set | frozenset):
        # It has another order in each process, and an export could not be gone on with.
        raise ConfigurationError("keys: got a set, which has no order; pass sorted(keys)")
    if column is not None:
        raise ConfigurationError(
            f"column: got {column!r}, and the keys are no file; leave it out, or pass a path"
        )
    return keys


class KeyFile:
    """One column of a CSV or NDJSON file, or the lines of any other. Blocking.

    Args:
        path: the file, in UTF-8, with or without a byte-order mark.
        by: what the keys are.
        column: the CSV column or the JSON key that holds them.

    Raises:
        ConfigurationError: there is no such file, or `column` does not go with it.
    """

    def __init__(self, path: Path, by: str, column: str | None) -> None:
        self.path = path
        self._by = by
        self._column = column
        ending = path.suffix.lower()
        self._read = (
            self._csv if ending in _CSV else self._ndjson if ending in _NDJSON else self._text
        )
        # A pipe is one, too: `lookup <(…)`.
        if not path.exists() or path.is_dir():
            raise ConfigurationError(
                f"keys: there is no file {str(path)!r}; for a single key pass a list of it"
            )
        if column is not None and ending not in _CSV + _NDJSON:
            raise ConfigurationError(
                f"column: got {column!r}, and {path.name} is read as text, a key a line; leave it "
                f"out, or name the file .csv or .ndjson"
            )

    def __iter__(self) -> Iterator[str]:
        """Yield each key, in the order of the file; blank ones are none.

        Raises:
            ConfigurationError: the file is not what its name says.
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
            raise ConfigurationError(f"keys: {self.path} is no CSV: {error}") from None

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
                            f"and the first has {len(first)}; correct the file"
                        )
                    yield row[place]

    def _place(self, first: list[str]) -> int:
        """Return which column holds the keys."""
        if len(first) == 1 and {";", "\t"} & set(first[0]):
            raise ConfigurationError(
                f"column: {self.path} seems to be separated by other than commas, its first "
                f"line is {first[0]!r}; save it with commas, or as .txt if that is a key"
            )
        if self._column is None:
            if len(first) > 1:
                raise ConfigurationError(
                    f"column: {self.path} has the columns {', '.join(map(repr, first))}; say which "
                    f"of them holds the keys"
                )
            return 0
        if first.count(self._column) != 1:
            raise ConfigurationError(
                f"column: no one column of {self.path} is called {self._column!r}; it has "
                f"{', '.join(map(repr, first)) or 'none'}"
            )
        return first.index(self._column)

    def _names_keys(self, first: list[str]) -> bool:
        """Whether a single column's first row is its name. Any other would be taken for a key."""
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
            raise ConfigurationError(f"keys: {where} is no JSON: {error}") from None
        if isinstance(value, dict):
            if self._column is None:
                raise ConfigurationError(
                    f"column: {where} holds an object; say which of its keys to look up by"
                )
            if self._column not in value:
                raise ConfigurationError(f"column: {where} has no {self._column!r}")
            value = value[self._column]
        elif self._column is not None:
            raise ConfigurationError(
                f"column: got {self._column!r}, and {where} is no object; leave it out"
            )
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ConfigurationError(f"keys: {where} holds {value!r}, which is no identifier")
        return str(value)


_JSON = msgspec.json.Decoder()
_BLANK = b" \t\r\n\xef\xbb\xbf"


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()


async def in_batches(source: Items[Key] | KeyFile, threads: Threads) -> AsyncGenerator[list[Key]]:
    """Yield all keys, some thousands at once; a file is read in worker threads."""
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
                # By the task that has read it: what it holds open ends with no other. What it says
                # to that must not hide why.
                with suppress(Exception, BaseExceptionGroup):
                    await items.aclose()
            raise
        return
    keys = iter(source)
    while True:
        if isinstance(source, KeyFile):
            batch = await threads.run(lambda: list(islice(keys, _BATCH)))
        else:
            # The caller's own, which may not bear another thread.
            batch = list(islice(keys, _BATCH))
        await checkpoint()
        yield batch
        if len(batch) < _BATCH:
            return


_BATCH = 2000


def as_text_key(by: str, key: object) -> tuple[str, ConfigurationError | None]:
    """Return a key as the text it is asked by, and why it cannot be asked for, if it cannot.

    One that cannot begins with a NUL: no other does, and it could read like another.
    """
    try:
        return check_key(by, key), None
    except ConfigurationError as error:
        shown = key if isinstance(key, str) else repr(key)
        return "\0" + shown.encode("utf-8", "backslashreplace").decode(), error
