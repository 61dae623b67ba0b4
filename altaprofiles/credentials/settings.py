"""Settings of credentials: their values, and their names where they come from. No I/O."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar

from ..base.checks import check_no_database, is_harmless, plain, shown
from ..base.paths import path_text
from ..errors import ConfigurationError, InvalidArgument
from ..redaction import STARS, as_secret

__all__ = [
    "CHAIN_SLOTS",
    "InvalidSetting",
    "MaxInFlight",
    "Source",
    "can_name",
    "check_max_in_flight",
    "check_name",
    "check_shared",
    "check_token",
    "explained",
    "hide_misplaced",
    "renamed",
    "shared_text",
]

T = TypeVar("T")

CHAIN_SLOTS = 3
"""Chain requests that CleverTap allows in flight, and counts as many.

https://developer.clevertap.com/docs/api-request-limit
"""

MaxInFlight: TypeAlias = int | Literal["auto"]
"""Most requests in flight at once: a number, or as many as the service turns out to take."""

Source: TypeAlias = Literal["argument", "function", "environment", "file"]
"""The places that a value of credentials comes from."""

_VERBS = {"argument": "pass", "function": "return", "environment": "set", "file": "store"}
_VOWELS = ("a", "e", "i", "o", "u")
_TOKEN = re.compile(r"[\x21-\x7e]+")

_MAX_NAME = 100


def hide_misplaced(setting: T) -> T:
    """Return a setting in a form that messages and tracebacks may show.

    Text that looks like neither a word nor a number may be the secret in the wrong place.
    """
    text = setting.strip() if isinstance(setting, str) else ""
    is_hidden = not (text.isdecimal() or is_harmless(text))
    return as_secret(setting) if is_hidden else setting  # type: ignore[return-value]


def check_max_in_flight(value: object) -> MaxInFlight:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        is_quoted = isinstance(value, str) and value.strip().isdecimal()
        raise InvalidArgument(
            f"max_in_flight: expected a whole number of at least 1, or 'auto', got {shown(value)}"
            + ("; leave out the quotation marks" if is_quoted else "")
        )
    return value


def check_shared(value: object) -> bool | str:
    """Return whether limits are shared between processes, or the folder in which they are."""
    value = plain(value)
    if isinstance(value, bool):
        return value
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not os.path.isabs(text):  # noqa: PTH117
        # Processes with other working folders, or homes, would not share a relative one.
        raise InvalidArgument(
            f"shared: expected True, False or the absolute path of a folder, got {shown(value)}"
        )
    return str.__str__(path_text("shared", text))


def shared_text(shared: bool | str) -> str:
    return f", shared={shared!r}" if shared else ""


def check_token(name: str, value: object, kind: str, source: Source = "argument") -> None:
    """Raise `InvalidArgument`, with a remedy for its source, unless a value can be a header.

    Args:
        name: the argument.
        value: the value; empty if it is a secret that is not text.
        kind: the type of the value.
        source: the place that the value comes from.
    """
    if not isinstance(value, str) or not value:
        # The message names the type only, because the value may be a secret.
        known = {"str": "empty text", "Secret": "empty text", "NoneType": "None", "bytes": "bytes"}
        found = known.get(kind) or f"{'an' if kind[:1].lower() in _VOWELS else 'a'} {kind}"
        raise InvalidArgument(
            f"{name}: expected text that is not empty, got {found}; {_remedy(name, kind, source)}"
        )
    if value == STARS:
        raise InvalidArgument(
            f"{name}: holds the stars that stand for a secret, as in a copy of credentials made "
            f"with `copy.deepcopy` or `asdict`; {_VERBS[source]} the value itself"
        )
    # The value becomes an HTTP header: a line break in it would start another header.
    if not _TOKEN.fullmatch(value):
        fix = "the bare value that the dashboard shows"
        if _TOKEN.fullmatch(value.strip()):
            # As of a file that ends with a line break.
            fix = "it without those at its start and end"
            if source in ("argument", "function"):
                fix += ", as .strip() returns it"
        raise InvalidArgument(
            f"{name}: holds a space, a line break or a character outside ASCII; "
            f"{_VERBS[source]} {fix}"
        )


def _remedy(name: str, kind: str, source: Source) -> str:
    if kind in ("coroutine", "Task", "Future"):
        can_be_function = source == "argument" and name != "account_id"
        return "pass the function itself, without ()" if can_be_function else "await it"
    if kind in ("bytes", "bytearray"):
        return f"{_VERBS[source]} text, as .decode() returns it"
    if kind == "int" and source != "function":
        return f"{_VERBS[source]} it in quotation marks"
    if source == "function":
        return "let the function return the text that the dashboard shows"
    return "copy it from the dashboard"


def can_name(name: object) -> bool:
    """Return whether `name` can be the name of an `Alta` agent."""
    # One of blanks alone would be an account that no text shows.
    if not isinstance(name, str) or not name.strip():
        return False
    return name.isprintable() and len(name) <= _MAX_NAME


def check_name(name: object) -> None:
    if not can_name(name):
        raise InvalidArgument(
            f"name: expected 1 to {_MAX_NAME} printable characters, not only blanks, got "
            f"{shown(name)}; use a short name, such as 'support-agent'"
        )
    check_no_database("name", str(name))


class InvalidSetting(ConfigurationError):
    """A setting of the environment or the credentials file is invalid, beside valid secrets."""


_ARGUMENTS = (
    *("region", "endpoint", "base_url", "max_in_flight", "requests_per_minute", "name"),
    *("timezone", "shared"),
)


def explained(
    error: ConfigurationError, name: Callable[[str], str | None], place: str = ""
) -> ConfigurationError:
    """Return an error of a constructor in the words of the place that its arguments came from.

    Args:
        error: the error of `CleverTap` or `Alta`.
        name: returns the name of an argument there; see `renamed`.
        place: text in front of the message.
    """
    text = str(error)
    kind = InvalidSetting if text.partition(":")[0] in _ARGUMENTS else ConfigurationError
    return kind(place + renamed(text, name))


def renamed(text: str, name: Callable[[str], str | None]) -> str:
    """Return a message with its arguments under other names.

    Args:
        text: the message, which names an argument before its first colon, and others as `code` or
            as keyword=.
        name: returns the other name of an argument, or None if it stays.
    """
    return re.sub(
        r"\A(?P<subject>[a-z_]+)(?=: )|`(?P<other>[a-z_]+)`|\b(?P<keyword>[a-z_]+)=(?= )",
        lambda found: name(found["subject"] or found["other"] or found["keyword"]) or found[0],
        text,
    )
