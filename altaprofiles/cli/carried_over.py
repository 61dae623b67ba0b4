"""Options and commands of sister commands and other tools, and what they are called here. No I/O.

Where one is unknown, click suggests what is spelled alike: --format for --from.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import click

__all__ = ["COMMANDS", "NO_PHONES", "PHONES", "advice_on", "suggested"]

_FIRST, _LAST = ("--from", "--since"), ("--to", "--until")

_OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("--from", "--since", "--start", "--start-date", "--start-time", "--from-date", "--begin"),
        _FIRST,
    ),
    **dict.fromkeys(("--until", "--end", "--end-date", "--end-time", "--to-date", "--till"), _LAST),
    # Where there are no days, it is where the result goes.
    "--to": (*_LAST, "--out"),
    **dict.fromkeys(("--output", "--output-file", "--destination", "--dest", "-O"), ("--out",)),
    **dict.fromkeys(("--profile-name", "--project", "--account-id"), ("--account",)),
    # That of aws; where records can leave it out, it is an option of its own.
    "--profile": ("--account",),
    **dict.fromkeys(("--silent", "-s"), ("--quiet",)),
    **dict.fromkeys(("--debug", "--trace"), ("--verbose",)),
    **dict.fromkeys(
        ("--connect-timeout", "--read-timeout", "--cli-read-timeout", "--cli-connect-timeout"),
        ("--timeout",),
    ),
    **dict.fromkeys(("-m", "--retry-max-time", "--deadline"), ("--max-time",)),
    **dict.fromkeys(("--retry", "--max-attempts", "--max-retries"), ("--retries",)),
    **dict.fromkeys(("--filter", "--filters", "--condition"), ("--where",)),
    **dict.fromkeys(("--page-size", "--chunk-size"), ("--batch-size",)),
    **dict.fromkeys(("--table-name", "--dataset", "--dataset-name"), ("--table",)),
    **dict.fromkeys(("--write-disposition", "--mode"), ("--write",)),
    **dict.fromkeys(("--full-refresh", "--refresh"), ("--fresh",)),
    **dict.fromkeys(("--finish", "--resume"), ("--finish-unfinished",)),
    "--discard": ("--discard-unfinished",),
    "--user": ("--user-id", "--account"),
    **dict.fromkeys(("--tz", "--time-zone"), ("--timezone",)),
    **dict.fromkeys(("--key-column", "--keys-column", "--key"), ("--column", "--cdp-key")),
    # Of one letter, those of which most tools make the same.
    "-c": ("--column",),
    "-p": ("--port",),
    "-u": ("--user-id",),
    "-V": ("--version",),
}
"""Those of one meaning, each the first that the command has."""

NO_PHONES = (
    "no service looks up phones; to match a list of them with an export, see `altaprofiles guide "
    'look-ups`, "A list of phones"'
)
"""Advice to someone who has phones for keys."""

PHONES = ("phone", "phone-number", "mobile", "msisdn")
"""Names of such keys."""

_AGAIN = "leave it out: the same command resumes what is unfinished"
_EVENT = ("event", "events")
_ADVICE: dict[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(
        ("--event", "--events", "--event-name"),
        (_EVENT, "the name of the event stands by itself"),
    ),
    **dict.fromkeys(
        ("--file", "--input", "-f", "-i", "--data"),
        (("keys",), "the name of the file stands by itself"),
    ),
    **dict.fromkeys(("--continue", "-C", "--resume", "--finish"), (("write", "late_days"), _AGAIN)),
    **dict.fromkeys(
        ("--days", "--last"), (("start",), "for seven days, write --from -7d --to yesterday")
    ),
    **dict.fromkeys(
        ("--select", "--columns", "--fields", "--rename"),
        (
            ("flatten",),
            (
                "a file has all columns, and with --flatten NAME one for a property; to choose, "
                "rename and order them, see `altaprofiles guide into-databases`"
            ),
        ),
    ),
    "--dry-run": (_EVENT, "`altaprofiles count` prints the number of people, and writes nothing"),
    "--email": (("keys",), "write --by email, and the file of the keys"),
    "--identity": (("keys",), "write --by identity, and the file of the keys"),
    "--object-id": (("keys",), "write --by object-id, and the file of the keys"),
    **dict.fromkeys((f"--{name}" for name in PHONES), (("identity", "keys", "user_id"), NO_PHONES)),
    "--region": ((), "`altaprofiles login` saves the region"),
}
"""Advice on those that are no option here, for a command with one of these parameters, or any."""

_OVERWRITTEN = {
    "write": "leave it out: a file is replaced, and the rows of a table are updated; for another "
    "way, see --write",
    "late_days": "leave it out: the rows of people who are in the table are updated",
}
_SEPARATED = {
    "late_days": "leave it out: a sync writes no CSV",
    "keys": "leave it out: commas, semicolons or tabs between the cells of the keys are found",
    "flatten": "a CSV has commas; for semicolons, see `altaprofiles guide into-databases`, "
    '"Excel with semicolons and decimal commas"',
}
_BY_PARAMETER: dict[str, dict[str, str]] = {
    **dict.fromkeys(("--force", "--overwrite"), _OVERWRITTEN),
    **dict.fromkeys(("--delimiter", "--sep", "--separator", "-d"), _SEPARATED),
}
"""Advice that depends on the command: that of the first of these parameters that it has."""

COMMANDS = {
    **dict.fromkeys(("configure", "init", "auth", "config"), "login"),
    **dict.fromkeys(("ls", "list", "info", "show", "resume", "continue"), "status"),
    **dict.fromkeys(("download", "fetch", "dump", "extract"), "export"),
    **dict.fromkeys(("run", "load", "pipeline", "update"), "sync"),
    **dict.fromkeys(("find", "search", "user", "person", "profile"), "get"),
    **dict.fromkeys(("whoami", "check", "test", "ping", "diagnose"), "doctor"),
    **dict.fromkeys(("schema", "inspect"), "describe"),
    **dict.fromkeys(("serve", "server", "mock"), "emulator"),
    **dict.fromkeys(("docs", "doc", "man", "manual"), "guide"),
}
"""Commands here, by what other tools call them."""

_ALIKE = 0.6


def advice_on(option: str, command: click.Command) -> str | None:
    """Return advice on an option that the command has under no name, or None."""
    names = {one.name for one in command.params}
    for parameter, advice in _BY_PARAMETER.get(option, {}).items():
        if parameter in names:
            return advice
    parameters, text = _ADVICE.get(option, ((), None))
    return text if not parameters or names.intersection(parameters) else None


def suggested(option: str, command: click.Command, alike: Sequence[str]) -> list[str]:
    """Return the options that are meant by an unknown one.

    Args:
        option: the unknown option.
        command: the command.
        alike: options that are spelled alike.
    """
    known = {text for one in command.params for text in (*one.opts, *one.secondary_opts)}
    if (meant := _OPTIONS.get(option)) is not None:
        # What is spelled alike means something else.
        return [one for one in meant if one in known][:1]
    bare = option.lstrip("-")
    # Not by the dashes, which all have.
    return [one for one in alike if SequenceMatcher(None, one.lstrip("-"), bare).ratio() >= _ALIKE]
