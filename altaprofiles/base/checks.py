"""Checks of callers' arguments. Each error names the argument, the fault and the fix.

The value of an option is part of the message. A key is not, because it belongs to a person.
"""

from __future__ import annotations

import math
import re
from collections.abc import Coroutine, Mapping
from datetime import date, time, timedelta
from functools import partial
from inspect import iscoroutinefunction, isroutine
from numbers import Number, Rational, Real
from operator import index
from os import PathLike
from typing import TypeGuard

from ..errors import InvalidArgument
from ..redaction import DATABASE_URL, STARS

__all__ = [
    "AS_INTS",
    "LOST_DIGITS",
    "NONE_GIVEN",
    "NO_DATABASE",
    "READ_AGAIN",
    "check_callback",
    "check_called",
    "check_flag",
    "check_key",
    "check_no_database",
    "check_seconds",
    "check_time_left",
    "check_whole",
    "form_of",
    "has_lost_digits",
    "is_harmless",
    "is_missing",
    "is_unicode",
    "is_whole_float",
    "plain",
    "shown",
    "shown_setting",
    "unknown",
    "whole",
    "whole_in",
]


def shown(value: object) -> str:
    """Return text, a number, a date or a path for a message, in one line of bounded length.

    A function is shown by its name. Of any other value only the type is named: tables, lists and
    objects may hold customers' data. Words stand for an int of thousands of digits, and stars for
    the URL of a database, which may hold a password.
    """
    try:
        text = " ".join(_repr(value).splitlines())
    except Exception:
        # A class of the caller's may raise anything there.
        return _without_repr(value)
    if DATABASE_URL.search(text):
        return repr(STARS)
    return text if len(text) <= 300 else f"{text[:200]} … {text[-100:]}"


NO_DATABASE = (
    "looks like a database; only an output can be one, written as "
    "postgresql://user@host/database/table"
)
"""The fault of the URL of a database in the place of something else. It may hold a password."""


def check_no_database(argument: str, text: str) -> None:
    """Raise `InvalidArgument` if a name or a path is the URL of a database, by a slip.

    Args:
        argument: the argument's name.
        text: the argument's value, which the message does not show.
    """
    if DATABASE_URL.search(text):
        raise InvalidArgument(f"{argument}: {NO_DATABASE}")


_PLAIN = (str, Number, date, time, timedelta, PathLike, type)


def _repr(value: object) -> str:
    # Values that are bound in a function, and its object, may be a secret or about a person.
    if isinstance(value, partial):
        return f"functools.partial({_repr(value.func)}, …)"
    if isroutine(value):
        return f"<function {value.__qualname__}>"
    if value is None or isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, list | tuple | dict | set) and not value:
        return f"an empty {type(value).__name__}"
    return f"a value of type {type(value).__name__}"


_HARMLESS = re.compile(
    r"(?s:.{0,6})|[A-Za-z]{1,15}[0-9]?|[a-z ./~_-]{1,30}[0-9]?|[=<>!~]{1,3}"
    # Names of time zones.
    r"|(?:\.*/)*[A-Z][A-Za-z_]{1,20}(?:/[A-Z][A-Za-z_-]{1,20}){0,2}|(?:GMT|UTC)[+-][0-9:]{1,5}"
)


def is_harmless(text: str) -> bool:
    """Return whether a text looks like a word or a number, not like a secret or a customer's ID."""
    return _HARMLESS.fullmatch(text) is not None


def shown_setting(value: object) -> str:
    """Return the value of an option that is a word, a number or a flag, as `shown` does.

    Any other text may be a secret or a key in the wrong place, and stars stand for it.
    """
    return "'***'" if isinstance(value, str) and not is_harmless(value) else shown(value)


def unknown(value: object, noun: str = "") -> str:
    """Return the fault of an option that is none of the known words, as `shown_setting` shows it.

    Args:
        value: the option's value.
        noun: the kind of word that it should be.
    """
    text = shown_setting(value)
    if value is None or isinstance(value, str | Number):
        return " ".join(filter(None, ("unknown", noun, text)))
    return f"expected text, got {text}"


def _without_repr(value: object) -> str:
    if not isinstance(value, int):
        return form_of(value)
    try:
        return int.__repr__(value)
    except ValueError:
        return "an int of thousands of digits"


_NUMPY_KINDS = frozenset("biufU")
"""Scalars of NumPy that have a plain value: bool, int, float and text. Not times, nor objects."""


