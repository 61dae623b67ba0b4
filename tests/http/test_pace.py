"""The pace of a service: who waits for how long, with a clock that is set by hand."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altaprofiles.http.pace import Pace


@given(
    per_minute=st.integers(1, 6000),
    pauses=st.lists(st.floats(0, 30), min_size=1, max_size=60),
    begin=st.floats(0, 1e6),
)
def test_starts_never_exceed_the_configured_pace(
    per_minute: int, pauses: list[float], begin: float
) -> None:
    pace, now, starts = Pace(per_minute=per_minute), begin, []
    for pause in pauses:
        now += pause
        now += pace.wait(now)
        pace.end(pace.begin(now))
        starts.append(now)
    interval = 60 / per_minute
    assert starts[0] == begin + pauses[0]
    # A start that comes late may be followed a little earlier, so that the rate is kept.
    for first, earlier in enumerate(starts):
        for number, later in enumerate(starts[first:]):
            assert later - earlier >= number * interval - Pace.SLACK - 1e-6


def test_rest_earns_no_burst() -> None:
    pace = Pace(per_minute=60)
    for now in (100.0, 1000.0):
        assert pace.wait(now) == 0
        pace.begin(now)
        assert pace.wait(now) == 1
        assert pace.wait(now + 0.25) == 0.75


def refuse(pace: Pace, now: float, **refusal: Any) -> bool:
    number = pace.begin(now)
    pace.end(number, is_answered=True)
    return pace.refused(number, now, **refusal)


def serve(pace: Pace, now: float) -> None:
    number = pace.begin(now)
    pace.end(number, is_answered=True)
    pace.succeeded(number, now)


def closed(pace: Pace, now: float = 100.0, **refusal: Any) -> Pace:
    """Return `pace` after as many refusals in a row as close a service."""
    for _ in range(Pace.SIGNS):
        refuse(pace, now, **refusal)
    return pace


def test_few_refusals_concern_their_own_calls_and_more_close_the_service() -> None:
    pace = Pace(floor=4.0)
    for _ in range(Pace.SIGNS - 1):
        assert not refuse(pace, 100.0)
        assert pace.closed_since is None
        assert pace.wait(100.0) == 0
    assert refuse(pace, 101.0)
    assert pace.closed_since == 101.0
    assert pace.wait(101.0) == 4


def test_refusals_among_requests_that_are_served_close_nothing() -> None:
    pace = Pace()
    for _ in range(50):
        for _ in range(Pace.SIGNS - 1):
            refuse(pace, 100.0)
        serve(pace, 100.0)
    assert pace.closed_since is None


def test_refusals_are_not_counted_against_requests_that_are_still_in_flight() -> None:
    # Refusals come at once, and answers take their time.
    pace = Pace()
    first = pace.begin(100.0)
    later = [pace.begin(100.0) for _ in range(20)]
    pace.end(first)
    assert not pace.refused(first, 100.0)
    for number in later[:9]:
        pace.end(number, is_answered=True)
        assert not pace.refused(number, 100.0)
    assert pace.closed_since is None
    # Nor against those that started before, which end well.
    pace = Pace()
    early = [pace.begin(100.0) for _ in range(20)]
    for _ in range(Pace.SIGNS):
        refuse(pace, 100.0)
        number = early.pop()
        pace.end(number, is_answered=True)
        pace.succeeded(number, 100.0)
    assert pace.closed_since == 100.0


def test_a_closed_service_is_asked_by_one_request_at_a_time_ever_more_rarely() -> None:
    pace = closed(Pace(floor=1.0, ceiling=10.0))
    now, waits = 100.0, []
    for _ in range(6):
        waits.append(pace.wait(now))
        now += waits[-1]
        # Nobody else starts while that request is on its way.
        assert not refuse(pace, now)
        assert pace.wait(now) > 0
    assert waits == [1, 2, 4, 8, 10, 10]
    assert pace.closed_since == 100.0


def test_the_next_request_to_a_closed_service_is_told_of() -> None:
    assert Pace().asks_at is None
    pace = closed(Pace(floor=1.0, ceiling=30.0))
    assert pace.asks_at == 101.0
    # Not after the time in which an answer is waited for, which comes earlier as a rule.
    pace.begin(101.0)
    assert pace.asks_at == 102.0
    pace = closed(Pace(floor=1.0, ceiling=30.0), retry_after=45.0)
    assert pace.asks_at == 145.0
    serve(pace, 150.0)
    assert pace.asks_at is None


def test_without_any_delay_a_closed_service_is_still_asked_ever_more_rarely() -> None:
    pace = closed(Pace(floor=0.0, ceiling=0.0))
    now = 100.0
    for _ in range(20):
        now += pace.wait(now)
        assert not refuse(pace, now)
    assert pace.wait(now) == 0.25


def test_a_request_to_a_closed_service_that_is_not_answered_holds_the_others_for_a_while() -> None:
    pace = closed(Pace(floor=1.0, ceiling=60.0))
    now, waits = 101.0, []
    for _ in range(6):
        pace.begin(now)
        waits.append(pace.wait(now))
        now += waits[-1]
    assert waits == [5, 5, 5, 8, 16, 32]


def test_the_outcome_of_a_request_to_a_closed_service_is_awaited() -> None:
    pace, woken = closed(Pace(floor=1.0)), []
    pace.opened.append(lambda: woken.append(True))
    number = pace.begin(101.0)
    pace.end(number, is_answered=True)
    assert pace.wait(103.0) == 3
    assert not woken
    pace.refused(number, 103.0)
    assert woken == [True]
    assert pace.wait(103.0) == 2


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_request_to_a_closed_service_that_tells_nothing_is_followed_by_another(
    is_answered: bool,
) -> None:
    pace, woken = closed(Pace(floor=1.0)), []
    pace.opened.append(lambda: woken.append(True))
    number = pace.begin(101.0)
    pace.end(number, is_answered=is_answered)
    pace.failed(number)
    assert woken == [True]
    assert pace.wait(103.0) == 0
    assert pace.closed_since == 100.0


def test_more_requests_left_wake_whoever_waits() -> None:
    pace, woken = Pace(), []
    pace.opened.append(lambda: woken.append(True))
    number = pace.begin(100.0)
    pace.learn(0, 20.0, 100.0)
    assert not pace.is_free
    assert not woken
    pace.learn(50, 60.0, 100.0)
    assert woken == [True]
    assert pace.is_free
    pace.end(number, is_answered=True)
    assert woken == [True]


def test_the_wait_that_a_refusal_asks_for_holds_for_everybody() -> None:
    pace = closed(Pace(floor=1.0, ceiling=10.0), retry_after=45.0)
    assert pace.wait(100.0) == 45
    assert pace.named_until == 145.0


def test_a_wait_that_the_service_asks_for_is_no_time_in_which_nobody_asks() -> None:
    pace = closed(Pace(floor=1.0, ceiling=1.0), retry_after=45.0)
    now = 100.0
    for _ in range(5):
        now += pace.wait(now)
        assert not refuse(pace, now, retry_after=45.0)
        assert pace.closed_since == 100.0
    assert now == 100.0 + 5 * 45
    assert pace.wait(now + 44) == 1
    # But an hour without a request is one.
    pace.wait(now + 3600)
    assert pace.closed_since == now + 3600


def test_a_limit_beside_the_stated_one_is_learned() -> None:
    """A plan has a limit of an hour in its headers, and one of a minute that it never states."""
    plan, chance = Plan(100, 60.0), Random(1)  # noqa: S311
    pace = Pace(jitter=chance.random)
    now, refusals = 0.0, []
    for key in range(1000):
        while True:
            now += pace.wait(now)
            number = pace.begin(now)
            taken = plan.takes(now)
            now += 0.05
            pace.learn(100_000, 3000.0, now)
            pace.end(number, is_answered=True)
            if taken:
                pace.succeeded(number, now)
                break
            pace.refused(number, now)
            refusals.append(key)
    assert len([key for key in refusals if key > 300]) < 0.05 * 700
    assert now < 1.3 * 600


def test_answers_to_requests_from_before_the_closing_do_not_open_it() -> None:
    pace = Pace(floor=1.0)
    early = pace.begin(99.0)
    closed(pace)
    pace.succeeded(early, 100.5)
    assert pace.closed_since == 100.0
    pace.refused(early, 100.5)
    assert pace.wait(100.0) <= 1.5
    woken = []
    pace.opened.append(lambda: woken.append(True))
    pace.end(early)
    serve(pace, 101.6)
    assert pace.closed_since is None
    assert woken == [True]
    assert pace.wait(101.6) == 0


def test_with_no_requests_left_nothing_starts_before_the_reset() -> None:
    pace = Pace()
    pace.learn(0, 20.0, 100.0)
    assert pace.wait(100.0) == 20
    assert pace.named_until == 120.0
    assert pace.wait(120.0) == 0
    assert pace.named_until is None


def test_as_many_start_as_are_left_and_the_reset_brings_more() -> None:
    pace = Pace()
    pace.learn(3, 20.0, 100.0)
    for _ in range(3):
        assert pace.wait(101.0) == 0
        pace.begin(101.0)
    assert pace.wait(101.0) == 19
    # The answers overtake each other.
    for number, remaining in enumerate((1, 2, 0), 1):
        pace.learn(remaining, 19.0, 101.0)
        pace.end(number, is_answered=True)
    assert pace.wait(101.0) == 19
    assert pace.wait(120.5) == 0


class Plan:
    """A service that takes `limit` requests in each window of so many seconds."""

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self._window = window
        self._number = -1
        self._taken = 0

    def takes(self, now: float) -> bool:
        number = int(now // self._window)
        if number != self._number:
            self._number, self._taken = number, 0
        self._taken += 1
        return self._taken <= self.limit


class Bucket:
    """A service that earns `limit` requests in so many seconds, and saves up as many."""

    def __init__(self, limit: int, window: float) -> None:
        self._limit, self._rate = limit, limit / window
        self._saved = float(limit)
        self._at = 0.0

    def takes(self, now: float) -> bool:
        self._saved = min(self._limit, self._saved + (now - self._at) * self._rate)
        self._at = now
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class Closed:
    """A service that refuses everything from one time to another."""

    def __init__(self, first: float, last: float) -> None:
        self._first, self._last = first, last

    def takes(self, now: float) -> bool:
        return not self._first <= now < self._last


def ask(
    takes: Callable[[float], bool],
    keys: int,
    *,
    workers: int = 16,
    seconds: float = 0.05,
    begin: float = 0.0,
    seed: int = 0,
    pace: Any = None,
) -> tuple[float, list[int]]:
    """Ask for `keys` until each has an answer, at a pace of one process or of several.

    Returns:
        The time it took, and of each refusal the number of answers before it.
    """
    chance = Random(seed)  # noqa: S311
    pace = pace or Pace(jitter=chance.random)
    events: list[tuple[float, int, bool | None, Any]] = []
    numbers = count()
    now, ready, answered, refusals = begin, keys, 0, []
    while answered < keys:
        wait = 0.0
        while ready and pace.in_flight < workers and not (wait := pace.wait(now)):
            ready -= 1
            began = pace.begin(now)
            outcome = takes(now)
            duration = seconds * chance.uniform(0.8, 1.2) if outcome else 0.002
            heapq.heappush(events, (now + duration, next(numbers), outcome, began))
        if wait and (not events or now + wait <= events[0][0]):
            now += wait
            continue
        now, _, is_taken, began = heapq.heappop(events)
        if is_taken is None:
            ready += 1
            continue
        pace.end(began)
        if is_taken:
            answered += 1
            pace.succeeded(began, now)
        else:
            refusals.append(answered)
            pace.refused(began, now)
            heapq.heappush(events, (now + chance.random() / 2, next(numbers), None, 0))
    return now - begin, refusals


@pytest.mark.parametrize("begin", [0.0, 20.0, 55.0])
@pytest.mark.parametrize("workers", [1, 3, 16])
@pytest.mark.parametrize("kind", [Plan, Bucket])
def test_a_hundred_a_minute_refuse_few_of_250_requests(
    kind: Any, workers: int, begin: float
) -> None:
    for seed in range(5):
        _, refusals = ask(kind(100, 60.0).takes, 250, workers=workers, begin=begin, seed=seed)
        assert len(refusals) <= 0.15 * (250 + len(refusals)), (len(refusals), seed)


@pytest.mark.parametrize("window", [3.0, 60.0])
@pytest.mark.parametrize("kind", [Plan, Bucket])
def test_it_settles_at_the_rate_that_the_service_takes(kind: Any, window: float) -> None:
    seconds, refusals = ask(kind(100, window).takes, 5000)
    assert seconds < 50 * window / 0.9
    late = [answered for answered in refusals if answered > 2500]
    assert len(late) < 0.01 * 2500


def test_a_higher_limit_is_found() -> None:
    plan = Plan(100, 60.0)

    def takes(now: float) -> bool:
        plan.limit = 100 if now < 600 else 1000
        return plan.takes(now)

    seconds, _ = ask(takes, 6000)
    assert seconds < 0.5 * 6000 / 100 * 60


@pytest.mark.parametrize(("first", "last"), [(0, 120), (60, 180), (15, 70), (200, 800)])
def test_a_service_that_was_closed_for_another_reason_is_as_fast_as_before(
    first: float, last: float
) -> None:
    seconds, refusals = ask(Closed(first, last).takes, 600, workers=3, seconds=3.0)
    undisturbed, _ = ask(lambda now: True, 600, workers=3, seconds=3.0)
    assert seconds < undisturbed + 1.6 * (last - first)
    assert len(refusals) < 40


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_refusals_for_no_reason_make_no_service_slow(share: float) -> None:
    for seed in range(5):
        chance = Random(seed)  # noqa: S311
        undisturbed, _ = ask(lambda now: True, 5000, seed=seed)
        seconds, _ = ask(lambda now: chance.random() >= share, 5000, seed=seed)  # noqa: B023
        assert seconds < 1.3 * undisturbed


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
def test_many_refusals_for_no_reason_do_not_slow_a_service_ever_more(share: float) -> None:
    for seed in range(5):
        chance = Random(seed)  # noqa: S311
        seconds, refusals = ask(lambda now: chance.random() >= share, 3000, seed=seed)  # noqa: B023
        # What one caller alone would wait, half a second after each refusal.
        assert seconds < len(refusals), seconds


def test_a_closed_service_that_nobody_asked_for_long_is_closed_since_now() -> None:
    pace = closed(Pace(floor=1.0))
    assert pace.wait(3700.0) == 0
    assert pace.closed_since == 3700.0


def test_one_call_that_is_refused_again_and_again_closes_nothing_for_the_others() -> None:
    pace = Pace()
    pace.begin(100.0)
    for _ in range(50):
        number = pace.begin(100.0)
        pace.end(number, is_answered=True)
        assert not pace.refused(number, 100.0, is_repeated=True)
    assert pace.closed_since is None


def test_requests_from_before_the_closing_do_not_hold_up_the_opening() -> None:
    pace = Pace(floor=1.0)
    for _ in range(5):
        pace.begin(100.0)
    closed(pace, 100.0)
    assert pace.closed_since is not None
    # Those five are still in flight.
    serve(pace, 101.0)
    assert pace.wait(101.0) == 0


def test_a_time_far_away_does_not_silence_the_service_for_good() -> None:
    pace = Pace()
    pace.learn(0, 1e9, 100.0)
    assert pace.wait(100.0) == Pace.LONGEST
    assert pace.named_until == 100.0 + 1e9
    pace = closed(Pace(), retry_after=86_400.0)
    assert pace.wait(100.0) == Pace.LONGEST


def test_a_service_that_is_seldom_asked_shows_no_rate() -> None:
    pace = Pace()
    for number in range(12):
        serve(pace, 5.0 * number)
    closed(pace, 60.0)
    serve(pace, 60.6)
    assert pace.wait(61.0) == 0


def test_a_rate_is_kept_although_timers_fire_late() -> None:
    pace, now = Pace(per_minute=6000), 0.0
    for _ in range(1000):
        now += pace.wait(now) + 0.002
        pace.end(pace.begin(now))
    assert now < 10.5


class Outages:
    """A service without a limit that refuses everything at some times."""

    def __init__(self, *times: tuple[float, float]) -> None:
        self._times = times

    def takes(self, now: float) -> bool:
        return not any(first <= now < last for first, last in self._times)


@pytest.mark.parametrize(("pause", "size"), [(3.0, 6), (2.0, 6), (0.5, 1), (5.0, 30)])
@pytest.mark.parametrize("outages", [[(2, 4), (34, 36)], [(2, 4), (15, 17), (28, 30), (40, 42)]])
def test_callers_that_ask_for_little_between_outages_show_no_rate(
    outages: list[tuple[float, float]], pause: float, size: int
) -> None:
    pace, takes = Pace(), Outages(*outages).takes
    ask(takes, 60, begin=0.0, pace=pace)
    now = 2.0
    while now < 45:
        seconds, _ = ask(takes, size, begin=now, pace=pace)
        now += seconds + pause
        if now > outages[1][1] + 1 and takes(now) and pace.closed_since is None:
            assert (pace.rate(now) or 1000) > 10


@pytest.mark.parametrize("length", [2.0, 10.0, 60.0])
@pytest.mark.parametrize("keys", [10, 60])
def test_a_rate_that_an_outage_showed_is_forgotten_within_half_a_minute(
    length: float, keys: int
) -> None:
    pace = Pace()
    busy, _ = ask(lambda now: True, keys, pace=pace, workers=4)
    seconds, _ = ask(Outages((busy, busy + length)).takes, 8, begin=busy, pace=pace)
    now = busy + seconds
    assert pace.rate(now) is not None
    # Whether somebody asks, or nobody.
    assert pace.rate(now + 30) is None
    assert pace.is_free or pace.wait(now + 30) == 0


def test_workers_that_never_pause_are_as_fast_as_before_soon_after_two_outages() -> None:
    pace, takes = Pace(), Outages((3, 20), (60, 77)).takes
    seconds, _ = ask(takes, 6000, workers=8, pace=pace)
    undisturbed, _ = ask(lambda now: True, 6000, workers=8)
    assert seconds < undisturbed + 2 * 17 + 60


def test_a_rate_that_was_proved_is_kept_for_minutes_and_not_for_good() -> None:
    pace = Pace()
    seconds, _ = ask(Plan(100, 60.0).takes, 1500, pace=pace)
    assert 1.4 < (pace.rate(seconds) or 0) < 2.5
    assert pace.rate(seconds + 30) is not None
    assert pace.rate(seconds + 1200) is None
