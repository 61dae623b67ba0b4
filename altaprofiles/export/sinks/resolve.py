"""From what a caller wrote to a `Target`. Looks at the file system, sends nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ...base.checks import check_flag
from ...base.extras import require, zstd_module
from ...errors import ConfigurationError
from ...tables.layout import check_flatten
from .duck import DuckDbTarget
from .lines import CsvTarget, NdjsonTarget
from .parquet import ParquetTarget
from .postgres import PostgresTarget
from .target import Target

__all__ = ["FORMATS", "resolve"]

FORMATS = ("ndjson", "csv", "parquet", "duckdb", "postgres")

_ENDINGS = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".parquet": "parquet",
    ".duckdb": "duckdb",
}
_COMPRESSED = ("ndjson", "csv")
_TABLED = ("duckdb", "postgres")
_FLATTENED = ("csv", "parquet", "duckdb", "postgres")
_TABLE = "profiles"
_URL = re.compile(r"postgres(?:ql)?://", re.IGNORECASE)


def resolve(
    to: str | os.PathLike[str],
    *,
    format: str | None = None,
    table: str | None = None,
    bom: bool = False,
    flatten: Sequence[str] = (),
) -> Target:
    """Return where `to` points.

    Args:
        to: a file, whose ending tells the format: `.ndjson` or `.jsonl`, `.csv` (these also with
            `.gz` or `.zst` behind), `.parquet`, `.duckdb`; or a table of a PostgreSQL server, as
            `postgresql://user:password@host:port/database/table`.
        format: "ndjson", "csv", "parquet", "duckdb" or "postgres", whatever the ending.
        table: the table's name, for duckdb and postgres; `schema.table` will do for postgres.
            "profiles" by default.
        bom: whether a CSV file begins with a byte order mark, for Excel.
        flatten: keys of `profileData` that get a column of their own. Not for ndjson.

    Raises:
        ConfigurationError: a value that cannot work, or an extra that is not installed.
    """
    text = _as_path(to)
    kind = _format_of(text, format)
    check_flag("bom", bom)
    if bom and kind != "csv":
        raise ConfigurationError(f"bom: goes with csv only, and this is {kind}; leave it out")
    if table is not None and kind not in _TABLED:
        raise ConfigurationError(
            f"table: goes with duckdb and postgres only, got {table!r} for {kind}; leave it out"
        )
    if kind == "postgres":
        return PostgresTarget.of(text, table, flatten)
    keys = check_flatten(flatten)
    if keys and kind not in _FLATTENED:
        raise ConfigurationError(
            f"flatten: {kind} has no columns, got {flatten!r}; leave it out, or write csv, parquet "
            f"or a table"
        )
    path = _checked_path(text)
    name = text
    if kind == "duckdb" and "?" in str(path):
        # It puts the name of its log in front of the question mark, as if this were a URL.
        raise ConfigurationError(f"to: DuckDB cannot write to a path with a '?', got {name!r}")
    if kind == "duckdb" and not _is_text(str(path)):
        raise ConfigurationError(f"to: DuckDB cannot write to a path that is no text, got {name!r}")
    if path.suffix.lower() == ".zst" and kind in _COMPRESSED:
        try:
            zstd_module()
        except ImportError:
            raise ConfigurationError(
                f"to: {name!r} needs backports.zstd; "
                f"install it with: pip install 'altaprofiles[zstd]'"
            ) from None
    makers: dict[str, Callable[[], Target]] = {
        "ndjson": lambda: NdjsonTarget(name=name, path=path),
        "csv": lambda: CsvTarget(name=name, path=path, flatten=keys, bom=bom),
        "parquet": lambda: ParquetTarget(name=name, path=path, flatten=keys),
        "duckdb": lambda: DuckDbTarget(
            name=name, path=path, flatten=keys, table=_checked_table(table)
        ),
    }
    for module in {"parquet": ["pyarrow"], "duckdb": ["duckdb", "pyarrow"]}.get(kind, []):
        require(module, extra=kind, what=f"to: {name!r}")
    return makers[kind]()


def _as_path(to: object) -> str:
    if not isinstance(to, str | os.PathLike):
        raise ConfigurationError(f"to: expected a path or a URL, got {to!r}")
    text = os.fspath(to)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigurationError(f"to: expected a path or a URL as text, got {to!r}")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ConfigurationError(f"to: {text!r} cannot be a file's name; choose another") from None
    return text


def _is_text(path: str) -> bool:
    """Return whether `path` is Unicode text; bytes that are no UTF-8 are surrogates in Python."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _format_of(text: str, given: str | None) -> str:
    known = ", ".join(FORMATS)
    if given is not None and given not in FORMATS:
        raise ConfigurationError(f"format: unknown format {given!r}; use one of {known}")
    if (_URL.match(text) is not None) != (given == "postgres" or (given is None and "://" in text)):
        # Never the URL itself: it may hold a password that stands where none is looked for.
        raise ConfigurationError(
            "to: no PostgreSQL URL, which is the only kind of URL that can be written to, and what "
            "format='postgres' needs; write postgresql://user:password@host:port/database/table, "
            "or a path"
        )
    if _URL.match(text):
        return "postgres"
    if given is not None:
        return given
    path = Path(text)
    ending = path.suffix.lower()
    if ending in (".gz", ".zst"):
        found = _ENDINGS.get(Path(path.stem).suffix.lower())
        if found in _COMPRESSED:
            return found
    elif ending in _ENDINGS:
        return _ENDINGS[ending]
    if re.search("@|password|postgres", text, re.IGNORECASE):
        # Not shown: it may hold a password.
        raise ConfigurationError(
            "to: this looks like a database and is neither the address of one nor a file; write "
            "postgresql://user@host/database/table"
        )
    raise ConfigurationError(
        f"to: the ending of {text!r} tells no format; "
        f"use {', '.join(_ENDINGS)} ({' and '.join(_COMPRESSED)} also with .gz or .zst), or pass "
        f"as `format` one of {known}"
    )


def _checked_path(text: str) -> Path:
    """Return where the file is, behind any link, and whatever the current folder will be."""
    path = Path(text).resolve()
    if path.is_dir() or text.endswith(os.sep):
        raise ConfigurationError(f"to: {text!r} is a folder; add a file name")
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"to: {text!r} is no regular file; name one")
    if not path.parent.is_dir():
        fix = "write it out, as it is not expanded" if text[0] == "~" else "create it first"
        raise ConfigurationError(f"to: the folder of {text!r} does not exist; {fix}")
    return path


def _checked_table(table: str | None) -> str:
    if table is None:
        return _TABLE
    if not isinstance(table, str) or not table.strip() or not table.isprintable():
        raise ConfigurationError(f"table: expected a table's name, got {table!r}")
    return str.__str__(table)
