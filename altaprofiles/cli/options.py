"""Options that several commands share: queries, and outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict, TypeVar, cast

import click

from ..base.checks import whole_in
from ..redaction import LOOKS_LIKE_DATABASE
from .app import App
from .carried_over import NO_PHONES, PHONES
from .numbers import WholeNumber
from .relative_days import RelativeDay, day_or_seconds, moment

__all__ = [
    "FilterOptions",
    "KeyFileName",
    "KindOfKeys",
    "OutputOptions",
    "QueryOptions",
    "RecordOptions",
    "TableOptions",
    "filter_options",
    "join_options",
    "output_options",
    "query_options",
    "record_options",
    "table_options",
]

if TYPE_CHECKING:
    from ..export.formats import Format, Write
    from ..tables.layout import Kind

F = TypeVar("F", bound=Callable[..., Any])


class QueryOptions(TypedDict):
    """Values of the options of `query_options`."""

    start: date | int | RelativeDay | None
    end: date | int | RelativeDay | None
    as_of: str | None
    event_properties: tuple[str, ...]
    profile_fields: tuple[str, ...]
    query: str | None
    everyone: bool


class FilterOptions(TypedDict):
    """Values of the options of `filter_options`."""

    event_properties: tuple[str, ...]
    profile_fields: tuple[str, ...]
    query: str | None


class RecordOptions(TypedDict):
    """Values of the options of `record_options`."""

    windows: int | Literal["auto"]
    batch_size: int
    event_summaries: bool
    profile: bool
    app: bool


class TableOptions(TypedDict):
    """Values of the options of `table_options`, except `as_json`."""

    to: str
    format: Format | None
    flatten: dict[str, Kind | None]
    table: str | None
    spool: str | None


class OutputOptions(TypedDict):
    """Values of the options of `output_options`, except `as_json`."""

    to: str
    format: Format | None
    flatten: dict[str, Kind | None]
    table: str | None
    write: Write | None
    bom: bool
    spool: str | None
    resume: bool


class KeyFileName(click.Path):
    """The name of an existing file of keys, or "-"."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, allow_dash=True)

    def fail(
        self, message: str, param: click.Parameter | None = None, ctx: click.Context | None = None
    ) -> NoReturn:
        # click quotes the name, and a person's key may stand in its place.
        name = _IN_QUOTES.search(message)
        if not name or not _FILE_NAME.search(name[2]) or LOOKS_LIKE_DATABASE.search(name[2]):
            words = _IN_QUOTES.sub("", message).split()
            message = " ".join(words)
        if "is a directory" in message:
            message = "a folder has that name; name a file in it"
        if name and LOOKS_LIKE_DATABASE.search(name[2]):
            message = (
                f"{message.rstrip('.')}; for keys from a database, pipe them in: "
                f"psql … | altaprofiles lookup -"
            )
        super().fail(message, param, ctx)


# A name with an apostrophe stands in double quotes.
_IN_QUOTES = re.compile(r"(['\"])(.*)\1", re.DOTALL)
_FILE_NAME = re.compile(
    r"/|\\|\.(?:txt|text|csv|tsv|tab|dat|json|jsonl|ndjson|parquet|duckdb|list|lst|ids|keys|log|out|bak"
    r"|gz|zst|bz2|xz|zip|xlsx?)\Z",
    re.IGNORECASE,
)


_FILTERS = (
    click.option(
        "--where",
        "event_properties",
        metavar="CONDITION",
        multiple=True,
        help="A condition on the event's properties, such as 'Amount > 100'. Repeatable; "
        "all must hold.",
    ),
    click.option(
        "--profile-where",
        "profile_fields",
        metavar="CONDITION",
        multiple=True,
        help="A condition on the person's profile, such as 'Customer Type = Gold'. "
        "Repeatable; all must hold.",
    ),
    click.option(
        "--query",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        metavar="FILE|-",
        help="A JSON file with more of CleverTap's query language, such as advanced_query; "
        "- is standard input.",
    ),
)


def filter_options(command: F) -> F:
    """Add the options of `FilterOptions` to a command, which gets their values as `filters`."""
    return _with_group(command, "filters", FilterOptions.__annotations__, _FILTERS)


_QUERY = (
    click.option(
        "--from",
        "start",
        type=day_or_seconds,
        metavar="DAY",
        help="The first day in the time zone of the CleverTap project: 2026-01-31, "
        "20260131, today, yesterday, or -7d for seven days ago. Or a time, in seconds "
        "since 1970. With several --account, each has the relative days of its own time zone.",
    ),
    click.option(
        "--to",
        "end",
        type=day_or_seconds,
        metavar="DAY",
        help="The last day, inclusive.",
    ),
    click.option(
        "--as-of",
        type=moment,
        metavar="TIME",
        help="Count relative days from this time in place of now, such as 2026-01-31T02:00:00Z.",
    ),
    *_FILTERS,
    click.option(
        "--everyone",
        is_flag=True,
        help="In place of EVENT, --from and --to: everyone with any event in the last "
        "365 days. Documented with filters only, and not proven on the live service.",
    ),
)


