"""The decision after a failed attempt, without a server, a clock or randomness."""

from __future__ import annotations

import math
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altaprofiles import AltaProfilesError, Retry, errors
from altaprofiles.http.retry import MAX_RETRY_AFTER, Budget, Decision, Tries


def status(kind: str, retry_after: float | None = None, code: int | None = 9) -> AltaProfilesError:
    error: AltaProfilesError = getattr(errors, kind)(
        api="CleverTap", status=500, code=code, retry_after=retry_after
    )
    return error


def not_ready(retry_after: float | None = None) -> errors.NotReady:
    return errors.NotReady("still in progress", retry_after=retry_after)


BROKEN = errors.TransportError("the connection broke")

STOP = Decision(delay=None, not_ready=False, throttled=False)
THROTTLED = Decision(delay=None, not_ready=False, throttled=True)
GIVE_UP = Decision(delay=None, not_ready=True, throttled=False)


def again(delay: float) -> Decision:
    return Decision(delay=delay, not_ready=False, throttled=False)


def throttled(delay: float) -> Decision:
    return Decision(delay=delay, not_ready=False, throttled=True)


def poll(delay: float) -> Decision:
    return Decision(delay=delay, not_ready=True, throttled=False)


LESS = 100.5 - 100.0 - 0.05
"""The bound of a delay with half a second left."""

# The error of a first attempt at 100 s, the limits, and the decision. The random number is 1.
FIRST: dict[str, tuple[AltaProfilesError, dict[str, Any], Decision]] = {
    "a broken connection": (BROKEN, {}, again(0.5)),
    "a base of its own": (BROKEN, {"base_delay": 3}, again(3)),
    "a base above the most": (BROKEN, {"base_delay": 3, "max_delay": 2}, again(2)),
    "one attempt only": (BROKEN, {"attempts": 1}, STOP),
    "refused credentials": (status("Unauthorized"), {}, STOP),
    "a wrong request that asks to wait": (status("BadRequest", 1.0), {}, STOP),
    "an untrusted host": (errors.ConnectError("no TLS", untrusted=True), {}, STOP),
    "an error of the server": (status("ServerError"), {}, again(0.5)),
    "a server that asks to wait": (status("ServerError", 7.0), {}, again(7)),
    "a throttled request": (status("RateLimited"), {}, throttled(0.5)),
    "one that asks for less than the backoff": (status("RateLimited", 0.1), {}, throttled(0.5)),
    "one that asks for more than the most": (
        status("RateLimited", 7.0),
        {"max_delay": 1},
        throttled(7),
    ),
    "one that asks for ten minutes": (status("RateLimited", MAX_RETRY_AFTER), {}, throttled(600)),
    "one that asks for more": (status("RateLimited", MAX_RETRY_AFTER + 1), {}, THROTTLED),
    "one that may ask for more": (
        status("RateLimited", 3000.0),
        {"throttle_timeout": 3600},
        throttled(3000),
    ),
    "one that asks for more than may pass": (
        status("RateLimited", 7.0),
        {"throttle_timeout": 5},
        THROTTLED,
    ),
    "no time for a throttled one": (status("RateLimited"), {"throttle_timeout": 0}, THROTTLED),
    "little time for a throttled one": (
        status("RateLimited"),
        {"throttle_timeout": 0.25},
        throttled(0.25),
    ),
    "a throttled last attempt": (status("RateLimited"), {"attempts": 1}, THROTTLED),
    "a throttled last attempt, bulk": (
        status("RateLimited"),
        {"attempts": 1, "bulk": True},
        throttled(0.5),
    ),
    "a throttled one, bulk, a deadline": (
        status("RateLimited"),
        {"bulk": True, "ends": 100.5},
        throttled(LESS),
    ),
    "no budget": (BROKEN, {"budget": 0}, STOP),
    "no budget, bulk": (BROKEN, {"budget": 0, "bulk": True}, again(0.5)),
    "a deadline after the delay": (BROKEN, {"ends": 101.0}, again(0.5)),
    "a deadline before its end": (BROKEN, {"ends": 100.5}, again(LESS)),
    "a deadline that is too near": (BROKEN, {"ends": 100.1}, STOP),
    "a deadline within what a server asks for": (status("ServerError", 7.0), {"ends": 107}, STOP),
    "a deadline within what is asked for": (status("RateLimited", 9.0), {"ends": 109}, THROTTLED),
    "an answer not ready": (not_ready(), {}, poll(0.5)),
    "not ready, one attempt only": (not_ready(), {"attempts": 1}, poll(0.5)),
    "not ready, no budget": (not_ready(), {"budget": 0}, poll(0.5)),
    "not ready, and no time to wait": (not_ready(), {"ready_timeout": 0}, GIVE_UP),
    "not ready, and little time to wait": (not_ready(), {"ready_timeout": 0.25}, poll(0.25)),
    "not ready, asks for longer": (not_ready(9.0), {"ready_timeout": 0.25}, poll(9)),
    "not ready, asks for too long": (not_ready(MAX_RETRY_AFTER + 1), {}, GIVE_UP),
    "not ready, a deadline": (not_ready(), {"ends": 100.5}, poll(LESS)),
    "not ready, a deadline within what is asked for": (not_ready(9.0), {"ends": 109}, GIVE_UP),
}


