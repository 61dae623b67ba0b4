"""The data source `altaprofiles` of Spark 4. It can be imported where there is no Spark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date, timedelta, timezone
from typing import TYPE_CHECKING, Any

from ..base.extras import require
from ..base.zones import today, zone_of
from ..errors import MissingExtra
from ..wire.days import check_range, date_of
from .options import Options, Part

if TYPE_CHECKING:
    import pyarrow
    from pyspark.sql import SparkSession

try:
    from pyspark.sql.datasource import (
        DataSource,
        DataSourceReader,
        DataSourceStreamReader,
        InputPartition,
    )
except ImportError:
    # `register` names what is missing.
    DataSource = DataSourceReader = DataSourceStreamReader = InputPartition = object

__all__ = ["register", "require_spark"]


def register(spark: SparkSession) -> None:
    """Make `spark.read.format("altaprofiles")` and `spark.readStream.format(…)` known to Spark.

    Options:

    - `event`: the name of an event, or a JSON list of names.
    - `start`, `end`: first and last day, both included, such as "2026-01-31". A stream reads days
      that are over, in the time zone in the driver's `CLEVERTAP_TIMEZONE`, else everywhere: with
      accounts in several zones, name the one furthest behind, or none. It may go without an `end`.
      Events that arrive later than that are not read.
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
    require_spark("altaprofiles.spark.register")
    spark.dataSource.register(_Source)


def require_spark(what: str) -> None:
    """Raise `MissingExtra` unless Spark 4 and the extra `spark` are installed."""
    require("spark", what=what)
    if DataSource is object:
        raise MissingExtra(f"{what} needs Spark 4; install it with: pip install 'pyspark>=4'")


class _Task(InputPartition):  # type: ignore[misc]
    def __init__(self, part: Part) -> None:
        self.part = part


class _Source(DataSource):  # type: ignore[misc]
    @classmethod
    def name(cls) -> str:
        return "altaprofiles"

    def schema(self) -> Any:
        from pyspark.sql.pandas.types import from_arrow_schema

        return from_arrow_schema(Options(self.options, needs_end=False).schema)

    def reader(self, schema: Any) -> _Reader:
        return _Reader(Options(self.options))

    def streamReader(self, schema: Any) -> _StreamReader:  # noqa: N802
        return _StreamReader(Options(self.options, needs_end=False))


class _Reader(DataSourceReader):  # type: ignore[misc]
    # Without `pushFilters`, which fails under Spark's default configuration.

    def __init__(self, options: Options) -> None:
        self._options = options

    def partitions(self) -> list[_Task]:
        options = self._options
        return [_Task(part) for part in options.parts(options.first, options.last)]

    def read(self, partition: _Task) -> Iterator[pyarrow.RecordBatch]:
        return self._options.read(partition.part)


class _StreamReader(DataSourceStreamReader):  # type: ignore[misc]
    """An offset is the first day that has not been read."""

    def __init__(self, options: Options) -> None:
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

    def partitions(self, start: dict[str, str], end: dict[str, str]) -> list[_Task]:
        first = date.fromisoformat(start["next"])
        last = date.fromisoformat(end["next"]) - timedelta(days=1)
        if last < first:
            return []
        days = check_range(first, last)
        return [_Task(part) for part in self._options.parts(*days)]

    def read(self, partition: _Task) -> Iterator[pyarrow.RecordBatch]:
        return self._options.read(partition.part)

    def commit(self, end: dict[str, str]) -> None:
        pass
