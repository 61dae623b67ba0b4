"""`altaprofiles demo`: the library at work, without an account."""

from __future__ import annotations

import click

from ..app import App
from ..command import Command
from ..numbers import WholeRange

__all__ = ["demo"]


@click.command(cls=Command)
@click.option(
    "--people",
    type=WholeRange(min=1, max=1_000_000),
    metavar="N",
    default=18_000,
    show_default=True,
    help="The number of people in the emulated account.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True),
    help="The NDJSON file to write. By default a new one in the system's folder for temporary "
    "files.",
)
@click.pass_obj
def demo(app: App, people: int, out: str | None) -> None:
    """Export, interrupt, resume, look up and join, without an account.

    Both services are emulated inside this command, on loopback. Like the real ones, at times they
    are not ready, throttle, drop connections and send garbage. An export of a month is interrupted
    midway and resumed; its output must be complete all the same, and is compared with the services'
    data. With the extra duckdb installed, the file is queried as well.

    \b
    Examples:
        altaprofiles demo
        altaprofiles demo --people 100000 --out people.ndjson
    """
    import tempfile
    from pathlib import Path

    from ..scenario import Scenario

    if out is None:
        path = Path(tempfile.mkdtemp(prefix="altaprofiles-demo-"), "people.ndjson")
    else:
        path = Path(out)
    scenario = Scenario(app, people, path)
    app.run(scenario.run, is_limited=True)
    if not scenario.complete:
        raise click.ClickException("the export is not complete")
