"""Unfinished exports of an output, as their journals tell. Changes nothing. Blocking."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ..base.jsontext import failure_text
from ..base.paths import check_own_file
from ..base.wording import numbered, past, sized
from ..errors import ExportError, ExportLocked
from ..redaction import readable
from ..sources.lookups import CDP
from .output import Output
from .place import Place
from .plan import DISCARD, EventsPlan, KeysPlan, Plan, parse_plan
from .sinks.folder import names_folder
from .sinks.postgres_url import without_password
from .store.journal import Journal
from .store.key_table import FOUND, INVALID, NOT_FOUND, KeyTable
from .store.workspace import CONFIRMED, JOURNAL, OVER, files_in, noted_origin, oldest_change
from .store.workspaces import workspaces_in, workspaces_of_ended

__all__ = [
    "CURSOR_LIFE",
    "Unfinished",
    "encode_arguments",
    "ended_at",
    "is_confirmed",
    "look",
    "unfinished_at",
    "warning_of_ended",
]

CURSOR_LIFE = 4 * 86_400
"""Lifetime of a cursor, in seconds ("Get User Profiles" [seen])."""


class Unfinished(Struct, frozen=True, kw_only=True):
    """An unfinished export, and its progress.

    Attributes:
        path: the folder that holds it.
        plan: its chains or keys; None if the journal cannot be read.
        arguments: its other arguments; empty if an earlier version has started it.
        began: the time at which it was begun, in epoch seconds; None if unknown.
        size: its size on disk, in bytes.
        items: records or answers on disk.
        done: chains that are done, or keys with an answer.
        keys: keys of a lookup, each once; 0 as long as they are being read.
        joins, joined: keys of Alta that its people are joined by, and those with an answer.
        cursors_until: the time until which all its cursors live, in epoch seconds; None without.
        is_running: whether a run works on it. Then nothing is known of its progress.
        is_empty: whether nothing would be lost with it.
        fault: the reason why its journal cannot be read, or None.
    """

    path: Path
    plan: Plan | None = None
    arguments: Mapping[str, Any] = {}
    began: float | None = None
    size: int = 0
    items: int = 0
    done: int = 0
    keys: int = 0
    joins: int = 0
    joined: int = 0
    cursors_until: float | None = None
    is_running: bool = False
    is_empty: bool = False
    fault: str | None = None

    @property
    def goal(self) -> int:
        """The number of chains, or of keys, each counted once however often it was given."""
        if isinstance(self.plan, EventsPlan):
            return len(self.plan.queries)
        return self.keys

    @property
    def subject(self) -> str:
        """The plan in words."""
        return "an export" if self.plan is None else self.plan.subject

    @property
    def account(self) -> str | None:
        """The ID of the account. An Alta key has none."""
        # That of a plan for Alta alone is a digest of the key.
        is_of_alta = isinstance(self.plan, KeysPlan) and self.plan.by in CDP.by
        return None if self.plan is None or is_of_alta else self.plan.account

    @property
    def title(self) -> str:
        """The plan and the account in words."""
        name = self.arguments.get("account")
        if name is None or self.account is None:
            only = name or self.account
            return self.subject if only is None else f"{self.subject} for {only}"
        return f"{self.subject} for {name} ({self.account})"

    @property
    def progress(self) -> str:
        """The progress in words."""
        if self.is_running:
            return "running"
        if self.plan is None:
            return f"cannot be read: {self.fault}"
        if isinstance(self.plan, EventsPlan):
            chains = f"{self.done:,} of {numbered(self.goal, 'chain')}"
            words = f"{numbered(self.items, 'record')} on disk, {chains} done"
        else:
            # The subject counts all that are given.
            noun = "key" if self.goal in (0, self.plan.keys) else "different key"
            words = f"{self.done:,} of {numbered(self.goal, noun)} answered"
        if self.plan.with_cdp:
            words += f", {self.joined:,} of {numbered(self.joins, 'CDP lookup')} answered"
        return words

    @property
    def obstacle(self) -> str | None:
        """The reason why only the call that began it can finish it, in words, or None."""
        if self.plan is None:
            return None
        if not self.arguments:
            return (
                "was begun by an earlier version, which has not noted its table and options; run "
                "the export that began it again, which resumes it"
            )
        accounts = self.arguments.get("accounts", [])
        if len(accounts) > 1 and self.arguments.get("write") == "replace":
            return (
                f"is a part of an export of several accounts into one output "
                f"({', '.join(accounts)}), which is replaced as a whole; run that export again"
            )
        return None

    @property
    def command(self) -> str | None:
        """The command line that began it and finishes it, of one that only that can finish."""
        line, folder = self.arguments.get("command"), self.arguments.get("folder")
        if line is None or folder is None or self.obstacle is None:
            return None
        # Keys may be piped into it. Its paths are from that folder.
        is_here = Path(folder) == Path.cwd()
        return str(line) if is_here else f"(cd {shlex.quote(str(folder))} && {line})"

    @property
    def age(self) -> str:
        """The time since it was begun, in words."""
        if self.began is None:
            return "at an unknown time"
        return f"{past(max(time.time() - self.began, 0.0))} ago"

    @property
    def is_stale(self) -> bool:
        """True if a cursor that it needs has died, so that its chain starts over."""
        return self.cursors_until is not None and self.cursors_until < time.time()

    def warning(self, status: str, difference: str = "") -> str:
        """Return a sentence on this export beside another one to the same output.

        Args:
            status: the command line that shows both.
            difference: how this export and the other one differ, in words.
        """
        words = (
            f"an earlier export is unfinished: {self.subject} ({self.progress}), begun {self.age}"
        )
        if difference:
            words += f"; this one differs: {difference}"
        if self.is_stale:
            words = (
                f"UNFINISHED for more than {CURSOR_LIFE // 86_400} days: {words}; its cursors are "
                f"dead, so that open chains start over"
            )
        if (obstacle := self.obstacle) is not None:
            return f"{words}; it {obstacle}, or remove it by `{status} --discard-unfinished`"
        if self.plan is None:
            # Of an append, the same export says what to do.
            is_of_append = noted_origin(self.path) is not None
            return words if is_of_append else f"{words}; `{status} --discard-unfinished` removes it"
        replaces = self.arguments.get("write") == "replace"
        effect = "finishes it over this one" if replaces else "finishes it"
        return (
            f"{words}; `{status}` removes it with --discard-unfinished, and {effect} with "
            f"--finish-unfinished"
        )


def warning_of_ended(one: Unfinished, status: str) -> str:
    """Return a sentence on a complete export that `ended_at` has returned.

    Args:
        one: the export.
        status: the command line that removes it.
    """
    return (
        f"an earlier export was ended before it had removed its records: {one.subject}, "
        f"{sized(one.size)} in {one.path}, begun {one.age}; its rows had been added by then, so "
        f"that the same call adds none, and removes them; `{status} --discard-unfinished` removes "
        f"them as well"
    )


def unfinished_at(folder: Path) -> list[Unfinished]:
    """Return the unfinished exports of the output whose folder this is, oldest first.

    What is complete is only being removed, and is none of them.

    Raises:
        OSError: the folder cannot be read.
    """
    return _found(folder, are_ended=False)


def ended_at(folder: Path) -> list[Unfinished]:
    """Return the complete exports whose records a run was to remove, as `unfinished_at`."""
    return _found(folder, are_ended=True)


def is_confirmed(one: Unfinished) -> bool:
    """Return whether days of a sync were over by the service's clock when fetching them began."""
    try:
        with Journal.peek(one.path / JOURNAL) as journal:
            return bool(journal.state(CONFIRMED))
    except (ExportError, OSError):
        return False


