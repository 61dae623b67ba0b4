"""click's commands with what all of ours share. Importing this must stay cheap."""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import Any, NoReturn

import click

from .app import App
from .exits import Exit
from .streams import abandon_broken_streams

__all__ = ["Command", "Group"]


def _note(context: click.Context, option: click.Parameter, value: object) -> None:
    app = context.ensure_object(App)
    if value not in (None, False):
        setattr(app, str(option.name), value)


def _complete_account(
    context: click.Context, option: click.Parameter, incomplete: str
) -> list[str]:
    from ..accounts import Accounts
    from ..errors import ConfigurationError

    try:
        return [name for name in Accounts.read().tables if name.startswith(incomplete)]
    except ConfigurationError:
        return []


def _shared() -> list[click.Parameter]:
    """Return the options that every command takes, and the group in front of it."""
    option = partial(click.Option, expose_value=False, callback=_note)
    return [
        option(
            ["--account"],
            metavar="NAME",
            shell_complete=_complete_account,
            help="Use this account of the credentials file, whatever the environment holds.",
        ),
        option(
            ["-q", "--quiet"],
            is_flag=True,
            help="Show warnings and errors only.",
        ),
        option(
            ["-v", "--verbose"],
            is_flag=True,
            help="Show every failed request, and tracebacks.",
        ),
        option(
            ["--log-format"],
            type=click.Choice(["text", "json"]),
            help="What stderr is made of: text, as by default, or one JSON object a line.",
        ),
    ]


def _show(error: click.ClickException) -> None:
    context = getattr(error, "ctx", None) or click.get_current_context(silent=True)
    app = None if context is None else context.find_object(App)
    if app is None or app.log_format == "text":
        error.show()
        return
    app.begin()
    app.error(error.format_message())


class Command(click.Command):
    """A command that takes the shared options, too, and whose errors become exit codes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._own = len(self.params)
        self.params += _shared()

    def invoke(self, ctx: click.Context) -> Any:
        app = ctx.ensure_object(App)
        app.begin()
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            try:
                code = app.end(error)
            except BrokenPipeError:
                code = Exit.PIPE
            if code is None:
                raise
            abandon_broken_streams()
            sys.exit(code)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shared = self.params[self._own :]
        own: list[tuple[str, str]] = []
        others: list[tuple[str, str]] = []
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None and isinstance(option, click.Option):
                (others if option in shared else own).append(record)
        for title, records in (("Options", own), ("Options of all commands", others)):
            with formatter.section(title):
                formatter.write_dl(records)


class Group(click.Group):
    """Commands that share options, which stand before the command's name or behind it."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared()

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            _show(error)
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            code = 128 + signal.SIGINT
        except OSError as error:
            # Of help or a version that cannot be written.
            sys.stderr.write(f"error: {error.strerror}\n")
            code = Exit.FAILED
            abandon_broken_streams()
        sys.exit(code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        # As they are likely to be needed, and not by the alphabet.
        return list(self.commands)
