"""Several accounts in one output: their rows, their failures, and their report."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from ..base.verdicts import can_pass
from ..errors import (
    AltaProfilesError,
    BadRequest,
    ConfigurationError,
    ExportLocked,
    Incomplete,
    PlanMismatch,
)
from ..tables.rows import Row
from .gather.gathering import Assembled
from .part import Part
from .report import Report
from .sinks import Target
from .store.people import Choice, Chooser, People
from .tables import Origin

__all__ = [
    "TO_RESUME",
    "AccountsFailed",
    "PeopleByAccount",
    "counts_of",
    "decode_report",
    "failure_of",
    "leaves_nothing",
    "next_run",
    "origin_of",
    "people_of",
    "summed",
    "united",
]

R = TypeVar("R", bound=Report)

TO_RESUME = "again to resume it"
"""Part of the note on an error before which something was kept for a later run."""


class AccountsFailed(Exception):
    """Accounts of an export of several have failed; the others went on.

    Attributes:
        errors: the error of each account that failed, by its name.
        report: the report, or None.
    """

    def __init__(
        self, message: str, errors: Mapping[str, Exception], report: Report | None = None
    ) -> None:
        super().__init__(message)
        self.errors = dict(errors)
        self.report = report


def failure_of(
    parts: Sequence[Part[Any, Any]], target: Target, folder: Path, report: Report | None
) -> AccountsFailed:
    """Return the error of accounts of which some have failed.

    Args:
        parts: all accounts.
        target: the output.
        folder: the folder of the output's workspaces.
        report: the report, or None.
    """
    errors = {str(part.name): part.error for part in parts if part.error is not None}
    written = [str(part.name) for part in parts if part.people is not None]
    complete = [str(part.name) for part in parts if part.error is None]
    failed = f"{', '.join(errors)} {'has' if len(errors) == 1 else 'have'} failed"
    if written:
        message = f"{target.name} has the rows of {', '.join(written)}; {failed}"
    elif complete:
        message = (
            f"{target.name} is written once all accounts are complete, and {failed}; the rows of "
            f"{', '.join(complete)} stay in {folder}"
        )
    else:
        message = f"{target.name}: {failed}"
    others = bool(written or complete)
    message += next_run([*errors.values()], "asks only for what is missing", others=others)
    return AccountsFailed(message, errors, report)


def next_run(errors: Sequence[Exception], deed: str, *, others: bool) -> str:
    """Return the end of a sentence on failures: what the next run does about them, if anything.

    Args:
        errors: the failures.
        deed: what it does, such as "resumes".
        others: whether other accounts are complete.
    """
    if all(isinstance(error, ConfigurationError | PlanMismatch) for error in errors):
        # The same arguments are refused whenever they are passed.
        return ""
    if not others and all(map(leaves_nothing, errors)):
        return ""
    condition = "" if all(map(_passes, errors)) else "once that is mended, "
    return f"; {condition}the next run {deed}"


def leaves_nothing(error: BaseException) -> bool:
    """Return whether the service refused a request as wrong, and nothing before it was kept."""
    notes = getattr(error, "__notes__", ())
    return isinstance(error, BadRequest) and not any(TO_RESUME in note for note in notes)


def _passes(error: BaseException) -> bool:
    """Return whether a later run can succeed although nobody has changed anything."""
    if isinstance(error, Incomplete):
        return error.__cause__ is None or _passes(error.__cause__)
    if isinstance(error, ExportLocked):
        return True
    return isinstance(error, AltaProfilesError) and can_pass(error)


def origin_of(parts: Sequence[Part[Any, Any]]) -> Origin:
    """Return the origin of the rows of some accounts."""
    stores = [part.run.store for part in parts]
    run = stores[0].run
    if len(stores) > 1:
        run = hashlib.sha256(" ".join(store.run for store in stores).encode()).hexdigest()[:32]
    accounts = tuple(part.account for part in parts)
    # One time for all rows: that of the first run of any of them.
    return Origin(run, accounts, min(store.began for store in stores))


def people_of(parts: Sequence[Part[Any, Any]], target: Target) -> People | None:
    """Return what decides which rows of some accounts are written, or None for all. Blocking."""
    people = {part.account: part.people_of(target) for part in parts}
    return people[parts[0].account] if len(parts) == 1 else PeopleByAccount(people)


def counts_of(
    people: People | None, parts: Sequence[Part[Any, Any]], read: int, written: int
) -> list[Assembled]:
    """Return the progress of each account in an output, of `read` and `written` rows in all."""
    if isinstance(people, PeopleByAccount):
        return [people.counts[part.account] for part in parts]
    return [Assembled(read, written)]


class PeopleByAccount:
    """Decides for each account by itself which rows are written; see `People`.

    Nobody is the same person in two accounts.

    Args:
        people: what decides for each account, or None for all its rows.

    Attributes:
        counts: the number of rows read so far, and of those to write, by account.
    """

    def __init__(self, people: Mapping[str, People | None]) -> None:
        self.counts = dict.fromkeys(people, Assembled(0, 0))
        self._people = people

    def prepare(self) -> Iterator[None]:
        """Compare all records of each account."""
        for people in self._people.values():
            if people is not None:
                yield from people.prepare()

    def keep(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows to write, of rows of one account."""
        if not rows:
            return []
        account = rows[0].account
        people = self._people[account]
        selected = [*rows] if people is None else people.keep(rows)
        self._count(account, len(rows), len(selected))
        return selected

    @property
    def keeps_all(self) -> bool:
        """False, as the rows are of several accounts."""
        return False

    @property
    def keeps_once(self) -> bool:
        """True if each person of an account is written once."""
        return all(isinstance(one, Chooser) and one.keeps_once for one in self._people.values())

    def writes_any(self, count: int, account: str) -> bool:
        """Return whether any of the next rows of an account is to be written."""
        people = self._people[account]
        return not isinstance(people, Chooser) or people.writes_any(count, account)

    def choose(self, count: int, account: str, matched: tuple[str, ...]) -> Choice:
        """Return which rows to write, of encoded rows of one account."""
        people = self._people[account]
        choice = Choice.of_all(count)
        if isinstance(people, Chooser):
            choice = people.choose(count, account, matched)
        self._count(account, count, sum(choice.flags))
        return choice

    def _count(self, account: str, read: int, written: int) -> None:
        before = self.counts[account]
        self.counts[account] = Assembled(before.read + read, before.written + written)


