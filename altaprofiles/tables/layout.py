"""The columns of every table, and the keys lifted into columns of their own. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from ..errors import ConfigurationError

__all__ = ["CORE", "JSON_TEXTS", "TEXTS", "Kind", "check_flatten", "column_names"]


Kind: TypeAlias = Literal["bool", "int64", "double", "text"]


TEXTS = ("identity", "email", "name", "phone")


JSON_TEXTS = ("profile_data", "events", "platform_info", "extra")


CORE = (*TEXTS, "object_ids", *JSON_TEXTS)
"""The columns of every table, in their order; the flattened ones follow."""


def check_flatten(flatten: object, *, reserved: Sequence[str] = CORE) -> tuple[str, ...]:
    """Return the keys of `profileData` to lift out, which must be texts, each once.

    Raises:
        ConfigurationError: it is anything else.
    """
    if isinstance(flatten, str) or not isinstance(flatten, Sequence):
        raise ConfigurationError(
            f"flatten: expected a list of profileData keys, got {flatten!r}; write ['plan', 'city']"
        )
    for key in flatten:
        if not isinstance(key, str) or not key or not _is_text(key):
            raise ConfigurationError(
                f"flatten: expected profileData keys, which are text that is not empty, got {key!r}"
            )
    # Of a subclass, such as NumPy's, the plain text.
    keys = tuple(map(str.__str__, flatten))
    seen: set[str] = set()
    for name in column_names(keys, reserved=reserved)[len(reserved) :]:
        # Most databases take names that differ only in case for one.
        if name.casefold() in seen:
            raise ConfigurationError(
                f"flatten: two columns would be named {name!r}, ignoring case; leave one out"
            )
        seen.add(name.casefold())
    return keys


def column_names(flatten: Sequence[str], *, reserved: Sequence[str] = CORE) -> list[str]:
    """Return the name of every column: `reserved`, then one for each key of `flatten`.

    A key whose name is taken gets `profile_data.` in front.
    """
    taken = {name.casefold() for name in reserved}
    lifted = (f"profile_data.{key}" if key.casefold() in taken else key for key in flatten)
    return [*reserved, *lifted]


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
