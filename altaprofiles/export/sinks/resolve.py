"""Turns an `Output` into a `Target`. Reads the file system, and sends nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ...base.checks import check_flag, check_no_database, shown, shown_setting
from ...base.paths import absolute_path
from ...errors import InvalidArgument
from ...redaction import LOOKS_LIKE_DATABASE
from ...tables.layout import check_flatten
from ..formats import Write, checked_format
from ..output import Output
from ..tables import Content
from .compression import COMPRESSIONS
from .duck import DuckDbTarget
from .folder import names_folder
from .folder_days import DaysTarget
from .folder_files import FilesTarget
from .lines import CsvTarget, NdjsonTarget
from .parquet import ParquetTarget
from .postgres import PostgresTarget
from .remote import Remote
from .target import Target

__all__ = ["FORMATS", "TARGETS", "check_table", "odd_ending", "resolve", "text_of"]

TARGETS: tuple[type[Target], ...] = (
    NdjsonTarget,
    CsvTarget,
    ParquetTarget,
    DuckDbTarget,
    PostgresTarget,
)
"""Every format. Its class states all that this module needs to know of it."""

FORMATS = tuple(target.format for target in TARGETS)

_BY_FORMAT = {target.format: target for target in TARGETS}
_BY_ENDING = {ending: target for target in TARGETS for ending in target.endings}
_BY_SCHEME = {scheme: target for target in TARGETS for scheme in target.schemes}


def resolve(output: Output, content: Content) -> Target:
    """Return the target that `output` describes, for rows of the kind `content`.

    `output.to` is one of:

    - a file, whose ending implies the format: `.ndjson` or `.jsonl`, `.csv` (all three also
      followed by `.gz` or `.zst`), `.parquet`, `.duckdb`;
    - a folder of Parquet files, which ends in a slash;
    - a table of a PostgreSQL server: `postgresql://user:password@host:port/database/table`;
    - a file in a bucket, `s3://bucket/key`, `gs://bucket/key` or `az://container/key`, of the
      formats of files but for `.duckdb`.

    `output.format` takes precedence over the ending.

    Raises:
        ConfigurationError: a value is invalid, an option does not apply to the format, or an extra
            is not installed.
    """
    text = text_of(output.to)
    if isinstance(output.table, str):
        check_no_database("table", output.table)
    _check_no_stream(text)
    is_sync = output.sync is not None
    if is_sync and (scheme := Remote.scheme_of(text)) is not None:
        # Before all else, so that no advice is on the address. It may hold credentials.
        raise InvalidArgument(
            f"to: an output in a bucket ({scheme}://) cannot keep the state of a sync; sync into a "
            f"folder here, whose path ends in a slash, and upload that after each run, such as "
            f"with `{_UPLOADS[scheme]}`"
        )
    if (remote := Remote.parse(text)) is None:
        target = _class_of(text, output.format, _formats_of_sync() if is_sync else TARGETS, is_sync)
    else:
        text = remote.address
        uploaded = [one for one in TARGETS if one.uploads]
        target = _class_of(remote.name, output.format, uploaded, is_sync)
        if not target.uploads:
            known = ", ".join(one.format for one in uploaded)
            raise InvalidArgument(
                f"to: {shown(text)} is of the format {target.format}, which is not written to a "
                f"bucket; choose one of {known}, or a local path",
                value=text,
            )
    if target is FilesTarget and is_sync:
        target = DaysTarget
    if is_sync and not target.keeps_state():
        raise InvalidArgument(f"to: {shown(text)} cannot keep the state of a sync; {_OF_SYNC}")
    flatten = check_flatten(output.flatten, reserved=content.reserved)
    passed = {
        "table": output.table is not None,
        "bom": check_flag("bom", output.bom),
        "flatten": bool(flatten),
    }
    for option, is_passed in passed.items():
        if is_passed and option not in target.options:
            raise _inapplicable(option, target)
    if flatten and content.of == "bindings":
        raise InvalidArgument(
            "flatten: applies to people, and the users of Alta have no profileData; leave it out"
        )
    write = _checked_write(target, output.write)
    return target.of(text, {"content": content, "write": write, "flatten": flatten}, output)


def check_table(to: str) -> None:
    """Raise `InvalidArgument` if the name of an output stands for a format without tables."""
    implied = FilesTarget if names_folder(to) else _implied_by_ending(Path(to))
    if implied is not None and "table" not in implied.options:
        raise _inapplicable("table", implied)


def _inapplicable(option: str, target: type[Target]) -> InvalidArgument:
    return InvalidArgument(
        f"{option}: applies to {_formats_with(option)} only, not to {target.format}; leave it out, "
        f"or choose another format"
    )


def odd_ending(output: Output, target: Target) -> str | None:
    """Return a warning if the ending of a file tells readers of another format than it has."""
    text = text_of(output.to)
    if output.format is None or target.schemes or names_folder(text):
        return None
    implied = _implied_by_ending(Path(text))
    if implied is None or implied.format == target.format:
        return None
    return (
        f"{target.name} is written as {target.format}, although its ending stands for "
        f"{implied.format}: programs that go by the ending cannot read it; name it *"
        f"{target.endings[0]}, or leave the format to the ending"
    )


_EXPECTED_WRITE = "write: expected 'replace', 'upsert' or 'append'"


def _checked_write(target: type[Target], write: object) -> Write:
    if write is None:
        return target.writes[0]
    if not isinstance(write, str):
        raise InvalidArgument(f"{_EXPECTED_WRITE}, got {shown(write)}")
    for known in target.writes:
        if write == known:
            return known
    if target is FilesTarget and write == "upsert":
        raise InvalidArgument(
            "write: a folder is updated by whole days, which only `sync` does; use 'replace' or "
            "'append', or a table in DuckDB or PostgreSQL"
        )
    if write in get_args(Write):
        formats = ", ".join(one.format for one in TARGETS if write in one.writes)
        formats += " and folders of Parquet files" if write in FilesTarget.writes else ""
        raise InvalidArgument(
            f"write: {shown_setting(write)} applies to {formats} only, not to {target.format}; "
            f"leave it out, or choose another output"
        )
    raise InvalidArgument(f"{_EXPECTED_WRITE}, got {shown_setting(write)}")


def _formats_with(option: str) -> str:
    *others, last = [target.format for target in TARGETS if option in target.options]
    return f"{', '.join(others)} and {last}" if others else last


def text_of(to: object) -> str:
    """Return an output as text.

    Raises:
        InvalidArgument: it is neither a path nor a URL, or a URL in another form.
    """
    if not isinstance(to, str | os.PathLike):
        raise InvalidArgument(f"to: expected a path or a URL, got {shown(to)}")
    text = os.fspath(to)
    if isinstance(text, str) and "\0" in text:
        raise InvalidArgument(f"to: {shown(text)} holds the character NUL, which no path can hold")
    if not isinstance(text, str) or not text:
        raise InvalidArgument(f"to: expected a path or a URL as text, got {shown(to)}")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise InvalidArgument(f"to: {shown(text)} cannot be a file name; choose another") from None
    if "://" not in text:
        check_no_database("to", text)
    return text


_STREAM = re.compile(r"(/proc/\d+(/task/\d+)?|/dev)/fd/\d+|/dev/(stdin|stdout|stderr|null|tty)")
_LINKS = 40
"""The number of links that Linux follows."""


def _check_no_stream(text: str) -> None:
    """Raise `ConfigurationError` if `text` leads to a stream of this process, such as stdout."""
    if "://" in text:
        return
    # Link by link: behind the last one, stdout looks like any file that it is redirected to.
    path = absolute_path("to", text, links=False)
    for _ in range(_LINKS):
        path = absolute_path("to", str(path.parent)) / path.name
        if text == "-" or _STREAM.fullmatch(str(path)):
            raise InvalidArgument(
                f"to: {shown(text)} is a stream or a device, but the output is a file, which "
                "gets its "
                f"name once it is complete; pass a file's name, and read that file afterwards"
            )
        if not os.path.islink(path):  # noqa: PTH114, `Path.is_symlink` raises for long names
            return
        path = path.parent / path.readlink()


_UPLOADS = {
    "s3": "aws s3 sync days/ s3://bucket/days/",
    "gs": "gcloud storage rsync -r days/ gs://bucket/days/",
    "az": "az storage blob upload-batch -s days -d container --destination-path days --overwrite",
}
"""Commands that upload what has changed in a folder, by the scheme of the bucket."""

_OF_SYNC = "use a table of a DuckDB file or of PostgreSQL, or a folder, whose path ends in a slash"


def _formats_of_sync() -> list[type[Target]]:
    return [one for one in TARGETS if one.keeps_state() or one.format == FilesTarget.format]


def _class_of(
    text: str, format: str | None, usable: Sequence[type[Target]], is_sync: bool
) -> type[Target]:
    """Return the class of the format that is named, or that the scheme or the ending implies.

    Args:
        text, format: the arguments `to` and `format`.
        usable: the formats that messages name: fewer in a bucket, which has no folders either.
        is_sync: whether a sync keeps the output.
    """
    known = [one.format for one in usable]
    chosen = checked_format(format, FORMATS, known)
    named = None if chosen is None else _BY_FORMAT[chosen]
    if names_folder(text) and format in (None, FilesTarget.format):
        return FilesTarget
    # Without the rest, which tracebacks with locals would show.
    scheme, slashes = text.partition("://")[:2]
    addressed = _BY_SCHEME.get(scheme.lower()) if slashes else None
    needs_url = bool(slashes if named is None else named.schemes)
    if needs_url != (addressed is not None):
        # The message must not show the URL, which may hold a password in an unexpected place.
        buckets = "" if is_sync else "s3://bucket/key, gs://bucket/key, az://container/key, or "
        raise InvalidArgument(
            "to: not a URL that can be written to; write "
            "postgresql://user:password@host:port/database/table, which format='postgres' needs, "
            f"or {buckets}a path"
        )
    target = named or addressed or _implied_by_ending(Path(text))
    if target is not None:
        return target
    if LOOKS_LIKE_DATABASE.search(text):
        # The message must not show the text, which may hold a password.
        raise InvalidArgument(
            "to: this looks like a database but is neither a PostgreSQL URL nor a file; write "
            "postgresql://user@host/database/table"
        )
    if is_sync:
        raise InvalidArgument(f"to: the ending of {shown(text)} implies no table; {_OF_SYNC}")
    compressed = " and ".join(target.format for target in TARGETS if target.compresses)
    endings = ", ".join(ending for ending, one in _BY_ENDING.items() if one in usable)
    folder = "; a folder of Parquet files ends in a slash" if usable == TARGETS else ""
    raise InvalidArgument(
        f"to: the ending of {shown(text)} implies no format; use {endings} "
        f"({compressed} also with {' or '.join(COMPRESSIONS)}), or pass `format`, one of "
        f"{', '.join(known)}{folder}{_for_excel(text)}"
    )


def _for_excel(text: str) -> str:
    is_sheet = Path(text).suffix.lower() in (".xls", ".xlsx", ".ods")
    return "; for Excel, write .csv with `bom`" if is_sheet else ""


def _implied_by_ending(path: Path) -> type[Target] | None:
    if path.suffix.lower() not in COMPRESSIONS:
        return _BY_ENDING.get(path.suffix.lower())
    target = _BY_ENDING.get(Path(path.stem).suffix.lower())
    return target if target is not None and target.compresses else None
