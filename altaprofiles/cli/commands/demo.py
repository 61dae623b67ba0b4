"""`altaprofiles demo`."""

from __future__ import annotations

from pathlib import Path

import click

from ..app import App
from ..command import Command

__all__ = ["demo"]


@click.command(cls=Command)
@click.option(
    "--people",
    type=click.IntRange(min=1, max=1_000_000),
    metavar="N",
    default=18_000,
    show_default=True,
    help="How many people the emulated account holds.",
)
@click.option(
    "--out",
    "to",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="The NDJSON file to write. By default a new one in the system's folder for temporary "
    "files.",
)
@click.pass_obj
def demo(app: App, people: int, to: Path | None) -> None:
    """Export, interrupt, resume, look up and join, without an account.

    Both services are emulated inside this command, on loopback. They are not ready, throttle, break
    off and answer nonsense at times, as the real ones do. An export of a month is interrupted
    midway and goes on; it must come out complete all the same, and is compared with what the
    services hold. With duckdb installed, a question is put to the file.

    \b
    Examples:
        altaprofiles demo
        altaprofiles demo --people 100000 --out people.ndjson
    """
    from ..scenario import run

    run(app, people=people, out=to)
