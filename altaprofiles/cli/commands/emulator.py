"""`altaprofiles emulator`: both services on loopback."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import click

from ..command import Command

if TYPE_CHECKING:
    from ...emulator import Emulator

__all__ = ["emulator"]


@click.command(cls=Command)
@click.option(
    "--port",
    type=click.IntRange(min=0, max=65_535),
    metavar="N",
    default=0,
    show_default=False,
    help="The port to listen on, on 127.0.0.1; by default a free one.",
)
@click.option(
    "--people",
    type=click.IntRange(min=0),
    metavar="N",
    default=10_000,
    show_default=True,
    help="The number of people in the account.",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=0,
    show_default=True,
    help="Determines the people, and when faults occur.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME=RATE",
    help="Let this share of responses fail, such as not_ready=0.2; 1 is an outage. Repeatable.",
)
def emulator(port: int, people: int, seed: int, faults: tuple[str, ...]) -> None:
    """Serve both APIs on loopback until interrupted.

    Prints the environment variables that point a client here; paste them into another shell.

    Faults are not_ready, opening_not_ready, throttled, too_many, server_error, html, cdn_timeout,
    empty, disconnect, reset, truncated, garbled, slow, gzip, empty_page, other_cursor, empty_chain,
    cut_short, empty_end, text_codes and text_errors.

    \b
    Example:
        altaprofiles emulator --port 8123 --fault not_ready=0.2 --fault reset=0.05
    """
    import asyncio

    from ...emulator import Emulator

    rates = dict(map(_rate, faults))
    try:
        server = Emulator(people=people, seed=seed, faults=rates, port=port)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fault") from None
    asyncio.run(_serve(server, people, port))


def _rate(fault: str) -> tuple[str, float]:
    name, _, rate = fault.partition("=")
    try:
        return name, float(rate)
    except ValueError:
        raise click.BadParameter(
            f"{fault!r} is not NAME=RATE, such as not_ready=0.2", param_hint="--fault"
        ) from None


async def _serve(emulator: Emulator, people: int, port: int) -> None:
    """Serve until SIGINT or SIGTERM; the environment variables go to stdout."""
    import asyncio

    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    try:
        async with emulator:
            for name, value in emulator.environment.items():
                click.echo(f"export {name}={value}")
            click.echo(f"{people:,} people at {emulator.url}; stop with Ctrl-C", err=True)
            await interrupted.wait()
    except OSError as error:
        raise click.ClickException(f"cannot listen on port {port}: {error.strerror}") from None
