"""The summary of a complete export or lookup: lines for a person, or a report as JSON."""

from __future__ import annotations

from typing import Any

from msgspec import json

from ..export.report import LookupReport, Report
from ..export.summary import text_lines
from .app import App
from .failure import report_values

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
    app.info(text_lines(rows + report.summary), report=_as_json(report, account))


def write_report(app: App, report: Report, account: str | None = None) -> None:
    """Write `report` to stdout, as a line of JSON.

    Args:
        app: writes it.
        report: the report.
        account: the name of the account, of an output for each.
    """
    app.write(json.encode(_as_json(report, account)) + b"\n")


def _as_json(report: Report, account: str | None) -> dict[str, Any]:
    values = report_values(report, {})
    return values if account is None else {"account": account, **values, "error": None}
