"""One page of a cursor chain, and profiles as Arrow tables. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Never

from msgspec import Raw, Struct

from ..base.checks import check_flag, form_of
from ..base.extras import require
from ..base.jsontext import one_line
from ..errors import InvalidArgument
from ..flow.slices import Pace, Slices
from ..tables.arrow import records_to_arrow, schema_of
from ..tables.kinds import Kinds
from ..tables.layout import CORE, PERSON, Flatten, Kind, Lists, check_flatten, check_lists
from ..tables.rows import RecordTable
from .customer import Customer, Lookup
from .people import Distinct, identity_of, person_of
from .profile import Profile

if TYPE_CHECKING:
    import pyarrow


__all__ = ["Page", "Text", "arrow_schema", "new_people", "to_arrow"]


class Text(Struct):
    """The body of a page in the pieces in which it is kept, each of them once.

    Attributes:
        size: its length in bytes.
        has_breaks: whether there is a line break in its records.
    """

    size: int = 0
    has_breaks: bool = False
    _parts: list[tuple[str, Any, Any]] = []

    def add(self, part: bytes) -> None:
        """Add a part without records."""
        self._parts.append(("text", part, None))
        self.size += len(part)

    def add_list(self, records: bytes) -> None:
        """Add a list of records, without the brackets that it is in."""
        self._parts.append(("list", records, None))
        self.count(records)

    def add_records(self, records: list[bytes], gaps: list[bytes] | None, sent: bytes) -> None:
        """Add records that stand for the list `sent`.

        Args:
            records: the records.
            gaps: the text between them; None for commas.
            sent: the list that was sent, in brackets. It is not kept.
        """
        self._parts.append(("records", records, gaps))
        self.count(sent)

    def count(self, records: bytes) -> None:
        """Count a list of records, in the brackets that it is in, without keeping it."""
        self.size += len(records) - 2
        self.has_breaks = self.has_breaks or b"\n" in records or b"\r" in records

    def join(self) -> bytes:
        """Return the whole body."""
        pieces: list[bytes | memoryview] = []
        for kind, part, gaps in self._parts:
            if kind == "text":
                pieces.append(part)
            elif kind == "list":
                pieces.append(memoryview(part)[1:-1])
            elif gaps is None:
                pieces.append(b",".join(part))
            else:
                pieces += (piece for pair in zip(part, [*gaps, b""], strict=True) for piece in pair)
        return b"".join(pieces)


class Page(Struct, frozen=True, dict=True):
    """One page of a cursor chain. In memory it takes about the size of its body.

    Attributes:
        cursor: the cursor of this page. Requesting it again returns the same page.
        next_cursor: the cursor of the next page of the same chain, or None on the last page. Keep
            it to resume the chain. With several windows, keep one for each `window`.
        window: first and last day (or second) of the chain's range, as sent to the service. None if
            the chain was resumed from a cursor, or is for everyone.
    """

    _records: Sequence[Raw | bytes]
    _raw: bytes | Text
    cursor: str
    next_cursor: str | None
    window: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        profiles: list[Profile],
        raw: bytes | Text,
        cursor: str,
        next_cursor: str | None,
        window: tuple[int, int] | None = None,
    ) -> Page:
        """Return a page of profiles that are decoded already."""
        page = cls([profile.raw for profile in profiles], raw, cursor, next_cursor, window)
        page.__dict__["profiles"] = profiles
        return page

    @property
    def raw(self) -> bytes:
        """The body as the service sent it, decompressed.

        A large one is put together each time, because the page keeps its bytes once, as records.
        """
        return self._raw if isinstance(self._raw, bytes) else self._raw.join()

    @property
    def is_empty(self) -> bool:
        """True if the page has no records. Any page may have none."""
        return not self._records

    @property
    def weight(self) -> int:
        """About how many bytes of memory the page takes."""
        return len(self._raw) if isinstance(self._raw, bytes) else self._raw.size

    @cached_property
    def records(self) -> list[bytes]:
        """The records as the service sent them, in order. Any page may have none.

        With `distinct`, `records`, `profiles` and `encode()` leave out people who came before.
        `raw` still holds them.
        """
        return list(map(bytes, self._records))

    @cached_property
    def profiles(self) -> list[Profile]:
        """The people on this page, one for each of `records`.

        Raises:
            DecodeError: a record is not a JSON object, on a page that was made by hand.
        """
        return [
            Profile.decode(record, f"$.records[{number}]")
            for number, record in enumerate(self._records)
        ]

    def encode(self) -> bytes:
        """Return `records` as NDJSON: one record a line, each line ended by a line break.

        Thousands of records take a millisecond or two, or tens of milliseconds if the service
        pretty-printed them.

        >>> Page([b'{"identity": "7"}', b'{"identity": "8"}'], b"", "c1", None).encode()
        b'{"identity": "7"}\\n{"identity": "8"}\\n'
        """
        return b"\n".join([*self._lines(), b""])

    def _lines(self) -> Iterable[Raw | bytes]:
        """Return `records` without line breaks, which are most often not there."""
        raw = self._raw
        if b"\n" in raw or b"\r" in raw if isinstance(raw, bytes) else raw.has_breaks:
            return map(one_line, map(bytes, self._records))
        return self._records

    def to_arrow(
        self,
        flatten: Flatten = (),
        *,
        person: bool = False,
        lists: Literal["list", "json"] = "list",
    ) -> pyarrow.Table:
        """Return a table with one row for each of `records`, of the same types on every page.

        Its schema is `arrow_schema` of the same arguments. This does not need `profiles`, and is
        fastest on pages requested with `decode=False`.

        Args:
            flatten: keys of `profile_data` that get a column of their own, of text. A mapping of
                keys to types names others, as for an export: a value that does not fit is null.
            person, lists: as for `altaprofiles.to_arrow`.

        Raises:
            ConfigurationError: pyarrow is not installed, or an argument cannot work.
            DecodeError: a record is not a JSON object, on a page that was made by hand.

        >>> day = date(2026, 1, 1)
        >>> launched = session.profiles.by_event("App Launched", start=day, end=day)
        >>> tables = [page.to_arrow() async for page in launched.pages(decode=False)]
        >>> tables[0].column_names[:5]
        ['identity', 'email', 'name', 'phone', 'object_ids']
        """
        keys = _check_options("to_arrow", flatten, person, lists)
        return records_to_arrow(map(bytes, self._lines()), _table(keys, None, person, lists))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return `to_arrow()` as a capsule of Arrow's PyCapsule interface.

        So `polars.DataFrame(page)`, `pyarrow.table(page)` and DuckDB's `FROM page` read the page
        itself, as often as they like.

        Args:
            requested_schema: a capsule of the schema to convert to, or None.

        Raises:
            ConfigurationError: pyarrow is not installed, or the columns cannot be converted.
            DecodeError: as for `to_arrow`.
        """
        table = self.to_arrow()
        try:
            stream: object = table.__arrow_c_stream__(requested_schema)
        except (ValueError, TypeError, NotImplementedError):
            # Arrow's own error may quote values, which are people's data.
            raise InvalidArgument(
                "requested_schema: the columns of a page do not convert to it; use the schema of "
                "`arrow_schema()`, or select and cast columns of `page.to_arrow()`"
            ) from None
        return stream

    # Type checkers refuse it by themselves.
    if not TYPE_CHECKING:

        def __getitem__(self, _: object) -> Never:
            # `for`, `list` and `in` call it where there is no `__iter__`, with which a page would
            # count as an Iterable.
            raise TypeError(
                f"{self!r} is not read with `for`, `in` or an index: `page.profiles` is the list "
                f"of its people"
            )

    def __repr__(self) -> str:
        last = "" if self.next_cursor else ", last"
        return f"Page({len(self._records)} profiles, {self.weight} bytes{last})"


