"""Names and order of the columns of every table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from ..base.checks import is_unicode
from ..errors import ConfigurationError

__all__ = ["CORE", "JSON_TEXTS", "TEXTS", "Kind", "check_flatten", "column_names"]


Kind: TypeAlias = Literal["bool", "int64", "double", "text"]
"""The type of a flattened column."""


TEXTS = ("identity", "email", "name", "phone")
"""The columns of plain text."""


JSON_TEXTS = ("profile_data", "events", "platform_info", "extra")
"""The columns of JSON text."""


CORE = (*TEXTS, "object_ids", *JSON_TEXTS)
"""The columns of every table, in order. Columns of flattened keys follow."""


def check_flatten(flatten: object, *, reserved: Sequence[str] = CORE) -> tuple[str, ...]:
    """Return `flatten` as a tuple: the keys of `profileData` that get a column of their own.

    Raises:
        ConfigurationError: `flatten` is not a list of text, a key is empty or holds a NUL or a lone
            surrogate, or two columns would have the same name.
    """
    if isinstance(flatten, str) or not isinstance(flatten, Sequence):
        raise ConfigurationError(
            f"flatten: expected a list of profileData keys, got {flatten!r}; write ['plan', 'city']"
        )
    for key in flatten:
        if not isinstance(key, str) or not key or "\0" in key or not is_unicode(key):
            raise ConfigurationError(
                f"flatten: expected profileData keys, each a text that is not empty, got {key!r}"
            )
    # Plain text, even of a subclass such as NumPy's.
    keys = tuple(map(str.__str__, flatten))
    seen: set[str] = set()
    for name in column_names(keys, reserved=reserved)[len(reserved) :]:
        # Most databases ignore case in names.
        if name.casefold() in seen:
            raise ConfigurationError(
                f"flatten: two columns would be named {name!r}, ignoring case; leave out one key"
            )
        seen.add(name.casefold())
    return keys


def column_names(flatten: Sequence[str], *, reserved: Sequence[str] = CORE) -> list[str]:
    """Return the names of all columns: `reserved`, then one for each key of `flatten`.

    A key whose name is in `reserved`, ignoring case, gets the prefix `profile_data.`.
    """
    taken = {name.casefold() for name in reserved}
    lifted = (f"profile_data.{key}" if key.casefold() in taken else key for key in flatten)
    return [*reserved, *lifted]
