"""The command line that goes on with what the present one began."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..export.sinks.postgres_url import without_password
from .app import App

__all__ = ["command_line"]


def command_line(context: click.Context) -> str:
    """Return what to paste into a shell to go on; no password is in it."""
    arguments: list[str] = []
    options: list[str] = []
    for param in context.command.params:
        name = param.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        # What discards an earlier run would discard this one.
        if given and name in context.params and (name, context.params[name]) != ("resume", False):
            if isinstance(param, click.Option):
                options += _option(param, context.params[name])
            else:
                arguments += _texts(context.params[name])
    options += _shared(context.ensure_object(App))
    words = [*arguments, *options]
    if any(text.startswith("-") and text != "-" for text in arguments):
        words = [*options, "--", *arguments]
    return " ".join(map(_quoted, [*_program(), context.info_name or "", *words]))


def _quoted(word: str) -> str:
    """Return `word` for a shell, also if it cannot be shown, or pasted, as it is."""
    if word.isprintable() and _can_be_shown(word):
        return shlex.quote(word)
    # Bytes that are no text, line breaks, escape sequences: as bash, zsh and ksh escape them.
    shown = (
        chr(x) if 0x20 <= x < 0x7F and x not in b"\\'" else f"\\{x:03o}" for x in os.fsencode(word)
    )
    return f"$'{''.join(shown)}'"


def _can_be_shown(word: str) -> bool:
    try:
        word.encode(sys.stderr.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _program() -> list[str]:
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return [sys.executable, "-m", "altaprofiles"]
    found = shutil.which(started.name)
    known = found is not None and started.exists() and started.samefile(found)
    if known or len(started.parts) > 1:
        return [started.name if known else str(started)]
    # Without a folder in front of it, a shell would look for it on PATH.
    return [f"./{started}"]


def _option(option: click.Option, value: Any) -> Iterator[str]:
    name = max(option.opts, key=len)
    if option.is_flag:
        yield name if value else option.secondary_opts[0]
        return
    for text in _texts(value):
        yield from (name, text)


def _texts(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, tuple) else (value,):
        yield without_password(str(one))


def _shared(app: App) -> Iterator[str]:
    if app.account is not None:
        yield from ("--account", app.account)
    if app.quiet:
        yield "--quiet"
    if app.verbose:
        yield "--verbose"
    if app.log_format != "text":
        yield from ("--log-format", app.log_format)
