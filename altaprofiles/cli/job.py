"""Runs of `altaprofiles export` and `altaprofiles lookup`, from progress to summary."""

from __future__ import annotations

import os
import re
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

import click
from msgspec.structs import replace

from ..base.task_account import of_account
from ..base.wording import failed_alone
from ..export.accounts import AccountsFailed
from ..export.job import Job
from ..export.output import Output
from ..export.part import Part
from ..export.report import Report, SyncReport
from ..export.sinks.postgres_url import without_password
from ..export.threads import run_all
from ..redaction import readable
from ..session import Session
from .account_progress import account_displays
from .app import App, Service, has_conditions, keeping
from .exits import Exit, Failure, Interrupted
from .options import OutputOptions
from .progress import ProgressDisplay, progress_display
from .resumption import command_line, resuming_line
from .streams import abandon_broken_streams
from .summary import summarize, write_report

__all__ = ["ACCOUNT", "Opened", "filled", "run_accounts", "run_job", "run_parts"]

R = TypeVar("R", bound=Report)

PartOf: TypeAlias = Callable[[Session, ProgressDisplay, str | None], Awaitable[Part[R, Any]]]
Alone: TypeAlias = Callable[[Session, ProgressDisplay, str], Awaitable[R]]
Opened: TypeAlias = Mapping[str, tuple[Session, ProgressDisplay]]

ACCOUNT = "{account}"
"""The text in a path that stands for the name of the account."""

_BRACES = re.compile(r"\{[^{}]*\}?|\}")
_WILDCARD = re.compile(r"[*?]|\[[^\[\]]+\]")


def run_parts(
    app: App,
    part: PartOf[R],
    *,
    options: OutputOptions,
    as_json: bool,
    prefix: str = "",
    service: Service = "clevertap",
    check: Callable[[R], None] = lambda report: None,
) -> None:
    """Run an export of one account, of several into one output, or of each into its own.

    Args:
        app: the command's services.
        part: returns the part of an export that fetches. It is called with an open session, the
            callback for its progress, and the name of the account in an output of several.
        options: the output.
        as_json, prefix, service, check: as for `run_accounts`.
    """
    # Only one of several accounts cannot be finished by itself. Conditions may hold people's data.
    command = None
    context = click.get_current_context()
    if len(app.accounts) > 1 and not prefix and not has_conditions(context):
        command = readable(command_line(context))
    output = Output(**options, deadline=app.deadline, command=command)

    async def alone(session: Session, display: ProgressDisplay, to: str) -> R:
        own = await part(session, display, None)
        return await Job([own], replace(output, to=to)).run()

    async def together(opened: Opened) -> R:
        parts: list[Part[R, Any]] = []
        for name, (session, display) in opened.items():
            parts.append(await part(session, display, name))
            parts[-1].on_failure = display.fail
        return await Job(parts, output).run()

    run_accounts(
        app,
        alone,
        together,
        out=options["to"],
        as_json=as_json,
        prefix=prefix,
        adds=options["write"] == "append",
        service=service,
        check=check,
    )


