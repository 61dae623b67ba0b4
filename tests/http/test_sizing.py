"""The size of a cap: simulated services with a limit that the client does not know."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from random import Random
from typing import NamedTuple

import pytest

from altaprofiles.http.sizing import Size

SECONDS = 0.05


class Outcome(NamedTuple):
    """The end of a simulation: of each refusal the number of answers before it, and the sizes."""

    refusals: list[int]
    sizes: list[int]
    seconds: float


class Service:
    """Answers each request after some 50 ms.

    Args:
        limit: requests served at once.
        queues: whether further ones wait, in place of being refused.
        changes: further limits, by the number of answers before each.
        faults: share of requests that are refused for no reason.
    """

    def __init__(
        self,
        limit: int,
        *,
        queues: bool = False,
        changes: dict[int, int] | None = None,
        faults: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.limit = limit
        self._queues = queues
        self._changes = changes or {}
        self._faults = faults
        self._chance = Random(seed)  # noqa: S311

    def ask(self, size: Size, keys: int) -> Outcome:
        """Ask for `keys`, with as many requests in flight as the size allows."""
        events: list[tuple[float, int, str, int, bool, float]] = []
        queue: deque[tuple[int, bool, float]] = deque()
        numbers = count()
        now, ready, in_flight, serving, answered = 0.0, keys, 0, 0, 0
        outcome = Outcome([], [], 0.0)

        def serve(began: int, was_full: bool, started: float) -> None:
            end = now + SECONDS * self._chance.uniform(0.9, 1.1)
            heapq.heappush(events, (end, next(numbers), "answer", began, was_full, started))

        while answered < keys:
            while ready and in_flight < size.allowed:
                ready -= 1
                in_flight += 1
                request = (size.changes, in_flight >= size.allowed, now)
                is_faulty = self._chance.random() < self._faults
                if not is_faulty and serving < self.limit:
                    serving += 1
                    serve(*request)
                elif not is_faulty and self._queues:
                    queue.append(request)
                else:
                    heapq.heappush(events, (now + 0.001, next(numbers), "refusal", *request))
            now, _, kind, began, was_full, started = heapq.heappop(events)
            if kind == "retry":
                ready += 1
                continue
            in_flight -= 1
            if kind == "refusal":
                outcome.refusals.append(answered)
                size.refused(began)
                retry = now + self._chance.random() / 2
                heapq.heappush(events, (retry, next(numbers), "retry", 0, False, 0.0))
                continue
            answered += 1
            outcome.sizes.append(size.allowed)
            self.limit = self._changes.get(answered, self.limit)
            serving -= 1
            if queue and serving < self.limit:
                serving += 1
                serve(*queue.popleft())
            size.succeeded(began, was_full=was_full, seconds=now - started)
        return outcome._replace(seconds=now)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 16, 33, 43, 60, 100])
def test_it_finds_the_limit_of_a_service_that_refuses(limit: int, seed: int) -> None:
    outcome = Service(limit, seed=seed).ask(Size(4, 256), 3000)
    settled = outcome.sizes[1200:]
    assert sum(settled) / len(settled) >= 0.95 * limit
    assert len([answers for answers in outcome.refusals if answers >= 1200]) < 0.01 * 1800
    # The last step of the search overshoots by a quarter at most.
    assert len(outcome.refusals) < 0.02 * 3000 + limit / 4


@pytest.mark.parametrize("limit", [3, 8, 16, 60])
def test_the_search_costs_few_refusals(limit: int) -> None:
    outcomes = [Service(limit, seed=seed).ask(Size(4, 256), 1200) for seed in range(10)]
    assert max(len(outcome.refusals) for outcome in outcomes) <= 0.02 * 1200


@pytest.mark.parametrize("limit", [3, 8, 16, 60])
def test_growth_that_brings_no_more_answers_is_taken_back(limit: int) -> None:
    outcome = Service(limit, queues=True).ask(Size(4, 256), 6000)
    assert outcome.seconds < 6000 * SECONDS / limit / 0.8
    settled = outcome.sizes[1200:]
    assert limit <= sum(settled) / len(settled) <= max(2 * limit, 8)


@pytest.mark.parametrize(("limit", "later"), [(16, 8), (8, 16), (60, 30), (60, 3), (3, 60)])
def test_it_follows_a_limit_that_changes(limit: int, later: int) -> None:
    outcome = Service(limit, changes={2000: later}).ask(Size(4, 256), 5000)
    settled = outcome.sizes[3500:]
    assert 0.9 * later <= sum(settled) / len(settled) <= 1.2 * later
    assert len([answers for answers in outcome.refusals if answers >= 3500]) < 0.01 * 1500


@pytest.mark.parametrize("start", [3, 16])
def test_refusals_that_have_nothing_to_do_with_the_size_cost_little(start: int) -> None:
    for seed in range(5):
        outcome = Service(1000, faults=0.01, seed=seed).ask(Size(start, start), 3000)
        assert sum(outcome.sizes) / 3000 > 0.85 * start


def test_it_grows_although_one_request_in_a_hundred_is_refused() -> None:
    sizes = [Service(60, faults=0.01, seed=seed).ask(Size(4, 256), 3000).sizes for seed in range(5)]
    settled = [size for one in sizes for size in one[1200:]]
    assert sum(settled) / len(settled) > 0.8 * 60


@pytest.mark.parametrize(("limit", "room"), [(3, 2), (3, 1), (16, 9), (64, 20), (64, 63)])
def test_a_fixed_number_settles_below_what_is_refused(limit: int, room: int) -> None:
    outcome = Service(room).ask(Size(limit, limit), 10_000)
    assert sum(outcome.sizes) / 10_000 > 0.9 * room
    assert max(outcome.sizes) <= limit
    assert len([answers for answers in outcome.refusals if answers >= 5000]) < 0.01 * 5000


def test_a_fixed_number_is_never_exceeded_nor_searched_for() -> None:
    outcome = Service(100).ask(Size(8, 8), 1000)
    assert set(outcome.sizes) == {8}
    # It takes longer than it did, which is no reason for less than what was configured.
    outcome = Service(2, queues=True).ask(Size(8, 8), 1000)
    assert set(outcome.sizes) == {8}


def succeed(size: Size, times: int) -> None:
    for _ in range(times):
        size.succeeded(size.changes, was_full=True, seconds=SECONDS)


def refuse(size: Size) -> None:
    """Refuse two requests that started at the present size."""
    began = size.changes
    size.refused(began)
    size.refused(began)


def test_two_refusals_halve_a_fixed_number_and_successes_grow_it_one_by_one() -> None:
    size = Size(8, 8)
    size.refused(size.changes)
    assert size.allowed == 8
    size.refused(size.changes)
    assert size.allowed == 4
    for allowed in (5, 6, 7, 8):
        succeed(size, Size.RUN)
        assert size.allowed == allowed


def test_requests_that_were_in_flight_together_count_once() -> None:
    size = Size(8, 8)
    began = size.changes
    for _ in range(8):
        size.refused(began)
    assert size.allowed == 4


def test_it_never_falls_below_one() -> None:
    size = Size(3, 3)
    for _ in range(9):
        refuse(size)
    assert size.allowed == 1


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_an_outage_that_refuses_one_at_a_time_as_well_costs_ten_successes_a_slot(
    slots: int,
) -> None:
    size = Size(slots, slots)
    for _ in range(20):
        refuse(size)
    assert size.allowed == 1
    assert successes_until(size, slots) <= Size.RUN * (slots - 1)
    # And it is as before it.
    assert not size.can_grow or successes_until_settled(size) == Size.RUN


def test_successes_that_did_not_need_the_size_do_not_grow_it() -> None:
    size = Size(4, 64)
    for _ in range(500):
        size.succeeded(size.changes, was_full=False, seconds=SECONDS)
    assert size.allowed == 4


def successes_until(size: Size, allowed: int) -> int:
    """Return the number of successes after which it has that size."""
    for number in range(10 * Size.LONGEST_RUN):
        if size.allowed == allowed:
            return number
        succeed(size, 1)
    raise AssertionError(f"stays at {size.allowed}")


def successes_until_settled(size: Size) -> int:
    for number in range(10 * Size.LONGEST_RUN):
        if not size.can_grow:
            return number
        succeed(size, 1)
    raise AssertionError("never settles")


def test_each_refusal_of_the_same_size_doubles_the_run_before_it_is_tried_again() -> None:
    size = Size(2, 2)
    runs = []
    for _ in range(8):
        refuse(size)
        assert size.allowed == 1
        runs.append(successes_until(size, 2))
    assert runs == [10, 20, 40, 80, 160, 250, 250, 250]


def test_a_trial_of_a_refused_size_ends_with_one_refusal_and_costs_one_slot() -> None:
    size = Size(8, 8)
    refuse(size)
    assert [successes_until(size, allowed) for allowed in (5, 6, 7, 8)] == [10, 10, 10, 10]
    size.refused(size.changes)
    assert size.allowed == 7
    assert successes_until(size, 8) == 20
