"""What `Session.export` and `Session.export_lookups` begin with: arguments into one run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..base.checks import check_callback, check_flag
from ..errors import ConfigurationError
from ..http.engine import Engine
from ..http.service import Service
from ..models import Stats
from ..sources.chains import Chains
from ..sources.lookups import PROFILES, Lookups
from ..wire.clevertap import By
from ..wire.query import Day
from .gather.chains import Export
from .gather.lookups import LookupExport
from .job import Setting
from .keys import KeyFile, Keys, check_keys
from .plan import LookupPlan, plan_events
from .report import ExportProgress, ExportReport, LookupProgress, LookupReport
from .sinks import Target, resolve
from .threads import Threads

__all__ = ["start_export", "start_lookups"]


async def start_export(
    engine: Engine,
    service: Service,
    *,
    events: str | Sequence[str],
    start: Day,
    end: Day,
    to: str | os.PathLike[str],
    format: str | None,
    windows: object,
    distinct: bool,
    flatten: Sequence[str],
    table: str | None,
    bom: bool,
    batch_size: int,
    app: bool,
    event_summaries: bool,
    profile: bool,
    count: bool,
    resume: bool,
    spool: str | os.PathLike[str] | None,
    on_progress: Callable[[ExportProgress], object] | None,
) -> ExportReport:
    """Check the arguments of `Session.export`, and run it."""
    engine.check_open()
    plan = plan_events(
        events,
        account=service.account,
        host=service.url,
        slots=service.cap.limit,
        start=start,
        end=end,
        windows=windows,
        batch_size=batch_size,
        app=app,
        event_summaries=event_summaries,
        profile=profile,
    )
    check_flag("distinct", distinct)
    check_flag("count", count)
    check_flag("resume", resume)
    check_callback("on_progress", on_progress, takes="one argument")
    setting = await _setting(
        service,
        to=to,
        format=format,
        flatten=flatten,
        table=table,
        bom=bom,
        resume=resume,
        spool=spool,
        endings=(),
        options={"distinct": distinct},
    )
    return await Export(
        setting,
        plan,
        chains=Chains(engine.counting(setting.tally), service),
        adopt=windows == "auto",
        distinct=distinct,
        count=count,
        on_progress=on_progress,
    ).run()


async def start_lookups(
    engine: Engine,
    service: Service,
    *,
    keys: Keys,
    by: By,
    to: str | os.PathLike[str],
    column: str | None,
    format: str | None,
    flatten: Sequence[str],
    table: str | None,
    bom: bool,
    resume: bool,
    spool: str | os.PathLike[str] | None,
    on_progress: Callable[[LookupProgress], object] | None,
) -> LookupReport:
    """Check the arguments of `Session.export_lookups`, and run it."""
    engine.check_open()
    PROFILES.check_by(by)
    source = check_keys(keys, by, column)
    check_flag("resume", resume)
    check_callback("on_progress", on_progress, takes="one argument")
    setting = await _setting(
        service,
        to=to,
        format=format,
        flatten=flatten,
        table=table,
        bom=bom,
        resume=resume,
        spool=spool,
        endings=(".not-found.txt", ".failed.ndjson"),
        options={},
    )
    _check_kept(source, setting.target.path, setting.manifest, *setting.beside)
    return await LookupExport(
        setting,
        LookupPlan(account=service.account, host=service.url, by=by),
        source=Lookups(engine.counting(setting.tally), service, PROFILES),
        by=by,
        keys=source,
        on_progress=on_progress,
    ).run()


async def _setting(
    service: Service,
    *,
    to: str | os.PathLike[str],
    format: str | None,
    flatten: Sequence[str],
    table: str | None,
    bom: bool,
    resume: bool,
    spool: str | os.PathLike[str] | None,
    endings: tuple[str, ...],
    options: dict[str, Any],
) -> Setting:
    """Return where a run takes place.

    Args:
        endings: of the names of the files that are written beside output and manifest.
        options: what the manifest tells beside how the output is laid out.
    """
    threads = Threads()
    # There, as it may import pyarrow.
    target = await threads.run(
        lambda: resolve(to, format=format, table=table, bom=bom, flatten=flatten)
    )
    beside = _beside(target)
    layout = {
        "table": None if table is None else str.__str__(table),
        "bom": bom,
        "flatten": list(target.flatten),
    }
    return Setting(
        threads=threads,
        cap=service.cap,
        tally=Stats(),
        target=target,
        folder=_folder(spool, beside),
        manifest=_named(beside, ".manifest.json"),
        beside=tuple(_named(beside, ending) for ending in endings),
        options={**options, **layout},
        resume=resume,
    )


def _check_kept(source: object, *written: Path | None) -> None:
    """Raise `ConfigurationError` if the file of keys is one of those that are replaced."""
    if not isinstance(source, KeyFile):
        return
    for path in written:
        if path is not None and path.exists() and path.samefile(source.path):
            raise ConfigurationError(
                f"keys: {source.path} is written by this export itself; choose another `to`"
            )


def _beside(target: Target) -> Path:
    """Return what the names of all other files of an export begin with."""
    if target.path is not None:
        return target.path
    # One of its own for each table of each server, without what no file is called.
    name = re.sub(r"[^\w.-]", "_", target.name.partition("://")[2]).lstrip(".")
    return Path(name).resolve()


def _named(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _folder(spool: str | os.PathLike[str] | None, beside: Path) -> Path:
    """Return the folder in which this export gathers."""
    folder = _named(beside, ".export")
    if spool is None:
        return folder
    if not isinstance(spool, str | os.PathLike) or not isinstance(os.fspath(spool), str):
        raise ConfigurationError(f"spool: expected a path, got {spool!r}")
    if not os.fspath(spool):
        raise ConfigurationError("spool: expected a path, got ''; leave it out for None")
    if not Path(spool).is_dir():
        raise ConfigurationError(f"spool: there is no folder {os.fspath(spool)!r}; make it first")
    # In one of its own, as the other may hold anything.
    return Path(spool).resolve() / folder.name