def run_accounts(
    app: App,
    alone: Alone[R],
    together: Callable[[Opened], Awaitable[R]],
    *,
    out: str,
    as_json: bool,
    prefix: str = "",
    adds: bool = False,
    service: Service = "clevertap",
    check: Callable[[R], None] = lambda report: None,
) -> None:
    """Run a job of one account, of several with one output, or of each with its own.

    Args:
        app: the command's services.
        alone: called with an open session, the callback for its progress, and the output.
        together: called with an open session and the callback of each account, by its name.
        out: the value of --out.
        prefix: text in front of the command line that resumes the job.
        as_json, adds, service: as for `run_job`.
        check: called with each report.
    """
    if ACCOUNT not in out:
        _check_name(app, out, [out])
    if ACCOUNT not in out and len(app.accounts) < 2:

        async def job(session: Session, display: ProgressDisplay) -> R:
            report = await alone(session, display, out)
            check(report)
            return report

        line = prefix + resuming_line(click.get_current_context())
        app.name_account(service)
        run_job(app, job, out=out, as_json=as_json, resume=line, adds=adds, service=service)
        return
    app.name_account(service)
    app.accounts = app.accounts or (app.usual_account(f"{ACCOUNT} in --out", service),)
    if ACCOUNT in out:
        _check_name(app, out, [filled(out, name) for name in app.accounts])
    _advise_on_password(app, out)
    with account_displays(app, app.accounts) as displays:
        sessions = app.sessions(service=service, on_event=lambda name: displays[name].note_failure)
        context = click.get_current_context()

        def resume(accounts: Sequence[str]) -> str:
            return prefix + resuming_line(context, accounts)

        if ACCOUNT in out:
            outputs = {name: filled(out, name) for name in sessions}

            async def one(name: str, keep: Callable[[R], object]) -> None:
                async with sessions[name] as session:
                    keep(await alone(session, displays[name], outputs[name]))

            named, failure = _run_each(app, one, displays, resume)
        else:

            async def all_of_them(keep: Callable[[R], object]) -> None:
                async with AsyncExitStack() as stack:
                    for session in sessions.values():
                        await stack.enter_async_context(session)
                    keep(
                        await together(
                            {name: (session, displays[name]) for name, session in sessions.items()}
                        )
                    )

            named, failure = [(None, _run(app, all_of_them, resume(app.accounts)))], None
    _finish(app, named, failure, as_json=as_json, adds=adds, check=check)


def run_job(
    app: App,
    job: Callable[[Session, ProgressDisplay], Awaitable[Report]],
    *,
    out: str,
    as_json: bool,
    resume: str,
    adds: bool = False,
    service: Service = "clevertap",
) -> None:
    """Run a job; its output's path or its report goes to stdout, everything else to stderr.

    Args:
        app: the command's services.
        job: called with an open session and the callback for its progress.
        out: the value of --out.
        as_json: whether to write the report, in place of the path.
        resume: the command line that resumes the job.
        adds: whether the job once more would add its rows once more. Then it does not fail because
            its result cannot be shown.
        service: the service that it needs credentials for, or "both".
    """
    _advise_on_password(app, out)
    with progress_display(app) as display:
        session = app.session(service=service, on_event=display.note_failure)

        async def main(keep: Callable[[Report], object]) -> None:
            async with session:
                keep(await job(session, display))

        report = _run(app, main, resume)
    _finish(app, [(None, report)], None, as_json=as_json, adds=adds)


def _run(app: App, job: Callable[[Callable[[R], object]], Awaitable[None]], resume: str) -> R:
    """Return the report of a job.

    Args:
        app: the command's services.
        job: called with what keeps its report. It does so before anything that can be interrupted:
            a job whose report is known is over, and to resume would be to start a new one.
        resume: the command line that resumes it.
    """
    reports: list[R] = []

    async def main() -> None:
        with _kept_report(reports.append):
            await job(reports.append)

    try:
        app.run(main, resume=resume, committed=lambda: bool(reports))
    except Interrupted:
        if not reports:
            raise
    return reports[0]


def _run_each(
    app: App,
    job: Callable[[str, Callable[[R], object]], Awaitable[None]],
    displays: Mapping[str, ProgressDisplay],
    resume: Callable[[Sequence[str]], str],
) -> tuple[list[tuple[str | None, R]], AccountsFailed | Interrupted | None]:
    """Run the jobs of all accounts; return their reports, and the failure of others.

    Args:
        app: the command's services.
        job: called with the name of an account, and what keeps its report, as in `_run`.
        displays: the display of each account.
        resume: returns the command line that resumes the jobs of accounts.
    """
    reports: dict[str, R] = {}
    errors: dict[str, Exception] = {}
    failure: AccountsFailed | Interrupted | None = None

    def keep(name: str, report: R) -> None:
        reports[name] = report
        # Once more, an append would add the rows of this one twice.
        app.resume_by(resume([name for name in app.accounts if name not in reports]))

    async def one(name: str) -> None:
        with keeping(errors, name), _kept_report(partial(keep, name)):
            await job(name, partial(keep, name))
        if name in errors:
            if len(errors) + len(reports) < len(app.accounts):
                app.warn(failed_alone(name))
            displays[name].fail()

    def is_over() -> bool:
        return len(reports) == len(app.accounts)

    try:
        app.run(
            lambda: run_all([of_account(name, partial(one, name)) for name in app.accounts]),
            resume=resume(app.accounts),
            committed=is_over,
        )
    except Interrupted as error:
        failure = None if is_over() else error
    else:
        failure = AccountsFailed("", errors) if errors else None
    return [(name, reports[name]) for name in app.accounts if name in reports], failure