def plain(value: object) -> object:
    """Return the plain value of a scalar of NumPy, as in a column of pandas; else `value` itself.

    An array stays what it is, even one of no dimensions.
    """
    kind = type(value)
    if kind.__module__ != "numpy" or kind.__name__ == "ndarray":
        return value
    if getattr(getattr(value, "dtype", None), "kind", None) not in _NUMPY_KINDS:
        return value
    # A long double stays one, as no float can hold it.
    return value.item()  # type: ignore[attr-defined]


def check_whole(name: str, value: object, *, least: int) -> int:
    """Return `value`, which must be an int of at least `least`, as a plain int.

    Raises:
        ConfigurationError: `value` is anything else.
    """
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidArgument(
            f"{name}: expected a whole number of at least {least}, got {shown_setting(value)}"
        )
    return value


def check_callback(name: str, value: object, *, takes: str) -> None:
    """Raise `ConfigurationError` unless `value` is None or a plain function.

    Args:
        name: the argument's name.
        value: the argument's value.
        takes: the function's argument, in words.
    """
    if iscoroutinefunction(value):
        raise InvalidArgument(
            f"{name}: expected a plain function of {takes}, not an async one, got {shown(value)}"
        )
    if isinstance(value, type):
        made = value.__name__
        raise InvalidArgument(
            f"{name}: expected a plain function of {takes}, got the class {made}; pass {made}()"
        )
    if value is not None and not callable(value):
        # Its `repr` may show a secret, as that of a client does.
        raise InvalidArgument(f"{name}: expected a plain function of {takes}, got {form_of(value)}")


def check_called(name: str, result: object) -> None:
    """Check what a function of the caller has returned.

    Raises:
        ConfigurationError: a coroutine, whose code would never run. A lambda that makes one cannot
            be told from other functions before it is called.
    """
    if result is not None and isinstance(result, Coroutine):
        result.close()
        raise InvalidArgument(
            f"{name}: the function has returned a coroutine, which nobody awaits; pass a plain "
            f"function"
        )


def check_flag(name: str, value: object) -> bool:
    """Return `value`, which must be True or False, as a plain bool.

    Raises:
        ConfigurationError: `value` is anything else.
    """
    value = plain(value)
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name}: expected True or False, got {shown_setting(value)}")
    return value


def check_seconds(name: str, value: object, *, zero: bool = False) -> float:
    """Return `value`, which must be a finite number of seconds above zero, as a plain number.

    Args:
        name: the argument's name.
        value: the argument's value.
        zero: whether zero is allowed as well.

    Raises:
        ConfigurationError: `value` is anything else.
    """
    seconds = _finite(value)
    if seconds is None or seconds < 0 or (seconds == 0 and not zero):
        bound = "of at least" if zero else "above"
        raise InvalidArgument(f"{name}: expected seconds {bound} 0, got {shown_setting(value)}")
    return seconds


def check_time_left(name: str, value: object) -> float:
    """Return `value`, a finite number of seconds, 0 and less included, as a plain number.

    Args:
        name: the argument's name.
        value: the argument's value.

    Raises:
        ConfigurationError: `value` is anything else.
    """
    if (seconds := _finite(value)) is None:
        raise InvalidArgument(f"{name}: expected a number of seconds, got {shown_setting(value)}")
    return seconds


