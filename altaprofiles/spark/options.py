"""The options of a read by Spark, and the tasks and rows that they make. Imports no Spark."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ..base.checks import check_whole
from ..blocking_session import blocking
from ..credentials import CleverTap
from ..errors import InvalidArgument
from ..models import Page
from ..models.page import arrow_schema
from ..session import Session
from ..tables.layout import CORE, PERSON, Kind, check_flatten, column_names
from ..wire.days import check_range
from ..wire.query import BATCH_SIZE, EventQuery

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Options", "Part", "clevertap_of", "schema_behind"]

_NAMES = {
    name.lower(): name
    for name in (
        *("event", "start", "end", "windows", "slots", "batchSize", "events", "profile", "app"),
        *("flatten", "account"),
    )
}


_SECRETS = ("passcode", "token", "secret", "password", "accountid", "account_id", "apikey")


class Part(Struct, frozen=True):
    """The chains of one task, and its share of the account's slots."""

    account: str | None
    slots: int
    queries: tuple[EventQuery, ...]


class Options:
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
        self.app = _flag("app", given.get("app", "false"))
        self.summaries = _flag("events", given.get("events", "true"))
        self.profile = _flag("profile", given.get("profile", "true"))
        flatten = given.get("flatten", "[]")
        self.flatten = check_flatten(
            _json("flatten", flatten) if flatten[:1] in ("[", "{") else [flatten],
            reserved=("account", PERSON, *CORE),
        )
        # Now, rather than on the executors.
        days = self.start, self.end or self.start
        self.first, self.last = check_range(*days, fix="write it as 2026-01-31")
        self.parts(self.first, self.last)

    def parts(self, first: int, last: int) -> list[Part]:
        """Return the tasks of a range of days: at most `slots` for each account."""
        flags = self.app, self.summaries, self.profile
        queries = [
            query
            for event in self.events
            for query in EventQuery.of(event, first, last, self.batch_size, *flags).split(
                self.windows
            )
        ]
        count = min(self.slots, len(queries))
        return [
            Part(
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
        return schema_behind([("account", pyarrow.string())], schema, self.flatten)

    def read(self, part: Part) -> Iterator[pyarrow.RecordBatch]:
        """Yield the rows of one task. Reads the credentials."""
        schema = self.schema
        account = clevertap_of(part.account, part.slots)
        with blocking(lambda: Session(clevertap=account)) as session:
            for query in part.queries:
                people = session.profiles.by_query(query, distinct=False)
                for page in people.pages(decode=False):
                    yield from _batches(page, account.account_id, self.flatten, schema)


def clevertap_of(account: str | None, slots: int) -> CleverTap:
    found = CleverTap.from_env() if account is None else CleverTap.from_account(account)
    return replace(found, max_in_flight=slots)


def schema_behind(
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