def to_arrow(
    profiles: Iterable[Profile],
    flatten: Flatten = (),
    *,
    person: bool = False,
    lists: Literal["list", "json"] = "list",
) -> pyarrow.Table:
    """Return a table with one row for each of `profiles`, for pandas, polars or DuckDB.

    Columns: `person` (text) if it is asked for; `identity`, `email`, `name`, `phone` (text);
    `object_ids` (list of text); `profile_data`, `events`, `platform_info` (JSON text as the service
    sent it, with U+FFFD for lone surrogates, and without white space if the record had line breaks,
    as in files of the same records); `extra` (JSON text of all other keys, so that nothing is
    lost); then one column for each key of `flatten`.

    The table is held in memory, and briefly a second time while it is built. For millions of
    people, export to a file instead.

    Args:
        profiles: any iterable. It is read once, to the end.
        flatten: keys of `profile_data` that get a column of their own. The type is bool, int64,
            double or timestamp if all values fit it, else text; a mapping of keys to types names
            it, and a value that does not fit is null. Name them where tables of several calls are
            put together. As text, equal lists and objects are one text. The column is named after
            its key, with the prefix `profile_data.` if that name is taken.
        person: begin with the column `person`, the key that tables of exports have: equal for
            records with the same identity, and never null.
        lists: "json" for `object_ids` as JSON text, where a reader has no lists.

    Raises:
        ConfigurationError: pyarrow is not installed, or an argument cannot work, such as a `Lookup`
            among `profiles` instead of its `value`.

    >>> person = await session.profiles.get(identity="5555555555")
    >>> table = to_arrow([person] if person else [], flatten=["favoriteFood"])
    >>> table.select(["identity", "favoriteFood"]).to_pylist()
    [{'identity': '5555555555', 'favoriteFood': 'pizza'}]
    """
    keys = _check_options("to_arrow", flatten, person, lists)
    if isinstance(profiles, Page):
        raise InvalidArgument(
            "profiles: expected a list of Profile, got a Page; use page.to_arrow(…), or pass "
            "page.profiles"
        )
    if not isinstance(profiles, Iterable):
        raise InvalidArgument(
            f"profiles: expected a list of Profile, got {form_of(profiles)}; write "
            f"{'[one async for one in …]' if isinstance(profiles, AsyncIterable) else '[profile]'}"
        )
    records = [_record(number, profile) for number, profile in enumerate(profiles)]
    kinds = Kinds(keys)
    kinds.observe(records)
    return records_to_arrow(records, _table(keys, kinds, person, lists))