def _found(folder: Path, *, are_ended: bool) -> list[Unfinished]:
    if not folder.is_dir():
        return []
    ended = workspaces_of_ended(folder)
    paths = [path for path in workspaces_in(folder) if (path in ended) is are_ended]
    return sorted(map(look, paths), key=lambda one: one.began or 0.0)


def encode_arguments(output: Output, place: Place, others: Mapping[str, Any]) -> bytes:
    """Return the arguments with which another run can finish an export, without passwords.

    Args:
        output: the caller's arguments.
        place: the paths.
        others: the arguments of the kind of export.
    """
    target = place.target
    to = str(target.path)
    if place.remote is not None:
        to = place.remote.address
    elif target.path is None:
        to = without_password(str(output.to))
    if names_folder(str(output.to)):
        to += "/"
    command = {}
    if output.command is not None:
        command = {"command": output.command, "folder": readable(str(Path.cwd()))}
    arguments = {
        "to": readable(to),
        "status": readable(place.status),
        "format": target.format,
        **place.layout,
        "write": target.write,
        **({} if output.sync is None else {"sync": output.sync}),
        **command,
        **others,
    }
    return msgspec.json.encode(arguments)


def look(folder: Path) -> Unfinished:
    """Return the unfinished export in a workspace."""
    size = sum(_sizes(folder))
    is_empty = False
    try:
        check_own_file(folder / JOURNAL)
        with Journal.peek(folder / JOURNAL) as journal:
            return _read(folder, journal, size)
    except ExportLocked:
        return Unfinished(path=folder, size=size, is_running=True)
    except (ExportError, OSError, msgspec.DecodeError) as error:
        fault, _, remedy = failure_text(error).rpartition("; ")
        if isinstance(error, FileNotFoundError):
            # A killed run has deleted the spools first, or has made none yet.
            is_empty = not _holds_spools(folder)
            fault = _with_remedy(folder, "its journal is missing")
        elif DISCARD in remedy:
            fault = _with_remedy(folder, fault, remedy)
        else:
            fault = failure_text(error)
    return Unfinished(
        path=folder, size=size, fault=fault, began=oldest_change(folder), is_empty=is_empty
    )


