"""Values of a condition that are meant as several: as one text, they would match nobody. No I/O."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..wire.filters import Operator

__all__ = ["is_several", "may_be_several", "one_value"]

_SEVERAL = re.compile(
    # Between brackets with more than one plain word, or joined by what no single text holds.
    r"[\[({].*[,;|\"'].*[\])}]|.*(?:\|.*|\s(?:or|nor)\s.*)",
    re.IGNORECASE | re.DOTALL,
)
_BEHIND_TEXT = re.compile(r"\s*(?:[,;|/]|(?:and|or|nor)\b)", re.IGNORECASE)
# Not the comma of a number, such as 1,5.
_COMMA = re.compile(r"(?<![0-9])[,;]\s*\S|[,;](?=\s*[^\s0-9])|[,;]\s+\S")


def is_several(text: str) -> bool:
    """Return whether a value can only be meant as several."""
    if not text.startswith('"'):
        return _SEVERAL.fullmatch(text) is not None
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return False
    return _BEHIND_TEXT.match(text, end) is not None


def may_be_several(text: str) -> bool:
    """Return whether a value holds a comma that may separate two, and is not JSON text."""
    return not text.startswith('"') and _COMMA.search(text) is not None


def one_value(operator: Operator, *, of_events: bool) -> str:
    """Return the message on several values: where they go.

    Args:
        operator: the operator in front of them, as in the query language.
        of_events: whether the condition is on the properties of an event.
    """
    name, values = "Customer Type", ["Gold", "Silver"]
    if of_events:
        name, values = "Category", ["Bag", "Hat"]
    is_negated = operator in ("not_equals", "does_not_contain")
    condition = {"name": name, "operator": "equals" if is_negated else operator, "value": values}
    query = (
        {"event_properties": [condition]}
        if of_events
        else {"common_profile_properties": {"profile_fields": [condition]}}
    )
    advice = (
        f"several values go, in place of this option, into the file of --query: {json.dumps(query)}"
    )
    if is_negated:
        # A list could exclude any of them, or all: the page does not say.
        advice = f"for none of several, pass the option once for each, and all must hold; {advice}"
    return (
        f"one value per condition; {advice}; if the text itself is meant, write it as JSON text, "
        f"in double quotation marks"
    )
