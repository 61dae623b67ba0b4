"""Values that a table cannot hold as they were. Pure."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Mended", "mistyped_words"]


class Mended(Struct, frozen=True):
    """The number of values that a table holds in another form, or not at all.

    Attributes:
        replaced: values in which some text stands for what the table cannot hold.
        mistyped: values that are null because they are of another type than their column, by the
            name of the column.
    """

    replaced: int = 0
    mistyped: dict[str, int] = {}

    @property
    def total(self) -> int:
        """The number of values of either kind."""
        return self.replaced + sum(self.mistyped.values())

    def __add__(self, other: Mended) -> Mended:
        if not other.mistyped:
            return Mended(self.replaced + other.replaced, self.mistyped)
        names = dict.fromkeys((*self.mistyped, *other.mistyped))
        sums = {name: self.mistyped.get(name, 0) + other.mistyped.get(name, 0) for name in names}
        return Mended(self.replaced + other.replaced, sums)

    def __sub__(self, other: Mended) -> Mended:
        rest = {name: count - other.mistyped.get(name, 0) for name, count in self.mistyped.items()}
        differing = {name: count for name, count in rest.items() if count}
        return Mended(self.replaced - other.replaced, differing)


def mistyped_words(mistyped: dict[str, int]) -> str:
    """Return the columns with values that do not fit, and their numbers, in words."""
    total = sum(mistyped.values())
    columns = ", ".join(f"{name!r} {count:,}" for name, count in mistyped.items())
    return f"{total:,} values that do not fit their column are null: {columns}"
