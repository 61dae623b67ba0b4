"""The summary of a complete export or lookup: lines for a person, or a report as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import json

from ..base.wording import clock, numbered, sized
from ..export.manifest import as_builtins
from ..export.report import ExportReport, LookupReport, Report, SyncReport
from .app import App

__all__ = ["summarize", "write_report"]


def summarize(app: App, report: Report, account: str | None = None) -> None:
    """Log the main figures of `report`, a line each. Its warnings are in the log already.

    Args:
        app: logs them.
        report: the report.
        account: the name of the account, of an output for each.
    """
    rows: list[tuple[str, str]] = [] if account is None else [("account", account)]
    match report:
        case ExportReport():
            rows += _export_rows(report)
        case LookupReport():
            if not report.keys:
                app.warn("there were no keys to look up")
            rows += _lookup_rows(report)
        case SyncReport():
            rows += _sync_rows(report)
    rows.append(("retries", f"{report.retries:,} in {numbered(report.requests, 'request')}"))
    rows.append(("time", clock(report.seconds)))
    if report.bytes is not None:
        rows.append(("size", sized(report.bytes)))
    if report.sha256 is not None:
        rows.append(("SHA-256", report.sha256))
    if report.absorbed:
        rows.append(
            (
                "absorbed",
                f"{numbered(report.absorbed, 'row')} of earlier runs, by people with a name",
            )
        )
    if report.mended:
        rows.append(("mended", f"{report.mended:,} texts that {report.format} cannot hold"))
    rows.append(("manifest", _short_path(report.manifest)))
    width = max(len(name) for name, _ in rows)
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
    app.info(text, report=_as_json(report, account))


def write_report(app: App, report: Report, account: str | None = None) -> None:
    """Write `report` to stdout, as a line of JSON.

    Args:
        app: writes it.
        report: the report.
        account: the name of the account, of an output for each.
    """
    app.write(json.encode(_as_json(report, account)) + b"\n")


def _as_json(report: Report, account: str | None) -> dict[str, Any]:
    return ({} if account is None else {"account": account}) | as_builtins(report)


def _export_rows(report: ExportReport) -> list[tuple[str, str]]:
    pages = numbered(report.pages, "page")
    rows = [
        ("people", f"{report.people:,}"),
        ("records", f"{report.records:,} on {pages}"),
        *_join_rows(report, report.failed),
    ]
    rows += _account_rows(report)
    for event, people in (report.counted or {}).items():
        rows.append(("counted", f"{event}: {numbered(people, 'people')} by the service"))
    return rows


def _lookup_rows(report: LookupReport) -> list[tuple[str, str]]:
    rows = [("keys", f"{report.keys:,}"), ("found", f"{report.found:,}")]
    others = [(report.repeated, "repeated"), (report.skipped, "without a key, which were skipped")]
    if texts := [f"{count:,} {words}" for count, words in others if count]:
        rows[0] = ("keys", f"{report.keys:,}, and {' and '.join(texts)}")
    for name, count, file in (
        ("not found", report.not_found, report.not_found_file),
        ("failed", report.failed, report.failed_file),
    ):
        rows.append((name, f"{count:,}{_place(file) if count else ''}"))
    return [*rows, *_join_rows(report, report.join_failed), *_account_rows(report)]


def _account_rows(report: Report) -> list[tuple[str, str]]:
    """Return a row for each account of an output of several."""
    rows: list[tuple[str, str]] = []
    for name, share in (report.accounts or {}).items():
        words = "" if share.complete else "not complete, "
        match share:
            case ExportReport():
                words += f"{numbered(share.people, 'people')}, {numbered(share.records, 'record')}"
            case LookupReport():
                words += f"{share.found:,} of {numbered(share.keys, 'key')} found"
                words += _place(share.not_found_file) + _place(share.failed_file)
            case SyncReport():
                words += f"{share.days}: {numbered(share.people, 'people')}"
                words += "" if share.through is None else f", all days through {share.through}"
            case _:
                pass
        rows.append((name, words))
    return rows


def _sync_rows(report: SyncReport) -> list[tuple[str, str]]:
    rows = [("days", report.days if report.first else "none, as the table has all of them")]
    if report.through is not None:
        rows.append(("through", f"{report.through}, by days of {report.timezone}"))
    if report.finished:
        rows.append(("finished", f"{numbered(report.finished, 'export')} of earlier runs"))
    if report.first is not None:
        pages = numbered(report.pages, "page")
        rows.append(("people", f"{report.people:,}"))
        rows.append(("records", f"{report.records:,} on {pages}"))
    return [*rows, *_join_rows(report, report.failed), *_account_rows(report)]


def _join_rows(
    report: ExportReport | LookupReport | SyncReport, failed: int | None
) -> list[tuple[str, str]]:
    if report.matched is None or report.unmatched is None or failed is None:
        return []
    counts = f"{report.matched:,} matched, {report.unmatched:,} unmatched, {failed:,} failed"
    return [("joined", f"{counts}{_place(report.failed_file) if failed else ''}")]


def _place(file: str | None) -> str:
    return "" if file is None else f", in {_short_path(file)}"


def _short_path(file: str) -> str:
    """Return a path relative to the current folder if the file is in it, else as it is."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (OSError, ValueError):
        # It is in another folder, or the current one has been deleted.
        return file