def _read(folder: Path, journal: Journal, size: int) -> Unfinished:
    data = journal.state("plan")
    if data is None or journal.state(OVER):
        is_empty = journal.state(OVER) or not size or not _holds_spools(folder)
        fault = _with_remedy(folder, "it holds no plan")
        return Unfinished(path=folder, size=size, is_empty=is_empty, fault=fault)
    plan = parse_plan(data)
    began = journal.state("began")
    arguments = journal.state("arguments")
    cursors_until = None
    keys = 0
    if isinstance(plan, EventsPlan):
        rows = journal.chains().values()
        items, done = sum(row.records for row in rows), sum(row.done for row in rows)
        since = [row.since for row in rows if row.cursor and not row.done]
        cursors_until = min(since) + CURSOR_LIFE if since else None
    else:
        known, done = _counts(journal.keys)
        items = done
        # The plan counts those that are given twice as well.
        keys = 0 if plan.keys is None else known
    joins, joined = _counts(journal.joins) if plan.with_cdp else (0, 0)
    return Unfinished(
        path=folder,
        plan=plan,
        arguments={} if arguments is None else msgspec.json.decode(arguments),
        began=oldest_change(folder) if began is None else began / 1e6,
        size=size,
        items=items,
        done=done,
        keys=keys,
        joins=joins,
        joined=joined,
        cursors_until=cursors_until,
        is_empty=journal.is_empty(),
    )


def _with_remedy(folder: Path, fault: str, remedy: str = f"discard it with {DISCARD}") -> str:
    """Return the reason why a workspace cannot be read, with what to do."""
    if noted_origin(folder) is not None:
        # Of an append, which would be added once more.
        return f"{fault}; the same export says whether its rows were added"
    command = "`altaprofiles status OUT --discard-unfinished`"
    return f"{fault}; {remedy.replace(DISCARD, command)}"


def _counts(keys: KeyTable) -> tuple[int, int]:
    """Return the number of keys, and of those with an answer."""
    tally = keys.tally()
    answered = sum(tally.get(outcome, 0) for outcome in (FOUND, NOT_FOUND, INVALID))
    return sum(tally.values()), answered


def _sizes(folder: Path) -> Iterator[int]:
    for path in files_in(folder):
        with suppress(OSError):
            yield path.lstat().st_size


def _holds_spools(folder: Path) -> bool:
    return any(path.name.endswith(".ndjson") for path in files_in(folder))
