"""Arguments of Python in messages of the library, as the options of a command.

A message may hold words from elsewhere: names of events, files and columns, conditions, command
lines, the answer of a service. They stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from copy import copy

import click

__all__ = ["foreign_texts", "in_options", "outside_texts", "rewritten", "with_options"]

# A flag without backquotes may be part of a path, such as the folder of a partition.
_ARGUMENT = (
    r"(?P<quote>`?)\b(?P<name>[a-z_]+)='(?P<value>[\w-]+)'"
    r"(?: \((?P<option>--[a-z-]+ [\w-]+)\))?(?P=quote)"
)
_NAMES = re.compile(
    rf"{_ARGUMENT}|`(?P<flag>[a-z_]+)=False`|`(?P<counted>[a-z_]+)=(?P<count>[0-9]+)`"
    r"|`(?P<bare>[a-z_]+)`"
)


def with_options(text: str, command: click.Command) -> str:
    """Return `text` with arguments such as `by='user_id'` as options, such as --by user-id.

    So are flags, numbers and mere names in backquotes, such as `late_days=7` and `late_days`.

    Those that the command has no option for stay, but for a few, and so do options whose values are
    any text.
    """
    options = {one.name: one for one in command.params if isinstance(one, click.Option)}

    def as_option(match: re.Match[str]) -> str:
        name = match["name"] or match["flag"] or match["counted"] or match["bare"]
        option = options.get(name)
        words = _OF_OTHERS.get(name) if option is None else max(option.opts, key=len)
        if words is not None and match["bare"]:
            return words
        if words is not None and match["counted"]:
            return f"{words} {match['count']}"
        if option is None:
            return match[0]
        if match["flag"]:
            return next(iter(option.secondary_opts), match[0])
        if not isinstance(option.type, click.Choice):
            return match[0]
        value = match["value"].replace("_", "-")
        return match["option"] or f"{words} {value}"

    return _NAMES.sub(as_option, text).replace(*_OWN_CA)


_OWN_CA = ("pass ssl=", "let SSL_CERT_FILE name its certificate")
"""Advice of the library on an unknown issuer, and the command's."""

# Advice may name those of another command.
_OF_OTHERS = {"late_days": "--late-days", "on_shortfall": "--on-shortfall"}

# As `repr` and shells quote a value, unlike the apostrophe of "the service's".
_QUOTED = r"(?<!\w)(?:'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")(?!\w)"
_LOOKS_LIKE_NAME = re.compile(rf"{_ARGUMENT}|`[\w=]+`")

# Of no character set, so that no text has them.
_SHIELDS = str.maketrans("`=", "\ufdd0\ufdd1")
_UNSHIELDED = str.maketrans("\ufdd0\ufdd1", "`=")


def rewritten(text: str, outside: Iterable[str], change: Callable[[str], str]) -> str:
    """Return `text`, a message of the library, as `change` returns it, but for words from outside.

    These are values in quotation marks, and names of arguments that are in `outside` as well:
    nobody could say whose they are.

    Args:
        text: the message.
        outside: words from elsewhere, which the message may show without quotation marks.
        change: returns a message with other names of arguments, each in backquotes or with `=`.
    """
    names = {match[0] for words in outside for match in _LOOKS_LIKE_NAME.finditer(words)}
    pattern = "|".join([*map(re.escape, sorted(names, key=len, reverse=True)), _QUOTED])
    shielded = re.sub(pattern, lambda match: match[0].translate(_SHIELDS), text)
    return change(shielded).translate(_UNSHIELDED)


def in_options(
    text: str, context: click.Context, errors: Iterable[BaseException | None] = ()
) -> str:
    """Return a message of the library as `with_options` does, but for words from outside.

    Args:
        text: the message.
        context: the command's.
        errors: those that the message is about.
    """
    outside = outside_texts(context, errors)
    return rewritten(text, outside, lambda words: with_options(words, context.command))


def outside_texts(context: click.Context, errors: Iterable[BaseException | None]) -> list[str]:
    """Return the words of a command line, and those from outside in errors."""
    foreign = [words for error in errors for words in foreign_texts(error)]
    return [*_given_texts(context), *foreign]


def _given_texts(context: click.Context) -> Iterator[str]:
    """Yield the values of a command line, as text."""
    values: list[object] = [*context.params.values(), getattr(context.obj, "accounts", ())]
    while values:
        value = values.pop()
        if isinstance(value, tuple | list):
            values += value
        elif value is not None:
            yield str(value)


def foreign_texts(error: BaseException | None) -> Iterator[str]:
    """Yield the texts from outside in an error and its causes, such as the words of a service."""
    from ..errors import AltaProfilesError

    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, AltaProfilesError):
            # Of a copy, because it makes the message anew.
            copy(error).redact(note)
        error = error.__cause__ or error.__context__
    yield from found
