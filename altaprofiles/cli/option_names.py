"""Arguments of Python in messages of the library, as the options of a command."""

from __future__ import annotations

import re

import click

__all__ = ["with_options"]

_ARGUMENT = re.compile(
    r"(?P<quote>`?)\b(?P<name>[a-z_]+)="
    r"(?:'(?P<value>[\w-]+)'(?: \((?P<option>--[a-z-]+ [\w-]+)\))?|False\b)(?P=quote)"
)

_NAME = re.compile(r"`([a-z_]+)`")


def with_options(text: str, command: click.Command) -> str:
    """Return `text` with arguments such as `by='user_id'` as options, such as --by user-id.

    So are mere names in backquotes, such as `late_days`.

    Those that the command has no option for stay, and so do options whose values are any text.
    """
    options = {one.name: one for one in command.params if isinstance(one, click.Option)}

    def as_option(match: re.Match[str]) -> str:
        option, value = options.get(match["name"]), match["value"]
        if option is None:
            return match[0]
        if value is None:
            return next(iter(option.secondary_opts), match[0])
        if not isinstance(option.type, click.Choice):
            return match[0]
        return match["option"] or f"{max(option.opts, key=len)} {value.replace('_', '-')}"

    def as_name(match: re.Match[str]) -> str:
        option = options.get(match[1])
        return match[0] if option is None else max(option.opts, key=len)

    return _NAME.sub(as_name, _ARGUMENT.sub(as_option, text))