def tries_of(
    *, budget: int = 100, bulk: bool = False, ends: float = math.inf, **limits: Any
) -> Tries:
    retry = Retry(budget=budget, **limits)
    return Tries(retry, None if bulk else Budget(budget, now=100.0), ends)


@pytest.mark.parametrize("name", FIRST)
def test_a_first_failure_has_its_decision(name: str) -> None:
    error, limits, decision = FIRST[name]
    assert tries_of(**limits).failed(error, 100.0, lambda: 1.0) == decision


def test_the_delay_is_drawn_below_a_bound_that_doubles() -> None:
    tries = tries_of()
    delays = [tries.failed(BROKEN, 100.0, lambda: 0.5).delay for _ in range(8)]
    assert delays == [0.25, 0.5, 1, 2, 4, 8, 15, None]


def test_polls_and_failures_are_counted_apart() -> None:
    tries = tries_of(attempts=3)
    decisions = [
        tries.failed(error, 100.0, lambda: 1.0)
        for error in (not_ready(), BROKEN, not_ready(), BROKEN, not_ready(), BROKEN)
    ]
    assert decisions == [poll(0.5), again(0.5), poll(1), again(1), poll(2), STOP]


def test_the_ready_timeout_starts_with_the_first_poll() -> None:
    tries = tries_of(ready_timeout=60)
    tries.failed(BROKEN, 100.0, lambda: 1.0)
    readings = (500.0, 559.0, 559.9, 560.0)
    delays = [tries.failed(not_ready(), now, lambda: 1.0).delay for now in readings]
    assert delays == [0.5, 1, pytest.approx(0.1), None]


def test_refusals_of_bulk_work_are_counted_by_time_and_not_as_attempts() -> None:
    tries = tries_of(bulk=True, attempts=3, throttle_timeout=60)
    refused = status("RateLimited")
    delays = [
        tries.failed(refused, 500.0 + seconds, lambda: 1.0).delay for seconds in range(0, 60, 2)
    ]
    assert delays[:8] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert None not in delays
    # While the service is closed, its pace makes all callers wait, together.
    closed = tries_of(bulk=True)
    delays = [closed.failed(refused, 500.0, lambda: 1.0, 490.0).delay for _ in range(9)]
    assert delays == [0.5] * 9
    assert tries.failed(refused, 560.0, lambda: 1.0).delay is None


def test_another_outcome_between_two_refusals_begins_their_time_anew() -> None:
    tries = tries_of(bulk=True, throttle_timeout=60)
    refused = status("RateLimited")
    for other in (BROKEN, not_ready()):
        assert tries.failed(refused, 500.0, lambda: 1.0).delay == 0.5
        assert tries.failed(other, 559.0, lambda: 1.0).delay == 0.5
        assert tries.failed(refused, 561.0, lambda: 1.0).delay == 0.5
        assert tries.failed(refused, 621.0, lambda: 1.0).delay is None
        tries = tries_of(bulk=True, throttle_timeout=60)


def test_refusals_of_a_single_call_are_attempts() -> None:
    tries = tries_of(attempts=3)
    refused = status("RateLimited")
    assert [tries.failed(refused, 100.0, lambda: 1.0).delay for _ in range(3)] == [0.5, 1, None]


@pytest.mark.parametrize("bulk", [False, True])
def test_the_time_counts_from_the_closing_of_the_service(bulk: bool) -> None:
    tries = tries_of(bulk=bulk, throttle_timeout=60)
    refused = status("RateLimited")
    assert tries.failed(refused, 159.9, lambda: 1.0, 100.0).delay == pytest.approx(0.1)
    assert (
        tries_of(bulk=bulk, throttle_timeout=60).failed(refused, 160.0, lambda: 1.0, 100.0)
        == THROTTLED
    )
    # It served in between, and this request was refused before.
    assert tries.failed(refused, 160.0, lambda: 1.0, None) == THROTTLED


def test_the_wait_for_a_turn_in_the_session_is_no_refusal() -> None:
    tries = tries_of(bulk=True, throttle_timeout=60)
    refused = status("RateLimited")
    assert tries.failed(refused, 100.0, lambda: 0.0).delay is not None
    # The session had others to serve first.
    tries.queued += 500
    assert tries.failed(refused, 659.0, lambda: 0.0).delay is not None
    assert tries.failed(refused, 660.0, lambda: 0.0) == THROTTLED


