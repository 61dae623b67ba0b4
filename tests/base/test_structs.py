"""Structs that callers make: what their errors say of wrong arguments."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import msgspec
import pytest

from altaprofiles import EventQuery, Filter, InvalidArgument, Retry, Timeout


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: Retry(3),  # type: ignore[call-arg]
            (
                "Retry takes its arguments by name, as in Retry(attempts=…). Its arguments: "
                "attempts, base_delay, max_delay, throttle_timeout, ready_timeout, deadline, budget"
            ),
        ),
        (
            lambda: Retry(max_attempts=3),  # type: ignore[call-arg]
            (
                "Retry has no argument 'max_attempts'. Did you mean 'attempts'? Its arguments: "
                "attempts, base_delay, max_delay, throttle_timeout, ready_timeout, deadline, budget"
            ),
        ),
        (
            lambda: Timeout(1.5),  # type: ignore[call-arg]
            (
                "Timeout takes its arguments by name, as in Timeout(connect=…). Its arguments: "
                "connect, read, total"
            ),
        ),
        (
            lambda: Timeout(pool=1),  # type: ignore[call-arg]
            "Timeout has no argument 'pool'. Its arguments: connect, read, total",
        ),
        (
            lambda: Filter("City", "equals", "Pune", "Mumbai"),  # type: ignore[call-arg]
            "Filter: too many positional arguments. Its arguments: name, operator, value",
        ),
        (
            lambda: Filter("City", name="City"),  # type: ignore[call-arg,misc]
            "Filter: multiple values for argument 'name'. Its arguments: name, operator, value",
        ),
        (
            lambda: EventQuery("Charged"),  # type: ignore[call-arg]
            (
                "EventQuery: missing a required argument: 'start'. Its arguments: "
                "event, start, end, batch_size, app, summaries, profile, filters"
            ),
        ),
    ],
)
def test_a_wrong_argument_is_named_with_those_that_there_are(
    call: Callable[[], object], text: str
) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == text
    assert caught.value.__context__ is None


def test_a_wrong_value_keeps_the_error_of_its_check() -> None:
    with pytest.raises(InvalidArgument, match="attempts: expected a whole number of at least 1"):
        Retry(attempts=0)


@pytest.mark.parametrize(
    "struct",
    [
        Retry(attempts=2),
        Timeout(read=3),
        Filter("City", "equals", "Pune"),
        EventQuery("Charged", 20260101, 20260131),
    ],
)
def test_copies_are_equal(struct: msgspec.Struct) -> None:
    assert copy.copy(struct) == copy.deepcopy(struct) == msgspec.structs.replace(struct) == struct
    assert pickle.loads(pickle.dumps(struct)) == struct  # noqa: S301