def _finite(value: object) -> float | None:
    """Return a number that is finite, and None for any other value."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        # An int that no float can hold.
        return None


_MAX_DIGITS = 100

# U+FEFF and U+2028 come from files that were read with the wrong encoding or split in the wrong
# places. An ID that holds one is silently unknown to the service.
_NEVER_IN_A_KEY = {
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    "\ufeff",
    "\u2028",
    "\u2029",
}


def whole(value: object) -> int | None:
    """Return `value` as an int, or None if it is something else."""
    if isinstance(value, str | bool):
        return None
    try:
        return index(value)  # type: ignore[arg-type]
    except Exception:
        # Arrays raise errors of their own, and so may whatever was passed.
        return None


def whole_in(text: str) -> int | None:
    """Return the whole number that is not negative in `text`, or None if that is something else.

    It is in digits of ASCII, without the underscores that Python allows.
    """
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def check_key(name: str, value: object, *, noun: str = "identifier") -> str:
    """Return the identifier `value` as text.

    Args:
        name: the argument's name, with the position in it if it holds several.
        value: the identifier.
        noun: the kind of value that the caller has to pass.

    Raises:
        ConfigurationError: `value` is neither text nor an int, is empty, too long for an address,
            or holds a control character.
    """
    if type(value) is str and value.isascii() and value.isprintable() and value.strip():
        return _fitting(name, value, noun)
    if (number := whole(value)) is not None:
        if abs(number) < 10**_MAX_DIGITS:
            return str(number)
        raise InvalidArgument(
            f"{name}: an int of over {_MAX_DIGITS} digits is not an identifier; "
            f"pass the identifier itself",
            value=value,
        )
    if not isinstance(value, str):
        raise InvalidArgument(f"{name}: expected text or an int, got {_no_key(value)}", value=value)
    if not value.strip():
        raise InvalidArgument(f"{name}: empty; pass the {noun} itself", value=value)
    for position, character in enumerate(value):
        if character in _NEVER_IN_A_KEY:
            raise InvalidArgument(
                f"{name}: holds the control character U+{ord(character):04X} at index {position}; "
                f"strip it before the call",
                value=value,
            )
        if "\ud800" <= character <= "\udfff":
            raise InvalidArgument(
                f"{name}: holds half a surrogate pair at index {position}; decode the source as "
                f"UTF-8",
                value=value,
            )
    # The plain text of a subclass such as NumPy's.
    return _fitting(name, str.__str__(value), noun)


NONE_GIVEN = "none, as None counts as not given"
"""The number of identifiers in a call that has none. A cell without a value is None as well."""

AS_INTS = (
    "convert to int, a column of pandas with .dropna().astype('Int64'), of polars with "
    ".fill_nan(None).drop_nulls().cast(pl.Int64), or, with text among them, as `altaprofiles guide "
    "dataframes` does"
)
"""The fix of a whole number that is a float, as pandas has in columns with missing numbers."""

READ_AGAIN = "read the column again from its source, as text or integers (in pandas: Int64)"
"""The fix of floats so large that several integers became one: to convert them names another."""

LOST_DIGITS = f"a float too large to be exact, an integer that has lost digits; {READ_AGAIN}"
"""The fault of such a float, with the fix."""


def _no_key(value: object) -> str:
    """Return the type of a value that is not an identifier, with the fix."""
    kind = type(value).__name__
    if is_missing(value):
        # A column of polars has NaN only if it is of floats; one of text has no `fill_nan`.
        nan = ".fill_nan(None)" if _is_float(value) else ""
        fix = f"leave such keys out, in pandas with .dropna(), in polars with {nan}.drop_nulls()"
        return f"a missing value ({kind}); {fix}"
    if is_whole_float(value):
        if has_lost_digits(value):
            return LOST_DIGITS
        return f"a whole number as a float; {AS_INTS}"
    if isinstance(value, Mapping | list | tuple):
        fix = "pass one value of each row, and several to get_many"
    elif hasattr(type(value), "as_py"):
        fix = "pass .to_pylist() of a column of Arrow"
    else:
        fix = "convert it to str the way the service stores it"
    return f"a value of type {kind}; {fix}"


def is_missing(value: object) -> bool:
    """Return whether `value` is None, a NaN, or a missing value of pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return _is_float(value) and value != value


def is_whole_float(value: object) -> bool:
    """Return whether `value` is a float, also one of NumPy, without a fraction."""
    return _is_float(value) and float(value).is_integer()


def has_lost_digits(value: object, size: int = 8) -> bool:
    """Return whether a float may be another integer than the one that it was made of.

    Args:
        value: a number.
        size: its size in bytes, unless it is of NumPy, and knows its own.
    """
    exact = {2: 2**11, 4: 2**24}.get(getattr(value, "itemsize", size), 2**53)
    return _is_float(value) and abs(float(value)) >= exact


def _is_float(value: object) -> TypeGuard[Real]:
    return isinstance(value, Real) and not isinstance(value, Rational)


_LONGEST = 8000
"""Bytes of an address that every server takes (RFC 9110, 4.1)."""


def _fitting(name: str, key: str, noun: str) -> str:
    """Return `key`, unless it is too long for an address."""
    if 12 * len(key) <= _LONGEST:
        return key
    data = key.encode()
    length = len(data) + 2 * len(re.findall(rb"[^A-Za-z0-9_.~-]", data))
    if length > _LONGEST:
        raise InvalidArgument(
            f"{name}: would take {length:,} bytes in the address of a request, and servers take "
            f"at most {_LONGEST:,}; pass the {noun} itself",
            value=key,
        )
    return key


def is_unicode(text: str) -> bool:
    """Return whether UTF-8 can hold `text`. Python shows bytes that are not UTF-8 as surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def form_of(value: object) -> str:
    """Return the form of a value in words for readers of JSON and of Python, without the value."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
    return f"a value of type {type(value).__name__}"
