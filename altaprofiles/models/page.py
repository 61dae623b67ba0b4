"""One page of a cursor chain, and profiles as Arrow tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from msgspec import Raw, Struct

from ..base.jsontext import one_line
from ..flow.slices import Pace, Slices
from ..tables.arrow import records_to_arrow
from .people import Distinct, identity_of
from .profile import Profile

if TYPE_CHECKING:
    import pyarrow


__all__ = ["Page", "Text", "new_people", "to_arrow"]


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
        lines: Iterable[Raw | bytes] = self._records
        raw = self._raw
        if b"\n" in raw or b"\r" in raw if isinstance(raw, bytes) else raw.has_breaks:
            lines = map(one_line, map(bytes, lines))
        return b"\n".join([*lines, b""])

    def to_arrow(self, *, flatten: Sequence[str] = ()) -> pyarrow.Table:
        """Return a table with one row for each of `records`: see `altaprofiles.to_arrow`.

        This does not need `profiles`, and is fastest on pages requested with `decode=False`.

        Args:
            flatten: keys of `profile_data` that get a column of their own. A column has the type of
                this page's values, and may have another type on another page.

        Raises:
            ConfigurationError: pyarrow is not installed, or `flatten` is not a list of keys.
            DecodeError: a record is not a JSON object, on a page that was made by hand.

        >>> day = date(2026, 1, 1)
        >>> launched = session.profiles.by_event("App Launched", start=day, end=day)
        >>> tables = [page.to_arrow() async for page in launched.pages(decode=False)]
        >>> tables[0].column_names[:5]
        ['identity', 'email', 'name', 'phone', 'object_ids']
        """
        return records_to_arrow(self.records, flatten=flatten)

    def __repr__(self) -> str:
        last = "" if self.next_cursor else ", last"
        return f"Page({len(self._records)} profiles, {self.weight} bytes{last})"


def to_arrow(profiles: Iterable[Profile], *, flatten: Sequence[str] = ()) -> pyarrow.Table:
    """Return a table with one row for each of `profiles`, for pandas, polars or DuckDB.

    Columns: `identity`, `email`, `name`, `phone` (text); `object_ids` (list of text);
    `profile_data`, `events`, `platform_info` (JSON text as the service sent it, with U+FFFD for
    lone surrogates); `extra` (JSON text of all other keys, so that nothing is lost); then one
    column for each key of `flatten`.

    The table is held in memory, and briefly a second time while it is built. For millions of
    people, export to a file instead.

    Args:
        profiles: any iterable. It is read once, to the end.
        flatten: keys of `profile_data` that get a column of their own. The type is bool, int64 or
            double if all values fit it, else text. The column is named after its key, with the
            prefix `profile_data.` if that name is taken.

    Raises:
        ConfigurationError: pyarrow is not installed, or `flatten` is not a list of keys.

    >>> person = await session.profiles.get(identity="5555555555")
    >>> table = to_arrow([person] if person else [], flatten=["favoriteFood"])
    >>> table.select(["identity", "favoriteFood"]).to_pylist()
    [{'identity': '5555555555', 'favoriteFood': 'pizza'}]
    """
    return records_to_arrow((profile.raw for profile in profiles), flatten=flatten)


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
