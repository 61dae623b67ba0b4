"""Outputs on disk: their last success, and their unfinished exports. Changes nothing. Blocking."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any

import msgspec
from msgspec import Struct

from ..base.checks import shown
from ..base.paths import absolute_path, check_own_file, check_own_folder, path_text
from ..errors import ConfigurationError, ExportError, InvalidArgument
from ..redaction import Secret
from .formats import Format
from .manifest import events_of
from .output import Output
from .place import (
    MANIFEST,
    folder_of,
    status_command,
    stem_of,
    stem_of_file,
    table_ending,
)
from .plan import EventsPlan
from .sinks import resolve
from .sinks.folder import names_folder
from .sinks.postgres_url import without_password
from .sinks.remote import Remote
from .sinks.resolve import check_table, text_of
from .store.lock import Lock
from .store.workspace import noted_origin, origin_in
from .store.workspaces import LOCK
from .tables import Content, Origin
from .unfinished import Unfinished, unfinished_at

__all__ = [
    "OutputState",
    "Success",
    "SyncedDays",
    "days_of",
    "events_in",
    "has_added",
    "outputs_at",
    "outputs_in",
    "unfinished_in",
]

_FOLDER = ".export"


class Success(Struct, frozen=True, kw_only=True):
    """The manifest of an output.

    Attributes:
        output: the output's name.
        written: the time at which it was written, in ISO 8601.
        complete: whether nothing is missing.
        people: people in it, or keys found.
        unit: the noun for them.
        is_of_keys: whether they are keys found.
        bytes: its size; None for a database server.
        format: its format.
        table: the table that was named, or None.
        account: the account that they are of, if another run has written those of others.
        accounts: all accounts of which everything was written then.
        syncs: the account and the last day of each sync, if it has one, and the time of the run
            that has brought rows last, as "account", "through" and "synced_at", by the name of the
            account; the name of a single one is empty.
        write: the way in which rows were written; None of an earlier version.
    """

    output: str
    written: str
    complete: bool
    people: int
    unit: str
    is_of_keys: bool
    bytes: int | None
    format: Format
    table: str | None
    account: str | None = None
    accounts: Collection[str] = ()
    syncs: Mapping[str, Mapping[str, str | None]] = {}
    write: str | None = None

    @property
    def adds(self) -> bool:
        """True if it may have rows of earlier runs as well, which `people` leaves out."""
        return bool(self.syncs) or self.write in ("upsert", "append")

    @property
    def is_of_nothing(self) -> bool:
        """True if no run has put an output in place, as far as is known."""
        has_days = any(one["through"] is not None for one in self.syncs.values())
        return self.bytes is None and not has_days

    def is_newer(self, one: Unfinished) -> bool:
        """Return whether it was written after an unfinished export of the same rows was begun."""
        if one.began is None:
            return False
        if self.syncs and one.arguments.get("sync") is not None:
            # A sync finishes what is left before it brings newer days.
            return False
        if self.adds and self._is_of_others(one):
            # The other part of a run that was killed has written it.
            return False
        # It has whole seconds.
        return datetime.fromisoformat(self.written).timestamp() >= int(one.began)

    def is_lost_by(self, one: Unfinished) -> bool:
        """Return whether its rows, if they are there, would be lost; see `OutputState`."""
        if one.arguments.get("write") != "replace" or one.obstacle is not None:
            return False
        return self.is_newer(one)

    def _is_of_others(self, one: Unfinished) -> bool:
        if one.plan is None or not self.accounts:
            return False
        return one.plan.account not in self.accounts


class OutputState(Struct, frozen=True, kw_only=True):
    """The state of one output.

    Attributes:
        name: the output, as it is given to `altaprofiles status`.
        table: its table, if it was named, or is not that of people.
        option: its table as it is given beside the name; None if the name leads to it.
        folder: the folder of its unfinished exports, which need not exist.
        command: the command line that shows this state.
        success: its manifest, or None.
        present: whether the file or folder is there that its manifest describes; None if that is
            not known, as of a database server.
        bytes_now: the size of a file that no table shares; None if it is not known.
        is_running: whether a run works on it now.
        unfinished: its unfinished exports, oldest first.
        is_begun: whether an export was begun of which nothing is on disk.
    """

    name: str
    table: str | None
    option: str | None = None
    folder: Path
    command: str
    success: Success | None
    present: bool | None = None
    bytes_now: int | None = None
    is_running: bool
    unfinished: list[Unfinished]
    is_begun: bool = False

    @property
    def has_changed(self) -> bool | None:
        """True if a file has another size than when it was written; None if that is not known."""
        size = None if self.success is None else self.success.bytes
        if size is None or self.bytes_now is None or self.is_running:
            # A run puts its file in place before its manifest.
            return None
        return self.bytes_now != size

    def is_lost_by(self, one: Unfinished) -> bool:
        """Return whether rows would be lost by finishing an unfinished export.

        They would be replaced by those of an export that somebody has begun before.
        """
        success = self.success
        return success is not None and self.present is not False and success.is_lost_by(one)


def outputs_in(folder: Path) -> list[OutputState]:
    """Return the state of each output in a folder, by path from the current folder.

    Raises:
        OSError: the folder cannot be read.
    """
    # SQLite is given journals and locks as URIs, which have no relative form.
    stems = _stems(absolute_path("to", str(folder)), "")
    return _states({stem: folder_of(None, stem) for stem in stems})


def outputs_at(
    to: str, *, table: str | None, spool: str | None, asks: bool = True, elsewhere: bool = False
) -> list[OutputState]:
    """Return the state of an output; of a DuckDB file, that of each table unless one is named.

    Args:
        to, table, spool: as for `Session.export`.
        asks: whether the manifest of a file in a bucket is read, which is beside it.
        elsewhere: whether an output of which nothing is known here has a state, without a success.
            Another folder or machine may keep it with `sync`. So has one that was only begun.

    Raises:
        ConfigurationError: an argument cannot work, such as `table` for a file that has no tables.
        ExportError: the manifest in the bucket cannot be read.
        OSError: a folder cannot be read.
    """
    if (remote := Remote.parse(to)) is not None:
        if table is not None:
            check_table(remote.name)
        own = folder_of(spool, absolute_path("to", remote.stem))
        return _states_of(remote, own, status_command(remote.address, None, spool), asks=asks)
    if "://" in to:
        # The default table depends on the kind of rows.
        kinds = (Content(), Content(of="bindings"))
        usual, other = (stem_of(resolve(Output(to=to, table=table), kind), spool) for kind in kinds)
        stems, is_there = {usual}, True
    else:
        path = absolute_path("to", to)
        if not path.name:
            return []
        usual = other = stem_of_file(path, table)
        stems, is_there = {usual}, path.exists()
        if table is None and path.suffix.lower() == ".duckdb":
            stems.update(_stems(path.parent, f"{path.name}."))
            if spool is not None:
                found = _stems(Path(spool), f"{path.name}.")
                stems.update(path.with_name(stem.name) for stem in found)
    states = _states({stem: folder_of(spool, stem) for stem in stems}, to, table, spool)
    if other != usual:
        of_bindings = Content(of="bindings").default_table
        states += _states({other: folder_of(spool, other)}, to, of_bindings, spool)
    if not states and table is not None and "://" not in to:
        check_table(to)
    if states or not elsewhere:
        return states
    unwritten = [
        _state(stem, folder_of(spool, stem), to, table, spool) for stem in sorted({*stems, other})
    ]
    begun = [state for state in unwritten if state.is_begun]
    if begun or not is_there:
        return begun
    return [_state(usual, folder_of(spool, usual), to, table, spool)]


def unfinished_in(
    to: str | os.PathLike[str],
    *,
    table: str | None = None,
    spool: str | os.PathLike[str] | None = None,
) -> list[Unfinished]:
    """Return the unfinished exports of an output, oldest first: none if there is nothing to resume.

    As with `altaprofiles status`, one that was ended before its first page or answer is none of
    them, because nothing would be lost with it. `Session.finish_unfinished` finishes one. Blocking.

    Args:
        to: the output, as for `Session.export`.
        table: the table of a database; None for the default one, of a DuckDB file for all tables.
        spool: the folder that the exports were given as `spool`.

    Raises:
        InvalidArgument: an argument is not a path or a URL, or is the folder of an output, which
            is `<to>.export`.
        OSError: a folder cannot be read.

    >>> for unfinished in unfinished_in("people.parquet"):
    ...     print(unfinished.subject, unfinished.progress)
    """
    text = text_of(to)
    if "://" in text:
        # It may hold a password, which a traceback with locals would show.
        text = to = Secret(text)
    elif text.endswith(_FOLDER):
        output = text.removesuffix(_FOLDER)
        raise InvalidArgument(f"to: the folder of an output; pass the output itself, {output!r}")
    if table is not None and not isinstance(table, str):
        raise InvalidArgument(f"table: expected a table's name, got {shown(table)}")
    folder = None if spool is None else path_text("spool", spool)
    states = outputs_at(text, table=table, spool=folder, asks=False)
    found = [one for state in states for one in state.unfinished]
    return sorted(found, key=lambda one: one.began or 0.0)


class SyncedDays(Struct, frozen=True, kw_only=True):
    """The last day that `Session.sync` has brought, of each account.

    Attributes:
        days: the day, by account; None for one that a sync of several has not brought yet.
        times: the time at which the last run that brought rows began to fetch them, by account;
            None if it is not known.
        names: the name of an account in the credentials file, as far as the manifest has it.
        unread: the reason why they are those of the last manifest, if that has some; None if the
            output itself has been read, or keeps no days.
        exists: whether the table of a database is there; None if it has not been read.
    """

    days: Mapping[str, str | None] = {}
    times: Mapping[str, datetime | None] = {}
    names: Mapping[str, str] = {}
    unread: str | None = None
    exists: bool | None = None

    @property
    def is_unknown(self) -> bool:
        """True if neither the output nor a manifest tells the days."""
        return self.unread is not None and not self.days


def days_of(state: OutputState, to: str | None = None) -> SyncedDays:
    """Return the last day that `Session.sync` has brought. Waits for no other run.

    Args:
        state: the output.
        to: its URL with the password; None to ask no database server.
    """
    success = state.success
    syncs = {} if success is None else success.syncs
    accounts = {name: str(one["account"]) for name, one in syncs.items()}
    names = {account: name for name, account in accounts.items() if name not in ("", account)}

    def by_manifest(unread: str, *, may_have_days: bool = False) -> SyncedDays:
        days = {accounts[name]: one["through"] for name, one in syncs.items()}
        if not syncs and not may_have_days:
            return SyncedDays()
        times = {accounts[name]: _time(one.get("synced_at")) for name, one in syncs.items()}
        return SyncedDays(days=days, times=times, names=names, unread=unread)

    if "://" in state.name and to is None:
        return by_manifest("to read the database, pass its URL")
    address = _address(state, to)
    form = None if success is None else success.format
    try:
        target = resolve(Output(to=address, table=state.option, format=form, sync=""), Content())
    except ConfigurationError as error:
        return by_manifest(f"as the table cannot be read: {error}")
    try:
        states, exists = target.look()
    except (ConfigurationError, ExportError, OSError) as error:
        # A folder that cannot be read is rarely one of a sync.
        may_have_days = "://" in state.name or Path(address).is_file()
        return by_manifest(
            f"as the table cannot be read: {error}",
            may_have_days=to is not None and may_have_days,
        )
    days: dict[str, str | None] = dict.fromkeys(names)
    days |= {one.account: str(one.through) for one in states}
    times: dict[str, datetime | None] = dict.fromkeys(days)
    times |= {one.account: one.synced_at for one in states}
    return SyncedDays(days=days, times=times, names=names, exists=exists)


def _address(state: OutputState, to: str | None) -> str:
    """Return an output as it is opened, from its URL with the password or None."""
    return to if to is not None and "://" in state.name else state.name


def _time(text: str | None) -> datetime | None:
    # A manifest of an earlier version has none.
    return None if text is None else datetime.fromisoformat(text)


def has_added(state: OutputState, one: Unfinished, to: str | None = None) -> bool | None:
    """Return whether an unfinished export has added rows that the output has. Blocking.

    Once it is discarded, the same export adds them again.

    Args:
        state: the output.
        one: the export.
        to: the output's URL with the password; None to ask no database server.

    Returns:
        None if it may have, and that is not known.
    """
    if one.plan is None:
        # Only those that append have a note.
        return None if noted_origin(one.path) is not None else False
    if one.arguments.get("write") != "append":
        return False
    if "://" in state.name and to is None:
        return None
    address = _address(state, to)
    content = Content(of="bindings") if one.account is None else Content()
    form = one.arguments.get("format")
    try:
        if (origin := origin_in(one.path)) is None:
            return None
        run, began = origin
        output = Output(to=address, format=form, table=state.option, write="append")
        target = resolve(output, content)
        return target.holds(Origin(run, (one.plan.account,), began))
    except (ConfigurationError, ExportError, OSError):
        return None


def events_in(folder: Path) -> set[str]:
    """Return the events of the outputs in a folder, and of their unfinished exports.

    Raises:
        OSError: the folder cannot be read.
    """
    events: set[str] = set()
    for stem in {*_stems(folder, "")}:
        with suppress(OSError, msgspec.DecodeError):
            content = stem.with_name(stem.name + MANIFEST).read_bytes()
            events |= events_of(content)
        for unfinished in _unfinished(folder_of(None, stem))[0]:
            if isinstance(unfinished.plan, EventsPlan):
                events.update(unfinished.plan.events or ())
    return events


def _stems(folder: Path, start: str) -> Iterator[Path]:
    """Yield the beginning of the names of the files of each output in `folder`."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith(start):
            if path.name.endswith(MANIFEST) and path.is_file():
                yield path.with_name(path.name.removesuffix(MANIFEST))
            elif path.name.endswith(_FOLDER) and path.is_dir():
                yield path.with_name(path.name.removesuffix(_FOLDER))


