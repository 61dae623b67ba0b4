"""Bulk lookups of a column of Spark, in as many tasks as there are slots."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from ..base.checks import check_whole
from ..blocking_session import BlockingSession, blocking
from ..credentials import Alta
from ..errors import InvalidArgument
from ..models import Lookup
from ..models.page import arrow_schema, to_arrow
from ..session import Session
from ..tables.layout import CORE, Flatten, Kind, check_flatten
from ..wire.alta import CdpBy
from ..wire.clevertap import By
from .options import clevertap_of, schema_behind
from .source import require_spark

if TYPE_CHECKING:
    import pyarrow
    from pyspark.sql import DataFrame

__all__ = ["look_up"]


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
    require_spark("altaprofiles.spark.look_up")
    from pyspark.sql.functions import col
    from pyspark.sql.pandas.types import from_arrow_schema

    kinds = (*get_args(By), *get_args(CdpBy))
    if by not in kinds:
        raise InvalidArgument(f"by: {by!r} is no kind of key; use one of {', '.join(kinds)}")
    lookups = _Lookups(by, account, check_flatten(flatten, reserved=("key", "error", *CORE)))
    keys = df.select(col(column).cast("string")).repartition(check_whole("slots", slots, least=1))
    return keys.mapInArrow(lookups, from_arrow_schema(lookups.schema))


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
        return schema_behind(columns, arrow_schema(self._flatten), self._flatten)

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
            return Session(clevertap=clevertap_of(self._account, 1))
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
        # An index would be one of the partition, and the key is in the row.
        errors = [
            row.error and f"{type(row.error).__name__}: {_INDEX.sub('', str(row.error), count=1)}"
            for row in rows
        ]
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


_INDEX = re.compile(r"\Akeys\[[0-9]+\]: ")
_NOTHING = object()
