"""Spark 4 reads people: a data source, and bulk lookups of a column. Needs the extra `spark`.

Worth it where a lake or many accounts need a cluster anyhow. One machine is enough for one account,
whose few slots are what takes the time: `Session.export` is then simpler, and resumes.

- Credentials are read on the executors, from the environment or the credentials file. They are no
  options, which stand in plans, logs and Spark's pages.
- A person comes with each of the windows and events that have them. To keep one row:
  `df.dropDuplicates(["account", "person"])`.
- Each action asks the service again. Write the rows to a table, and go on from there.
- A task that is retried begins its chains again, and its rows count once. With speculation, each
  copy of a task adds its requests to those in flight.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta, timezone
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, get_args

import msgspec
from msgspec import Struct

from .base.checks import check_whole
from .base.extras import require
from .base.zones import today, zone_of
from .blocking_session import BlockingSession, blocking
from .credentials import Alta, CleverTap
from .errors import InvalidArgument, MissingExtra
from .models import Lookup, Page
from .models.page import arrow_schema, to_arrow
from .session import Session
from .tables.layout import CORE, PERSON, Flatten, Kind, check_flatten, column_names
from .wire.alta import CdpBy
from .wire.clevertap import By
from .wire.days import check_range, date_of
from .wire.query import BATCH_SIZE, EventQuery

if TYPE_CHECKING:
    import pyarrow
    from pyspark.sql import DataFrame, SparkSession

try:
    from pyspark.sql.datasource import (
        DataSource,
        DataSourceReader,
        DataSourceStreamReader,
        InputPartition,
    )
except ImportError:
    # `register` and `look_up` name what is missing.
    DataSource = DataSourceReader = DataSourceStreamReader = InputPartition = object

__all__ = ["look_up", "register"]


def register(spark: SparkSession) -> None:
    """Make `spark.read.format("altaprofiles")` and `spark.readStream.format(…)` known to Spark.

    Options:

    - `event`: the name of an event, or a JSON list of names.
    - `start`, `end`: first and last day, both included, such as "2026-01-31". A stream reads days
      that are over, in the time zone in the driver's `CLEVERTAP_TIMEZONE`, else everywhere. It may
      go without an `end`. Events that arrive later than that are not read.
    - `slots`: requests in flight at most for one account, over the whole cluster; by default 3, as
      CleverTap allows. There are as many partitions, or fewer with several slots each.
    - `windows`: parts into which the days are split for each event; by default as many as fill the
      slots.
    - `account`: the name of an account in the executors' credentials file, or a JSON list of names,
      each of which has `slots` of its own. By default `CLEVERTAP_ACCOUNT_ID` and the like.
    - `flatten`: a key of `profileData`, a JSON list of them, or a JSON object of types.
    - `batchSize`, `events`, `profile`, `app`: as for `session.profiles.by_event`.

    Columns are `account`, and those of `page.to_arrow(flatten, person=True)`.

    Raises:
        MissingExtra: Spark 4 or the extra `spark` is not installed.
    """
    _require("altaprofiles.spark.register")
    spark.dataSource.register(_Source)


def look_up(
    df: DataFrame,
    column: str,
    *,
    by: By | CdpBy,
    slots: int = 3,
    account: str | None = None,
    flatten: Flatten = (),
) -> DataFrame:
    """Return a row for each row of `df`: what the service has under the key in `column`.

    Columns are `key` and `error`, which is null unless the lookup failed; then the columns of
    `page.to_arrow(flatten)`, null where nobody is found. By "user_id" and "anonymous_id" there is
    one column instead, `users`: JSON text, "[]" where nobody is found.

    Args:
        df: any table.
        column: a column of text or whole numbers.
        by: "identity", "email" or "object_id" for profiles, "user_id" or "anonymous_id" for users
            of Alta.
        slots: requests in flight at most, over the whole cluster. The lookup has as many
            partitions.
        account: as for `register`, one name.
        flatten: keys of `profileData`, as for `page.to_arrow`.

    Raises:
        ConfigurationError: an argument is invalid, or Spark 4 or the extra `spark` is missing.
    """
    _require("altaprofiles.spark.look_up")
    from pyspark.sql.functions import col
    from pyspark.sql.pandas.types import from_arrow_schema

    kinds = (*get_args(By), *get_args(CdpBy))
    if by not in kinds:
        raise InvalidArgument(f"by: {by!r} is no kind of key; use one of {', '.join(kinds)}")
    lookups = _Lookups(by, account, check_flatten(flatten, reserved=("key", "error", *CORE)))
    keys = df.select(col(column).cast("string")).repartition(check_whole("slots", slots, least=1))
    return keys.mapInArrow(lookups, from_arrow_schema(lookups.schema))


def _require(what: str) -> None:
    require("spark", what=what)
    if DataSource is object:
        raise MissingExtra(f"{what} needs Spark 4; install it with: pip install 'pyspark>=4'")


# ---------------------------------------------------------------------------------------- options


class _Part(Struct, frozen=True):
    """The chains of one task, and its share of the account's slots."""

    account: str | None
    slots: int
    queries: tuple[EventQuery, ...]


