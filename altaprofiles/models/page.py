"""One page of a cursor chain, and profiles as Arrow tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Raw, Struct

from ..flow.slices import ITEMS, Slices
from ..tables.arrow import records_to_arrow
from .people import Distinct
from .profile import Profile

if TYPE_CHECKING:
    import pyarrow


__all__ = ["Page", "to_arrow"]


class Page(Struct, frozen=True, dict=True):
    """One page of a cursor chain. In memory it takes twice its body.

    Attributes:
        raw: the body as the service sent it, decompressed.
        cursor: the cursor that asked for this page; asking again gives the same page.
        next_cursor: the cursor of the next page of the same chain, or None on its last page. Keep
            it to resume that chain, and with several windows one for each: see `window`.
        window: first and last day (or second) of the chain, as they were sent; None when the chain
            was resumed from a cursor.
    """

    _records: Sequence[Raw | bytes]
    raw: bytes
    cursor: str
    next_cursor: str | None
    window: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        profiles: list[Profile],
        raw: bytes,
        cursor: str,
        next_cursor: str | None,
        window: tuple[int, int] | None = None,
    ) -> Page:
        """Return a page whose profiles are decoded already."""
        page = cls([profile.raw for profile in profiles], raw, cursor, next_cursor, window)
        page.__dict__["profiles"] = profiles
        return page

    @cached_property
    def records(self) -> list[bytes]:
        """Each record as the service sent it, in its order. May be empty on any page.

        With `distinct` and several windows, people of earlier pages are left out here, and of
        `profiles` and `encode()`, though not of `raw`.
        """
        return list(map(bytes, self._records))

    @cached_property
    def profiles(self) -> list[Profile]:
        """The people on it, one for each of `records`.

        Raises:
            DecodeError: a record cannot be read, on a page asked for with `decode=False`.
        """
        return [
            Profile.decode(record, f"$.records[{number}]")
            for number, record in enumerate(self._records)
        ]

    def of_new_people(self, distinct: Distinct) -> Slices[Page]:
        """Return this page with the people that are new to `distinct` only."""
        new: list[Profile] = []
        for number, profile in enumerate(self.profiles, 1):
            if distinct.is_new(profile):
                new.append(profile)
            if number % ITEMS == 0:
                yield
        if len(new) == len(self.profiles):
            return self
        return Page.of(new, self.raw, self.cursor, self.next_cursor, self.window)

    def encode(self) -> bytes:
        """Return `records` as NDJSON: each on a line of its own, the last line ended, too.

        Thousands take a millisecond or two; when the service pretty-prints, some tens.

        >>> Page([b'{"identity": "7"}', b'{"identity": "8"}'], b"", "c1", None).encode()
        b'{"identity": "7"}\\n{"identity": "8"}\\n'
        """
        lines = self._records
        if b"\n" in self.raw or b"\r" in self.raw:
            lines = [profile.encode() for profile in self.profiles]
        return b"\n".join([*lines, b""])

    def to_arrow(self, *, flatten: Sequence[str] = ()) -> pyarrow.Table:
        """Return `records` as a table, a row for each: see `altaprofiles.to_arrow`.

        Profiles are not needed: it is fastest on pages that were asked for with `decode=False`.

        Args:
            flatten: keys of `profile_data` that get a column of their own. Their types are those of
                this page's values, and may differ from page to page.

        Raises:
            ConfigurationError: pyarrow is not installed, or `flatten` is no list of keys.
            DecodeError: a record is no object, on a page that was asked for with `decode=False`.

        >>> day = date(2026, 1, 1)
        >>> async for page in session.profiles.by_event("App Launched", start=day, end=day).pages():
        ...     table = page.to_arrow()
        >>> table.column_names[:5]
        ['identity', 'email', 'name', 'phone', 'object_ids']
        """
        return records_to_arrow(self.records, flatten=flatten)

    def __repr__(self) -> str:
        last = "" if self.next_cursor else ", last"
        return f"Page({len(self._records)} profiles, {len(self.raw)} bytes{last})"


def to_arrow(profiles: Iterable[Profile], *, flatten: Sequence[str] = ()) -> pyarrow.Table:
    """Return a table with one row for each of `profiles`, for pandas, polars or DuckDB.

    Columns: `identity`, `email`, `name`, `phone` (text); `object_ids` (list of text);
    `profile_data`, `events`, `platform_info` (JSON text as the service sent it), `extra` (JSON text
    of all other keys, so that nothing is lost). Then one for each key of `flatten`.

    Everything is held in memory, twice for a moment: for millions of people, export to a file.

    Args:
        profiles: any iterable; it is read once, to its end.
        flatten: keys of `profile_data` that get a column of their own: bool, int64 or double where
            all values are, else text. Named like the key, with `profile_data.` in front where that
            name is taken.

    Raises:
        ConfigurationError: pyarrow is not installed, or `flatten` is no list of keys.

    >>> person = await session.profiles.get(identity="5555555555")
    >>> table = to_arrow([person], flatten=["favoriteFood"])
    >>> table.select(["identity", "favoriteFood"]).to_pylist()
    [{'identity': '5555555555', 'favoriteFood': 'pizza'}]
    """
    return records_to_arrow((profile.raw for profile in profiles), flatten=flatten)
