"""The manifest beside an output: the report, the plan, the options, the version. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from .._version import __version__
from ..redaction import readable
from ..sources.lookups import CDP

if TYPE_CHECKING:
    from .plan import Plan
    from .report import Report
    from .state import SyncState

__all__ = ["Described", "as_builtins", "described_in", "encode_manifest", "events_of", "of_state"]


# The order in manifests and `--json`: people read the results first.
_ORDER = (
    *("output", "manifest", "format", "complete"),
    *("since", "has_output", "first", "last", "through", "timezone", "finished"),
    *("people", "records", "pages", "chains"),
    *("keys", "repeated", "skipped", "found", "not_found", "failed"),
    *("matched", "unmatched", "join_failed"),
    *("resumed", "requests", "retries", "seconds", "bytes", "sha256", "counted"),
    *("mended", "mistyped", "absorbed", "warnings"),
    *("not_found_file", "failed_file"),
)


def as_builtins(
    report: Report, errors: Mapping[str, Exception | None] | None = None
) -> dict[str, Any]:
    """Return a report's fields as JSON values, with the bytes of paths not in UTF-8 escaped.

    Args:
        report: the report.
        errors: the errors of its accounts, if it is of several. One that failed before there was
            anything to report has no other members.
    """
    values: dict[str, Any] = msgspec.to_builtins(report)
    del values["accounts"]
    values = {
        name: readable(value) if isinstance(value, str) else value
        for name, value in sorted(values.items(), key=lambda item: _place(item[0]))
    }
    if report.accounts is None:
        return values
    shares = {name: as_builtins(one) for name, one in report.accounts.items()}
    errors = {name: error for name, error in (errors or {}).items() if error is not None}
    shares |= {name: {"complete": False} for name in errors if name not in shares}
    return values | {
        "accounts": {
            name: {key: value for key, value in share.items() if key not in _OF_OUTPUT}
            | {"error": str(errors[name]) if name in errors else None}
            for name, share in shares.items()
        }
    }


_OF_OUTPUT = frozenset({"output", "manifest", "format", "bytes", "sha256"})
"""Members of a report that are of the output, and not of one of its accounts."""


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def encode_manifest(
    report: Report,
    plans: Mapping[str | None, Plan],
    options: dict[str, Any],
    written: datetime,
    errors: Mapping[str, Exception | None] | None = None,
) -> bytes:
    """Return the manifest: the report, the arguments, the time, and the version of this library.

    Args:
        report: the result.
        plans: the arguments that decide what is fetched, by the name of the account; None is the
            name of a single one.
        options: the other arguments.
        written: the time.
        errors: as for `as_builtins`.
    """
    manifest: dict[str, Any] = {
        **as_builtins(report, errors),
        **_encoded(plans),
        "options": options,
        "written": written.isoformat(timespec="seconds"),
        "altaprofiles": __version__,
    }
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


class Described(Struct, frozen=True):
    """The rows of an output, as its manifest describes them.

    Attributes:
        accounts: the names of the accounts, by ID; a single one has no name.
        is_of_users: whether the rows are users of Alta, and not people of CleverTap.
        is_empty: whether there are none.
        bytes: the size of the output; None for a database server, or if nothing was written.
    """

    accounts: Mapping[str, str]
    is_of_users: bool
    is_empty: bool
    bytes: int | None


def described_in(manifest: bytes) -> Described | None:
    """Return what a manifest describes, or None if it is not one."""
    try:
        described = msgspec.json.decode(manifest, type=_Described)
    except msgspec.DecodeError:
        return None
    plans = described.each
    # That of Alta's users is a digest of the key.
    accounts = {
        plan.account: name or ("another Alta key" if plan.by in CDP.by else plan.account)
        for name, plan in plans.items()
        if plan.account
    }
    if not accounts:
        return None
    return Described(
        accounts,
        any(plan.by in CDP.by for plan in plans.values()),
        0 in (described.people, described.found),
        described.bytes,
    )


def events_of(manifest: bytes) -> set[str]:
    """Return the events whose people an output has.

    Raises:
        DecodeError: it is not a manifest.
    """
    plans = msgspec.json.decode(manifest, type=_Planned).each
    return {event for plan in plans.values() for event in plan.events or ()}


class _Plan(Struct, frozen=True):
    account: str = ""
    by: str | None = None
    events: list[str] | None = None


class _Planned(Struct, frozen=True):
    plan: _Plan = _Plan()
    plans: dict[str, _Plan] = {}

    @property
    def each(self) -> dict[str, _Plan]:
        """The plan of each account by its name; that of a single one has none."""
        return self.plans or {"": self.plan}


class _Described(_Planned, frozen=True):
    bytes: int | None = None
    people: int | None = None
    found: int | None = None


def of_state(account: str, state: SyncState | None) -> dict[str, str | None]:
    """Return the state of one account of a sync, as the options of a manifest have it."""
    if state is None:
        return {"account": account, "through": None, "synced_at": None}
    at = state.synced_at.astimezone(UTC).isoformat(timespec="seconds")
    return {"account": account, "through": str(state.through), "synced_at": at}


def _encoded(plans: Mapping[str | None, Plan]) -> dict[str, Any]:
    encoded = {name: plan.as_builtins() for name, plan in plans.items()}
    return {"plan": encoded[None]} if None in encoded else {"plans": encoded}
