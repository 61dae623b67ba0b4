"""The grammar of `--where` and `--profile-where`: NAME OP VALUE. No I/O."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..wire.filters import Filter, Operator

__all__ = ["EXAMPLE", "GRAMMAR", "MOST_DIGITS", "GrammarError", "is_operator", "parse_filter"]

EXAMPLE = "'Amount > 100'"

GRAMMAR = (
    "A CONDITION is NAME OP VALUE in quotation marks, with =, !=, >, >=, <, <=, contains or does "
    "not contain; or NAME exists, NAME does not exist. The first operator in it counts. A VALUE "
    "that JSON would read as a number is one. So are true and false, in upper or lower case. Any "
    "other is text, without the blanks around it. A NAME or a VALUE in double quotation marks is "
    'JSON text: \'"a = b" = "100"\'.'
)
"""The paragraph on conditions in the help of each command that takes them."""

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

# A run of signs is one operator, known or not: ==, =>, <>, =~, > =. Behind a blank, ! and ~ are
# the beginning of a value.
_SYMBOL = r"(?:[<>=≠≥≤]|:(?==)|!(?=\s*[<>=~]))[!<>=~]*(?:\s+[<>=]+)*"
_WORD = r"(?:does\s+not\s+contain|contains)(?!\S)"
_LAST = r"(?:does\s+not\s+exist|exists)\Z"
_FIRST_OPERATOR = re.compile(rf"(?<!\A)(?:{_SYMBOL})|\A[<>=≠≥≤]|(?<=\s)(?:{_WORD}|{_LAST}|~(?=\s))")
# Behind a name in quotation marks, where nothing else can stand.
_NEXT_OPERATOR = re.compile(rf"\s*({_SYMBOL}|{_WORD}|(?:does\s+not\s+exist|exists)(?!\S))")
_LONE_OPERATOR = re.compile(rf"(?:{_WORD}|{_LAST})")
# Words that are an operator, or the beginning of one, and must not become the end of a name.
_HALF_OPERATOR = re.compile(r"(?:\A|\s)(?:(?:does|doesn't|is)(?:\s+not)?|not)\Z", re.IGNORECASE)
# Operators of other spellings, that must not become a part of a name: 'City equals a = b'.
_INNER_OPERATOR = re.compile(
    r"(?<=\s)(?:contains|equals|does[\s_]+not[\s_]+\w+|(?:greater|less)[\s_]+than\w*)(?=\s)",
    re.IGNORECASE,
)
_JOINT = r"(?:[,;]|\s(?:and|or|&&?|\|\|?))\s"
_CONJUNCTION = re.compile(_JOINT, re.IGNORECASE)
_JOINED_NAMES = re.compile(rf"\sexists?{_JOINT}", re.IGNORECASE)
_THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<fraction>\.[0-9]+)?(?P<exponent>[eE][+-]?[0-9]+)?")

MOST_DIGITS = 30
"""Digits of an int that are read. Python refuses thousands of them, and a filter takes 19."""

_INT64 = range(-(2**63), 2**63)


_ONE_EACH = (
    f"two conditions in one, and there is no 'and' or 'or'; pass the option once for each, and all "
    f"must hold: write {EXAMPLE}, and in the next one 'Amount < 500'; if it is one name or value, "
    f"write it as JSON text, in double quotation marks"
)
_OTHER_LANGUAGES = {
    "between": f"there is no 'between'; write two conditions: {EXAMPLE} and 'Amount < 500'",
    "in": "there is no 'in'; write 'City = York', or a list of values in the file of --query",
}


class GrammarError(Exception):
    """A text is not NAME OP VALUE. The message does not show the value."""


def parse_filter(text: str) -> Filter:
    """Return the filter that `text` describes.

    The first operator in `text` counts. A name or a value in quotation marks is JSON text. Any
    other value is a number if JSON would read it as one, True or False if it is called so in any
    case, else text as it stands, without blanks around it.

    Raises:
        GrammarError: `text` has another form, or the value does not go with the operator.
    """
    from ..wire.filters import Filter

    parts = _split(text.strip())
    _check_name(parts.name)
    if parts.operator not in _BARE:
        return Filter(parts.name, _OPERATORS[parts.operator], _value(parts))
    if parts.value:
        raise GrammarError(f"{parts.operator} takes no value; write 'Email {parts.operator}'")
    return Filter(parts.name, _OPERATORS[parts.operator])


def is_operator(word: str) -> bool:
    """Return whether `word`, alone, can only be a part of a condition."""
    return word in _SYMBOLS or word in ("contains", "exists")


class _Parts(NamedTuple):
    name: str
    operator: str
    """As in `_OPERATORS`."""
    value: str
    """The text behind the operator, with the blanks around it."""


def _split(text: str) -> _Parts:
    if text.startswith('"'):
        name, rest = _quoted_name(text)
        if (found := _NEXT_OPERATOR.match(rest)) is None:
            raise GrammarError(f"no operator behind the name; {_guess(rest, is_start=True)}")
        return _Parts(name, _known(found[1]), rest[found.end() :])
    found = _FIRST_OPERATOR.search(text)
    name = text if found is None else text[: found.start()].strip()
    if not name or (found is None and _LONE_OPERATOR.match(text)):
        raise GrammarError(f"no name in front of the operator; {_advice()}")
    if found is None:
        raise GrammarError(f"no operator; {_guess(text)}")
    if _in_other_marks(name):
        raise GrammarError(
            "the name is in quotation marks that JSON does not have; write 'Customer Type = Gold', "
            "or '\"Customer Type\" = Gold'"
        )
    if _JOINED_NAMES.search(name):
        raise GrammarError(_ONE_EACH)
    if (inner := _INNER_OPERATOR.search(name)) is not None:
        raise GrammarError(
            f"two operators; {_guess(name[inner.start() :], is_start=True)}; if the first one is a "
            f"part of the name, write the name as JSON text, in double quotation marks"
        )
    if (half := _HALF_OPERATOR.search(name)) is not None:
        rest = name[half.start() :] + " " + text[found.start() :]
        raise GrammarError(
            f"{name!r} ends in a part of an operator; {_guess(rest, is_start=True)}; if it is the "
            f"name, write it as JSON text, in double quotation marks"
        )
    return _Parts(name, _known(found[0]), text[found.end() :])


def _quoted_name(text: str) -> tuple[str, str]:
    try:
        name, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        raise GrammarError(
            f"it begins with a quotation mark, and the name is not JSON text; write "
            f"""'"Customer \\"Type\\"" = Gold', or {EXAMPLE}"""
        ) from None
    return str(name), text[end:]


def _check_name(name: str) -> None:
    from ..errors import ConfigurationError
    from ..wire.filters import check_name

    try:
        check_name("name", name)
    except ConfigurationError:
        fault = "is empty"
        if name.strip():
            fault = "holds a control character, or one that is not UTF-8"
        raise GrammarError(
            f"the name {fault}; write the name as in the dashboard, such as {EXAMPLE}"
        ) from None


def _known(operator: str) -> str:
    """Return an operator with single blanks.

    Raises:
        GrammarError: it is a run of signs that is not an operator.
    """
    operator = " ".join(operator.split())
    if operator in _OPERATORS:
        return operator
    raise GrammarError(
        f"{operator} is not an operator, or two operators behind each other; "
        f"{_meaning(operator) or _advice()}; if the value begins so, write it as JSON text, in "
        f"double quotation marks"
    )


def _guess(text: str, *, is_start: bool = False) -> str:
    """Return advice on a text in which no operator was found where one must stand.

    Args:
        text: the condition, or what stands behind its name.
        is_start: whether the operator must be at the start of `text`.
    """
    from difflib import get_close_matches

    from ..wire.filters import MEANINGS

    words = text.lower().split()
    if words[:1] == ["is"] and len(words) > 1 and words[1] in MEANINGS:
        del words[0]
    # The longest one first, so that "does not contains" is not taken for "contains".
    for first in range(0 if is_start else 1, 1 if is_start else len(words)):
        for last in range(min(len(words), first + 6), first, -1):
            phrase = "_".join(words[first:last]).replace("-", "_")
            if phrase in _OTHER_LANGUAGES:
                return _OTHER_LANGUAGES[phrase]
            if phrase in MEANINGS:
                return _meaning(phrase) or _advice()
    for word in words[0 if is_start else 1 :]:
        if close := get_close_matches(word, ("contains", "exists", "equals"), 1, 0.75):
            return _meaning(close[0]) or _advice()
    return _advice()


def _meaning(text: str) -> str | None:
    """Return advice on another spelling of an operator, or None if it is none."""
    from ..wire.filters import MEANINGS

    meant = MEANINGS.get("_".join(text.split()))
    if meant is None:
        return None
    operator = next(ours for ours, theirs in _OPERATORS.items() if theirs == meant)
    if operator in _BARE:
        example = f"'Email {operator}'"
    elif operator.endswith(("contains", "contain")):
        example = f"'City {operator} York'"
    else:
        example = f"'Amount {operator} 100'"
    return f"did you mean {operator}? {_advice(example)}"


def _value(parts: _Parts) -> str | float:
    operator, text = parts.operator, parts.value.strip()
    if not text:
        raise GrammarError(f"no value behind {operator}; write {EXAMPLE}")
    _check_single(operator, text)
    value = _read(operator, text)
    if isinstance(value, str):
        if _OPERATORS[operator] in _orders():
            raise GrammarError(_no_number(parts))
        _check_text(operator, value)
    elif isinstance(value, float) and value in (float("inf"), -float("inf")):
        raise GrammarError(f"the number behind {operator} is too large, it is not finite")
    elif isinstance(value, int) and value not in _INT64:
        raise GrammarError(
            f"the number behind {operator} has more than 64 bits; if it is text, write it in "
            f"""double quotation marks: '"ID" = "12345678901234567890"'"""
        )
    return value


def _orders() -> frozenset[str]:
    from ..wire.filters import OF_ORDER

    return OF_ORDER


def _read(operator: str, text: str) -> str | float:
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
        # As the query language has it.
        return text.capitalize()
    if (number := _NUMBER.fullmatch(text)) is None:
        return text
    if number["fraction"] or number["exponent"]:
        return float(text)
    # Cut short, it is still too large for a filter.
    return int(text[:MOST_DIGITS])


def _check_single(operator: str, text: str) -> None:
    """Raise `GrammarError` if a value holds another condition, or is a number as people write it.

    Both would be compared as text, and match nobody.
    """
    if text.startswith('"'):
        return
    for joint in _CONJUNCTION.finditer(text):
        rest = text[joint.end() :]
        if _FIRST_OPERATOR.search(rest) or re.match(_SYMBOL, rest):
            raise GrammarError(_ONE_EACH)
    if operator in _SYMBOLS and _THOUSANDS.fullmatch(text):
        as_text = '; if it is text, write \'"Size" = "1,000"\'' if operator in ("=", "!=") else ""
        raise GrammarError(
            f"the number behind {operator} has separators between its digits; write it without, "
            f"such as 'Amount {operator} 1000'{as_text}"
        )


def _check_text(operator: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise GrammarError(
            f"the value behind {operator} is not UTF-8, or holds half a surrogate pair"
        ) from None


def _no_number(parts: _Parts) -> str:
    text = f"{parts.operator} compares numbers, and the value behind it is not one; "
    if _NUMBER.fullmatch(parts.name):
        return f"{text}the name stands in front: write {EXAMPLE}"
    return (
        f"{text}write it like 100, -3 or 0.5, without a plus, separators, a unit or quotation "
        f"marks: {EXAMPLE}"
    )


_OTHER_MARKS = {("'", "'"), ("`", "`"), ("\u201c", "\u201d"), ("\u2018", "\u2019")}


def _in_other_marks(text: str) -> bool:
    """Return whether a text is quoted as in SQL, or as word processors do."""
    return len(text) > 1 and (text[0], text[-1]) in _OTHER_MARKS


def _advice(example: str = EXAMPLE) -> str:
    others = ", ".join(operator for operator in _OPERATORS if operator not in _BARE)
    return (
        f"write NAME OP VALUE such as {example}, in quotation marks, with {others}; or "
        f"'Email exists', 'Email does not exist'"
    )
