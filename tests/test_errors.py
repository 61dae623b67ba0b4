"""The exception tree: as documented, picklable, and without secrets."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
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
    "ConfigurationError": errors.ConfigurationError("identity: empty", value=" "),
    "ConnectError": errors.ConnectError("no TLS connection to example.com", untrusted=True),
    "CursorError": errors.CursorError("a chain cannot go on"),
    "CursorExpired": errors.CursorExpired("open a new chain", message="too old"),
    "CursorLoop": errors.CursorLoop("the service repeated a cursor after 3 pages"),
    "DecodeError": errors.DecodeError("expected a cursor", path="$.next_cursor", excerpt='{"a'),
    "ExportError": errors.ExportError("an export cannot start"),
    "ExportLocked": errors.ExportLocked("another process works on people.parquet"),
    "Forbidden": errors.Forbidden(**STATUS | {"status": 403, "code": None}),
    "Incomplete": errors.Incomplete(
        "2 chains are not finished", missing=["the first", "the second"], report=None
    ),
    "InvalidArgument": errors.InvalidArgument("identity: empty", value=" "),
    "MissingCredentials": errors.MissingCredentials("no credentials in the environment"),
    "MissingExtra": errors.MissingExtra("to: 'p.parquet' needs pyarrow"),
    "NotReady": errors.NotReady("it is still counting", message="please retry later"),
    "PlanMismatch": errors.PlanMismatch(
        "the journal belongs to another export", differences={"start": (20260101, 20260102)}
    ),
    "RateLimited": errors.RateLimited(**STATUS),
    "RequestTimeout": errors.RequestTimeout("example.com sent nothing for 60.0 s"),
    "ResponseTooLarge": errors.ResponseTooLarge("over 1,000 bytes", limit=1000),
    "ServerError": errors.ServerError(**STATUS | {"status": 500, "retry_after": None}),
    "SessionClosed": errors.SessionClosed("this Session is closed; open a new one"),
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


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigurationError", ValueError),
        ("RequestTimeout", TimeoutError),
        ("ConnectError", ConnectionError),
    ],
)
def test_some_errors_are_those_of_python_as_well(name: str, builtin: type[Exception]) -> None:
    error = SAMPLES[name]
    assert isinstance(error, builtin)
    assert str(error) == error.args[0]


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


def test_a_decode_error_says_what_and_where_and_not_whose() -> None:
    error = errors.DecodeError("Expected `int`", path="$.records[3]", excerpt='{"email":"a@b.c"')
    assert str(error) == "Expected `int` at $.records[3]"
    assert error.excerpt == '{"email":"a@b.c"'
    error.locate("CleverTap", "get_page")
    assert str(error) == "CleverTap, get_page: Expected `int` at $.records[3]"
    assert (error.api, error.operation) == ("CleverTap", "get_page")
    nothing = errors.DecodeError("input was empty", path="$", excerpt="")
    assert str(nothing) == "input was empty, got nothing"


def stars(text: str) -> str:
    return "*" * len(text)


def test_redact_masks_what_comes_from_outside_and_no_word_of_ours() -> None:
    affected: list[AltaProfilesError] = [
        errors.TransportError("ours", detail="theirs"),
        errors.ConnectError("ours", detail="theirs", untrusted=True),
        errors.ServerError(
            api="Alta", status=502, code="theirs", message="theirs", hint="ours", excerpt="theirs"
        ),
        errors.NotReady("ours", message="theirs", retry_after=2),
        errors.CursorExpired("ours", message="theirs"),
        errors.DecodeError("ours", path="$", excerpt="theirs"),
    ]
    for error in affected:
        assert "theirs" in str(vars(error))
        error.redact(stars)
        twin = pickle.loads(pickle.dumps(error))  # noqa: S301
        for text in (str(error), repr(error), str(vars(error)), repr(vars(twin)), str(twin)):
            assert "theirs" not in text
        assert "ours" in str(error)


def test_redact_leaves_the_rest_alone() -> None:
    for error in SAMPLES.values():
        before = (str(error), vars(error).copy())
        error.redact(lambda text: text)
        assert (str(error), vars(error)) == before


def test_a_code_can_be_a_passcode_of_digits_and_a_short_one_never_is() -> None:
    error = errors.ServerError(api="Alta", status=500, code=12345678)
    error.redact(lambda text: text and "***")
    assert error.code == "***"
    assert str(error) == "Alta answered HTTP 500 (code ***)"
    error = errors.ServerError(api="CleverTap", status=500, code=4002)
    error.redact(lambda text: text and "***")
    assert error.code == 4002


def test_the_value_of_an_argument_survives_a_pickle_if_it_can() -> None:
    error = errors.ConfigurationError("keys[3]: empty", value="  ")
    assert pickle.loads(pickle.dumps(error)).value == "  "  # noqa: S301
    assert copy.deepcopy(error).value == "  "
    error = errors.ConfigurationError("keys[3]: not text", value=lambda: None)
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(twin), twin.value) == ("keys[3]: not text", None)
    assert error.value is not None


class Unloadable:
    """Pickles, and raises when it is loaded."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    ["x", 7, 1.5, True, b"x", None, ["x", (1, None)], {"a": {"b": [b"c"]}}, ()],
)
def test_a_value_of_plain_types_is_pickled_with_the_error(value: Any) -> None:
    error = errors.ConfigurationError("keys[3]: wrong", value=value)
    assert pickle.loads(pickle.dumps(error)).value == value  # noqa: S301


