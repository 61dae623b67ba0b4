"""Reads the text files of exports back: NDJSON and CSV, also compressed. Blocking."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from msgspec import Raw

from ..base.extras import zstd_module
from ..base.jsontext import each_once, parts
from ..base.wording import numbered
from ..errors import ConfigurationError, DecodeError, ExportError
from ..tables.layout import TEXTS
from ..tables.parts import NULL, device_ids
from .csv_rows import csv_rows
from .description import StoredRows, filled
from .key_lines import LONGEST, split_lines
from .sinks.compression import COMPRESSIONS
from .stored_tables import AT_ONCE, check_columns, no_output, rows_of

__all__ = ["csv_rows_of", "ndjson_rows", "text_rows"]

_PIECE = 1 << 18
_MOST = 1 << 24
"""Bytes of records after which no more are read at once."""


def text_rows(
    path: Path, read: Callable[[BinaryIO, str], Iterator[StoredRows]]
) -> Iterator[StoredRows]:
    """Yield the rows of a file, which is decompressed if its ending says so.

    Args:
        path: the file.
        read: reads the rows of a stream, whose name in messages is its second argument.

    Raises:
        ConfigurationError: it is not an export of people.
        ExportError: it cannot be read to its end.
    """
    name = str(path)
    is_packed = path.suffix.lower() in COMPRESSIONS
    if is_packed and path.stat().st_size == 0:
        raise ExportError(f"{name} is empty, and not even compressed; export it again")
    try:
        with _opened(path) as file:
            yield from read(file, name)
    except (EOFError, zlib.error, gzip.BadGzipFile, _zstd_error()) as error:
        raise ExportError(
            f"{name} is cut short or damaged ({type(error).__name__}); export it again"
        ) from None


def _opened(path: Path) -> BinaryIO:
    if (ending := path.suffix.lower()) not in COMPRESSIONS:
        return path.open("rb")
    file: BinaryIO = (gzip if ending == ".gz" else zstd_module()).open(path)
    return file


def _zstd_error() -> type[Exception]:
    try:
        error: type[Exception] = zstd_module().ZstdError
    except ImportError:
        return EOFError
    return error


_MEMBERS = frozenset({"identity", "email", "name", "phone", "objectId", "profileData", "events"})


def ndjson_rows(file: BinaryIO, name: str) -> Iterator[StoredRows]:
    """Yield the records of NDJSON. Errors as in `text_rows`."""
    is_known = False
    for lines in _line_batches(file):
        rows = [_members(line, number, name) for number, line in lines if line.strip()]
        is_known = is_known or any(_MEMBERS & row.keys() for row in rows)
        if rows and not is_known:
            why = "its lines have none of the members of a profile"
            if rows[0].keys() == {"key", "users"}:
                why = "it holds users of Alta, who have no properties"
            raise no_output(name, why)
        yield _of_records(rows)


def _line_batches(file: BinaryIO) -> Iterator[list[tuple[int, bytes]]]:
    batch: list[tuple[int, bytes]] = []
    size = 0
    for number, line in enumerate(iter(lambda: file.readline(LONGEST), b""), 1):
        batch.append((number, line))
        size += len(line)
        if len(batch) == AT_ONCE or size >= _MOST:
            yield batch
            batch, size = [], 0
    yield batch


def _members(line: bytes, number: int, name: str) -> dict[str, Raw]:
    is_long = len(line) == LONGEST and not line.endswith(b"\n")
    try:
        if not is_long and line.lstrip()[:1] == b"{":
            return parts(line)
    except DecodeError:
        pass
    if is_long:
        fault = f"is longer than {LONGEST >> 20} MiB"
    elif not line.endswith(b"\n"):
        fault = "is cut short, or not a JSON object"
    else:
        fault = "is not a JSON object"
    # Without the decoder's error, which quotes the record.
    raise ExportError(f"line {number:,} of {name} {fault}")


def _of_records(rows: Sequence[Mapping[str, Raw]]) -> StoredRows:
    platform = [row.get("platformInfo", NULL) for row in rows]
    own = [row.get("objectId", NULL) for row in rows]
    columns: dict[str, Iterable[object]] = {
        **{name: [_scalar(row.get(name, NULL)) for row in rows] for name in TEXTS},
        "object_ids": [
            _scalar(one) or each_once(device_ids(devices))
            for one, devices in zip(own, platform, strict=True)
        ],
        "events": [_value(row.get("events", NULL)) for row in rows],
        "platform_info": map(_value, platform),
    }
    if any("cdp" in row for row in rows):
        columns["cdp"] = [_value(row.get("cdp", NULL)) for row in rows]
    data = [_value(row.get("profileData", NULL)) for row in rows]
    return StoredRows(filled(columns.items()), data)


def _value(part: Raw) -> bytes | None:
    value = bytes(part)
    return None if value == b"null" else value


def _scalar(part: Raw) -> bytes | None:
    value = _value(part)
    return None if value == b'""' else value


def csv_rows_of(file: BinaryIO, name: str) -> Iterator[StoredRows]:
    """Yield the rows of CSV. Errors as in `text_rows`."""
    with _without_argument():
        pieces = iter(lambda: file.read(_PIECE), b"")
        lines = enumerate(chain.from_iterable(split_lines(pieces, name)), 1)
        number, line = next(lines, (1, ""))
        rows = csv_rows(chain([(number, line.removeprefix("\ufeff"))], lines), name)
        _, names, _ = next(rows, (1, [], False))
        if not names:
            raise no_output(name, "it is empty, without even a header")
        check_columns(name, names)
        while some := list(islice(rows, AT_ONCE)):
            for number, row, _ in some:
                if len(row) != len(names):
                    raise ExportError(
                        f"line {number:,} of {name} has {numbered(len(row), 'column')}, but the "
                        f"first line has {len(names)}: it is cut short, or damaged"
                    )
            yield rows_of(names, [*zip(*[row for _, row, _ in some], strict=True)])


@contextmanager
def _without_argument() -> Iterator[None]:
    """Turn the errors of a file of keys into those of an output."""
    try:
        yield
    except ConfigurationError as error:
        text = str(error)
        if not text.startswith("keys: "):
            raise
        raise ExportError(text.removeprefix("keys: ")) from None
