"""The failure of a command with `--json`, as lines of JSON for the program that reads stdout.

Each has the members `complete`, which is false, and `error`, the message as it is in the log, and
`resume`, the command that resumes the work, if the log has one. With a report, they are members of
the report. With several accounts, `accounts` has the error of each;
where each has an output of its own, it has a line of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click
from msgspec import json

from ..export.accounts import AccountsFailed
from ..export.manifest import as_builtins
from ..export.report import Report
from ..redaction import readable
from .option_names import in_options

__all__ = ["lines_of", "report_values"]


def lines_of(
    error: BaseException, messages: Mapping[str | None, str], resume: str | None
) -> Iterator[bytes]:
    """Yield the lines of an error.

    Args:
        error: the error.
        messages: its message, and that of each account that has failed, by the account's name.
        resume: the command line that resumes the work, or None.
    """
    more = {} if resume is None else {"resume": readable(resume)}
    if isinstance(error, AccountsFailed) and error.report is None and None not in messages:
        for name, one in error.errors.items():
            yield _line({"account": name, **_values(one), "error": messages[name]} | more)
        return
    values = _values(error)
    if isinstance(error, AccountsFailed):
        shares = values.setdefault("accounts", {})
        for name in error.errors:
            shares.setdefault(name, {"complete": False})["error"] = messages[name]
    yield _line({**values, "error": messages.get(None, "")} | more)


def report_values(report: Report, errors: Mapping[str, Exception]) -> dict[str, Any]:
    """Return a report as JSON values, with options of the command line in its warnings.

    Args:
        report: the report.
        errors: the errors of its accounts that have failed, by their names.
    """
    values = as_builtins(report, errors)
    context = click.get_current_context()
    for share in (values, *values.get("accounts", {}).values()):
        if "warnings" in share:
            share["warnings"] = [in_options(text, context) for text in share["warnings"]]
    return values


def _values(error: BaseException) -> dict[str, Any]:
    report = getattr(error, "report", None)
    if not isinstance(report, Report):
        return {"complete": False}
    return report_values(report, error.errors if isinstance(error, AccountsFailed) else {})


def _line(values: dict[str, Any]) -> bytes:
    return json.encode(values | {"error": readable(values["error"])}) + b"\n"
