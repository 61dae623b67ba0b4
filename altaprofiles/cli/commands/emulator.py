"""`altaprofiles emulator`: both services on loopback."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..command import Command

if TYPE_CHECKING:
    from ...emulator import Emulator

__all__ = ["emulator"]


def _limit(name: str, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option of a limit that does not exist by default."""
    return click.option(
        name,
        type=int,
        metavar="N",
        default=None,
        show_default=False,
        help=f"{text} No limit by default.",
    )


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
    "--record-size",
    type=click.Choice(["small", "real"]),
    default="small",
    show_default=True,
    help="Records of some 1 KB, or of 17 KB as in a real account.",
)
@click.option(
    "--think",
    type=float,
    metavar="SECONDS",
    default=0.0,
    show_default=False,
    help="The time before each answer.",
)
@click.option(
    "--max-in-flight",
    type=int,
    metavar="N",
    default=3,
    show_default=True,
    help="The number of CleverTap requests answered at once; any further one is refused.",
)
@_limit("--lookups-max-in-flight", "The same for lookups of one person, by themselves.")
@_limit("--alta-max-in-flight", "The same for Alta.")
@_limit("--clevertap-per-minute", "The number of CleverTap requests answered in one minute.")
@_limit("--alta-per-minute", "The same for Alta, with X-RateLimit headers.")
@_limit("--alta-per-day", "The same for Alta, for one day.")
@click.option(
    "--window-seconds",
    type=float,
    metavar="SECONDS",
    default=60.0,
    show_default=False,
    help="The length of such a minute, 60 by default; a day is 1,440 of them.",
)
@click.option(
    "--base-query",
    type=click.Choice(["optional", "with_filters", "required"]),
    default="optional",
    show_default=True,
    help="When a query needs an event and its days: never, unless it has filters, or always.",
)
@click.option(
    "--alta-envelope",
    type=click.Choice(["classic", "v1.5"]),
    default="classic",
    show_default=True,
    help="The form of Alta's answers.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME=RATE",
    help="Let this share of responses fail, such as not_ready=0.2; 1 is an outage. Repeatable.",
)
def emulator(port: int, people: int, faults: tuple[str, ...], **settings: Any) -> None:
    """Serve both APIs on loopback until interrupted.

    Prints the environment variables that point a client here; paste them into another shell.

    Faults are not_ready, opening_not_ready, throttled, too_many, server_error, html, cdn_timeout,
    empty, disconnect, reset, truncated, garbled, slow, gzip, empty_page, other_cursor, empty_chain,
    cut_short, empty_end, text_codes and text_errors.

    \b
    Example:
        altaprofiles emulator --port 8123 --fault not_ready=0.2 --alta-per-minute 100
    """
    import asyncio

    from ...emulator import Emulator

    rates: dict[str, float] = {}
    for name, rate in map(_rate, faults):
        if name in rates:
            raise click.BadParameter(f"{name} is given twice; give it once", param_hint="--fault")
        rates[name] = rate
    try:
        server = Emulator(people=people, faults=rates, port=port, **settings)
    except ValueError as error:
        raise _named(str(error)) from None
    asyncio.run(_serve(server, people, port))


def _named(message: str) -> click.BadParameter:
    """Return an error of the emulator's settings, which begins with a setting's name."""
    name = message.partition(" ")[0].rstrip(":")
    option = "--fault" if name == "faults" else f"--{name.replace('_', '-')}"
    text = message.removeprefix(f"{name} is ").removeprefix("faults: ")
    return click.BadParameter(text, param_hint=option)


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
