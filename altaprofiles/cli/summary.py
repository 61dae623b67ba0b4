"""The summary of a complete export or lookup: lines for a person, or a report as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import json

from ..export.manifest import as_builtins
from ..export.report import LookupReport, Report
from ..export.summary import text_lines
from .app import App

__all__ = ["summarize", "write_report"]


def summarize(app: App, report: Report, account: str | None = None) -> None:
    """Log the main figures of `report`, a line each. Its warnings are in the log already.

    Args:
        app: logs them.
        report: the report.
        account: the name of the account, of an output for each.
    """
    if isinstance(report, LookupReport) and not report.keys:
        app.warn("there were no keys to look up")
    rows = [] if account is None else [("account", account)]
    app.info(text_lines(rows + report.summary), report=_as_json(report, account, {}))


def write_report(
    app: App,
    report: Report | None,
    account: str | None = None,
    errors: Mapping[str, Exception] | None = None,
) -> None:
    """Write `report` to stdout, as a line of JSON.

    Args:
        app: writes it.
        report: the report; None for an account that failed before there was anything to report.
        account: the name of the account, of an output for each.
        errors: the errors of the accounts that have failed, by their names.
    """
    app.write(json.encode(_as_json(report, account, errors or {})) + b"\n")


def _as_json(
    report: Report | None, account: str | None, errors: Mapping[str, Exception]
) -> dict[str, Any]:
    values = {"complete": False} if report is None else as_builtins(report, errors)
    if account is None:
        return values
    error = str(errors[account]) if account in errors else None
    return {"account": account, **values, "error": error}