def united(reports: Mapping[str, R], common: Report) -> R:
    """Return the report on several accounts: their sums, and each by its name.

    Args:
        reports: the report of each account.
        common: the part that every report has, of all of them.
    """
    kind = type(next(iter(reports.values())))
    values: dict[str, Any] = {
        name: getattr(common, name)
        if name in Report.__struct_fields__
        else summed([getattr(report, name) for report in reports.values()])
        for name in kind.__struct_fields__
    }
    values["accounts"] = dict(reports)
    return kind(**values)


class _Shares(Struct):
    """The part of a report that has one of each account."""

    accounts: dict[str, Raw] | None = None


def decode_report(data: bytes, kind: type[R]) -> R:
    """Return a report that was encoded as JSON.

    Raises:
        DecodeError: it is of another version.
    """
    report = msgspec.json.decode(data, type=kind)
    shares = msgspec.json.decode(data, type=_Shares).accounts
    if shares is None:
        return report
    of_each = {name: msgspec.json.decode(one, type=kind) for name, one in shares.items()}
    return replace(report, accounts=of_each)


def summed(values: Sequence[Any]) -> Any:
    """Return the sum of numbers, lists or counts by name; None if there are none."""
    match [value for value in values if value is not None]:
        case [int(), *_] as numbers:
            return sum(numbers)
        case [list(), *_] as lists:
            return [item for items in lists for item in items]
        case [dict(), *_] as counts:
            names = dict.fromkeys(name for one in counts for name in one)
            return {name: sum(one.get(name, 0) for one in counts) for name in names}
        case _:
            # Files are of one account each.
            return None
