"""`altaprofiles emulator`: both services on loopback."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..command import Command
from ..completion import complete_fault
from ..exits import Failure
from ..numbers import DecimalNumber, WholeNumber, WholeRange, number_in

if TYPE_CHECKING:
    from ...emulator import Emulator

__all__ = ["emulator"]


def _limit(
    name: str, text: str, default: str = " No limit by default."
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option of a limit, which by default does not exist."""
    return click.option(
        name,
        type=WholeNumber(),
        metavar="N",
        default=None,
        show_default=False,
        help=f"{text}{default}",
    )


def _switch(name: str, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option of a setting that is on by default."""
    return click.option(
        f"--{name}/--no-{name}", default=True, show_default=False, help=f"{text} (the default)."
    )


def _file(name: str, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        name,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        default=None,
        show_default=False,
        help=text,
    )


@click.command(cls=Command)
@click.option(
    "--port",
    type=WholeRange(min=0, max=65_535),
    metavar="N",
    default=0,
    show_default=False,
    help="The port to listen on, on 127.0.0.1; by default a free one.",
)
@click.option(
    "--people",
    type=WholeRange(min=0),
    metavar="N",
    default=None,
    show_default=False,
    help="The number of people of the seed: 10,000 by default, or 0 with people of your own.",
)
@_file("--records", "People of your own: a file of one JSON record a line, as exports write them.")
@_file("--bindings", 'Users of your own in Alta: a JSON file such as {"user": ["anonymous ID"]}.')
@_file("--replay", "A file of altaprofiles.emulator.Recorder, to serve in the place of people.")
@click.option(
    "--seed",
    type=WholeNumber(),
    metavar="N",
    default=0,
    show_default=True,
    help="Determines the people, when faults occur, and the account ID and passcode.",
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
    type=DecimalNumber(),
    metavar="SECONDS",
    default=0.0,
    show_default=False,
    help="The time before each answer.",
)
@click.option(
    "--max-in-flight",
    type=WholeNumber(),
    metavar="N",
    default=3,
    show_default=True,
    help="The number of CleverTap requests answered at once; any further one is refused.",
)
@_limit("--lookups-max-in-flight", "The same for lookups of one person, by themselves.")
@_limit("--counts-max-in-flight", "The same for counts, by default as --max-in-flight.", "")
@_limit("--alta-max-in-flight", "The same for Alta.")
@_limit("--clevertap-per-minute", "The number of CleverTap requests answered in one minute.")
@_limit("--alta-per-minute", "The same for Alta, with X-RateLimit headers.")
@_limit("--alta-per-day", "The same for Alta, for one day.")
@click.option(
    "--window-seconds",
    type=DecimalNumber(),
    metavar="SECONDS",
    default=60.0,
    show_default=False,
    help="The length of such a minute, 60 by default; a day is 1,440 of them.",
)
@_switch("rate-limit-headers", "Send X-RateLimit headers with Alta's answers if there is a limit")
@_limit("--max-open-chains", "The number of chains read at once; any further one is empty.")
@click.option(
    "--cursor-lifetime",
    type=DecimalNumber(),
    metavar="SECONDS",
    default=4 * 86_400,
    show_default=False,
    help="The time for which a cursor is valid, four days by default.",
)
@_switch("notification-exports", "Export people by notification events as well")
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
    "--alta-error",
    type=WholeNumber(),
    metavar="CODE",
    default=None,
    show_default=False,
    help="Let Alta refuse every lookup with a documented code, such as 20055.",
)
@_switch("key-verification", "Let Alta answer what a key is for, as GPTBots does")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME=RATE",
    shell_complete=complete_fault,
    help="Let this share of responses fail, such as not_ready=0.2; 1 is an outage. Repeatable.",
)
def emulator(
    port: int,
    people: int | None,
    records: Path | None,
    bindings: Path | None,
    replay: Path | None,
    faults: tuple[str, ...],
    **settings: Any,
) -> None:
    """Serve both APIs on loopback until interrupted.

    Prints the environment variables that point a client here; paste them into another shell.

    While it runs, PUT /faults with a JSON object replaces the faults, and PUT /think with a number
    of seconds the time before each answer. GET /faults and GET /think return them, and GET /stats
    returns counters. PUT /passcode and PUT /token with a JSON text replace these, as a rotation
    does: the next request needs the new one, and no answer shows it.

    Faults are not_ready, opening_not_ready, counting_not_ready, throttled, too_many, server_error,
    html, cdn_timeout, empty, disconnect, reset, truncated, garbled, slow, gzip, empty_page,
    other_cursor, empty_chain, cut_short, empty_end, odd_record, text_codes and text_errors.
    `altaprofiles guide testing` has a table of what each sends and leads to.

    \b
    Examples:
      altaprofiles emulator --port 8123 --fault not_ready=0.2 --alta-per-minute 100
      altaprofiles emulator --port 8123 --records people.ndjson
      curl -X PUT -d '{"server_error": 1}' http://127.0.0.1:8123/faults
      curl -X PUT -d 0.5 http://127.0.0.1:8123/think
      curl -X PUT -d '"new-passcode"' http://127.0.0.1:8123/passcode
    """
    import asyncio

    from ...emulator import Emulator

    rates: dict[str, float] = {}
    for name, rate in map(_rate, faults):
        if name in rates:
            raise click.BadParameter(f"{name} is given twice; give it once", param_hint="--fault")
        rates[name] = rate
    if people is None and records is None and bindings is None and replay is None:
        people = 10_000
    lines = [] if records is None else _lines(records)
    try:
        server = Emulator(
            people=people,
            records=None if records is None else [record for _, record in lines],
            bindings=None if bindings is None else _object(bindings),
            replay=replay,
            faults=rates,
            port=port,
            **settings,
        )
    except ValueError as error:
        raise _named(str(error), [number for number, _ in lines]) from None
    asyncio.run(_serve(server, port, is_replay=replay is not None))


def _lines(file: Path) -> list[tuple[int, Any]]:
    """Return the values of a file of NDJSON, each with the number of its line."""
    import json

    found: list[tuple[int, Any]] = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            # Unlike msgspec it reads half of a surrogate pair. NaN is not JSON.
            found.append((number, json.loads(line, parse_constant=_refused)))
        except (ValueError, RecursionError):
            raise click.BadParameter(
                f"line {number} is not JSON; write one record a line", param_hint="--records"
            ) from None
    return found


def _refused(constant: str) -> NoReturn:
    raise ValueError(constant)


def _object(file: Path) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(file.read_bytes())
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise click.BadParameter(
            'the file is not JSON; write an object such as {"u1": ["a1"]}', param_hint="--bindings"
        ) from None


def _named(message: str, lines: list[int]) -> click.BadParameter:
    """Return an error of the emulator's settings, which begins with a setting's name.

    Args:
        message: the error.
        lines: the line of each record.
    """
    name = re.split(r"\W", message, maxsplit=1)[0]
    option = "--fault" if name == "faults" else f"--{name.replace('_', '-')}"

    def line(found: re.Match[str]) -> str:
        return f"line {lines[int(found[1])]}" + (", " if found[2] else "")

    text = re.sub(r"records\[(\d+)\](\.)?", line, message)
    text = text.removeprefix(f"{name} is ").removeprefix(f"{name}: ")
    return click.BadParameter(text, param_hint=option)


def _rate(fault: str) -> tuple[str, float]:
    name, _, text = fault.partition("=")
    if (rate := number_in(text)) is None:
        raise click.BadParameter(
            f"{fault!r} is not NAME=RATE, such as not_ready=0.2", param_hint="--fault"
        )
    return name, rate


async def _serve(emulator: Emulator, port: int, *, is_replay: bool) -> None:
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
            people = f"{len(emulator.population):,} people"
            served = "a replay" if is_replay else people
            click.echo(f"{served} at {emulator.url}; stop with Ctrl-C", err=True)
            await interrupted.wait()
    except OSError as error:
        raise Failure(
            f"cannot listen on port {port}: {error.strerror}; pass another --port, or none for a "
            f"free one"
        ) from None
