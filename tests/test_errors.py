"""The exception tree: as documented, picklable, and without secrets."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

import altaprofiles
from altaprofiles import errors
from altaprofiles.errors import AltaProfilesError

STATUS: dict[str, Any] = {
    "api": "CleverTap",
    "status": 429,
    "code": "CODE_7",
    "message": "Too many concurrent requests",
    "hint": "Wait",
    "retry_after": 1.5,
}

SAMPLES: dict[str, AltaProfilesError] = {
    "AltaProfilesError": errors.AltaProfilesError("something"),
    "BadRequest": errors.BadRequest(**STATUS | {"status": 400, "code": 3}),
    "ConfigurationError": errors.ConfigurationError("end: 20260101 is before start, 20260102"),
    "ConnectError": errors.ConnectError("no TLS connection to example.com", untrusted=True),
    "CursorError": errors.CursorError("a chain cannot go on"),
    "CursorExpired": errors.CursorExpired("CleverTap refuses the cursor as expired"),
    "CursorLoop": errors.CursorLoop("the service repeated a cursor after 3 pages"),
    "DecodeError": errors.DecodeError("expected a cursor", path="$.next_cursor", excerpt='{"a'),
    "ExportError": errors.ExportError("an export cannot start"),
    "ExportLocked": errors.ExportLocked("another process works on people.parquet"),
    "Forbidden": errors.Forbidden(**STATUS | {"status": 403, "code": None}),
    "Incomplete": errors.Incomplete(
        "2 chains are not finished", missing=["the first", "the second"], report=None
    ),
    "NotReady": errors.NotReady("Request still in progress, please retry later"),
    "PlanMismatch": errors.PlanMismatch(
        "the journal belongs to another export", differences={"start": (20260101, 20260102)}
    ),
    "RateLimited": errors.RateLimited(**STATUS),
    "RequestTimeout": errors.RequestTimeout("example.com sent nothing for 60.0 s"),
    "ResponseTooLarge": errors.ResponseTooLarge("over 1,000 bytes", limit=1000),
    "ServerError": errors.ServerError(**STATUS | {"status": 500, "retry_after": None}),
    "StatusError": errors.StatusError(api="Alta", status=302),
    "TransportError": errors.TransportError("the connection broke"),
    "Unauthorized": errors.Unauthorized(**STATUS | {"status": 401, "hint": None}),
}

every_error = pytest.mark.parametrize("name", errors.__all__)


def test_every_error_is_public_has_a_sample_and_its_sample_is_of_that_class() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert defined == set(errors.__all__) == set(SAMPLES)
    assert defined <= set(altaprofiles.__all__)
    assert {name: type(sample).__name__ for name, sample in SAMPLES.items()} == {
        name: name for name in SAMPLES
    }


@every_error
def test_every_error_survives_a_pickle_and_a_copy(name: str) -> None:
    error = SAMPLES[name]
    error.add_note("while exporting")
    twins: list[AltaProfilesError] = [
        pickle.loads(pickle.dumps(error, protocol))  # noqa: S301
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for twin in [*twins, copy.copy(error), copy.deepcopy(error)]:
        assert type(twin) is type(error)
        assert str(twin) == str(error) != ""
        assert repr(twin) == repr(error)
        assert twin.args == error.args
        assert vars(twin) == vars(error)


@every_error
def test_every_attribute_that_a_docstring_names_is_there(name: str) -> None:
    attributes = (type(SAMPLES[name]).__doc__ or "").partition("Attributes:\n")[2]
    for attribute in re.findall(r"^ +(\w+): ", attributes, re.MULTILINE):
        assert hasattr(SAMPLES[name], attribute)


def test_the_tree_is_as_the_module_draws_it() -> None:
    drawn: dict[str, str | None] = {}
    ancestors: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.fullmatch(r"    ((?:│   |    )*(?:[├└]── )?)([A-Z]\w+)(?: .*)?", line):
            depth = len(match[1]) // 4
            ancestors[depth:] = [match[2]]
            drawn[match[2]] = ancestors[depth - 1] if depth else None
    real = {
        name: next(
            (
                base.__name__
                for base in getattr(errors, name).__bases__
                if issubclass(base, AltaProfilesError)
            ),
            None,
        )
        for name in errors.__all__
    }
    assert drawn == real


def test_a_configuration_error_is_a_value_error_too() -> None:
    assert issubclass(errors.ConfigurationError, ValueError)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"api": "Alta", "status": 500}, "Alta answered HTTP 500"),
        (
            {"api": "Alta", "status": 200, "code": 40008, "message": "slow", "hint": "Wait"},
            "Alta answered HTTP 200 (code 40008): slow. Wait",
        ),
        ({"api": "CleverTap", "status": 200, "code": 0}, "CleverTap answered HTTP 200 (code 0)"),
    ],
)
def test_a_status_error_says_all_it_knows(given: dict[str, Any], shown: str) -> None:
    assert str(errors.StatusError(**given)) == shown


def test_a_decode_error_says_what_and_where() -> None:
    error = SAMPLES["DecodeError"]
    assert str(error) == """expected a cursor at $.next_cursor, got '{"a'"""
    nothing = errors.DecodeError("input was empty", path="$", excerpt="")
    assert str(nothing) == "input was empty at $, got nothing"


@pytest.mark.parametrize(
    "secret", ["s3cr3t-t0k3n", "back\\slash\\y", "quo'te'd\"", "(a+b)*[c]", "%25%s{x}"]
)
def test_redact_removes_a_secret_from_every_text(secret: str) -> None:
    echoed = f"the header was X-CleverTap-Passcode: {secret} and {secret} again"
    affected: list[AltaProfilesError] = [
        errors.TransportError(echoed),
        errors.ServerError(api="Alta", status=502, code=secret, message=echoed, hint=echoed),
        errors.DecodeError(echoed, path=echoed, excerpt=echoed),
        errors.ResponseTooLarge(echoed, limit=7),
    ]
    for error in affected:
        error.redact(secret)
        for text in (str(error), repr(error), *map(str, vars(error).values())):
            assert secret not in text
            assert secret not in text.replace("\\\\", "\\").replace("\\'", "'")
        assert "***" in str(error)
        assert secret.encode() not in pickle.dumps(error)


def test_redact_leaves_the_rest_alone() -> None:
    error = errors.RateLimited(**STATUS)
    before = (str(error), vars(error).copy())
    error.redact("s3cr3t")
    assert (str(error), vars(error)) == before
