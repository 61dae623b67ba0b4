"""The cap: bounds hold at every moment, turns are in order, no slot is lost."""

from __future__ import annotations

import asyncio
import gc
import math
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from altaprofiles.http.limits import Cap, Turn
from altaprofiles.http.pace import Pace
from altaprofiles.http.sizing import Size

from ..support.tasks import PATIENCE

SECONDS = 0.1


class Callers:
    """Tasks that acquire slots of a cap, on their own event loop, which is stepped by hand."""

    def __init__(self, limit: int) -> None:
        self.size = Size(limit, limit)
        self.pace = Pace(floor=1000.0)
        self.cap = Cap(self.size, self.pace, lambda: TimeoutError("refused for too long"))
        self.loop = asyncio.new_event_loop()
        self.tasks: list[asyncio.Task[None]] = []
        self.holders: list[int] = []
        self.given: dict[int, Turn] = {}
        self.turns: list[int] = []
        self.bulk: set[int] = set()
        self.most = 0

    def ask(self, *, bulk: bool = False, **limits: float) -> int:
        number = len(self.tasks)
        self.tasks.append(self.loop.create_task(self._ask(number, bulk, limits)))
        if bulk:
            self.bulk.add(number)
        return number

    async def _ask(self, number: int, bulk: bool, limits: dict[str, float]) -> None:
        self.given[number] = await self.cap.acquire(bulk=bulk, **limits)
        self.holders.append(number)
        self.turns.append(number)
        self.most = max(self.most, len(self.holders))

    def release(self, number: int) -> None:
        self.cap.release(self.given[number])
        self.holders.remove(number)

    def refuse(self, number: int) -> None:
        self.cap.refused(self.given[number])
        self.release(number)

    def succeed(self, number: int) -> None:
        self.cap.succeeded(self.given[number], SECONDS)
        self.release(number)

    def close_service(self, *, before: float = 0.0) -> None:
        """Let the service refuse everything, since so many seconds."""
        for _ in range(Pace.SIGNS):
            number = self.pace.begin(0.0)
            self.pace.end(number)
            self.pace.refused(number, self.loop.time() - before)

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

    @precondition(lambda self: self.callers.holders)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        self.callers.refuse(data.draw(st.sampled_from(self.callers.holders)))

    @precondition(lambda self: self.callers.holders)
    @rule(data=st.data(), count=st.integers(1, 3 * Size.RUN))
    def succeed(self, data: st.DataObject, count: int) -> None:
        number = data.draw(st.sampled_from(self.callers.holders))
        for _ in range(count - 1):
            self.callers.cap.succeeded(self.callers.given[number], SECONDS)
        self.callers.succeed(number)

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


def test_two_requests_too_many_halve_the_slots_and_those_in_flight_end() -> None:
    callers = Callers(8)
    for _ in range(20):
        callers.ask()
    callers.settle()
    assert len(callers.holders) == 8
    # Three requests that were in flight together are refused together.
    for _ in range(3):
        callers.refuse(callers.holders[0])
        callers.settle()
    assert callers.cap.allowed == 4
    assert len(callers.holders) == 6
    for _ in range(3):
        callers.release(callers.holders[0])
        callers.settle()
    assert len(callers.holders) == 4
    callers.close()


def test_slots_that_grow_back_are_handed_out() -> None:
    callers = Callers(2)
    for _ in range(40):
        callers.ask()
    callers.settle()
    callers.refuse(callers.holders[0])
    callers.refuse(callers.holders[0])
    callers.settle()
    assert len(callers.holders) == callers.cap.allowed == 1
    for _ in range(3 * Size.RUN):
        callers.succeed(callers.holders[0])
        callers.settle()
        assert len(callers.holders) == callers.cap.allowed
    assert callers.cap.allowed == 2
    callers.close()


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


def test_nobody_starts_while_the_service_is_closed() -> None:
    callers = Callers(3)
    callers.close_service()
    for number in range(4):
        callers.ask(bulk=number % 2 == 0)
    callers.settle()
    assert callers.holders == []
    callers.close()


def test_when_the_service_opens_everybody_starts_single_calls_first() -> None:
    callers = Callers(3)
    callers.pace.opened.append(callers.cap.wake)
    callers.close_service()
    bulk = [callers.ask(bulk=True) for _ in range(3)]
    single = callers.ask()
    callers.settle()
    assert callers.holders == []

    def serve(number: float) -> None:
        callers.pace.end(number)
        callers.pace.succeeded(number, callers.loop.time())

    callers.loop.call_soon(serve, callers.pace.begin(0.0))
    callers.settle()
    # Two at a time at first, and with each answer one more.
    assert callers.holders == [single, bulk[0]]
    callers.loop.call_soon(serve, callers.pace.begin(0.0))
    callers.settle()
    assert callers.holders == [single, bulk[0], bulk[1]]
    callers.close()