def _states(
    folders: Mapping[Path, Path],
    to: str | None = None,
    table: str | None = None,
    spool: str | None = None,
) -> list[OutputState]:
    """Return the states of outputs by the beginnings of their files, but for those of none.

    Args:
        folders: the folders of the unfinished exports.
        to, table, spool: the caller's arguments.
    """
    states = [_state(stem, folders[stem], to, table, spool) for stem in sorted(folders)]
    return [state for state in states if state.success or state.unfinished or state.is_running]


def _states_of(remote: Remote, folder: Path, command: str, *, asks: bool) -> list[OutputState]:
    """Return the state of a file in a bucket, or nothing if it has none."""
    unfinished, is_running, is_begun = _unfinished(folder)
    success = None
    if asks:
        remote.require_driver()
        if (content := remote.read(MANIFEST)) is not None:
            success = _parsed(content)
    present = size = None
    if success is not None:
        # The right to read the manifest need not be one to read the file.
        with suppress(ExportError):
            size = remote.size()
            present = size is not None
    state = OutputState(
        name=remote.address,
        table=None,
        folder=folder,
        command=command,
        success=success,
        present=present,
        bytes_now=size,
        is_running=is_running,
        unfinished=unfinished,
        is_begun=is_begun,
    )
    return [state] if success or unfinished or is_running or is_begun else []


