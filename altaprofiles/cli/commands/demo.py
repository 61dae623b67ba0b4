"""`altaprofiles demo`: the library at work, without an account."""

from __future__ import annotations

import click

from ..app import App
from ..command import Command
from ..exits import Failure
from ..numbers import WholeRange

__all__ = ["demo"]


@click.command(cls=Command)
@click.option(
    "--people",
    type=WholeRange(min=1, max=1_000_000),
    metavar="N",
    default=4_000,
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
    """Export, pull the plug, resume, ask and join, without an account.

    Both services are emulated inside this command, on loopback. Like the real ones, at times they
    are not ready, throttle, drop connections and send garbage. An export of a month is made twice:
    once at once, and once in a process that is killed (kill -9) halfway, and then resumed. Both
    outputs must be the same, byte for byte, and hold each of the services' people. Then the output
    is queried with SQL, and its best customers are joined with their users at Alta.

    Nothing is left behind but the output, and nothing at all if the demo is interrupted.

    \b
    Examples:
        altaprofiles demo
        altaprofiles demo --people 1000 --out people.ndjson
    """
    import os
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from ..scenario import Scenario

    beside = None if out is None else Path(out).absolute().parent
    with TemporaryDirectory(prefix="altaprofiles-demo-", dir=beside) as folder:
        scenario = Scenario(app, people, Path(folder))
        app.run(scenario.run, is_limited=True)
        path = Path(f"{folder}.ndjson") if out is None else Path(out)
        scenario.out.replace(path)
    app.write(b"The people are in %b\n" % os.fsencode(path))
    if not scenario.complete:
        raise Failure("the export is not complete")