def test_each_retry_of_a_single_call_takes_one_from_the_budget() -> None:
    retry, budget = Retry(), Budget(2, now=100.0)
    calls = [Tries(retry, budget) for _ in range(4)]
    delays = [call.failed(BROKEN, 100.0, lambda: 1.0).delay for call in calls]
    assert delays == [0.5, 0.5, None, None]
    assert Tries(retry, None).failed(BROKEN, 100.0, lambda: 1.0).delay == 0.5
    budget.deposit()
    assert calls[0].failed(BROKEN, 100.0, lambda: 1.0).delay == 1


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (status("BadRequest"), math.inf),
        (status("RateLimited", MAX_RETRY_AFTER + 1), math.inf),
        (status("ServerError", 1.0), 100.25),
        (not_ready(), math.inf),
    ],
    ids=["cannot pass", "asks for too long", "no time left", "a poll"],
)
def test_only_a_retry_that_is_made_takes_a_token(error: AltaProfilesError, ends: float) -> None:
    retry, budget = Retry(), Budget(1, now=100.0)
    Tries(retry, budget, ends).failed(error, 100.0, lambda: 1.0)
    assert budget.withdraw(100.0)


FAILURES = st.sampled_from(
    [BROKEN, status("ServerError"), status("RateLimited"), errors.RequestTimeout("too long")]
)
WAITS = st.floats(0, 2 * MAX_RETRY_AFTER)
ANY = (
    FAILURES
    | st.builds(not_ready, st.none() | WAITS)
    | st.builds(status, st.sampled_from(["RateLimited", "ServerError", "BadRequest"]), WAITS)
)
LIMITS = st.builds(
    Retry,
    attempts=st.integers(1, 10),
    base_delay=st.floats(0, 10),
    max_delay=st.floats(0, 60),
    ready_timeout=st.floats(0, 50),
    throttle_timeout=st.floats(0, 1000),
)


@given(
    retry=LIMITS,
    bulk=st.booleans(),
    attempts=st.lists(st.tuples(ANY, st.floats(0.01, 100), st.floats(0, 1, exclude_max=True))),
    deadline=st.floats(0.1, 5000) | st.just(math.inf),
)
def test_no_call_exceeds_any_of_its_limits(
    retry: Retry,
    bulk: bool,
    attempts: list[tuple[AltaProfilesError, float, float]],
    deadline: float,
) -> None:
    tries = Tries(retry, None if bulk else Budget(retry.budget, now=0.0), ends=deadline)
    now, failures, first_poll, first_refusal = 0.0, 0, math.inf, math.inf
    for error, seconds, drawn in attempts:
        now += seconds
        decision = tries.failed(error, now, repeat(drawn).__next__)
        assert decision.not_ready is isinstance(error, errors.NotReady)
        assert decision.throttled is isinstance(error, errors.RateLimited)
        if not decision.throttled:
            first_refusal = math.inf
        if decision.not_ready:
            first_poll = min(first_poll, now)
        elif decision.throttled:
            first_refusal = min(first_refusal, now)
            failures += not bulk
        else:
            failures += 1
        if decision.delay is None:
            return
        requested = getattr(error, "retry_after", None) or 0.0
        assert not isinstance(error, errors.BadRequest)
        assert requested <= decision.delay <= max(retry.max_delay, requested)
        assert requested <= (retry.throttle_timeout if decision.throttled else MAX_RETRY_AFTER)
        assert now < first_refusal + retry.throttle_timeout or not decision.throttled
        assert failures < retry.attempts or (bulk and decision.throttled)
        assert now < first_poll + retry.ready_timeout or not decision.not_ready
        now += decision.delay
        assert now < deadline


@given(retry=LIMITS, error=FAILURES, drawn=st.floats(0, 1, exclude_max=True))
def test_a_call_that_nothing_else_limits_has_all_its_attempts(
    retry: Retry, error: AltaProfilesError, drawn: float
) -> None:
    tries = Tries(retry, Budget(100, now=0.0))
    if isinstance(error, errors.RateLimited) and not retry.throttle_timeout:
        return
    delays = [tries.failed(error, 0.0, lambda: drawn).delay for _ in range(retry.attempts)]
    assert [delay is None for delay in delays] == [False] * (retry.attempts - 1) + [True]


@given(
    error=st.sampled_from([BROKEN, status("ServerError"), status("RateLimited")]),
    deadline=st.floats(0.2, 1000),
    drawn=st.floats(0, 1, exclude_max=True),
)
def test_a_deadline_takes_no_attempt_that_there_is_time_for(
    error: AltaProfilesError, deadline: float, drawn: float
) -> None:
    tries = Tries(Retry(), Budget(100, now=0.0), ends=deadline)
    for _ in range(Retry().attempts - 1):
        delay = tries.failed(error, 0.0, lambda: drawn).delay
        assert delay is not None
        assert delay < deadline


@given(retry=LIMITS, seconds=st.floats(0.5, 20), drawn=st.floats(0, 1, exclude_max=True))
def test_polls_continue_until_the_ready_timeout(retry: Retry, seconds: float, drawn: float) -> None:
    tries = Tries(retry, Budget(0, now=0.0))
    first = now = seconds
    while (delay := tries.failed(not_ready(), now, lambda: drawn).delay) is not None:
        now += delay + seconds
    assert now >= first + retry.ready_timeout
    # The last poll was sent in time.
    assert now - seconds <= first + retry.ready_timeout + 1e-6
