"""The command line: arguments, progress, exit codes. No logic of its own.

Importing this must stay cheap, as it happens for every `--help`: commands import the rest of the
library when they run.
"""

from __future__ import annotations

from pathlib import Path

import click

from .._version import __version__

__all__ = ["cli"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="altaprofiles")
def cli() -> None:
    """Customer profiles from CleverTap and CDP users from Alta, every record exactly once."""


@cli.command()
@click.option(
    "--people",
    type=click.IntRange(min=1, max=1_000_000),
    default=21_000,
    show_default=True,
    help="How many people the emulated account holds.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="The file to write. By default a new one in the system's folder for temporary files.",
)
def demo(people: int, out: Path | None) -> None:
    """Export, look up and join people from an emulated service that misbehaves.

    Needs no account and no network: both services run inside this command, on loopback. They are
    not ready, throttle, break off and answer nonsense at times, as the real ones do. The export
    must come out complete all the same, and is compared with what the services hold.
    """
    from .demo import run

    run(people=people, out=out)


@cli.command()
@click.option(
    "--port",
    type=click.IntRange(min=0, max=65_535),
    default=0,
    show_default="a free one",
    help="The port to listen on, on 127.0.0.1.",
)
@click.option(
    "--people",
    type=click.IntRange(min=0),
    default=10_000,
    show_default=True,
    help="How many people the account holds.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Decides who they are, and when faults strike.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME=RATE",
    help="Let a share of answers fail, such as not_ready=0.2; 1 is an outage. Repeatable.",
)
def emulator(port: int, people: int, seed: int, faults: tuple[str, ...]) -> None:
    """Serve both APIs on loopback until interrupted.

    Prints the environment variables that point a client here; paste them into another shell:

    \b
        altaprofiles emulator --port 8123 --fault not_ready=0.2 --fault reset=0.05
    """
    from .serve import run

    run(port=port, people=people, seed=seed, faults=faults)