def _state(
    stem: Path, folder: Path, to: str | None, named: str | None, spool: str | None
) -> OutputState:
    unfinished, is_running, is_begun = _unfinished(folder)
    success = _success(stem.with_name(stem.name + MANIFEST))
    arguments = next((one.arguments for one in unfinished if one.arguments), {})
    table = arguments.get("table") if success is None else success.table
    kind = arguments.get("format") if success is None else success.format
    own = Content(of="bindings").default_table
    if table is None and kind == "duckdb" and stem.name.endswith(table_ending(own)):
        # The default one, as that of people in the same file is.
        table = own
    # The output may have been written with a URL that names the table.
    table = named if table is None else table
    given = name = to or arguments.get("to") or (success and success.output) or stem.name
    if to is None and name == arguments.get("to"):
        # A URL may name the table itself, in the export as well as here.
        named = arguments.get("table")
    if to is None and "://" not in name:
        ending = table_ending(table) if "." in stem.name else ""
        local = stem.with_name(stem.name.removesuffix(ending))
        # As it is called from the current folder.
        name = str(local.relative_to(Path.cwd()) if local.is_relative_to(Path.cwd()) else local)
    if "://" not in name and not names_folder(name) and (names_folder(given) or stem.is_dir()):
        name += "/"
    present, size = (None, None) if success is None else _now(success, stem, table)
    return OutputState(
        name=without_password(name),
        table=table,
        folder=folder,
        option=(option := named if "://" in name else table),
        command=status_command(name, option, spool),
        success=success,
        present=present,
        bytes_now=size,
        is_running=is_running,
        unfinished=unfinished,
        is_begun=is_begun,
    )