def query_options(command: F) -> F:
    """Add the options of `QueryOptions` to a command, which gets their values as `query`."""
    return _with_group(command, "query", QueryOptions.__annotations__, _QUERY)


_RECORDS = (
    click.option(
        "--windows",
        metavar="N|auto",
        default="auto",
        callback=lambda context, option, value: _parts(value),
        show_default=True,
        help="Number of parts to split the days into, which are read side by side.",
    ),
    click.option(
        "--batch-size",
        type=WholeNumber(),
        metavar="N",
        default=4991,
        show_default=True,
        help="People per page, a multiple of 23. A chain that has been opened keeps its size when "
        "it is resumed.",
    ),
    click.option(
        "--events/--no-events",
        "event_summaries",
        default=True,
        help="Include the events of each person, some 75 % of a record (the default), or leave "
        "them out.",
    ),
    click.option(
        "--profile/--no-profile",
        default=True,
        help="Include the properties of each person (the default), or leave them out.",
    ),
    click.option(
        "--app",
        "app",
        is_flag=True,
        help="Include versions, make and model of devices, which are left out by default.",
    ),
)


def record_options(command: F) -> F:
    """Add the options of `RecordOptions` to a command, which gets their values as `records`."""

    # Of a name of their own, because a command gets its `App` as `app`.
    return _with_group(command, "records", RecordOptions.__annotations__, _RECORDS)


def _parts(windows: str) -> int | Literal["auto"]:
    if windows == "auto":
        return "auto"
    if (parts := whole_in(windows)) is None:
        raise click.BadParameter(
            f"{windows!r} is neither auto nor a number", param_hint="--windows"
        )
    return parts


if TYPE_CHECKING:
    _Choice = click.Choice[str]
else:
    # Before click 8.2 it is not generic.
    _Choice = click.Choice


class KindOfKeys(_Choice):
    """A kind of keys, as the command line writes it; Python's spelling is taken for it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.lower() in PHONES:
            self.fail(NO_PHONES, param, ctx)
        kind = value.replace("_", "-") if isinstance(value, str) else value
        return super().convert(kind, param, ctx)


_JOIN = (
    click.option(
        "--with-cdp",
        is_flag=True,
        help="Add each person's CDP users, from Alta, as the member or column cdp.",
    ),
    click.option(
        "--cdp-key",
        metavar="KEY",
        default="identity",
        show_default=True,
        help="With --with-cdp: the key to look up at Alta, identity or a key of the profile.",
    ),
    click.option(
        "--cdp-by",
        type=KindOfKeys(["user-id", "anonymous-id"]),
        default="user-id",
        show_default=True,
        help="With --with-cdp: the kind of key that it is at Alta; user_id and anonymous_id, as in "
        "Python, are taken as well.",
    ),
)


def join_options(command: F) -> F:
    """Add `--with-cdp`, `--cdp-key` and `--cdp-by` to a command, under the library's names."""

    @wraps(command)
    def with_join(*args: Any, **values: Any) -> Any:
        return command(*args, **values | {"cdp_by": values["cdp_by"].replace("-", "_")})

    return _with_options(cast("F", with_join), _JOIN)


def _flattened(key: str) -> tuple[str, Kind | None]:
    """Return a key of the profile, and the type that follows it, if that is one.

    Raises:
        click.BadParameter: the key ends in a type of another program.
    """
    from ..base.wording import nearest
    from ..tables.layout import KINDS, OTHER_KINDS

    name, _, suffix = key.rpartition(":")
    for kind in KINDS:
        if name and suffix == kind:
            return name, kind
    word = suffix.strip().lower()
    meant = OTHER_KINDS.get(word) or nearest(word, KINDS, cutoff=0.75)
    if name and meant:
        raise click.BadParameter(
            f"{key!r} ends in no TYPE, which is {', '.join(KINDS[:-1])} or {KINDS[-1]}; did you "
            f"mean '{name}:{meant}'? The column of a key of just that name is '{key}:text'",
            param_hint="--flatten",
        )
    if name and suffix:
        click.get_current_context().ensure_object(App).warn(
            f"--flatten: {key!r} is the whole name of a property, as {suffix!r} is no TYPE, which "
            f"is {', '.join(KINDS[:-1])} or {KINDS[-1]}; if that is meant, write '{key}:text', and "
            f"this warning stays away"
        )
    return key, None


def _advise_on_columns(keys: Iterable[str]) -> None:
    """Say which keys have the name of another column, and what their own is named."""
    from ..tables.layout import RESERVED, column_names

    names = [*keys]
    for key, column in zip(names, column_names(names, reserved=RESERVED), strict=True):
        if column != key:
            click.get_current_context().ensure_object(App).info(
                f"--flatten: {key!r} is a column of tables already, without this option; the "
                f"property of that name in profileData becomes the column {column!r}"
            )