_SECRETS = ("passcode", "token", "secret", "password", "accountid", "account_id", "apikey")


class _Options:
    """The options of one read, checked. It holds plain values."""

    def __init__(self, options: Mapping[str, str], *, needs_end: bool = True) -> None:
        given = {name.lower(): value for name, value in options.items()}
        for name in given:
            if name not in _NAMES:
                credential = any(word in name for word in _SECRETS)
                raise InvalidArgument(
                    f"{name}: credentials are no options, which stand in plans and logs; set "
                    f"CLEVERTAP_ACCOUNT_ID and CLEVERTAP_PASSCODE on the executors, or `account`"
                    if credential
                    else f"{name}: there is no such option; use {', '.join(_NAMES.values())}"
                )
        for name in ("event", "start", *(["end"] if needs_end else [])):
            if name not in given:
                raise InvalidArgument(f"{name}: missing; add .option({name!r}, …)")
        self.events = _texts("event", given["event"])
        self.accounts = _texts("account", given["account"]) if "account" in given else (None,)
        self.start = given["start"]
        self.end = given.get("end")
        self.slots = _whole("slots", given.get("slots", "3"))
        each = -(-self.slots // len(self.events))
        self.windows = _whole("windows", given.get("windows", str(each)))
        self.batch_size = _whole("batchSize", given.get("batchsize", str(BATCH_SIZE)))
        self.flags = [
            _flag(name, given.get(name, default))
            for name, default in (("app", "false"), ("events", "true"), ("profile", "true"))
        ]
        flatten = given.get("flatten", "[]")
        self.flatten = check_flatten(
            _json("flatten", flatten) if flatten[:1] in ("[", "{") else [flatten],
            reserved=("account", PERSON, *CORE),
        )
        # Now, rather than on the executors.
        self.first, self.last = check_range(self.start, self.end or self.start)
        self.parts(self.first, self.last)

    def parts(self, first: int, last: int) -> list[_Part]:
        """Return the tasks of a range of days: at most `slots` for each account."""
        queries = [
            query
            for event in self.events
            for query in EventQuery.of(event, first, last, self.batch_size, *self.flags).split(
                self.windows
            )
        ]
        count = min(self.slots, len(queries))
        return [
            _Part(
                account,
                self.slots // count + (number < self.slots % count),
                tuple(queries[number::count]),
            )
            for account in self.accounts
            for number in range(count)
        ]

    @property
    def schema(self) -> pyarrow.Schema:
        """The schema of every batch."""
        import pyarrow

        schema = arrow_schema(self.flatten, person=True)
        return _renamed([("account", pyarrow.string())], schema, self.flatten)

    def read(self, part: _Part) -> Iterator[pyarrow.RecordBatch]:
        """Yield the rows of one task. Reads the credentials."""
        schema = self.schema
        account = _clevertap(part.account, part.slots)
        with blocking(lambda: Session(clevertap=account)) as session:
            for query in part.queries:
                people = session.profiles.by_query(query, distinct=False)
                for page in people.pages(decode=False):
                    yield from _batches(page, account.account_id, self.flatten, schema)


_NAMES = {
    name.lower(): name
    for name in (
        *("event", "start", "end", "windows", "slots", "batchSize", "events", "profile", "app"),
        *("flatten", "account"),
    )
}


def _renamed(
    first: list[tuple[str, Any]], schema: pyarrow.Schema, flatten: Mapping[str, Kind | None]
) -> pyarrow.Schema:
    """Return `schema` behind other columns, whose names no flattened key takes."""
    import pyarrow

    core = schema.names[: len(schema) - len(flatten)]
    names = column_names([*flatten], reserved=[*(name for name, _ in first), *core])
    return pyarrow.schema([*first, *zip([*core, *names], schema.types, strict=True)])


def _batches(
    page: Page, account: str, flatten: Mapping[str, Kind | None], schema: pyarrow.Schema
) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow

    for batch in page.to_arrow(flatten, person=True).to_batches():
        accounts = pyarrow.repeat(account, batch.num_rows)
        yield pyarrow.RecordBatch.from_arrays([accounts, *batch.columns], schema=schema)


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise InvalidArgument(f"{name}: {text!r} is not JSON; write a JSON list") from None


def _texts(name: str, text: str) -> tuple[str, ...]:
    found = _json(name, text) if text.startswith("[") else [text]
    if not found or not all(isinstance(one, str) and one for one in found):
        raise InvalidArgument(f"{name}: expected a name, or a JSON list of names, got {text!r}")
    if len({*found}) < len(found):
        raise InvalidArgument(f"{name}: a name is in it twice; leave one of them out, got {text!r}")
    return tuple(found)


def _whole(name: str, text: str) -> int:
    return check_whole(name, int(text) if text.isascii() and text.isdigit() else text, least=1)


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise InvalidArgument(f"{name}: expected true or false, got {text!r}")
    return text.lower() == "true"


def _clevertap(account: str | None, slots: int) -> CleverTap:
    found = CleverTap.from_env() if account is None else CleverTap.from_account(account)
    return replace(found, max_in_flight=slots)


# ---------------------------------------------------------------------------------------- sources


class _Chains(InputPartition):  # type: ignore[misc]
    def __init__(self, part: _Part) -> None:
        self.part = part


class _Source(DataSource):  # type: ignore[misc]
    @classmethod
    def name(cls) -> str:
        return "altaprofiles"

    def schema(self) -> Any:
        from pyspark.sql.pandas.types import from_arrow_schema

        return from_arrow_schema(_Options(self.options, needs_end=False).schema)

    def reader(self, schema: Any) -> _Reader:
        return _Reader(_Options(self.options))

    def streamReader(self, schema: Any) -> _StreamReader:  # noqa: N802
        return _StreamReader(_Options(self.options, needs_end=False))


class _Reader(DataSourceReader):  # type: ignore[misc]
    # Without `pushFilters`, which fails under Spark's default configuration.

    def __init__(self, options: _Options) -> None:
        self._options = options

    def partitions(self) -> list[_Chains]:
        options = self._options
        return [_Chains(part) for part in options.parts(options.first, options.last)]

    def read(self, partition: _Chains) -> Iterator[pyarrow.RecordBatch]:
        return self._options.read(partition.part)


class _StreamReader(DataSourceStreamReader):  # type: ignore[misc]
    """An offset is the first day that has not been read."""

    def __init__(self, options: _Options) -> None:
        self._options = options

    def initialOffset(self) -> dict[str, str]:  # noqa: N802
        return {"next": date_of(self._options.first).isoformat()}

    def latestOffset(self, start: Any = None, limit: Any = None) -> dict[str, str]:  # noqa: N802
        name = os.environ.get("CLEVERTAP_TIMEZONE")
        zone = zone_of("CLEVERTAP_TIMEZONE", name) if name else timezone(timedelta(hours=-12))
        following = today(zone)
        if self._options.end is not None:
            following = min(following, date_of(self._options.last) + timedelta(days=1))
        # Never back, should the zone have changed.
        least = date.fromisoformat((start or self.initialOffset())["next"])
        return {"next": max(following, least).isoformat()}

    def partitions(self, start: dict[str, str], end: dict[str, str]) -> list[_Chains]:
        first = date.fromisoformat(start["next"])
        last = date.fromisoformat(end["next"]) - timedelta(days=1)
        if last < first:
            return []
        days = check_range(first, last)
        return [_Chains(part) for part in self._options.parts(*days)]

    def read(self, partition: _Chains) -> Iterator[pyarrow.RecordBatch]:
        return self._options.read(partition.part)

    def commit(self, end: dict[str, str]) -> None:
        pass


# ---------------------------------------------------------------------------------------- lookups

_ROWS = 1000
"""Rows of a batch."""


class _Lookups:
    """Looks up the keys of one partition; called by `mapInArrow`."""

    def __init__(
        self, by: By | CdpBy, account: str | None, flatten: Mapping[str, Kind | None]
    ) -> None:
        self._by = by
        self._account = account
        self._flatten: dict[str, Kind | None] = {
            key: kind or "text" for key, kind in flatten.items()
        }

    @property
    def _is_cdp(self) -> bool:
        return self._by in get_args(CdpBy)

    @property
    def schema(self) -> pyarrow.Schema:
        """The schema of every batch."""
        import pyarrow

        text = pyarrow.string()
        columns = [("key", text), ("error", text)]
        if self._is_cdp:
            return pyarrow.schema([*columns, ("users", text)])
        return _renamed(columns, arrow_schema(self._flatten), self._flatten)

    def __call__(self, batches: Iterator[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
        keys = (key for batch in batches for key in batch.column(0).to_pylist())
        # An empty partition needs no credentials.
        if (first := next(keys, _NOTHING)) is _NOTHING:
            return
        with blocking(self._session) as session:
            lookups = self._look_up(session, chain([first], keys))
            while rows := [*islice(lookups, _ROWS)]:
                yield self._batch(rows)

    def _session(self) -> Session:
        # One slot for each partition, of which there are as many as the lookup may have.
        if not self._is_cdp:
            return Session(clevertap=_clevertap(self._account, 1))
        name = self._account
        alta = Alta.from_env() if name is None else Alta.from_account(name)
        return Session(alta=replace(alta, max_in_flight=1))

    def _look_up(self, session: BlockingSession, keys: Iterable[Any]) -> Iterator[Lookup[Any]]:
        by: Any = self._by
        if self._is_cdp:
            return session.cdp.get_many(keys, by=by)
        return session.profiles.get_many(keys, by=by)

    def _batch(self, rows: list[Lookup[Any]]) -> pyarrow.RecordBatch:
        import pyarrow

        text = pyarrow.string()
        errors = [row.error and f"{type(row.error).__name__}: {row.error}" for row in rows]
        columns = [
            pyarrow.array([row.key for row in rows], text),
            pyarrow.array(errors, text),
        ]
        if self._is_cdp:
            users = [
                None if row.error else msgspec.json.encode([*(row.value or {}).values()]).decode()
                for row in rows
            ]
            columns.append(pyarrow.array(users, text))
        else:
            numbers = count()
            places = [None if row.value is None else next(numbers) for row in rows]
            found = to_arrow([row.value for row in rows if row.value is not None], self._flatten)
            taken = found.take(pyarrow.array(places, pyarrow.int64())).combine_chunks()
            columns += [column.combine_chunks() for column in taken.columns]
        return pyarrow.RecordBatch.from_arrays(columns, schema=self.schema)


_NOTHING = object()