def test_a_caller_whose_patience_is_over_gets_the_refusal() -> None:
    callers = Callers(1)
    callers.close_service()
    short, long = callers.ask(patience=10.0), callers.ask(patience=1000.0)
    callers.settle()
    callers.cap.give_up(callers.loop.time() + 20.0)
    callers.settle()
    assert isinstance(callers.tasks[short].exception(), TimeoutError)
    assert callers.waiting() == [long]
    callers.close()


def test_a_caller_gives_up_in_time_behind_one_with_more_patience() -> None:
    callers = Callers(1)
    callers.close_service()
    long, short = callers.ask(patience=1000.0), callers.ask(patience=0.05)
    callers.loop.run_until_complete(asyncio.wait([callers.tasks[short]], timeout=PATIENCE))
    assert isinstance(callers.tasks[short].exception(), TimeoutError)
    assert callers.waiting() == [long]
    callers.close()


@pytest.mark.parametrize("serves", [True, False])
def test_callers_without_patience_wait_for_the_answer_of_the_one_that_asks(serves: bool) -> None:
    callers = Callers(3)
    callers.pace.opened.append(callers.cap.wake)
    callers.close_service(before=2000.0)
    asking, *others = [callers.ask(patience=1000.0) for _ in range(3)]
    callers.settle()
    assert (callers.holders, callers.waiting()) == ([asking], others)
    turn = callers.given[asking]

    def answer() -> None:
        callers.cap.release(turn, is_answered=True)
        callers.holders.remove(asking)
        if serves:
            callers.pace.succeeded(turn.pace, callers.loop.time())
        else:
            callers.pace.refused(turn.pace, callers.loop.time())
            callers.cap.give_up(callers.loop.time())

    callers.loop.call_soon(answer)
    callers.settle()
    assert callers.waiting() == []
    assert callers.holders == (others if serves else [])
    callers.close()


def test_callers_give_up_once_the_one_that_asks_is_cancelled() -> None:
    callers = Callers(3)
    callers.pace.opened.append(callers.cap.wake)
    callers.close_service(before=2000.0)
    asking, *others = [callers.ask(patience=1000.0) for _ in range(3)]
    callers.settle()
    callers.loop.call_soon(callers.release, asking)
    callers.loop.run_until_complete(
        asyncio.wait([callers.tasks[one] for one in others], timeout=PATIENCE)
    )
    assert [type(callers.tasks[one].exception()) for one in others] == [TimeoutError] * 2
    callers.close()


@pytest.mark.parametrize(
    ("limits", "waits"),
    [
        ({}, True),
        ({"patience": 31.0}, True),
        ({"patience": 28.0}, False),
        ({"ends": 29.0}, False),
        ({"ends": 31.0}, True),
    ],
)
def test_a_caller_that_cannot_wait_as_long_as_the_service_asks_fails_at_once(
    limits: dict[str, Any], waits: bool
) -> None:
    callers = Callers(1)
    now = callers.loop.time()
    callers.pace.learn(0, 30.0, now)
    if "ends" in limits:
        limits = {"ends": limits["ends"] + now}
    number = callers.ask(**limits)
    callers.settle()
    assert callers.waiting() == ([number] if waits else [])
    assert callers.holders == []
    callers.close()


def test_callers_of_a_closed_session_get_its_error_and_no_slot() -> None:
    callers = Callers(2)
    callers.close_service()
    numbers = [callers.ask(bulk=number % 2 == 0) for number in range(6)]
    callers.settle()
    callers.cap.abandon(lambda: ValueError("closed"))
    callers.settle()
    assert all(isinstance(callers.tasks[number].exception(), ValueError) for number in numbers)
    assert callers.holders == []
    assert callers.cap.in_flight == callers.pace.in_flight == 0
    callers.close()


def test_a_caller_cancelled_while_the_service_is_closed_leaves_nothing_behind() -> None:
    callers = Callers(2)
    callers.close_service()
    numbers = [callers.ask() for _ in range(3)]
    callers.settle()
    for number in numbers:
        callers.tasks[number].cancel()
    callers.settle()
    assert callers.cap.in_flight == callers.pace.in_flight == 0
    assert callers.waiting() == []
    callers.close()


def test_a_cap_without_a_limit_of_patience_waits() -> None:
    callers = Callers(1)
    callers.pace.learn(0, 1e9, callers.loop.time())
    number = callers.ask(patience=math.inf)
    callers.settle()
    assert callers.waiting() == [number]
    callers.close()