@contextmanager
def _kept_report(keep: Callable[[Any], object]) -> Iterator[None]:
    """Keep the report of a job that was cancelled after its output was in place."""
    try:
        yield
    except CancelledError as error:
        if (report := vars(error).get("report")) is not None:
            keep(report)
        raise


def _check_name(app: App, out: str, outputs: Sequence[str]) -> None:
    """Warn of a new output that will be named like a pattern.

    A shell replaces no pattern in quotation marks, and only {account} is replaced here.

    Args:
        app: the command's services.
        out: the value of --out.
        outputs: the output, or that of each account.
    """
    is_url = "://" in out
    # A folder has to exist, but the folders of a bucket do not.
    name = without_password(out).partition("?")[0] if is_url else Path(out).name
    name = name.rpartition("@")[2] if is_url else name
    found = _BRACES.search(name.replace(ACCOUNT, ""))
    if found is None and not is_url:
        found = _WILDCARD.search(name)
    if found is None or (not is_url and all(map(_is_known, outputs))):
        return
    why = "as the output is one file"
    if found.re is _BRACES:
        why = f"and only {ACCOUNT} for the name of each account"
    text = f"--out: {readable(found[0])} stands for nothing else here, {why}"
    app.warn(f"{text}; it stays in the name")


def _is_known(output: str) -> bool:
    """Return whether an output is there, or has been begun."""
    path = Path(output)
    return any(os.path.lexists(path.with_name(path.name + end)) for end in ("", ".export"))


def _advise_on_password(app: App, out: str) -> None:
    if without_password(out) != out:
        app.info(
            "Everyone on this machine can see the password or key in --out while this runs; "
            "PGPASSWORD, ~/.pgpass or ~/.pg_service.conf hide it. The messages below leave it out."
        )


def _finish(
    app: App,
    reports: Sequence[tuple[str | None, R]],
    failure: Exception | None,
    *,
    as_json: bool,
    adds: bool,
    check: Callable[[R], None] = lambda report: None,
) -> None:
    """Show what has ended, then raise the failure of what has not.

    Args:
        app: the command's services.
        reports: the reports, by account; a single one has no name.
        failure: the failure of other accounts, or None.
        as_json, adds, check: as for `run_accounts`.
    """
    broken: OSError | None = None
    for name, report in reports:
        check(report)
        try:
            _write(app, report, as_json=as_json, account=name)
        except OSError as error:
            broken = broken or error
    if failure is not None:
        # Whoever is told of the stream would try again what cannot work.
        raise failure
    if broken is None:
        return
    if not adds:
        raise broken
    outputs = ", ".join(dict.fromkeys(report.output for _, report in reports))
    are = "are" if "," in outputs else "is"
    # stderr may be as broken.
    with suppress(OSError):
        app.warn(f"{outputs} {are} in place, but the result cannot be shown: {broken.strerror}")
    abandon_broken_streams()


def _write(app: App, report: Report, *, as_json: bool, account: str | None) -> None:
    try:
        summarize(app, report, account)
    finally:
        # Also where nobody reads stderr any more.
        if as_json:
            write_report(app, report, account)
        elif not isinstance(report, SyncReport) or report.has_output:
            # A file's name is bytes, independent of the locale.
            name = report.output.encode() if report.bytes is None else os.fsencode(report.output)
            app.write(name + b"\n")


def filled(out: str, account: str) -> str:
    """Return the output of one account.

    Raises:
        Failure: the name of the account cannot be a part of a path.
    """
    if "://" in out:
        return out.replace(ACCOUNT, quote(account, safe=""))
    if account in (".", "..") or {"/", "\\", "\0"} & {*account}:
        raise Failure(
            f"--out: the name of the account {account!r} cannot be a part of a path; rename the "
            f"account in the credentials file",
            Exit.USAGE,
        )
    return out.replace(ACCOUNT, account)
