"""The grammar of `--where` and `--profile-where`: NAME OP VALUE. No I/O."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..wire.filters import Filter, Operator

__all__ = ["EXAMPLE", "MOST_DIGITS", "GrammarError", "parse_filter"]

EXAMPLE = "'Amount > 100'"

_OPERATORS: dict[str, Operator] = {
    "=": "equals",
    "!=": "not_equals",
    ">": "greater_than",
    ">=": "greater_than_equals",
    "<": "less_than",
    "<=": "less_than_equals",
    "contains": "contains",
    "does not contain": "does_not_contain",
    "exists": "exists",
    "does not exist": "does_not_exist",
}
_SYMBOLS = ("=", "!=", ">", ">=", "<", "<=")
_BARE = ("exists", "does not exist")

_SYMBOL = r"[!<>]=|[=<>]"
_WORD = r"(?:does\s+not\s+contain|contains)(?!\S)"
_LAST = r"(?:does\s+not\s+exist|exists)\Z"
_FIRST_OPERATOR = re.compile(rf"{_SYMBOL}|(?<=\s)(?:{_WORD}|{_LAST})")
# Behind a name in quotation marks, where nothing else can stand.
_NEXT_OPERATOR = re.compile(rf"\s*({_SYMBOL}|{_WORD}|(?:does\s+not\s+exist|exists)(?!\S))")
_LONE_OPERATOR = re.compile(rf"(?:{_WORD}|{_LAST})")
# The beginning of another operator, which must not become the end of a name.
_HALF_OPERATOR = re.compile(r"(?:\A|\s)(?:does|doesn't|is|not)\Z|!\Z", re.IGNORECASE)
# More of an operator, which must not become the beginning of a value: ==, =>, <>, =~.
_TWO_OPERATORS = re.compile(r"\s*[=<>]|[!~]")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<fraction>\.[0-9]+)?(?P<exponent>[eE][+-]?[0-9]+)?")

MOST_DIGITS = 30
"""Digits of an int that are read. Python refuses thousands of them, and a filter takes 19."""


class GrammarError(Exception):
    """A text is not NAME OP VALUE. The message does not show the value."""


def parse_filter(text: str) -> Filter:
    """Return the filter that `text` describes.

    The first operator in `text` counts. A name or a value in quotation marks is JSON text. Any
    other value is a number if JSON would read it as one, True or False if it is called so in any
    case, else text as it stands, without blanks around it.

    Raises:
        GrammarError: `text` has another form.
        ConfigurationError: the value does not go with the operator.
    """
    from ..wire.filters import Filter

    parts = _split(text.strip())
    operator = " ".join(parts.operator.split())
    if operator in _BARE:
        if parts.value:
            raise GrammarError(f"{operator} takes no value; write 'Email {operator}'")
        return Filter(parts.name, _OPERATORS[operator])
    return Filter(parts.name, _OPERATORS[operator], _value(parts.value, operator))


class _Parts(NamedTuple):
    name: str
    operator: str
    value: str
    """The text behind the operator, with the blanks around it."""


def _split(text: str) -> _Parts:
    if text.startswith('"'):
        name, rest = _quoted_name(text)
        if (found := _NEXT_OPERATOR.match(rest)) is None:
            raise GrammarError(f"no operator behind the name; {_advice()}")
        return _Parts(name, found[1], rest[found.end() :])
    found = _FIRST_OPERATOR.search(text)
    name = text if found is None else text[: found.start()].strip()
    if not name or (found is None and _LONE_OPERATOR.match(text)):
        raise GrammarError(f"no name in front of the operator; {_advice()}")
    if found is None:
        raise GrammarError(f"no operator; {_advice()}")
    if _in_other_marks(name):
        raise GrammarError(
            "the name is in quotation marks that JSON does not have; write 'Customer Type = Gold', "
            "or '\"Customer Type\" = Gold'"
        )
    if _HALF_OPERATOR.search(name):
        raise GrammarError(
            f"{name!r} ends in a part of an operator; {_advice()}; if it is the name, write it as "
            f"JSON text, in quotation marks"
        )
    return _Parts(name, found[0], text[found.end() :])


def _quoted_name(text: str) -> tuple[str, str]:
    try:
        name, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        raise GrammarError(
            f"it begins with a quotation mark, and the name is not JSON text; write "
            f"""'"Customer \\"Type\\"" = Gold', or {EXAMPLE}"""
        ) from None
    return str(name), text[end:]


def _value(text: str, operator: str) -> str | float:
    if operator in _SYMBOLS and _TWO_OPERATORS.match(text):
        raise GrammarError(
            f"two operators behind each other; {_advice()}; if the value begins so, write it as "
            f"JSON text, in quotation marks"
        )
    text = text.strip()
    if not text:
        raise GrammarError(f"no value behind {operator}; write {EXAMPLE}")
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:
            raise GrammarError(
                f"the value behind {operator} begins with a quotation mark, and is not JSON text; "
                f"""write '"Size" = "5\\""', or '"Size" = "five"'"""
            ) from None
    if _in_other_marks(text):
        raise GrammarError(
            f"the value behind {operator} is in quotation marks that JSON does not have; write "
            "'Customer Type = Gold', or 'Customer Type = \"Gold\"'"
        )
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if (number := _NUMBER.fullmatch(text)) is None:
        return text
    if number["fraction"] or number["exponent"]:
        return float(text)
    # Cut short, it is still too large for a filter.
    return int(text[:MOST_DIGITS])


_OTHER_MARKS = {("'", "'"), ("`", "`"), ("\u201c", "\u201d"), ("\u2018", "\u2019")}


def _in_other_marks(text: str) -> bool:
    """Return whether a text is quoted as in SQL, or as word processors do."""
    return len(text) > 1 and (text[0], text[-1]) in _OTHER_MARKS


def _advice() -> str:
    symbols = ", ".join(operator for operator in _OPERATORS if operator not in _BARE)
    return f"write NAME OP VALUE such as {EXAMPLE}, with {symbols}; or 'Email exists'"
