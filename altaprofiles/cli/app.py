"""`App`: options, session, log, output and signals of one run of a command.

A command is made with `@click.command(cls=Command)` and `@click.pass_obj`, and does its work in
`app.ask(question)` or `app.run(main)`. An error that a user can cause becomes a message on stderr
and an exit code; any other exception is a bug of ours, and stays a traceback.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, TypeVar

import click

from .exits import Exit, Failure, Interrupted, OutOfTime, exit_code, worst
from .option_names import outside_texts, rewritten, with_options
from .streams import HANG_UP, abandon_closed_terminals, heeded_signals, terminal_width
from .waits import Waits, remedy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import FrameType

    from rich.console import Console

    from ..accounts import Resolved
    from ..base.deadline import Deadline
    from ..credentials import Alta
    from ..errors import AltaProfilesError
    from ..http.retry import Retry
    from ..http.transport import Timeout
    from ..models import Attempt
    from ..session import Session

__all__ = ["CONDITIONS", "TYPOGRAPHIC", "App", "Service", "has_conditions", "keeping"]

T = TypeVar("T")

Service: TypeAlias = Literal["clevertap", "alta", "both"]
"""The service that a command needs credentials for."""


_TURN_EVERY = 0.2
"""Longest wait of the loop, in seconds: a signal that arrives just before it starts to wait for a
socket does not wake it."""

TYPOGRAPHIC = re.compile("[\u2018-\u201f«»]")
"""Quotation marks of word processors."""


class App:
    """Values of the options that all commands share, and the services built on them.

    It is click's `ctx.obj`.

    Attributes:
        accounts: names of accounts in the credentials file. Only some commands take several.
        quiet: whether stderr gets warnings and errors only.
        verbose: whether stderr gets everything that the library logs, and tracebacks.
        log_format: "json" makes each line of stderr a JSON object.
        timeout: longest silence of a service during one attempt, in seconds; None for the default.
        max_time: longest duration of the requests of the command, in seconds, or None.
        retries: most tries of a request after the first; None for the default.
        deadline: the end of `max_time`, once the command has begun; else None.
        in_its_words: returns a message with arguments named as the source of the credentials names
            them.
    """

    def __init__(self) -> None:
        self.accounts: tuple[str, ...] = ()
        self.quiet = False
        self.verbose = False
        self.log_format: Literal["text", "json"] = "text"
        self.timeout: float | None = None
        self.max_time: float | None = None
        self.retries: int | None = None
        self.deadline: Deadline | None = None
        self._resume: str | None = None
        self.in_its_words: Callable[[str], str] = str
        self._resolved: dict[tuple[str | None, str], Resolved[Any]] = {}
        self._waits: list[Waits] = []
        self._is_logging = False
        self._messages: dict[str | None, list[str]] = {}
        self._shown: str | None = None

    @cached_property
    def console(self) -> Console:
        """A rich console of stderr."""
        from .consoles import error_console

        return error_console(quiet=self.quiet)

    @property
    def interactive(self) -> bool:
        """True if stderr is a terminal that can redraw, and the log is text for a person."""
        return (
            not self.quiet
            and self.log_format == "text"
            # To the console, a pipe is one as well where a notebook has set FORCE_COLOR.
            and sys.stderr.isatty()
            and self.console.is_terminal
            and self.console.is_interactive
            and not self.console.is_dumb_terminal
        )

    @property
    def account(self) -> str | None:
        """The name of the account, for a command that takes one; None for the usual one."""
        return next(iter(self.accounts), None)

    @property
    def account_option(self) -> str:
        """The option that names the account in another command line, after a blank, or nothing."""
        return _option_of(self.account)

    def logging_in(self, account: str | None = None) -> str:
        """Return what saves the credentials of an account anew: a command line.

        Args:
            account: its name, if there are several.
        """
        name = account or self.account
        return "altaprofiles login" + ("" if name is None else f" {shlex.quote(name)}")

    def trying_regions(self, found: Resolved[Any], account: str | None = None) -> str:
        """Return what tries credentials in every region or on every platform: a command line.

        Args:
            found: the credentials.
            account: the name of their account, if there are several.
        """
        command = f"altaprofiles doctor{_option_of(account or self.account)} --try-regions"
        # There, they would be sent to hosts that they were not meant for.
        if found.is_at_gateway():
            return f"{found.step_without('base_url')}, then run: {command}"
        return command

    def _resolved_for(
        self, error: BaseException, account: str | None = None
    ) -> Resolved[Any] | None:
        """Return the credentials that an error is about, if that is clear."""
        if account is None and len(self.accounts) > 1:
            return None
        name = account or self.account
        found = {service: one for (of, service), one in self._resolved.items() if of == name}
        if len(found) == 1:
            return next(iter(found.values()))
        return found.get((getattr(error, "service", None) or "").lower())

    def advice(self, error: BaseException, account: str | None = None) -> str | None:
        """Return the next step after an answer, or none, of what may be another host.

        Args:
            error: the error.
            account: the name of the account that it is about, if there are several.
        """
        from ..credentials import Alta
        from ..errors import ConnectError, StatusError

        is_unknown = type(error) is StatusError and error.status in (404, 405)
        found = self._resolved_for(error, account)
        if found is None or not (is_unknown or isinstance(error, ConnectError)):
            return None
        place = "endpoint" if isinstance(found.credentials, Alta) else "region"
        name = found.name_of("base_url" if found.credentials.base_url is not None else place)
        doctor = f"run: altaprofiles doctor{_option_of(account or self.account)}"
        setting = f"{name} ({found.source})"
        if is_unknown:
            return (
                f"The host knows no such call: check region, endpoint and base URL, here {setting}"
                f", or {doctor}"
            )
        return f"Check {setting}, network and proxy, or {doctor}"

    @property
    def limits(self) -> Timeout:
        """The time limits of one attempt: those of the library, in proportion to `timeout`."""
        from ..http.transport import Timeout

        if self.timeout is None:
            return Timeout()
        # In the proportion of the defaults.
        return Timeout(connect=min(10.0, self.timeout), read=self.timeout, total=5 * self.timeout)

    def start_clock(self) -> None:
        """Begin `max_time`. To be called when all options are known, and again to begin it anew."""
        if self.max_time is not None:
            from ..base.deadline import Deadline

            self.deadline = Deadline.of(self.max_time)

    def retry(self, usual: Retry | None = None) -> Retry:
        """Return the policy of retries: `usual`, or that of the library, with `retries`."""
        from msgspec.structs import replace

        from ..http.retry import Retry

        usual = Retry() if usual is None else usual
        return usual if self.retries is None else replace(usual, attempts=self.retries + 1)

    def waits(self, account: str | None = None, usual: Retry | None = None) -> Waits:
        """Return what logs failures that are retried, and long waits.

        Args:
            account: the name of the account, if there are several.
            usual: as for `retry`.
        """
        by = "" if account is None else f"{account}: "
        waits = Waits(
            lambda text: self.info(f"{by}{text}"), self.retry(usual), lambda: self.time_left
        )
        self._waits.append(waits)
        return waits

    @property
    def time_left(self) -> float | None:
        """Seconds until the deadline, above 0; None without one."""
        return None if self.deadline is None else max(self.deadline.left, 1e-3)

    def _limited(self, session: Session) -> Session:
        """Return a session whose single calls end with the deadline, if there is one."""
        return session if self.deadline is None else session.with_options(deadline=self.time_left)

    def session(
        self,
        *,
        service: Service = "clevertap",
        on_event: Callable[[Attempt], object] | None = None,
        account: str | None = None,
        sharing: int = 1,
    ) -> Session:
        """Return a session, not yet opened, with the credentials for `service`, or for both.

        It takes proxies from the environment, as command-line programs do.

        Args:
            service: the service, or "both".
            on_event: as for `Session`.
            account: the name of the account, if there are several.
            sharing: the number of sessions that share the slots of its Alta key.

        Raises:
            Failure: credentials are missing or unusable.
        """
        from ..accounts import Accounts, accounts_path, find_alta, find_clevertap
        from ..credentials import InvalidSetting, ignored_variables
        from ..errors import ConfigurationError
        from ..session import Session

        name = account or self.account
        services = ("clevertap", "alta") if service == "both" else (service,)
        for one in services:
            if name is None and (ignored := ignored_variables(one.upper())):
                self.warn(ignored)
        try:
            project = None if service == "alta" else find_clevertap(name)
            key = None if service == "clevertap" else find_alta(name)
        except InvalidSetting:
            # As wrong as an option on the command line.
            raise
        except ConfigurationError as error:
            raise Failure(str(error), Exit.CREDENTIALS) from error
        for one, resolved in (("clevertap", project), ("alta", key)):
            if resolved is not None:
                self._resolved[name, one] = resolved
                self.in_its_words = _both_words(self.in_its_words, resolved.in_its_words)
        missing = next((one for one in services if (name, one) not in self._resolved), None)
        if missing is None:
            return Session(
                clevertap=None if project is None else project.credentials,
                alta=None if key is None else _shared(key.credentials, sharing),
                retry=self.retry(),
                timeout=self.limits,
                on_event=on_event,
                trust_env=True,
            )
        label, variables = _SERVICES[missing]
        accounts = Accounts.read()
        if (picked := accounts.pick(name)) is not None:
            steps = accounts.steps_without(
                picked, label, needs_both=service == "both", is_alone=len(self.accounts) < 2
            )
            raise Failure(
                f"account {picked!r} in {accounts.path} has no {label} credentials; {steps}",
                Exit.CREDENTIALS,
            )
        raise Failure(
            f"no {label} credentials, neither in the environment nor in {accounts_path()}; "
            f"run: altaprofiles login; or set {variables}",
            Exit.CREDENTIALS,
        )

    def ask(
        self,
        question: Callable[[Session], Awaitable[T]],
        *,
        service: Service = "clevertap",
    ) -> T:
        """Return the result of `question`, which is called with an open session for `service`.

        On a terminal, stderr shows why a request is retried; elsewhere the first failure and long
        waits are logged.
        """
        with self._retry_status() as status:
            session = self.session(service=service, on_event=status or self.waits().note)
            self.name_account(service)

            async def main() -> T:
                async with session:
                    return await question(self._limited(session))

            return self.run(main)

    def ask_each(
        self, question: Callable[[Session], Awaitable[T]]
    ) -> tuple[dict[str, T], dict[str, Exception]]:
        """Return the result of a question to CleverTap by account, and the error where it failed.

        All accounts are asked at once.
        """
        from ..base.task_account import of_account
        from ..export.threads import run_all

        results: dict[str, T] = {}
        errors: dict[str, Exception] = {}
        with self._retry_status() as status:
            sessions = self.sessions(on_event=lambda name: status or self.waits(name).note)

            async def ask(name: str, session: Session) -> None:
                async with session:
                    with keeping(errors, name):
                        results[name] = await question(self._limited(session))

            asking = [of_account(name, partial(ask, name, one)) for name, one in sessions.items()]
            self.run(lambda: run_all(asking))
        return results, errors

    def sessions(
        self,
        *,
        service: Service = "clevertap",
        on_event: Callable[[str], Callable[[Attempt], object]],
    ) -> dict[str, Session]:
        """Return a session, not yet opened, for each of `accounts`, by its name.

        Args:
            service: as for `session`.
            on_event: returns that of the session for an account.

        Raises:
            Failure: an account is unknown, or another name of one of the others; or as from
                `session`.
        """
        from urllib.parse import urlsplit

        from ..accounts import Accounts
        from ..base.addresses import is_loopback
        from ..errors import ConfigurationError

        try:
            known = Accounts.read()
            for name in self.accounts:
                known.pick(name)
        except ConfigurationError as error:
            raise Failure(str(error), Exit.CREDENTIALS) from error
        owners = []
        if service == "both":
            with suppress(ConfigurationError):
                keys = {name: known.alta(name) for name in self.accounts}
                owners = [None if key is None else key.credentials.owner for key in keys.values()]
        sessions = {
            name: self.session(
                service=service,
                on_event=on_event(name),
                account=name,
                sharing=owners.count(owner) if owner is not None else 1,
            )
            for name, owner in zip_longest(self.accounts, owners)
        }
        names: dict[object, str] = {}
        main = "alta" if service == "alta" else "clevertap"
        for name in self.accounts:
            credentials = self._resolved[name, main].credentials
            if (other := names.setdefault(credentials.owner, name)) != name:
                same = "Alta API key" if main == "alta" else "CleverTap account ID"
                seeds = ""
                if main == "clevertap" and is_loopback(urlsplit(credentials.url).hostname or ""):
                    seeds = ", or start each emulator with a --seed of its own"
                raise Failure(
                    f"--account: {other!r} and {name!r} have the same {same}; leave one of them "
                    f"out{seeds}",
                    Exit.USAGE,
                )
        return sessions

    def usual_account(self, use: str, service: Service) -> str:
        """Return the name of the account in the credentials file that is used if none is named.

        Args:
            use: what the name is for, for the message.
            service: the service that the account is for, or "both".

        Raises:
            Failure: the credentials are from the environment, or there are none.
        """
        from ..accounts import Accounts
        from ..credentials import is_in_environment
        from ..errors import ConfigurationError

        services = ("clevertap", "alta") if service == "both" else (service,)
        name = None
        if not any(is_in_environment(one.upper()) for one in services):
            try:
                name = Accounts.read().pick(None)
            except ConfigurationError as error:
                raise Failure(str(error), Exit.CREDENTIALS) from error
        if name is None:
            raise Failure(
                f"{use} is the name of an account in the credentials file; pass --account NAME",
                Exit.USAGE,
            )
        return name

    def name_account(self, service: Service) -> None:
        """Log which saved account is asked, if none is named and others could be.

        Args:
            service: the service that is asked, or "both".
        """
        from ..accounts import Accounts
        from ..credentials import is_in_environment
        from ..errors import ConfigurationError

        main = "alta" if service == "alta" else "clevertap"
        if self.accounts or is_in_environment(main.upper()):
            return
        try:
            known = Accounts.read()
            name = known.pick(None)
        except ConfigurationError:
            # Not what the command is about, which has its credentials.
            return
        can_be_asked = known.names_alta if main == "alta" else known.names_clevertap
        others = [other for other in known.tables if other != name and can_be_asked(other)]
        if others:
            listed = ", ".join(others[:_LISTED])
            if len(others) > _LISTED:
                listed += f" and {len(others) - _LISTED:,} more"
            self.info(f"account {name} (the default); also saved: {listed}")

    def _retry_status(self) -> AbstractContextManager[Callable[[Attempt], None] | None]:
        """Return a context with a hook that shows retries on a terminal, or None elsewhere."""
        if not self.interactive:
            return nullcontext(None)
        from .consoles import retry_status

        return retry_status(self.console)

    def resume_by(self, line: str) -> None:
        """Replace the command line that resumes the work, which is that of `run` until then."""
        self._resume = line

    def run(
        self,
        main: Callable[[], Coroutine[Any, Any, T]],
        *,
        resume: str | None = None,
        committed: Callable[[], bool] = lambda: False,
        is_limited: bool = False,
    ) -> T:
        """Return the result of `main`, run in a new event loop.

        SIGINT, SIGTERM or SIGHUP cancels it; a second signal ends the process at once.

        Args:
            main: the command's work.
            resume: a command line that resumes the work, printed if `main` is interrupted or
                raises `Incomplete`.
            committed: returns whether the work is done and can no longer be stopped. From then
                on one signal is ignored, even after this method has returned.
            is_limited: whether the deadline ends it. What ends itself by it is not limited here.

        Raises:
            OutOfTime: the deadline has ended it.
        """
        import asyncio

        from anyio import move_on_after

        from ..base.wording import after_failure

        self._resume = resume
        received: list[int] = []

        async def cancellable() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None  # noqa: S101

            def stop(number: int, frame: FrameType | None) -> None:
                if number == HANG_UP:
                    abandon_closed_terminals()
                if received:
                    if received[0] == HANG_UP == number:
                        # The shell and the system may both send it for one terminal.
                        return
                    if committed():
                        # To append once more would add the rows twice.
                        self._resume = None
                    self._exit_now(number)
                received.append(number)
                if not committed():
                    loop.call_soon_threadsafe(task.cancel)

            # Not the loop's own handlers, which Windows does not have.
            before = {number: signal.signal(number, stop) for number in heeded_signals()}

            def turn() -> None:
                loop.call_later(_TURN_EVERY, turn)

            turn()
            try:
                with move_on_after(self.time_left if is_limited else None):
                    return await main()
                assert self.deadline is not None  # noqa: S101
                failures = [one.failure for one in self._waits if one.failure is not None]
                failure = failures[-1] if failures else None
                command = click.get_current_context().info_name
                text = (
                    f"{command} did not finish within {self.deadline}; run it again, with a longer "
                    f"--max-time"
                )
                raise OutOfTime(after_failure(text, failure))
            finally:
                if not committed():
                    for number, handler in before.items():
                        signal.signal(number, handler)

        try:
            return asyncio.run(cancellable())
        except (Exception, asyncio.CancelledError) as error:
            if received:
                raise Interrupted(received[0]) from error
            raise

    def write(self, data: bytes) -> None:
        """Write data to stdout, and flush it."""
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def write_lines(self, lines: Iterable[str]) -> None:
        """Write lines of prose to stdout, broken at words if it is a terminal."""
        from .lines import wrapped

        width = terminal_width(sys.stdout)
        texts = lines if width is None else (wrapped(line, width) for line in lines)
        self.write("".join(f"{text}\n" for text in texts).encode(errors="backslashreplace"))

    def start_logging(self) -> None:
        """Send the log to stderr. To be called when all options are known."""
        import logging

        from .logs import Handler

        if self._is_logging:
            return
        self._is_logging = True
        # On the root logger, so that what asyncio logs becomes JSON as well.
        logging.getLogger().addHandler(
            Handler(self.log_format, click.get_current_context(silent=True))
        )
        level = logging.DEBUG if self.verbose else logging.WARNING
        logging.getLogger("altaprofiles").setLevel(level)
        _logger().setLevel(logging.WARNING if self.quiet else logging.INFO)

    def info(self, text: str, **facts: object) -> None:
        """Log a line for a person; `quiet` suppresses it.

        Args:
            facts: members that a JSON line has besides, for programs.
        """
        # Not as the format string: file names may hold a percent sign.
        _logger().info("%s", text, extra={"facts": facts})

    def warn(self, text: str) -> None:
        """Log a warning, whose words are those of the command line."""
        _logger().warning("%s", text, extra={"is_final": True})

    def error(self, text: str) -> None:
        """Log an error."""
        _logger().error("%s", text)

    def report(self, error: BaseException) -> int | None:
        """Log `error` and return its exit code, or None if no user can have caused it.

        With --json it is written to stdout as well.
        """
        self._messages, self._shown = {}, None
        code = self._report(error)
        is_asked = click.get_current_context().params.get("as_json")
        if is_asked and code is not None and code != Exit.PIPE:
            messages = {name: "\n".join(texts) for name, texts in self._messages.items()}
            self._write_failure(error, messages)
        return code

    def report_usage(self, error: click.ClickException, message: str, *, as_json: bool) -> None:
        """Log wrong usage, and write it to stdout as well with `as_json`."""
        self.error(message)
        if as_json:
            self._write_failure(error, {None: message})

    def _write_failure(self, error: BaseException, messages: Mapping[str | None, str]) -> None:
        from .failure import lines_of

        # The failure itself is what the exit code is of.
        with suppress(OSError):
            for line in lines_of(error, messages, self._shown):
                self.write(line)

    def _report(self, error: BaseException, account: str | None = None) -> int | None:
        from ..base.wording import DOCTOR
        from ..errors import AltaProfilesError, Forbidden, Incomplete, RateLimited, Unauthorized

        if isinstance(error, BrokenPipeError):
            return Exit.PIPE
        if isinstance(error, click.Abort | KeyboardInterrupt):
            error = Interrupted(signal.SIGINT)
        if isinstance(error, Interrupted):
            cause = error.__cause__
            if isinstance(cause, AltaProfilesError | OSError):
                self._log_error(cause)
            elif isinstance(cause, Exception):
                return None
            self._log_error(error)
            self._log_resumption()
            return error.code
        if not isinstance(error, AltaProfilesError | OSError | Failure):
            return self._report_accounts(error)
        if isinstance(error, RateLimited):
            error.add_note(f"{remedy(error)}.")
        if step := self._advice_on_quotes(error):
            error.add_note(step)
        resolved = self._resolved_for(error, account)
        if isinstance(error, Unauthorized | Forbidden) and resolved is not None:
            error.add_note(f"These credentials are from {resolved.source}.")
            if isinstance(error, Unauthorized):
                from ..accounts.resolved import ENVIRONMENT

                if resolved.source != ENVIRONMENT:
                    again = self.logging_in(account)
                    error.add_note(f"If they have changed, log in again: {again}.")
                error.add_note(
                    f"To find the region or platform that accepts them: "
                    f"{self.trying_regions(resolved, account)}"
                )
        cause = error.__cause__ or error
        if advice := self.advice(error, account) or self.advice(cause, account):
            # It says the same, with the names of the settings.
            notes = [note for note in getattr(error, "__notes__", ()) if note != DOCTOR]
            vars(error)["__notes__"] = [*notes, advice]
        if isinstance(error, AltaProfilesError) and not getattr(error, "__notes__", ()):
            self._add_step(error)
        if isinstance(error, Incomplete) and self._is_out_of_patience():
            error.add_note(
                f"--timeout allows a silence of {self.timeout:g} s; if it ends so again, pass a "
                f"longer one."
            )
        self._log_error(error, account)
        if isinstance(error, Incomplete) and account is None and _is_kept(error):
            self._log_resumption()
        return exit_code(error)

    def _is_out_of_patience(self) -> bool:
        """Return whether requests last failed by the given `timeout`."""
        from ..errors import RequestTimeout

        failures = (one.failure for one in self._waits)
        return self.timeout is not None and any(isinstance(x, RequestTimeout) for x in failures)

    def _add_step(self, error: AltaProfilesError) -> None:
        """Add the next step to an error that can pass and names none."""
        from ..base.verdicts import can_pass
        from ..errors import RequestTimeout

        if not can_pass(error):
            return
        if not isinstance(error, RequestTimeout):
            error.add_note("Try again later, with the same command.")
        elif self.deadline is None or self.deadline.left > 0:
            error.add_note("Try again later, or with a longer --timeout.")
        else:
            error.add_note("Run it again, with a longer --max-time.")

    def _advice_on_quotes(self, error: BaseException) -> str | None:
        """Return advice on an event that is refused, if its quotation marks may be at fault."""
        from ..errors import BadRequest

        params = click.get_current_context().params
        events = params.get("events") or tuple(filter(None, [params.get("event")]))
        if not isinstance(error, BadRequest):
            return None
        if any(TYPOGRAPHIC.search(event) for event in events):
            return "If a word processor has put the quotation marks there, type straight ones."
        if len(events) < 2:
            return None
        if any(map(os.path.lexists, events)):
            return "If the shell has put files in the place of a pattern, name one file."
        whole = " ".join(events)
        return f"If these words are one event, quote it: {shlex.quote(whole)}."

    def _report_accounts(self, error: BaseException) -> int | None:
        """Log the errors of several accounts, and return the exit code; None if it is another."""
        from ..errors import ConfigurationError, PlanMismatch
        from ..export.accounts import AccountsFailed, leaves_nothing

        if not isinstance(error, AccountsFailed):
            return None
        codes = [self._report(one, account) for account, one in error.errors.items()]
        if str(error):
            self._log_error(error)
        resumed = [
            one
            for one in error.errors.values()
            if not isinstance(one, ConfigurationError | PlanMismatch)
        ]
        is_partial = len(error.errors) < len(self.accounts)
        are_kept = (_is_kept(one) and not leaves_nothing(one) for one in resumed)
        if resumed and (is_partial or any(are_kept)):
            self._log_resumption()
        return worst([code for code in codes if code is not None])

    def _log_error(self, error: BaseException, account: str | None = None) -> None:
        from ..errors import AltaProfilesError, PlanMismatch

        context = click.get_current_context()
        text = str(error)
        if isinstance(error, OSError) and error.strerror is not None:
            path = "" if error.filename is None else f"{error.filename}: "
            text = f"{path}{error.strerror}"
            if not path and isinstance(error, FileNotFoundError) and _is_folder_gone():
                # Python does not name it.
                folder = os.environ.get("PWD", "")
                text = f"the current folder {folder}".rstrip()
                text += " has been deleted; change to another folder, and run the command again"
        if isinstance(error, PlanMismatch):
            text = _in_words(text, error.differences, context.command)
        # What the system says names paths, and no arguments.
        is_of_library = not isinstance(error, OSError) or isinstance(error, AltaProfilesError)
        outside = outside_texts(context, [error, *(one.failure for one in self._waits)])
        if is_of_library:
            text = rewritten(text, outside, self.in_its_words)
        if self.max_time is not None:
            text = re.sub(
                r"\bthe deadline of \d[\d.e+-]* s\b", f"the --max-time of {self.max_time:g} s", text
            )
        lines = [text or type(error).__name__, *getattr(error, "__notes__", ())]
        message = "\n".join(lines)
        if is_of_library:
            message = rewritten(
                message, outside, lambda words: _with_option_names(words, context.command)
            )
        self._messages.setdefault(account, []).append(message)
        if account is not None:
            message = f"{account}: {message}"
        facts = {} if account is None else {"account": account}
        facts["error"] = type(error).__name__
        if error.__cause__ is not None:
            facts["cause"] = type(error.__cause__).__name__
        _logger().error(
            "%s",
            message,
            exc_info=error if self.verbose else None,
            extra={"facts": facts, "is_final": True},
        )

    def _log_resumption(self) -> None:
        if self._resume is not None:
            resume = self._resume
            if self.log_format == "json" and has_conditions(click.get_current_context()):
                # Not with a mark in their place: that would be the command of another export.
                resume = (
                    f"run the same command again in {Path.cwd()}; it is not shown, as its "
                    f"conditions may hold people's data"
                )
            else:
                self._shown = resume
            # At the error's level, so that `quiet` shows it as well.
            _logger().error("To resume: %s", resume, extra={"bare": True, "is_final": True})

    def _exit_now(self, number: int) -> NoReturn:
        if self.interactive:
            # A progress display hides the cursor, and gets no chance to show it again.
            with suppress(OSError):
                os.write(2, b"\x1b[?25h\n")
        if self.log_format == "text":
            message = f"error: {Interrupted(number)}\n"
            if self._resume is not None:
                message += f"To resume: {self._resume}\n"
            with suppress(OSError):
                os.write(2, message.encode(errors="backslashreplace"))
        os._exit(128 + number)


_SERVICES: dict[str, tuple[Literal["CleverTap", "Alta"], str]] = {
    "clevertap": ("CleverTap", "CLEVERTAP_ACCOUNT_ID and CLEVERTAP_PASSCODE"),
    "alta": ("Alta", "ALTA_TOKEN"),
}


_LISTED = 5
"""Most names of accounts in a line."""


_ARGUMENTS = {"event": "EVENT", "events": "EVENT", "keys": "FILE", "to": "FILE|URL"}
"""Arguments of commands by the library's name."""


