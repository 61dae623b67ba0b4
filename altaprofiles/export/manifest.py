"""The manifest beside an output: the report, the plan, the options, the version. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from .._version import __version__

if TYPE_CHECKING:
    from .plan import Plan
    from .report import Report


__all__ = ["as_builtins", "encode_manifest", "readable"]


# The order in manifests and `--json`: people read the results first.
_ORDER = (
    *("output", "manifest", "format", "complete"),
    *("first", "last", "through", "timezone", "finished"),
    *("people", "records", "pages", "chains"),
    *("keys", "repeated", "skipped", "found", "not_found", "failed"),
    *("matched", "unmatched", "join_failed"),
    *("requests", "retries", "seconds", "bytes", "sha256", "counted"),
    *("mended", "absorbed", "warnings"),
    *("not_found_file", "failed_file"),
)


def as_builtins(report: Report) -> dict[str, Any]:
    """Return a report's fields as JSON values, with the bytes of paths not in UTF-8 escaped."""
    values: dict[str, Any] = msgspec.to_builtins(report)
    return {
        name: readable(value) if isinstance(value, str) else value
        for name, value in sorted(values.items(), key=lambda item: _place(item[0]))
    }


def readable(path: str) -> str:
    """Return a path with the bytes that are not UTF-8 escaped."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def encode_manifest(
    report: Report,
    plan: Plan,
    options: dict[str, Any],
    written: str,
) -> bytes:
    """Return the manifest: the report, the arguments, the time, and the version of this library.

    Args:
        report: the result.
        plan: the arguments that decide what is fetched.
        options: the other arguments.
        written: the time, in ISO 8601.
    """
    manifest: dict[str, Any] = {
        **as_builtins(report),
        "plan": plan.as_builtins(),
        "options": options,
        "written": written,
        "altaprofiles": __version__,
    }
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
