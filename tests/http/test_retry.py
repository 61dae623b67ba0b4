"""The arithmetic of retries: delays, the budget, and the limits that are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altaprofiles import ConfigurationError, Retry, Timeout
from altaprofiles.http.retry import Budget

SECONDS = st.floats(0, 1e6) | st.integers(0, 10**6)
SHARE = st.floats(0, 1, exclude_max=True)


@given(base=SECONDS, most=SECONDS, failures=st.integers(1, 10**6), drawn=SHARE)
def test_a_delay_lies_between_zero_and_its_bound(
    base: float, most: float, failures: int, drawn: float
) -> None:
    retry = Retry(base_delay=base, max_delay=most)
    delay = retry.delay(failures, lambda: drawn)
    assert 0 <= delay <= most
    if failures < 60:
        assert delay <= base * 2 ** (failures - 1)
        assert delay == pytest.approx(drawn * min(most, base * 2 ** (failures - 1)))


def test_the_bound_doubles_from_the_first_failure_up_to_the_most() -> None:
    retry = Retry(base_delay=0.5, max_delay=30)
    bounds = [retry.delay(failures, lambda: 1.0) for failures in range(1, 10)]
    assert bounds == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert retry.delay(10**9, lambda: 1.0) == 30


def test_each_delay_is_drawn_separately() -> None:
    draws = iter([0.25, 0.75])
    retry = Retry(base_delay=4, max_delay=4)
    assert [retry.delay(1, lambda: next(draws)) for _ in range(2)] == [1, 3]


def test_a_policy_never_changes_and_takes_its_arguments_by_name() -> None:
    retry = Retry(attempts=3)
    with pytest.raises(AttributeError):
        retry.attempts = 4  # type: ignore[misc]
    with pytest.raises(TypeError):
        Retry(3)  # type: ignore[call-arg]
    # A key of a cache, or a member of a set.
    assert {retry, Retry(attempts=3)} == {retry}


def withdrawn(budget: Budget, now: float) -> int:
    taken = 0
    while budget.withdraw(now):
        taken += 1
        assert taken < 10_000
    return taken


def test_a_budget_gives_its_capacity_and_no_more() -> None:
    budget = Budget(3, now=100.0)
    assert [budget.withdraw(100.0) for _ in range(5)] == [True, True, True, False, False]


def test_a_budget_of_zero_gives_nothing() -> None:
    budget = Budget(0, now=0.0)
    budget.deposit()
    assert not budget.withdraw(0.0)
    assert not budget.withdraw(1e9)


def test_each_success_gives_one_back_up_to_the_capacity() -> None:
    budget = Budget(10, now=0.0)
    budget.deposit()
    assert withdrawn(budget, 0.0) == 10
    budget.deposit()
    budget.deposit()
    assert withdrawn(budget, 0.0) == 2
    for _ in range(50):
        budget.deposit()
    assert withdrawn(budget, 0.0) == 10


@pytest.mark.parametrize(
    ("seconds", "back"), [(0, 0), (0.1, 0), (1, 5), (10, 50), (20, 100), (1e9, 100)]
)
def test_a_twentieth_of_the_budget_comes_back_each_second(seconds: float, back: int) -> None:
    budget = Budget(100, now=50.0)
    assert withdrawn(budget, 50.0) == 100
    assert withdrawn(budget, 50.0 + seconds) == back


def test_asking_often_does_not_lose_what_comes_back() -> None:
    budget = Budget(20, now=0.0)
    assert withdrawn(budget, 0.0) == 20
    assert sum(budget.withdraw(step / 16) for step in range(1, 65)) == 4


@given(
    capacity=st.integers(0, 50),
    steps=st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=100),
)
def test_retries_never_exceed_what_the_budget_allows(
    capacity: int, steps: list[tuple[bool, float]]
) -> None:
    budget = Budget(capacity, now=0.0)
    now, deposits, taken = 0.0, 0, 0
    for deposit, pause in steps:
        now += pause
        if deposit:
            budget.deposit()
            deposits += 1
        else:
            taken += budget.withdraw(now)
        assert taken <= capacity + deposits + now * capacity / 20 + 1e-6


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("attempts", value) for value in (0, -1, 1.5, True, "3", None, NAN)),
        *(("budget", value) for value in (-1, 0.5, False, "1", None)),
        *(
            (name, value)
            for name in ("base_delay", "max_delay", "throttle_timeout", "ready_timeout")
            for value in (-1, -0.001, NAN, INF, True, "1", None)
        ),
        *(("deadline", value) for value in (0, -1, NAN, INF, True, "1")),
    ],
)
def test_a_retry_that_cannot_work_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Retry(**{name: value})
    assert str(caught.value).startswith(f"{name}: ")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", ["connect", "read", "total"])
@pytest.mark.parametrize("value", [0, -1, NAN, INF, True, "1"])
def test_a_timeout_that_cannot_work_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Timeout(**{name: value})
    assert str(caught.value).startswith(f"{name}: ")
    assert repr(value) in str(caught.value)


def test_the_edges_of_what_can_work_are_accepted() -> None:
    retry = Retry(
        attempts=1,
        base_delay=0,
        max_delay=0,
        throttle_timeout=0,
        ready_timeout=0,
        deadline=0.1,
        budget=0,
    )
    assert retry.delay(5, lambda: 0.5) == 0
    assert Timeout(connect=None, read=None, total=None) != Timeout(connect=0.001)