def _shared(key: Alta, sharing: int) -> Alta:
    """Return an Alta key with its share of the slots, of a number of sessions that have it."""
    slots, pace = key.max_in_flight, key.requests_per_minute
    return replace(
        key,
        max_in_flight=max(1, slots // sharing) if isinstance(slots, int) else slots,
        requests_per_minute=None if pace is None else max(1, pace // sharing),
    )


def _is_folder_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


CONDITIONS = ("event_properties", "profile_fields")
"""The names of the parameters that are conditions."""


def has_conditions(context: click.Context) -> bool:
    """Return whether a command line holds conditions, whose values may be people's data."""
    return any(map(context.params.get, CONDITIONS))


def _is_kept(error: Exception) -> bool:
    """Return whether there is something that another run can resume."""
    from ..export.job import NOTHING_KEPT

    return NOTHING_KEPT not in str(error)


def _option_of(account: str | None) -> str:
    return "" if account is None else f" --account {shlex.quote(account)}"


@contextmanager
def keeping(errors: dict[str, Exception], name: str) -> Iterator[None]:
    """Keep the error of the account `name` in `errors`, so that others can go on.

    An error that no user can have caused is raised, and so is one of an argument, which is the same
    for all.
    """
    from ..errors import AltaProfilesError, ConfigurationError

    try:
        yield
    except ConfigurationError:
        raise
    except (AltaProfilesError, OSError) as error:
        errors[name] = error


def _both_words(one: Callable[[str], str], other: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: other(one(text))


def _logger() -> Any:
    import logging

    return logging.getLogger("altaprofiles.cli")


def _in_words(text: str, differences: Mapping[str, tuple[Any, Any]], command: click.Command) -> str:
    """Return the message of a `PlanMismatch` with its values as the command line has them."""
    options = {option.name: option for option in reversed(command.params)}
    for option in command.params:
        # Some options have a name of their own where another parameter has theirs.
        options.setdefault(option.opts[0].lstrip("-"), option)
    for name, values in differences.items():
        was, is_now = (_in_word(options.get(name), value) for value in values)
        flag = isinstance(values[1], bool)
        text = text.replace(
            f"`{name}` was {values[0]!r} and is now {values[1]!r}",
            f"it had {was}, and now has {is_now}"
            if flag
            else f"`{name}` was {was} and is now {is_now}",
        )
    for name, words in (("account", "the account's ID"), ("host", "the service's address")):
        text = text.replace(f"`{name}` was", f"{words} was")
    # Users of the command line have no error to look into.
    return text.replace("`differences` has them, and the journal", "the journal")


def _in_word(option: click.Parameter | None, value: object) -> str:
    if value is None:
        return "left out"
    if isinstance(value, tuple):
        return ", ".join(map(repr, value))
    if option is None or not isinstance(value, bool):
        return repr(value)
    if value or option.secondary_opts:
        return (option.opts if value else option.secondary_opts)[0]
    return f"no {option.opts[0]}"


def _with_option_names(text: str, command: click.Command) -> str:
    """Return `text` with the library's names of arguments replaced by the command's options."""
    # Names that no option bears.
    names: dict[str | None, str | None] = {
        "deadline": "--max-time",
        "endpoint=": "ALTA_ENDPOINT",
        "event": "EVENT",
        "keys": "--file",
    }
    for option in command.params:
        if isinstance(option, click.Argument):
            names[option.name] = _ARGUMENTS.get(str(option.name))
        if isinstance(option, click.Option):
            names[option.name] = max(option.opts, key=len)
    text = with_options(text, command)
    return re.sub(
        # The members of a query, and not the rest of a file's name.
        r"\A(?P<subject>\w+)(?=: |\[|\.\w+_(?:properties|query)\b)|`(?P<other>[\w=]+)`"
        r"|\b(?P<keyword>endpoint=)(?!\S)",
        lambda match: names.get(match["subject"] or match["other"] or match["keyword"]) or match[0],
        text,
    )
