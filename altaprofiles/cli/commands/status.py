"""`altaprofiles status`: the last success of each output, and its unfinished exports."""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..app import App, Service
from ..command import Command
from ..exits import Exit, Failure, Interrupted, worst
from ..lines import Unbroken

if TYPE_CHECKING:
    from ...export.outputs import OutputState, SyncedDays
    from ...export.report import Report
    from ...export.unfinished import Unfinished
    from ...session import Session
    from ..progress import ProgressDisplay

__all__ = ["status"]


def _complete_output(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[click.shell_completion.CompletionItem]:
    from click.shell_completion import CompletionItem

    from ...export.outputs import outputs_in

    try:
        names = {state.name for state in outputs_in(Path.cwd())}
    except OSError:
        names = set()
    found = [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


@click.command(cls=Command)
@click.argument("out", metavar="[FILE|URL]", required=False, shell_complete=_complete_output)
@click.option("--table", metavar="NAME", help="The table, as for `export`.")
@click.option(
    "--spool",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="The folder that was given to `export` as --spool.",
)
@click.option(
    "--finish-unfinished",
    "action",
    flag_value="finish",
    help="Finish every unfinished export of this output, oldest first, each with the arguments "
    "that it was started with. Of several that replace the output, the last one's rows stay. One "
    "of several accounts into one file needs the command that started it, which `status` shows.",
)
@click.option(
    "--discard-unfinished",
    "action",
    flag_value="discard",
    help="Remove every unfinished export of this output.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="Remove them, or replace an output that is newer than they are, without asking.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a JSON object for each output, or for each export that was finished its report; "
    "for a failure one with `error`.",
)
@click.pass_obj
def status(
    app: App,
    out: str | None,
    table: str | None,
    spool: str | None,
    action: Literal["finish", "discard"] | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Print when outputs were last written, and unfinished exports.

    Without FILE or URL, those of the current folder, and of another one if FILE is a folder; with
    {account} in it, the output of each saved account. An unfinished export is resumed by the same
    command that started it, or by --finish-unfinished. It stays until then, and other exports to
    the same output run beside it. Cursors live for four days; after that, a chain that is not done
    is fetched from its beginning. The last success of a file in a bucket is read there. A file or a
    folder that is not there any more is "gone", as is a table; a file of another size has
    "changed". A table on a server is looked for only if URL names it. The days of a sync are read
    in its table, from whatever folder or machine it is kept; on a server only if URL names it, else
    in the manifest. The people of a sync are those of its last run; each account has the time of
    the last run that has brought its rows. It ends with 1 if the table of a named output cannot be
    read and no manifest tells of it.

    \b
    Examples:
      altaprofiles status
      altaprofiles status people.parquet --finish-unfinished
      altaprofiles status postgresql://me@db.example.com/crm/buyers --discard-unfinished --yes
    """
    from ...export.outputs import outputs_at, outputs_in

    found: list[tuple[OutputState, str | None]] = []
    if out is None:
        options = {"--table": table, "--spool": spool, f"--{action}-unfinished": action}
        for name in (name for name, value in options.items() if value is not None):
            raise click.UsageError(f"{name} needs the output: status OUT {name}")
        found += [(state, None) for state in outputs_in(Path.cwd())]
    else:
        asks, elsewhere = action != "discard", action is None
        outs = _outputs(app, out)
        for one in outs:
            states = outputs_at(one, table=table, spool=spool, asks=asks, elsewhere=elsewhere)
            found += [(state, one) for state in states]
        if others := _outputs_below(out, found):
            if action is not None:
                raise click.UsageError(
                    f"--{action}-unfinished needs the output, and FILE is a folder of outputs, "
                    f"which the command lists without that option"
                )
            found = [(state, None) for state in others]
        if not (found or any(_may_be_there(one, table, spool) for one in outs)):
            _refuse(app, out, spool, action)
    if action is None:
        _show(app, found, out, table, as_json=as_json)
        return
    running = [state for state, _ in found if state.is_running]
    left = [
        (state, each, to or "")
        for state, to in found
        if not state.is_running
        for each in state.unfinished
    ]
    if action == "finish":
        _finish(app, left, table, spool, yes=yes, as_json=as_json)
    else:
        from ...export.unfinished import ended_at

        _warn_of_added(app, left)
        left += [
            (state, each, "")
            for state, _ in found
            if not state.is_running
            for each in ended_at(state.folder)
        ]
        _discard(app, [(state, each) for state, each, _ in left], yes=yes)
    if running:
        raise Failure(
            f"a run works on {running[0].name}; what it is about, and what else is unfinished "
            f"there, was left alone",
            Exit.INCOMPLETE,
        )
    if not left:
        app.info("Nothing is unfinished there.")


def _outputs(app: App, out: str) -> list[str]:
    """Return the output of each account, if `out` stands for several."""
    if "{" not in out:
        # The imports below take longer than all the rest.
        return [out]
    from ...accounts import Accounts
    from ..job import ACCOUNT, filled

    if ACCOUNT not in out:
        return [out]
    names = app.accounts or tuple(Accounts.read().tables)
    if not names:
        raise click.UsageError(
            f"{ACCOUNT} stands for the name of each saved account, and none is saved; pass the "
            f"name of the output itself"
        )
    return [filled(out, name) for name in names]


def _outputs_below(out: str, found: list[tuple[OutputState, str | None]]) -> list[OutputState]:
    """Return the outputs in the folder `out`, unless it is an output itself."""
    from ...export.outputs import days_of, outputs_in

    if "://" in out or not Path(out).is_dir():
        return []
    if any(_is_known(state, days_of(state, to)) for state, to in found):
        return []
    return outputs_in(Path(out))


def _may_be_there(out: str, table: str | None, spool: str | None) -> bool:
    from ...base.paths import absolute_path
    from ...export.place import folder_of, stem_of_file

    # What is not known here of a database or a bucket may be there all the same.
    if "://" in out or Path(out).exists():
        return True
    # A run that was ended before it brought anything leaves its folder.
    return folder_of(spool, stem_of_file(absolute_path("to", out), table)).exists()


def _refuse(app: App, out: str, spool: str | None, action: str | None) -> None:
    """Report a path that leads nowhere: an error, unless there is nothing left to do for it."""
    from ...base.checks import shown
    from ...redaction import LOOKS_LIKE_DATABASE

    is_url = LOOKS_LIKE_DATABASE.search(out) is not None
    name = "of that name" if is_url else shown(out)
    fix = "check the path"
    if is_url:
        fix = "write a URL as postgresql://user@host/database/table"
    elif spool is None:
        fix += ", or pass the --spool that its exports have"
    text = f"FILE|URL: there is no file {name}, and nothing is unfinished for it; {fix}"
    if action is None:
        raise Failure(text, Exit.USAGE)
    # A script may finish or discard what is left before each run, and so before the first.
    app.warn(text)


# --------------------------------------------------------------------------------------- the answer


def _show(
    app: App,
    states: list[tuple[OutputState, str | None]],
    out: str | None,
    table: str | None,
    *,
    as_json: bool,
) -> None:
    from ...export.outputs import days_of

    found = [(state, _named(days_of(state, to))) for state, to in states]
    found = [one for one in found if _is_known(*one)]
    if not found:
        from ...redaction import LOOKS_LIKE_DATABASE, harmless

        where = "anything in this folder" if out is None else "it yet"
        if out is not None and not LOOKS_LIKE_DATABASE.search(out):
            where = f"{out} yet"
        if table is not None:
            where = f"the table {harmless(table)} of {where}"
        if out is None:
            where += "; for a table that was copied here, run: altaprofiles status FILE"
        is_begun = any(state.is_begun for state, _ in states)
        begun = " One was begun, and nothing that it fetched is on disk." if is_begun else ""
        app.info(f"No export has written {where}.{begun}")
    for state, synced in found:
        if as_json:
            from msgspec import json

            app.write(json.encode(_as_json(state, synced)) + b"\n")
        else:
            app.write_lines(_lines(state, synced))
    is_unknown = any(synced.is_unknown and state.success is None for state, synced in found)
    if out is not None and is_unknown:
        # Whoever is called by the exit code is to hear of a database that is down.
        sys.exit(Exit.FAILED)


def _named(synced: SyncedDays) -> SyncedDays:
    """Return days of several accounts with the names that the credentials file has for them."""
    from msgspec.structs import replace

    from ...accounts import Accounts, find_clevertap
    from ...errors import ConfigurationError

    if len(synced.days) < 2:
        return synced
    names: dict[str, str] = {}
    with suppress(ConfigurationError):
        for name in Accounts.read().tables:
            with suppress(ConfigurationError):
                if (project := find_clevertap(name)) is not None:
                    names[project.credentials.account_id] = name
    return replace(synced, names=names | dict(synced.names))


def _is_known(state: OutputState, synced: SyncedDays) -> bool:
    is_here = state.success is not None or bool(state.unfinished) or state.is_running
    return is_here or bool(synced.days) or synced.unread is not None


def _lines(state: OutputState, synced: SyncedDays) -> list[str]:
    from ...base.wording import numbered, sized
    from ...export.sinks.folder import names_folder
    from ...redaction import harmless

    # The name of another one leads to its table.
    of_table = "" if state.option is None else f", table {state.option}"
    lines = [f"{state.name}{of_table}"]
    if state.success is not None:
        success = state.success
        size = "" if success.bytes is None else f", {sized(success.bytes)}"
        of_account = _of_account(success.account, synced)
        word = "written" if success.complete else "incomplete"
        # It has those of earlier runs as well, which no manifest counts.
        of_run = " in that run" if success.adds else ""
        lines.append(
            f"  {word:<11} {_time(datetime.fromisoformat(success.written).timestamp())}, "
            f"{success.people:,} {success.unit}{of_run}{of_account}{size}"
        )
        if state.present is False:
            noun = "folder" if names_folder(state.name) else "file"
            lines.append(f"  gone        the {noun} has been removed or renamed since")
        elif synced.exists is False:
            lines.append("  gone        the table is not there")
        elif state.has_changed:
            now = numbered(state.bytes_now or 0, "byte")
            lines.append(f"  changed     it has {now} now, and had {success.bytes or 0:,}")
    for account, through in synced.days.items():
        is_named = len(synced.days) > 1 or account in synced.names
        of_account = _of_account(account, synced) if is_named else ""
        day = "no day yet" if through is None else f"through {through}"
        time = synced.times.get(account)
        of_run = "" if time is None else f", in the run of {_time(time.timestamp())}"
        lines.append(f"  synced      {day}{of_account}{of_run}")
    if synced.is_unknown:
        lines.append(f"  synced      unknown, {synced.unread}")
    elif synced.unread is not None:
        reason = synced.unread
        separator = "," if reason.startswith("as ") else ";"
        lines.append(f"              by the manifest{separator} {reason}")
    if state.is_running:
        lines.append("  running")
    for one in state.unfinished:
        if one.is_running:
            continue
        began = "" if one.began is None else f", begun {_time(one.began)} ({one.age})"
        lines.append(f"  unfinished  {one.title}: {one.progress}, {sized(one.size)}{began}")
        if one.cursors_until is not None:
            lived = "died" if one.is_stale else "live until"
            lines.append(f"              its cursors {lived} {_time(one.cursors_until)}")
        lines.append(f"              in {one.path}")
        if one.obstacle is not None:
            lines.append(f"              it {one.obstacle}")
            if one.command is not None and not state.is_running:
                lines.append(Unbroken(f"              {one.command}"))
        elif not state.is_running and one.plan is not None:
            if state.is_lost_by(one):
                lines.append(
                    "              it is older than what is written, which it replaces when it is "
                    "finished; to keep that:"
                )
                lines.append(Unbroken(f"              {state.command} --discard-unfinished"))
                lines.append("              To finish it and replace that:")
            lines.append(Unbroken(f"              {state.command} --finish-unfinished"))
    return [type(line)(harmless(line)) for line in lines]


def _of_account(account: str | None, synced: SyncedDays) -> str:
    if account is None:
        return ""
    name = synced.names.get(account)
    return f" for {account}" if name is None else f" for {name} ({account})"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _as_json(state: OutputState, synced: SyncedDays) -> dict[str, Any]:
    from ...redaction import readable

    success = state.success
    return {
        "output": readable(state.name),
        "table": state.table,
        "running": state.is_running,
        "synced": synced.days,
        "synced_at": {
            account: None if time is None else _iso(time.timestamp())
            for account, time in synced.times.items()
        },
        "synced_from": (
            None if not synced.days else "output" if synced.unread is None else "manifest"
        ),
        "synced_unread": None if synced.unread is None else readable(synced.unread),
        "success": None
        if success is None
        else {
            "written": success.written,
            "complete": success.complete,
            "people": None if success.is_of_keys else success.people,
            "adds": success.adds,
            "found": success.people if success.is_of_keys else None,
            "bytes": success.bytes,
            "present": state.present if synced.exists is None else synced.exists,
            "changed": state.has_changed,
            "format": success.format,
        },
        "unfinished": [
            {
                "subject": one.subject,
                "account": one.account,
                "folder": readable(str(one.path)),
                "running": one.is_running,
                "kept": one.items,
                "done": one.done,
                "goal": one.goal,
                "joins": one.joins,
                "joined": one.joined,
                "size": one.size,
                "began": _iso(one.began),
                "cursors_until": _iso(one.cursors_until),
                "stale": one.is_stale,
                "fault": one.fault,
                "replaces_newer": state.is_lost_by(one),
                "command": (
                    one.command
                    if one.obstacle is not None or one.plan is None
                    else readable(f"{state.command} --finish-unfinished")
                ),
            }
            for one in state.unfinished
        ],
    }


# ------------------------------------------------------------------------------------- what it does


def _finish(
    app: App,
    left: list[tuple[OutputState, Unfinished, str]],
    table: str | None,
    spool: str | None,
    *,
    yes: bool,
    as_json: bool,
) -> None:
    from ...export.finish import check_finishable, is_joined, is_of_alta
    from ..dialog import why_silent
    from ..job import run_job
    from ..resumption import resuming_line

    # Before an account is chosen, which is not that of every export.
    resume = resuming_line(click.get_current_context())
    codes: list[int] = []
    finished: set[str] = set()
    named = app.accounts
    silent = why_silent()
    for state, one, out in left:
        # Only a URL has what its name lacks, a password.
        to = out if "://" in out else state.name
        success = state.success
        asks = not yes and state.is_lost_by(one)
        if asks and silent is None and not _may_replace(app, state, one):
            continue

        async def job(
            session: Session, display: ProgressDisplay, one: Unfinished = one, to: str = to
        ) -> Report:
            return await session.finish_unfinished(
                one, to=to, spool=spool, deadline=app.time_left, on_progress=display
            )

        service: Service = "clevertap"
        if is_joined(one):
            service = "both"
        elif is_of_alta(one):
            service = "alta"
        try:
            check_finishable(one)
            if asks:
                _check_answered(state, one, silent)
            app.info(f"Finishing {one.title}, begun {one.age}.")
            if success is not None and success.is_newer(one):
                app.warn(
                    f"{state.name} was written at {success.written}, after this export was begun"
                )
            if state.name in finished:
                _warn_of_loss(app, _read_again(state, out, table, spool), one)
            app.accounts = named or _account_of(one, service)
            adds = one.arguments.get("write") == "append"
            run_job(app, job, out=to, as_json=as_json, resume=resume, adds=adds, service=service)
            finished.add(state.name)
        except Exception as error:
            # The others can still be finished, unless the user wants an end.
            code = app.report(error)
            if code is None or isinstance(error, Interrupted):
                raise
            codes.append(code)
    app.accounts = named
    if codes:
        sys.exit(worst(codes))


def _read_again(state: OutputState, out: str, table: str | None, spool: str | None) -> OutputState:
    """Return the state of an output that this command has written since."""
    from ...export.outputs import outputs_at

    states = outputs_at(out, table=table, spool=spool, asks=False)
    return next((one for one in states if one.name == state.name), state)


def _warn_of_loss(app: App, state: OutputState, one: Unfinished) -> None:
    """Log a warning if an export replaces what this command has written."""
    if state.is_lost_by(one):
        app.warn(f"{one.title} replaces what has just been written to {state.name}")


def _lost(state: OutputState, one: Unfinished) -> str:
    """Return a sentence on the newer rows that an export replaces when it is finished."""
    written = "" if state.success is None else f" at {state.success.written}"
    return f"{state.name} was written{written}, after {one.title} was begun, which would replace it"


def _check_answered(state: OutputState, one: Unfinished, silent: str | None) -> None:
    """Raise `Failure` if nobody could be asked whether an export may replace newer rows."""
    if silent is not None:
        raise Failure(
            f"{_lost(state, one)}; `{state.command} --discard-unfinished` keeps what is newer; "
            f"{silent}: to replace it without a question, pass --yes",
            Exit.USAGE,
        )


def _may_replace(app: App, state: OutputState, one: Unfinished) -> bool:
    """Return whether the user lets an export replace rows that are newer."""
    app.warn(_lost(state, one))
    if click.confirm("Replace it?", err=True):
        return True
    app.info(f"Left alone; to remove the export, run: {state.command} --discard-unfinished")
    return False


def _account_of(one: Unfinished, service: Service) -> tuple[str, ...]:
    """Return the name of the account that an export is of, or none for the usual one."""
    from ...accounts import Accounts, find_alta, find_clevertap
    from ...errors import ConfigurationError

    if one.plan is None:
        return ()
    account_of_alta = one.plan.account if service == "alta" else one.plan.cdp_account
    for name in (None, *Accounts.read().tables):
        try:
            project = None if service == "alta" else find_clevertap(name)
            key = None if service == "clevertap" else find_alta(name)
        except ConfigurationError:
            continue
        if service != "alta" and (
            project is None or project.credentials.account_id != one.plan.account
        ):
            continue
        if service != "clevertap" and (key is None or key.credentials.account != account_of_alta):
            continue
        return () if name is None else (name,)
    return ()


def _warn_of_added(app: App, left: list[tuple[OutputState, Unfinished, str]]) -> None:
    """Log a warning of each export whose rows the same export would add again, once removed."""
    from ...export.outputs import has_added

    for state, one, to in left:
        is_known = has_added(state, one, to or None)
        if is_known is False:
            continue
        verb = "are" if is_known else "may be"
        advice = f"; `{state.command} --finish-unfinished` has them there once"
        app.warn(
            f"{one.title}: its rows {verb} in {state.name} already, and once this is removed, the "
            f"same export adds them again{'' if one.plan is None else advice}"
        )


def _discard(app: App, left: list[tuple[OutputState, Unfinished]], *, yes: bool) -> None:
    from ...base.wording import sized
    from ...export.store.workspaces import Workspaces
    from ..dialog import why_silent

    for _, one in left:
        app.info(f"{one.title}: {one.progress}, {sized(one.size)} in {one.path}")
    if left and not yes:
        if (reason := why_silent()) is not None:
            raise Failure(f"{reason}; to remove this for ever, pass --yes", Exit.USAGE)
        if not click.confirm("Remove this for ever?", err=True):
            return
    for folder in dict.fromkeys(state.folder for state, _ in left):
        workspaces = Workspaces.open(folder, resume=False)
        try:
            for state, one in left:
                # One of an earlier version has just been moved under the name of its plan.
                name = one.path.name if one.path != folder or one.plan is None else one.plan.name
                if state.folder == folder and name is not None and one.path.exists():
                    workspaces.discard(name)
        finally:
            workspaces.close()
            workspaces.sync_removal()