def _now(success: Success, stem: Path, table: str | None) -> tuple[bool | None, int | None]:
    """Return the values of `OutputState.present` and `bytes_now`."""
    if success.format == "postgres":
        return None, None
    is_database = success.format == "duckdb"
    ending = table_ending(table) if is_database else ""
    path = stem.with_name(stem.name.removesuffix(ending))
    try:
        status = path.stat()
    except FileNotFoundError:
        return None if success.is_of_nothing else False, None
    except OSError:
        return None, None
    # Other tables of a database, and the files of other runs in a folder, have their share of it.
    return True, status.st_size if S_ISREG(status.st_mode) and not is_database else None


def _unfinished(folder: Path) -> tuple[list[Unfinished], bool, bool]:
    """Return the attributes `unfinished`, `is_running` and `is_begun` of `OutputState`."""
    if not folder.is_dir():
        return [], False, False
    try:
        check_own_folder(folder, "another output")
        check_own_file(folder / LOCK)
        begun = unfinished_at(folder)
        found = [one for one in begun if not one.is_empty]
        is_running = any(one.is_running for one in found) or Lock.is_held(folder / LOCK)
        return found, is_running, len(found) < len(begun)
    except (ExportError, OSError) as error:
        # In a folder that others can write to, theirs may be among those of this user.
        return [Unfinished(path=folder, fault=str(error))], False, False