_OUT = click.option(
    "-o",
    "--out",
    "to",
    type=click.Path(),
    required=True,
    metavar="FILE|URL",
    help="The output. Its ending determines the format: .ndjson, .jsonl, .csv (each "
    "also with .gz or .zst), .parquet, .duckdb; or a table in PostgreSQL, "
    "postgresql://user@host/database/table; or a file in a bucket, s3://bucket/people.parquet, "
    "gs://… or az://….",
)

_FORMAT = click.option(
    "--format",
    type=click.Choice(["ndjson", "csv", "parquet", "duckdb", "postgres"]),
    help="Output format; by default the file's ending decides.",
)

_FLATTEN = click.option(
    "--flatten",
    metavar="KEY[:TYPE]",
    multiple=True,
    help="A property of the person, a key of profileData, that gets a column of its own, such as "
    "City or 'Signup Date:timestamp'; `altaprofiles describe` lists them. Members of a record "
    "without a column, such as ls, are in the column extra. TYPE is bool, int64, double, text or "
    "timestamp; by default the values decide in Parquet files and DuckDB, and it is text "
    "elsewhere. Tables have the person's email, name and so on without it; a key of such a name "
    "becomes profile_data.email. Repeatable.",
)

_DOTS = "In PostgreSQL, the part before a dot is the schema; in DuckDB a dot belongs to the name."

_TABLE = click.option(
    "--table",
    metavar="NAME",
    help='The table in DuckDB or PostgreSQL; "profiles" by default, and "bindings" for '
    f"users of Alta. {_DOTS}",
)

_SPOOL = click.option(
    "--spool",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Folder in which to create <out>.export, the folder for the records until "
    "the output is complete. By default it is created beside the output, and for PostgreSQL in the "
    "current folder, in which the manifest and lists of keys stay in any case.",
)

_JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the report as JSON instead of the output's path. A failure prints an object with "
    "`error` as well, and with the report of an output that is incomplete, and in `resume` the "
    "command that goes on with it.",
)


def output_options(command: F) -> F:
    """Add the options of `OutputOptions`, and `--json` as `as_json`, to a command."""
    return _with_output(
        command,
        [
            _OUT,
            _FORMAT,
            _FLATTEN,
            _TABLE,
            click.option(
                "--write",
                type=click.Choice(["replace", "upsert", "append"]),
                help="With replace, the output has the rows of this run only: the default for "
                "files. With upsert, rows of the same account and person are updated and others "
                "stay: the default for tables. With append, rows are added.",
            ),
            click.option(
                "--bom",
                is_flag=True,
                help="Write a CSV file for spreadsheets: start it with a byte-order mark, and put "
                "an apostrophe before cells that begin with =, @, a tab or a carriage return, or "
                "with + or - unless the rest is digits, blanks, brackets, dots or dashes; and "
                "before cells with an apostrophe in front of one of these.",
            ),
            _SPOOL,
            click.option(
                "--resume/--fresh",
                default=True,
                help="Resume what an earlier run of the same export left unfinished (the default), "
                "or discard it and start from scratch.",
            ),
            _JSON,
        ],
    )


def table_options(command: F) -> F:
    """Add the options of `TableOptions`, and `--json` as `as_json`, to a command."""
    out = click.option(
        "-o",
        "--out",
        "to",
        type=click.Path(),
        required=True,
        metavar="FILE|URL",
        help="The table: a .duckdb file; or one in PostgreSQL, postgresql://user@host/database/"
        "table; or a folder of Parquet files, whose path ends in a slash.",
    )
    kind = click.option(
        "--format",
        type=click.Choice(["duckdb", "postgres"]),
        help="The kind of table; by default the file's ending decides.",
    )
    table = click.option(
        "--table",
        metavar="NAME",
        help=f'The table in DuckDB or PostgreSQL; "profiles" by default. {_DOTS}',
    )
    return _with_output(command, [out, kind, _FLATTEN, table, _SPOOL, _JSON])


def _with_output(command: F, options: Sequence[Callable[[F], F]]) -> F:
    @wraps(command)
    def with_output(*args: Any, **values: Any) -> Any:
        flatten = dict(map(_flattened, values["flatten"]))
        _advise_on_columns(flatten)
        return command(*args, **values | {"flatten": flatten})

    return _with_options(cast("F", with_output), options)


def _with_group(
    command: F, name: str, members: Iterable[str], options: Sequence[Callable[[F], F]]
) -> F:
    """Add options to a command, which gets the values of `members` together, as `name`."""

    @wraps(command)
    def with_group(*args: Any, **values: Any) -> Any:
        group = {member: values.pop(member) for member in members}
        return command(*args, **{name: group}, **values)

    return _with_options(cast("F", with_group), options)


def _with_options(command: F, options: Sequence[Callable[[F], F]]) -> F:
    """Add options to a command, in the order of its help."""
    for option in reversed(options):
        command = option(command)
    return command
