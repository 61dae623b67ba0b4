"""The cap and the pace: bounds hold at every moment, turns are in order, no slot is lost."""

from __future__ import annotations

import asyncio
import gc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from altaprofiles.http.limits import Cap, Pace


class Callers:
    """Tasks that acquire slots of a cap, on their own event loop, which is stepped by hand."""

    def __init__(self, limit: int) -> None:
        self.cap = Cap(limit)
        self.loop = asyncio.new_event_loop()
        self.tasks: list[asyncio.Task[None]] = []
        self.holders: list[int] = []
        self.turns: list[int] = []
        self.bulk: set[int] = set()
        self.most = 0

    def ask(self, *, bulk: bool = False) -> int:
        number = len(self.tasks)
        self.tasks.append(self.loop.create_task(self._ask(number, bulk)))
        if bulk:
            self.bulk.add(number)
        return number

    async def _ask(self, number: int, bulk: bool) -> None:
        await self.cap.acquire(bulk=bulk)
        self.holders.append(number)
        self.turns.append(number)
        self.most = max(self.most, len(self.holders))

    def release(self, number: int) -> None:
        self.cap.release(bulk=number in self.bulk)
        self.holders.remove(number)

    def waiting(self) -> list[int]:
        return [number for number, task in enumerate(self.tasks) if not task.done()]

    def step(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def settle(self) -> None:
        # Handing a slot over takes a few turns of the loop, and can cause another hand-over.
        quiet, seen = 0, (-1, -1)
        while quiet < 4:
            self.step()
            now = (len(self.turns), len(self.waiting()))
            quiet, seen = (quiet + 1 if now == seen else 0), now

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.settle()
        self.loop.close()


class CapMachine(RuleBasedStateMachine):
    """Callers come, leave and are cancelled in any order, even between a hand-over and its turn."""

    @initialize(limit=st.integers(1, 4))
    def start(self, limit: int) -> None:
        self.limit = limit
        self.callers = Callers(limit)

    @rule(count=st.integers(1, 3), bulk=st.booleans())
    def ask(self, count: int, bulk: bool) -> None:
        for _ in range(count):
            self.callers.ask(bulk=bulk)

    @precondition(lambda self: self.callers.holders)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.callers.release(data.draw(st.sampled_from(self.callers.holders)))

    @precondition(lambda self: self.callers.waiting())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.callers.tasks[data.draw(st.sampled_from(self.callers.waiting()))].cancel()

    @precondition(lambda self: self.callers.holders and self.callers.waiting())
    @rule()
    def release_and_cancel_the_one_it_goes_to(self) -> None:
        self.callers.release(self.callers.holders[0])
        self.callers.tasks[self.callers.waiting()[0]].cancel()

    @rule(began=st.integers(0, 3))
    def throttled(self, began: int) -> None:
        self.callers.cap.throttled(began)

    @rule(count=st.integers(1, 3 * Cap.RUN))
    def succeeded(self, count: int) -> None:
        for _ in range(count):
            self.callers.cap.succeeded()

    @rule()
    def step(self) -> None:
        self.callers.step()

    @rule()
    def settle(self) -> None:
        self.callers.settle()
        holding, waiting = len(self.callers.holders), self.callers.waiting()
        assert self.callers.cap.in_flight == holding
        assert holding >= self.callers.cap.allowed or not waiting
        # Callers that still wait came after every caller of the same kind that has had a turn.
        for kind in (self.callers.bulk, set(range(len(self.callers.tasks))) - self.callers.bulk):
            served = [number for number in self.callers.turns if number in kind]
            behind = [number for number in waiting if number in kind]
            assert not (served and behind) or max(served) < min(behind)

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert self.callers.most <= self.limit
        assert self.callers.cap.in_flight <= self.limit
        assert 1 <= self.callers.cap.allowed <= self.limit

    def teardown(self) -> None:
        if not hasattr(self, "callers"):
            return
        self.settle()
        while self.callers.holders:
            self.callers.release(self.callers.holders[0])
            self.callers.settle()
        assert self.callers.waiting() == []
        assert self.callers.cap.in_flight == 0
        for task in self.callers.tasks:
            assert task.cancelled() or task.exception() is None
        self.callers.close()


TestCap = pytest.mark.slow(CapMachine.TestCase)


@pytest.mark.parametrize("limit", [1, 3])
def test_turns_come_in_the_order_asked(limit: int) -> None:
    callers = Callers(limit)
    asked = [callers.ask() for _ in range(9)]
    callers.settle()
    while callers.holders:
        assert len(callers.holders) == limit or not callers.waiting()
        callers.release(callers.holders[-1])
        callers.settle()
    assert callers.turns == asked
    callers.close()


def test_a_caller_cancelled_at_the_moment_of_its_turn_wakes_the_next() -> None:
    callers = Callers(1)
    holder, cancelled, following = callers.ask(), callers.ask(), callers.ask()
    callers.settle()
    assert callers.holders == [holder]
    # The slot is handed over, and its new holder is cancelled before it can run.
    callers.release(holder)
    callers.tasks[cancelled].cancel()
    callers.settle()
    assert callers.tasks[cancelled].cancelled()
    assert callers.holders == [following]
    callers.release(following)
    callers.settle()
    assert callers.cap.in_flight == 0
    callers.close()


def test_a_caller_cancelled_just_before_its_turn_is_passed_over() -> None:
    callers = Callers(1)
    holder, cancelled, following = callers.ask(), callers.ask(), callers.ask()
    callers.settle()
    callers.tasks[cancelled].cancel()
    callers.release(holder)
    callers.settle()
    assert callers.tasks[cancelled].cancelled()
    assert callers.holders == [following]
    callers.close()


def test_callers_that_are_cancelled_while_they_wait_leave_nothing_behind() -> None:
    callers = Callers(1)
    callers.ask()
    callers.settle()
    gc.collect()
    before = sum(isinstance(one, asyncio.Future) for one in gc.get_objects())
    for number in range(200):
        waiting = callers.ask(bulk=number % 2 == 0)
        callers.step()
        callers.tasks[waiting].cancel()
    callers.settle()
    del callers.tasks[1:]
    gc.collect()
    assert sum(isinstance(one, asyncio.Future) for one in gc.get_objects()) <= before + 5
    callers.release(callers.holders[0])
    assert callers.cap.in_flight == 0
    callers.close()


def test_no_caller_slips_in_between_a_release_and_the_turn_it_gives() -> None:
    callers = Callers(1)
    holder, waiting = callers.ask(), callers.ask()
    callers.settle()
    late = callers.ask()
    callers.release(holder)
    callers.settle()
    assert callers.holders == [waiting]
    callers.release(waiting)
    callers.settle()
    assert callers.holders == [late]
    callers.close()


def test_one_request_too_many_halves_and_successes_grow_back_one_by_one() -> None:
    callers = Callers(8)
    for _ in range(20):
        callers.ask()
    callers.settle()
    assert len(callers.holders) == 8
    # Three requests that were in flight together are refused together.
    for _ in range(3):
        callers.cap.throttled(0)
        callers.release(callers.holders[0])
    callers.settle()
    assert callers.cap.allowed == 4
    assert len(callers.holders) == 5
    for allowed in (5, 6, 7, 8):
        for _ in range(Cap.RUN):
            callers.cap.succeeded()
        callers.settle()
        assert callers.cap.allowed == allowed == max(len(callers.holders), 5)
    for _ in range(10 * Cap.RUN):
        callers.cap.succeeded()
    assert callers.cap.allowed == 8
    callers.close()


def test_it_never_falls_below_one_and_a_refusal_starts_the_run_again() -> None:
    cap = Cap(3)
    for began in range(5):
        cap.throttled(began)
    assert cap.allowed == 1
    for _ in range(5):
        for _ in range(Cap.RUN - 1):
            cap.succeeded()
        cap.throttled(0)
    assert cap.allowed == 1
    for _ in range(2 * Cap.RUN):
        cap.succeeded()
    assert cap.allowed == 3


def test_a_single_call_goes_before_the_bulk_work_that_waits() -> None:
    callers = Callers(1)
    holder = callers.ask(bulk=True)
    waiting = [callers.ask(bulk=True) for _ in range(5)]
    callers.settle()
    single = callers.ask()
    callers.settle()
    callers.release(holder)
    callers.settle()
    assert callers.holders == [single]
    callers.release(single)
    callers.settle()
    assert callers.holders == waiting[:1]
    callers.close()


def test_bulk_work_gets_every_fourth_slot_however_many_single_calls_there_are() -> None:
    callers = Callers(1)
    callers.ask(bulk=True)
    for _ in range(10):
        callers.ask(bulk=True)
    for _ in range(40):
        callers.ask()
    for _ in range(41):
        callers.settle()
        callers.release(callers.holders[0])
    kinds = ["bulk" if number in callers.bulk else "single" for number in callers.turns]
    assert kinds == ["bulk", *["single", "single", "single", "bulk"] * 10]
    callers.close()


def test_bulk_work_keeps_one_slot_and_single_calls_have_the_others() -> None:
    callers = Callers(3)
    for _ in range(10):
        callers.ask(bulk=True)
    callers.settle()
    for _ in range(60):
        callers.ask()
    callers.settle()
    for turn in range(44):
        singles = [holder for holder in callers.holders if holder not in callers.bulk]
        # Bulk requests take ten times as long.
        bulk_is_done = turn % 11 == 0 or not singles
        callers.release(
            next(iter(callers.bulk & {*callers.holders})) if bulk_is_done else singles[0]
        )
        callers.settle()
        # Holds once the pages that had all slots at first are done.
        assert turn < 22 or len(callers.bulk & {*callers.holders}) <= 1
    served = [number in callers.bulk for number in callers.turns]
    assert served.count(False) > 35
    assert served.count(True) > 4
    callers.close()


def test_single_calls_that_had_it_to_themselves_owe_bulk_work_nothing() -> None:
    callers = Callers(1)
    for _ in range(10):
        callers.ask()
    for _ in range(6):
        callers.settle()
        callers.release(callers.holders[0])
    callers.settle()
    bulk = callers.ask(bulk=True)
    for _ in range(3):
        callers.release(callers.holders[0])
        callers.settle()
        assert bulk not in callers.holders
    callers.release(callers.holders[0])
    callers.settle()
    assert callers.holders == [bulk]
    callers.close()


@pytest.mark.parametrize(("limit", "room"), [(3, 2), (3, 1), (16, 9), (64, 20), (64, 63)])
def test_beside_another_program_it_settles_below_what_is_refused(limit: int, room: int) -> None:
    cap, throttles = Cap(limit), []
    used = 0
    for request in range(20_000):
        if cap.allowed > room:
            throttles.append(request)
            cap.throttled(len(throttles) - 1)
        else:
            cap.succeeded()
            used += cap.allowed
    assert used > 0.7 * 20_000 * min(room, limit)
    assert (
        len([request for request in throttles if request > 10_000]) <= 1 + 10_000 / Cap.LONGEST_RUN
    )


def test_where_there_is_room_again_it_grows_back_as_fast_as_at_first() -> None:
    cap = Cap(8)
    refusals = 0
    for _ in range(3_000):
        if cap.allowed > 5:
            cap.throttled(refusals)
            refusals += 1
        else:
            cap.succeeded()
    for _ in range(2 * Cap.LONGEST_RUN + 8 * Cap.RUN):
        cap.succeeded()
    assert cap.allowed == 8
    cap.throttled(refusals)
    for _ in range(4 * Cap.RUN):
        cap.succeeded()
    assert cap.allowed == 8


def successes_until(cap: Cap, allowed: int) -> int:
    """Return the number of successes after which the cap has that size."""
    for count in range(10 * Cap.LONGEST_RUN):
        if cap.allowed == allowed:
            return count
        cap.succeeded()
    raise AssertionError(f"stays at {cap.allowed}")


def test_each_refusal_of_the_same_size_doubles_the_run_before_it_is_tried_again() -> None:
    cap = Cap(2)
    runs = []
    for refusals in range(9):
        cap.throttled(refusals)
        assert cap.allowed == 1
        runs.append(successes_until(cap, 2))
    assert runs == [10, 20, 40, 80, 160, 320, 640, 640, 640]


def test_sizes_below_the_refused_one_are_tried_after_the_short_run() -> None:
    cap = Cap(8)
    cap.throttled(0)
    assert [successes_until(cap, allowed) for allowed in (5, 6, 7, 8)] == [10, 10, 10, 10]
    cap.throttled(1)
    # The size that was refused twice takes longer; those below it do not.
    assert [successes_until(cap, allowed) for allowed in (5, 6, 7, 8)] == [10, 10, 10, 20]


@given(
    per_minute=st.integers(1, 6000),
    pauses=st.lists(st.floats(0, 30), min_size=1, max_size=60),
    begin=st.floats(0, 1e6),
)
def test_starts_are_never_closer_than_the_pace(
    per_minute: int, pauses: list[float], begin: float
) -> None:
    pace, now, starts = Pace(per_minute), begin, []
    for pause in pauses:
        now += pause
        wait = pace.reserve(now)
        assert wait >= 0
        starts.append(now + wait)
    interval = 60 / per_minute
    assert starts[0] == begin + pauses[0]
    for earlier, later in pairwise(starts):
        assert later - earlier >= interval - 1e-6


def test_a_burst_is_spread_evenly_and_rest_earns_no_second_burst() -> None:
    pace = Pace(60)
    assert [pace.reserve(100.0) for _ in range(4)] == [0, 1, 2, 3]
    assert pace.reserve(103.5) == pytest.approx(0.5)
    assert [pace.reserve(1000.0) for _ in range(3)] == [0, 1, 2]
