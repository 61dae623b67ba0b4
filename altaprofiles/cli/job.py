"""What runs for hours, and goes on: `altaprofiles export` and `altaprofiles lookup`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import click

from ..errors import Incomplete
from ..export.report import ExportReport, LookupReport
from ..export.sinks.postgres_url import without_password
from ..session import Session
from .app import App
from .exits import Interrupted
from .progress import Shown, showing
from .resumption import command_line
from .summary import summarize, write_report

__all__ = ["run_job"]


def run_job(
    app: App,
    begin: Callable[[Session, Shown], Awaitable[ExportReport | LookupReport]],
    *,
    out: str,
    as_json: bool,
    before: str = "",
) -> None:
    """Run an export: its path or report goes to stdout, and all else to stderr.

    Args:
        before: what stands before the command that goes on.
    """
    if without_password(out) != out:
        app.say(
            "Everyone on this machine can see the password in --out while this runs; PGPASSWORD or "
            "~/.pgpass hide it. What is printed here leaves it out."
        )
    reports: list[ExportReport | LookupReport] = []

    with showing(app) as show:
        session = app.session(on_event=show.note)

        async def main() -> None:
            async with session:
                reports.append(await begin(session, show))

        try:
            go_on = before + command_line(click.get_current_context())
            app.run(main, go_on=go_on, too_late=lambda: bool(reports))
        except Incomplete as error:
            if as_json and error.report is not None:
                write_report(app, error.report)
            raise
        except Interrupted:
            # Heard before all was in place, and now it is: to go on would be to begin anew.
            if not reports:
                raise
    summarize(app, reports[0])
    if as_json:
        write_report(app, reports[0])
    else:
        # A file's name is bytes, and not what the locale makes of it.
        output = reports[0].output
        name = output.encode() if reports[0].bytes is None else os.fsencode(output)
        app.write(name + b"\n")
