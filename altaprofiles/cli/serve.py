"""`altaprofiles emulator`: both services on loopback until interrupted."""

from __future__ import annotations

import asyncio
import signal

import click

from ..emulator import Emulator

__all__ = ["run"]


def run(*, port: int, people: int, seed: int, faults: tuple[str, ...]) -> None:
    """Serve until SIGINT or SIGTERM; the environment variables go to stdout."""
    rates: dict[str, float] = {}
    for fault in faults:
        name, _, rate = fault.partition("=")
        try:
            rates[name] = float(rate)
        except ValueError:
            raise click.BadParameter(
                f"{fault!r} is not NAME=RATE, such as not_ready=0.2", param_hint="--fault"
            ) from None
    try:
        emulator = Emulator(people=people, seed=seed, faults=rates, port=port)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fault") from None
    asyncio.run(_serve(emulator, people, port))


async def _serve(emulator: Emulator, people: int, port: int) -> None:
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
