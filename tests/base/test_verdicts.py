"""Verdicts on errors: every class of the library, with and without a code, trusted or not."""

from __future__ import annotations

from typing import Any

import pytest

from altaprofiles import AltaProfilesError, errors
from altaprofiles.base.verdicts import can_pass, dooms_all, is_final

CODED: dict[str, Any] = {"api": "Alta", "status": 200, "code": 7}
BARE: dict[str, Any] = {"api": "Alta", "status": 200}

# Each error, and the questions that are answered with yes.
CASES: list[tuple[AltaProfilesError, set[str]]] = [
    (errors.AltaProfilesError("x"), set()),
    (errors.ConfigurationError("x"), {"dooms_all", "is_final"}),
    (errors.TransportError("x"), {"can_pass"}),
    (errors.ConnectError("x"), {"can_pass"}),
    (errors.ConnectError("x", untrusted=True), set()),
    (errors.RequestTimeout("x"), {"can_pass"}),
    (errors.ResponseTooLarge("x", limit=1), set()),
    (errors.StatusError(**CODED), set()),
    (errors.StatusError(**BARE), set()),
    (errors.BadRequest(**CODED), {"is_final"}),
    (errors.BadRequest(**BARE), set()),
    (errors.Unauthorized(**CODED), {"dooms_all"}),
    (errors.Unauthorized(**BARE), {"dooms_all"}),
    (errors.Forbidden(**CODED), {"dooms_all", "is_final"}),
    (errors.Forbidden(**BARE), set()),
    (errors.RateLimited(**CODED), {"can_pass"}),
    (errors.RateLimited(**BARE), {"can_pass"}),
    (errors.ServerError(**CODED), {"can_pass"}),
    (errors.ServerError(**BARE), {"can_pass"}),
    (errors.InvalidArgument("x"), {"dooms_all", "is_final"}),
    (errors.MissingCredentials("x"), {"dooms_all", "is_final"}),
    (errors.MissingExtra("x"), {"dooms_all", "is_final"}),
    (errors.SessionClosed("x"), {"dooms_all", "is_final"}),
    (errors.NotReady("x"), {"can_pass"}),
    (errors.DecodeError("x", path="$", excerpt=""), {"can_pass"}),
    (errors.CursorError("x"), set()),
    (errors.CursorLoop("x"), set()),
    (errors.CursorExpired("x"), set()),
    (errors.ExportError("x"), set()),
    (errors.PlanMismatch("x", differences={}), set()),
    (errors.ExportLocked("x"), set()),
    (errors.Incomplete("x", missing=[], report=None), set()),
]


def _name(value: object) -> str:
    if not isinstance(value, AltaProfilesError):
        return ""
    code = "" if getattr(value, "code", None) is None else " with a code"
    return type(value).__name__ + code + (" untrusted" if vars(value).get("untrusted") else "")


@pytest.mark.parametrize(("error", "yes"), CASES, ids=_name)
def test_each_error_has_its_verdicts(error: AltaProfilesError, yes: set[str]) -> None:
    answers = {
        "can_pass": can_pass(error),
        "dooms_all": dooms_all(error),
        "is_final": is_final(error),
    }
    assert answers == {question: question in yes for question in answers}


def test_no_error_is_left_out() -> None:
    cases = {(type(error), getattr(error, "code", None) is None) for error, _ in CASES}
    expected = {
        (kind, bare)
        for kind in (getattr(errors, name) for name in errors.__all__)
        for bare in ((True, False) if issubclass(kind, errors.StatusError) else (True,))
    }
    assert cases == expected
    assert {error.untrusted for error, _ in CASES if isinstance(error, errors.ConnectError)} == {
        True,
        False,
    }


def test_the_absence_of_an_error_is_not_final() -> None:
    assert not is_final(None)
