"""One run of `altaprofiles export` or `altaprofiles lookup`, from progress to summary."""

from __future__ import annotations

import os
from asyncio import CancelledError
from collections.abc import Awaitable, Callable

import click

from ..errors import Incomplete
from ..export.report import Report
from ..export.sinks.postgres_url import without_password
from ..session import Session
from .app import App, Service
from .exits import Interrupted
from .progress import ProgressDisplay, progress_display
from .resumption import command_line
from .summary import summarize, write_report

__all__ = ["run_job"]


def run_job(
    app: App,
    job: Callable[[Session, ProgressDisplay], Awaitable[Report]],
    *,
    out: str,
    as_json: bool,
    prefix: str = "",
    service: Service = "clevertap",
) -> None:
    """Run a job; its output's path or its report goes to stdout, everything else to stderr.

    Args:
        app: the command's services.
        job: called with an open session and the callback for its progress.
        out: the value of --out.
        as_json: whether to write the report, in place of the path.
        prefix: text in front of the command line that resumes the job.
        service: the service that it needs credentials for, or "both".
    """
    if without_password(out) != out:
        app.info(
            "Everyone on this machine can see the password in --out while this runs; PGPASSWORD or "
            "~/.pgpass hide it. The messages below leave it out."
        )
    reports: list[Report] = []

    with progress_display(app) as display:
        session = app.session(service=service, on_event=display.note_failure)

        async def main() -> None:
            async with session:
                try:
                    reports.append(await job(session, display))
                except CancelledError as error:
                    # The output may be in place all the same.
                    reports.extend([vars(error)["report"]] if "report" in vars(error) else [])
                    raise

        try:
            resume = prefix + command_line(click.get_current_context())
            app.run(main, resume=resume, committed=lambda: bool(reports))
        except Incomplete as error:
            if as_json and error.report is not None:
                write_report(app, error.report)
            raise
        except Interrupted:
            # If the output is in place by now, to resume would be to start a new export.
            if not reports:
                raise
    (report,) = reports
    summarize(app, report)
    if as_json:
        write_report(app, report)
    else:
        # A file's name is bytes, independent of the locale.
        name = report.output.encode() if report.bytes is None else os.fsencode(report.output)
        app.write(name + b"\n")