@pytest.mark.parametrize("make", [Unloadable, lambda: Text("x"), lambda: {1}, object, list])
def test_no_value_stops_an_error_from_being_loaded(make: Callable[[], Any]) -> None:
    value = make()
    nested: Any = value
    for _ in range(2000):
        nested = [nested]
    circular: list[Any] = []
    circular.append(circular)
    cases = [nested, circular, {"a": [Unloadable()]}, (Unloadable(),)]
    for case in cases if value == [] else [value, [value], {"a": value}]:
        error = errors.ConfigurationError("keys[3]: wrong", value=case)
        twin = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (str(twin), twin.value) == ("keys[3]: wrong", None)
        assert error.value is case


@pytest.mark.parametrize(
    "text", ["Invalid event : " + "x" * 5000, "\x1b" * 5000, "\U000e0001" * 400]
)
def test_a_message_shows_no_more_than_500_characters_of_a_service(text: str) -> None:
    error = errors.BadRequest(api="CleverTap", status=400, code=text, message=text)
    bare = errors.BadRequest(api="CleverTap", status=400, code="", message=" ")
    assert len(str(error)) <= len(str(bare)) + 2 * 500
    assert str(error).endswith("…")
    for other in (
        errors.TransportError("no HTTP", detail=text),
        errors.NotReady("not ready", message=text),
        errors.CursorExpired("expired", message=text),
    ):
        assert len(str(other)) < 520


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Limit exceeded.", "Limit exceeded. Wait"),
        ("Limit exceeded", "Limit exceeded. Wait"),
        ("Limit exceeded!", "Limit exceeded! Wait"),
        ("", "HTTP 429. Wait"),
    ],
)
def test_a_sentence_of_the_service_and_the_next_one_have_one_full_stop(
    message: str, shown: str
) -> None:
    error = errors.RateLimited(api="Alta", status=429, message=message, hint="Wait.", reset=0)
    assert f"{shown}. It accepts requests again at 1970" in str(error)
    error.advise("First of all, pause.")
    assert f"{shown.removesuffix('Wait')}First of all, pause. Wait. It accepts" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        errors.TransportError("the answer of h ended before it was complete"),
        errors.ConnectError("no connection to h", detail="Connection refused"),
        errors.RequestTimeout("h sent nothing for 60.0 s"),
        errors.ResponseTooLarge("over 1,000 bytes", limit=1000),
        errors.CursorLoop("the service repeated a cursor after 3 pages"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_a_call_begins_with_its_service(error: errors.AltaProfilesError) -> None:
    error, text = copy.copy(error), str(error)
    error.locate("CleverTap", "get_page")
    error.redact(lambda text: text.replace("refused", "***"))
    expected = f"CleverTap: {text}".replace("refused", "***")
    assert str(error) == expected
    assert str(copy.copy(error)) == expected
