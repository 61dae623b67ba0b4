"""The command line that resumes the work of the present one."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..export.sinks.postgres_url import without_password
from .app import App

__all__ = ["command_line", "quoted_word", "resuming_line"]


def command_line(context: click.Context) -> str:
    """Return a command line, ready to paste into a shell of the current folder, without passwords.

    `resuming_line` works in any folder.
    """
    return _line(context, _program(), context.ensure_object(App).accounts)


def _line(context: click.Context, program: list[str], accounts: Sequence[str]) -> str:
    arguments: list[str] = []
    options: list[str] = []
    for param in context.command.params:
        name = param.name or ""
        is_given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not is_given or name not in context.params:
            continue
        value = context.params[name]
        # --fresh is left out: it discarded an earlier run, and would now discard this one.
        if (name, value) == ("resume", False):
            continue
        if isinstance(param, click.Option):
            options += _option(param, value)
        else:
            arguments += _texts(value)
    for account in accounts:
        options += ("--account", account)
    options += _shared_options(context.ensure_object(App))
    words = [*arguments, *options]
    if any(text.startswith("-") and text != "-" for text in arguments):
        words = [*options, "--", *arguments]
    return " ".join(map(quoted_word, [*program, context.info_name or "", *words]))


def resuming_line(context: click.Context, accounts: Sequence[str] | None = None) -> str:
    """Return the command line of `command_line`, which goes to the current folder if need be.

    Whoever reads it in a terminal is in that folder, as the name of a file tells; a log or a mail
    is read in any.

    Args:
        context: that of the command.
        accounts: the names of those that it is still to be run for; all by default.
    """
    program = _program()
    named = context.ensure_object(App).accounts if accounts is None else accounts
    line = _line(context, program, named)
    to = str(context.params.get("to") or context.params.get("out"))
    is_seen_there = "://" not in to and sys.stderr.isatty()
    if is_seen_there or not _is_of_folder(to, context, program[0]):
        return line
    # In parentheses, because keys may be piped into it.
    return f"(cd {quoted_word(str(Path.cwd()))} && {line})"


def _is_of_folder(to: str, context: click.Context, program: str) -> bool:
    """Return whether a command line means something else in another folder."""
    if os.sep in program and not Path(program).is_absolute():
        return True
    if "://" not in to:
        # What has been gathered is beside the output.
        if not Path(to).is_absolute():
            return True
    elif context.params.get("spool") is None:
        # It is in the current folder, which the output's address does not name.
        return True
    return any(
        not Path(text).is_absolute()
        for param in context.command.params
        if isinstance(param.type, click.Path) and context.params.get(param.name or "") is not None
        for text in _texts(context.params[param.name or ""])
        if text != "-" and "://" not in text
    )


def quoted_word(word: str) -> str:
    """Return `word` quoted for a shell, with escapes for characters that cannot be printed."""
    if word.isprintable() and _can_be_encoded(word):
        return shlex.quote(word)
    # Undecodable bytes, line breaks, escape sequences: with the escapes of bash, zsh and ksh.
    characters = (
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b"\\'" else f"\\{byte:03o}"
        for byte in os.fsencode(word)
    )
    return f"$'{''.join(characters)}'"


def _can_be_encoded(word: str) -> bool:
    try:
        word.encode(sys.stderr.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _program() -> list[str]:
    if (launched := _launcher()) is not None:
        return launched
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return [sys.executable, "-m", "altaprofiles"]
    found = shutil.which(program.name)
    try:
        is_on_path = found is not None and program.samefile(found)
    except OSError:
        is_on_path = False
    if is_on_path or len(program.parts) > 1:
        return [program.name if is_on_path else str(program)]
    # A shell looks up a name without a folder on PATH.
    return [f"./{program}"]


def _launcher() -> list[str] | None:
    """Return the words before the arguments if uv has started this process, else None.

    The folder that it puts on PATH is not on that of the shell.
    """
    if "UV" not in os.environ:
        return None
    words, arguments = _parent_words(), sys.argv[1:]
    if words:
        start = words[: len(words) - len(arguments)]
        if Path(words[0]).stem not in ("uv", "uvx") or words[len(start) :] != arguments:
            return None
        # An index may stand there, with a password.
        if not any("://" in word for word in start):
            return start
    return ["uv", "run", "altaprofiles"] if "UV_RUN_RECURSION_DEPTH" in os.environ else None


def _parent_words() -> list[str]:
    """Return the command line of the process that has started this one, where Linux tells it."""
    try:
        content = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in content.split(b"\0")[:-1]]


def _option(option: click.Option, value: Any) -> Iterator[str]:
    name = max(option.opts, key=len)
    if option.is_bool_flag:
        yield name if value else option.secondary_opts[0]
        return
    if option.is_flag:
        # Several share a parameter, which has the value of one of them.
        if value == option.flag_value:
            yield name
        return
    for text in _texts(value):
        yield from (name, text)


def _texts(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, tuple) else (value,):
        yield without_password(str(item))


def _shared_options(app: App) -> Iterator[str]:
    if app.quiet:
        yield "--quiet"
    if app.verbose:
        yield "--verbose"
    if app.log_format != "text":
        yield from ("--log-format", app.log_format)
    if app.timeout is not None:
        yield from ("--timeout", _number(app.timeout))
    if app.max_time is not None:
        yield from ("--max-time", _number(app.max_time))
    if app.retries is not None:
        yield from ("--retries", str(app.retries))


def _number(seconds: float) -> str:
    # Every digit of it, which the format "g" has not.
    return repr(seconds).removesuffix(".0")