def _record(number: int, profile: object) -> bytes:
    if isinstance(profile, Profile):
        # Without line breaks, as files have it, so that equal records have equal cells.
        return profile.encode()
    fix = "pass profiles only"
    if isinstance(profile, Lookup):
        fix = "pass its `value`, of those that have one: [one.value for one in … if one.value]"
    elif isinstance(profile, Customer):
        fix = "pass its `profile`: [one.profile for one in … if one.profile]"
    elif isinstance(profile, Page):
        fix = "pass its `profiles`: [one for page in … for one in page.profiles]"
    elif profile is None:
        fix = "leave out what was not found: [one for one in … if one]"
    raise InvalidArgument(f"profiles[{number}]: expected a Profile, got {form_of(profile)}; {fix}")


def arrow_schema(
    flatten: Flatten = (), *, person: bool = False, lists: Literal["list", "json"] = "list"
) -> pyarrow.Schema:
    """Return the schema of `page.to_arrow` with the same arguments, before there is any page.

    For readers that need the columns first: a file writer, a table to append to, a Spark plan.

    Args:
        flatten, person, lists: as for `page.to_arrow`.

    Raises:
        ConfigurationError: pyarrow is not installed, or an argument cannot work.

    >>> schema = arrow_schema({"Cart Value": "double"}, person=True)
    >>> day = date(2026, 1, 1)
    >>> pages = session.profiles.by_event("App Launched", start=day, end=day).pages(decode=False)
    >>> tables = [page.to_arrow({"Cart Value": "double"}, person=True) async for page in pages]
    >>> tables[0].schema == schema
    True
    """
    keys = _check_options("arrow_schema", flatten, person, lists)
    return schema_of(_table(keys, None, person, lists).columns)


def _check_options(
    what: str, flatten: object, person: object, lists: object
) -> dict[str, Kind | None]:
    """Return the flattened keys, once all arguments and pyarrow are known to be right."""
    check_lists(lists)
    reserved = (PERSON, *CORE) if check_flag("person", person) else CORE
    keys = check_flatten(flatten, reserved=reserved)
    require("parquet", what=what)
    return keys


def _table(
    keys: Mapping[str, Kind | None], kinds: Kinds | None, person: bool, lists: Lists
) -> RecordTable:
    return RecordTable(keys, kinds, person=person_of if person else None, lists=lists)


def new_people(page: Page, distinct: Distinct) -> Slices[Page]:
    """Return `page` with only the people who are new to `distinct`."""
    sent = page._records  # noqa: SLF001  `records` would copy each of them
    profiles: list[Profile] | None = page.__dict__.get("profiles")
    new: list[int] = []
    pace = Pace()
    for number, record in enumerate(sent):
        identity = identity_of(record) if profiles is None else profiles[number].identity
        if distinct.is_new(identity, record):
            new.append(number)
        # Not after each one: most take less time than the clock.
        if number % 8 == 7 and pace.is_over():
            yield
            pace.restart()
    if len(new) == len(sent):
        return page
    rest = page._raw, page.cursor, page.next_cursor, page.window  # noqa: SLF001
    if profiles is None:
        return Page([sent[number] for number in new], *rest)
    return Page.of([profiles[number] for number in new], *rest)
