"""Names, types and order of the columns of every table. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from ..base.checks import check_no_database, is_unicode, shown, shown_setting
from ..errors import InvalidArgument

__all__ = [
    "CORE",
    "CORE_COLUMNS",
    "JSON_TEXTS",
    "KINDS",
    "OTHER_KINDS",
    "PERSON",
    "RESERVED",
    "TEXTS",
    "Column",
    "ColumnKind",
    "Flatten",
    "Kind",
    "Lists",
    "check_flatten",
    "check_lists",
    "column_names",
    "key_of",
]


Kind: TypeAlias = Literal["bool", "int64", "double", "text", "timestamp"]
"""The type of a flattened column."""


KINDS: tuple[Kind, ...] = get_args(Kind)


ColumnKind: TypeAlias = Literal[Kind, "texts", "json"]
"""The type of any column: that of a flattened one, a list of texts, or JSON text."""


Flatten: TypeAlias = Sequence[str] | Mapping[str, Kind | None]
"""Keys of `profileData`; as a mapping, each with the type of its column, or None."""


Lists: TypeAlias = Literal["list", "json"]
"""The form of a column of lists: a list of texts, or JSON text."""


_LISTS: tuple[Lists, ...] = get_args(Lists)


class Column(Struct, frozen=True):
    """One column of a table.

    Attributes:
        name: its name.
        kind: its type.
    """

    name: str
    kind: ColumnKind


TEXTS = ("identity", "email", "name", "phone")
"""The columns of plain text."""


JSON_TEXTS = ("profile_data", "events", "platform_info", "extra")
"""The columns of JSON text."""


CORE = (*TEXTS, "object_ids", *JSON_TEXTS)
"""The columns of a record itself, in order."""


CORE_COLUMNS = (
    *(Column(name, "text") for name in TEXTS),
    Column("object_ids", "texts"),
    *(Column(name, "json") for name in JSON_TEXTS),
)


PERSON = "person"
"""The column of the person's key."""


_PREFIX = "profile_data."

RESERVED = ("key", "account", PERSON, *CORE, "matched", "fetched_at", "added_at", "cdp")
"""The columns of any output of people, in order. Columns of flattened keys follow."""


def check_flatten(flatten: object, *, reserved: Sequence[str] = CORE) -> dict[str, Kind | None]:
    """Return `flatten` as a dict: each key of `profileData` that gets a column, and its type.

    The type is None where the values decide it.

    Raises:
        ConfigurationError: `flatten` is neither a list of text nor a mapping to types, a key is
            empty, holds a NUL or a lone surrogate, or is the URL of a database, or two columns
            would have the same name.
    """
    if isinstance(flatten, str) or not isinstance(flatten, Sequence | Mapping):
        one = "'plan', 'city'"
        if isinstance(flatten, str):
            one = ", ".join(shown(key.strip()) for key in flatten.split(","))
        of_it = ""
        if isinstance(flatten, Iterable) and not isinstance(flatten, str | bytes):
            of_it = ", or pass list(…) of it"
        raise InvalidArgument(
            f"flatten: expected a list of profileData keys, got {shown(flatten)}; write [{one}]"
            f"{of_it}"
        )
    for key in flatten:
        if not isinstance(key, str) or not key or "\0" in key or not is_unicode(key):
            raise InvalidArgument(
                "flatten: expected profileData keys, each a text that is not empty, got "
                f"{shown(key)}"
            )
        check_no_database("flatten", key)
    # Plain text, even of a subclass such as NumPy's.
    keys = [*map(str.__str__, flatten)]
    seen: set[str] = set()
    for name in column_names(keys, reserved=reserved):
        # Most databases ignore case in names.
        if name.casefold() in seen:
            raise InvalidArgument(
                f"flatten: two columns would be named {name!r}, ignoring case; leave out one key"
            )
        seen.add(name.casefold())
    if not isinstance(flatten, Mapping):
        return dict.fromkeys(keys)
    return {key: _checked_kind(key, kind) for key, kind in zip(keys, flatten.values(), strict=True)}


def _checked_kind(key: str, kind: object) -> Kind | None:
    for known in KINDS:
        if isinstance(kind, str) and kind == known:
            return known
    if kind is None:
        return None
    text, meant = shown_setting(kind), None
    if isinstance(kind, str):
        # --flatten takes KEY:TYPE.
        word = kind.rpartition(":")[2].lower()
        same = next((one for one in KINDS if one == word), None)
        meant = same or OTHER_KINDS.get(word) or _KINDS_OF_PANDAS.get(word)
    if meant is not None:
        text = f"{shown(kind)} (did you mean {meant!r}?)"
    raise InvalidArgument(
        f"flatten: the type of {shown(key)} is {text}; use one of the texts "
        f"{', '.join(map(repr, KINDS))}, or None for the one that the values share"
    )


OTHER_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        **dict.fromkeys(("string", "str", "varchar", "char"), "text"),
        **dict.fromkeys(("int", "integer", "bigint", "int32", "long"), "int64"),
        **dict.fromkeys(("float", "number", "decimal", "numeric", "real", "float64"), "double"),
        **dict.fromkeys(("boolean",), "bool"),
        **dict.fromkeys(("date", "datetime", "timestamptz"), "timestamp"),
    }
)
"""Names that other programs have for types, in lower case, and ours."""

_KINDS_OF_PANDAS: Mapping[str, Kind] = MappingProxyType(
    {"object": "text", "datetime64": "timestamp", "datetime64[ns]": "timestamp"}
)
"""Those of columns of a frame, which nobody writes behind a key."""


def check_lists(lists: object) -> Lists:
    """Return `lists`, which must be "list" or "json".

    Raises:
        ConfigurationError: `lists` is anything else.
    """
    for known in _LISTS:
        if isinstance(lists, str) and lists == known:
            return known
    raise InvalidArgument(f"lists: expected 'list' or 'json', got {shown(lists)}")


def column_names(flatten: Sequence[str], *, reserved: Sequence[str] = CORE) -> list[str]:
    """Return the name of the column of each key of `flatten`.

    A key whose name is in `reserved`, ignoring case, gets the prefix `profile_data.`.
    """
    taken = {name.casefold() for name in reserved}
    return [f"{_PREFIX}{key}" if key.casefold() in taken else key for key in flatten]


def key_of(column: str) -> str:
    """Return the key of `flatten` that has a column of this name."""
    key = column.removeprefix(_PREFIX)
    return key if key.casefold() in RESERVED else column