def _success(path: Path) -> Success | None:
    """Return the content of a manifest; None without one, or for a file of another program."""
    try:
        return _parsed(path.read_bytes())
    except OSError:
        return None


def _parsed(content: bytes) -> Success | None:
    try:
        manifest = msgspec.json.decode(content, type=_Manifest)
    except msgspec.DecodeError:
        return None
    by_key = manifest.found is not None
    found = manifest.found if by_key else manifest.people
    one, several = ("key found", "keys found") if by_key else ("person", "people")
    if manifest.syncs and manifest.output.endswith("/"):
        one, several = (f"{noun}, each once a day" for noun in (one, several))
    return Success(
        output=manifest.output,
        written=manifest.written,
        complete=manifest.complete,
        people=found or 0,
        unit=one if found == 1 else several,
        is_of_keys=by_key,
        bytes=manifest.bytes,
        format=manifest.format,
        table=manifest.options.get("table"),
        account=manifest.options.get("account"),
        accounts=manifest.written_accounts,
        syncs=manifest.syncs,
        write=manifest.options.get("write"),
    )


class _OfAccount(Struct, frozen=True):
    account: str | None = None
    complete: bool = False


class _Manifest(Struct, frozen=True):
    output: str
    format: Format
    complete: bool
    written: str
    altaprofiles: str
    options: dict[str, Any]
    bytes: int | None = None
    people: int | None = None
    found: int | None = None
    plan: _OfAccount | None = None
    plans: dict[str, _OfAccount] = {}
    accounts: dict[str, _OfAccount] = {}

    @property
    def written_accounts(self) -> list[str]:
        """The value of `Success.accounts`."""
        shares = self.accounts
        plans = [
            one for name, one in self.plans.items() if name in shares and shares[name].complete
        ]
        if self.plan is not None:
            plans.append(self.plan)
        return [one.account for one in plans if one.account is not None]

    @property
    def syncs(self) -> dict[str, dict[str, str | None]]:
        """The value of `Success.syncs`."""
        single = self.options.get("sync")
        several: dict[str, dict[str, str | None]] = self.options.get("syncs") or {}
        return several if several or single is None else {"": single}
