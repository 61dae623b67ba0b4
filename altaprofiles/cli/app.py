"""What all commands share: options, credentials, streams, signals, exit codes.

Importing this must stay cheap, as it happens for every `--help`. A command is made with
`@click.command(cls=Command)` and `@click.pass_obj`, and does its work in `app.run(main)`. Whatever
a user can cause comes out of it as a message on stderr and one of the codes of `Exit`; other
exceptions are mistakes of ours, and stay tracebacks.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import click

from .exits import Exit, Failure, Interrupted, exit_code
from .streams import heeded_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FrameType

    from rich.console import Console

    from ..models import Attempt
    from ..session import Session

__all__ = ["App"]

T = TypeVar("T")


class App:
    """What the options for every command say, and what follows from it. click's `ctx.obj`.

    Attributes:
        account: the name of an account in the credentials file, or None.
        quiet: nothing but warnings and errors on stderr.
        verbose: all that the library logs, and tracebacks, on stderr.
        log_format: "json" makes each line on stderr a JSON object.
    """

    def __init__(self) -> None:
        self.account: str | None = None
        self.quiet = False
        self.verbose = False
        self.log_format: Literal["text", "json"] = "text"
        self._go_on: str | None = None
        self._source = ""
        self._begun = False

    @cached_property
    def console(self) -> Console:
        """A rich console of stderr."""
        from .consoles import error_console

        return error_console(quiet=self.quiet)

    @property
    def interactive(self) -> bool:
        """Whether a person watches stderr, on a terminal that can redraw."""
        return (
            not self.quiet
            and self.log_format == "text"
            and self.console.is_terminal
            and self.console.is_interactive
            and not self.console.is_dumb_terminal
        )

    def session(
        self,
        *,
        service: Literal["clevertap", "alta"] = "clevertap",
        on_event: Callable[[Attempt], object] | None = None,
    ) -> Session:
        """Return a session, not opened, with the credentials for `service`.

        It takes proxies from the environment, as all programs of the command line do.

        Raises:
            Failure: there are none, or they cannot be used.
        """
        from ..accounts import Accounts, accounts_path, find_alta, find_clevertap
        from ..errors import ConfigurationError
        from ..session import Session

        try:
            project = find_clevertap(self.account) if service == "clevertap" else None
            key = find_alta(self.account) if service == "alta" else None
        except ConfigurationError as error:
            raise Failure(str(error), Exit.CREDENTIALS) from error
        if project is not None:
            self._source = project.source
            return Session(clevertap=project.credentials, on_event=on_event, trust_env=True)
        if key is not None:
            self._source = key.source
            return Session(alta=key.credentials, on_event=on_event, trust_env=True)
        label, variables = _SERVICES[service]
        accounts = Accounts.read()
        if (account := accounts.pick(self.account)) is not None:
            others = "" if len(accounts.tables) == 1 else "pass another as --account NAME, or "
            raise Failure(
                f"account {account!r} in {accounts.path} has no {label} credentials; "
                f"{others}run: altaprofiles login {account}",
                Exit.CREDENTIALS,
            )
        raise Failure(
            f"no {label} credentials, neither in the environment nor in {accounts_path()}; "
            f"run: altaprofiles login; or set {variables}",
            Exit.CREDENTIALS,
        )

    def say(self, text: str, **facts: object) -> None:
        """Write a line for a person to stderr; with `quiet`, none.

        Args:
            facts: what a JSON line holds besides, for programs.
        """
        # Not as a format: file names may hold a percent sign.
        _logger().info("%s", text, extra={"facts": facts})

    def warn(self, text: str) -> None:
        """Write a warning to stderr."""
        _logger().warning("%s", text)

    def error(self, text: str) -> None:
        """Write an error to stderr."""
        _logger().error("%s", text)

    def write(self, data: bytes) -> None:
        """Write data to stdout, at once."""
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def run(
        self,
        main: Callable[[], Coroutine[Any, Any, T]],
        *,
        go_on: str | None = None,
        too_late: Callable[[], bool] = lambda: False,
    ) -> T:
        """Return what `main` returns. SIGINT or SIGTERM cancels it, a second one ends the process.

        Args:
            main: called in a new event loop.
            go_on: the command line that goes on, shown if `main` is interrupted or raises
                `Incomplete`.
            too_late: whether all is done that could be stopped. Then one signal is not heeded any
                more, after this has returned neither.
        """
        import asyncio

        self._go_on = go_on
        received: list[int] = []

        async def cancellable() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None  # noqa: S101

            def stop(number: int, frame: FrameType | None) -> None:
                if received:
                    self._end_at_once(number)
                received.append(number)
                if not too_late():
                    loop.call_soon_threadsafe(task.cancel)

            # Not the loop's own handlers, which Windows does not have.
            before = {number: signal.signal(number, stop) for number in heeded_signals()}
            try:
                return await main()
            finally:
                if not too_late():
                    for number, handler in before.items():
                        signal.signal(number, handler)

        try:
            return asyncio.run(cancellable())
        except (Exception, asyncio.CancelledError) as error:
            if received:
                raise Interrupted(received[0]) from error
            raise

    def begin(self) -> None:
        """Let the log go to stderr, now that all options are known."""
        import logging

        from .logs import Handler

        if self._begun:
            return
        self._begun = True
        # The root's: what asyncio has to say must be JSON, too, where all else is.
        logging.getLogger().addHandler(Handler(self.log_format))
        level = logging.DEBUG if self.verbose else logging.WARNING
        logging.getLogger("altaprofiles").setLevel(level)
        _logger().setLevel(logging.WARNING if self.quiet else logging.INFO)

    def end(self, error: BaseException) -> int | None:
        """Tell the user of `error`; return the exit code, or None if no user can have caused it."""
        from ..errors import AltaProfilesError, Forbidden, Incomplete, Unauthorized

        if isinstance(error, BrokenPipeError):
            return Exit.PIPE
        if isinstance(error, click.Abort | KeyboardInterrupt):
            error = Interrupted(signal.SIGINT)
        if isinstance(error, Interrupted):
            cause = error.__cause__
            if isinstance(cause, AltaProfilesError | OSError):
                self._tell(cause)
            elif isinstance(cause, Exception):
                return None
            self._tell(error)
            self._tell_how_to_go_on()
            return error.code
        if not isinstance(error, AltaProfilesError | OSError | Failure):
            return None
        if isinstance(error, Unauthorized | Forbidden) and self._source:
            error.add_note(f"These credentials are from {self._source}.")
        self._tell(error)
        if isinstance(error, Incomplete):
            self._tell_how_to_go_on()
        return exit_code(error)

    def _tell(self, error: BaseException) -> None:
        text = str(error)
        if isinstance(error, OSError) and error.strerror is not None:
            where = "" if error.filename is None else f"{error.filename}: "
            text = f"{where}{error.strerror}"
        lines = [text or type(error).__name__, *getattr(error, "__notes__", ())]
        told = _in_options("\n".join(lines), click.get_current_context().command)
        _logger().error("%s", told, exc_info=error if self.verbose else None)

    def _tell_how_to_go_on(self) -> None:
        if self._go_on is not None:
            # Also with `quiet`: it belongs to the error.
            _logger().error("To go on: %s", self._go_on, extra={"bare": True})

    def _end_at_once(self, number: int) -> NoReturn:
        if self.interactive:
            # A progress view hides the cursor, and will not get to show it again.
            os.write(2, b"\x1b[?25h\n")
        if self.log_format == "text":
            told = f"error: {Interrupted(number)}\n"
            if self._go_on is not None:
                told += f"To go on: {self._go_on}\n"
            os.write(2, told.encode(errors="backslashreplace"))
        os._exit(128 + number)


_SERVICES = {
    "clevertap": ("CleverTap", "CLEVERTAP_ACCOUNT_ID and CLEVERTAP_PASSCODE"),
    "alta": ("Alta", "ALTA_TOKEN"),
}


def _logger() -> Any:
    import logging

    return logging.getLogger("altaprofiles.cli")


def _in_options(text: str, command: click.Command) -> str:
    """Let what the library says of its arguments name the options that they come from."""
    names: dict[str | None, str | None] = {}
    for option in command.params:
        if isinstance(option, click.Option):
            names[option.name] = max(option.opts, key=len)
            names[f"{option.name}=False"] = next(iter(option.secondary_opts), None)
    return re.sub(
        r"\A(?P<subject>\w+)(?=: )|`(?P<other>[\w=]+)`",
        lambda match: names.get(match["subject"] or match["other"]) or match[0],
        text,
    )
