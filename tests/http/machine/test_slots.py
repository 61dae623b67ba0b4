"""Slots and lines of several processes, with a clock that is set by hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from altaprofiles.errors import ConfigurationError
from altaprofiles.http.machine.folder import Folder
from altaprofiles.http.machine.record import Record
from altaprofiles.http.machine.slots import Slots


class Process:
    """The slots as one process has them open."""

    def __init__(self, place: Path, slots: int) -> None:
        self.folder = Folder(place, "account")
        parts: dict[str, Slots] = {}
        self.record = Record(parts)
        self.slots = parts["claim"] = Slots("requests", self.record)
        self.record.open(self.folder.lock("record"))
        self.slots.open(self.folder, slots)
        self.number = slots
        self.bulk = 0

    def take(self, now: float, *, bulk: bool = False, is_open: bool = True) -> bool:
        self.record.refresh()
        starves = not self.bulk
        wait = self.slots.take(
            now, self.number, self.number, bulk=bulk, starves=starves, is_open=is_open
        )
        self.bulk += bulk and not wait
        return not wait

    def give(self, now: float, *, bulk: bool = False) -> None:
        self.bulk -= bulk
        self.slots.give(now)

    def close(self) -> None:
        self.record.close()
        self.slots.close()
        self.folder.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[int], Process]]:
    opened: list[Process] = []

    def make(slots: int) -> Process:
        opened.append(Process(tmp_path / "slots", slots))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


Make = Callable[[int], Process]


def test_a_slot_is_taken_by_one_process_at_a_time(process: Make) -> None:
    one, other = process(1), process(1)
    assert one.take(1.0)
    assert not other.take(1.0)
    assert (one.slots.elsewhere(), other.slots.elsewhere()) == (0, 1)
    one.give(2.0)
    assert other.take(2.0)


def test_a_process_that_ends_gives_its_slots_and_its_place_in_line(process: Make) -> None:
    one, head, last = process(1), process(1), process(1)
    assert one.take(1.0)
    assert not head.take(1.0)
    assert not last.take(1.0)
    one.close()
    head.close()
    assert last.take(1.01)


def test_nobody_takes_a_slot_before_the_head_of_the_line(process: Make) -> None:
    one, head, last = process(1), process(1), process(1)
    assert one.take(1.0)
    assert not head.take(1.0)
    one.give(1.1)
    assert not last.take(1.1)
    assert not one.take(1.2)
    assert head.take(1.2)


def test_a_process_that_has_released_a_slot_lets_those_in_line_go_first(process: Make) -> None:
    one, other, third = process(2), process(2), process(2)
    assert one.take(1.0)
    assert other.take(1.0)
    # The head, and one behind it.
    assert not third.take(1.0)
    behind = process(2)
    assert not behind.take(1.0)
    one.give(1.1)
    assert third.take(1.1)
    other.give(1.1)
    # Nobody is the head until the next one asks.
    assert not other.take(1.101)
    assert behind.take(1.102)


def test_whoever_has_released_a_slot_takes_it_again_if_nobody_waits(process: Make) -> None:
    one, other = process(1), process(1)
    assert not other.slots.elsewhere()
    for now in (1.0, 1.001, 1.002):
        assert one.take(now)
        one.give(now)


def test_leaving_the_line_lets_the_next_one_be_its_head(process: Make) -> None:
    one, head, last = process(1), process(1), process(1)
    assert one.take(1.0)
    assert not head.take(1.0)
    head.slots.leave()
    one.give(1.1)
    assert last.take(1.1)


def test_single_calls_go_before_bulk_work_of_another_process(process: Make) -> None:
    one, bulk, single = process(1), process(1), process(1)
    assert one.take(1.0)
    assert not bulk.take(1.0, bulk=True)
    assert not single.take(1.0)
    one.give(1.1)
    assert not bulk.take(1.1, bulk=True)
    assert single.take(1.1)


def test_bulk_work_without_a_slot_gets_one_after_three_single_calls(process: Make) -> None:
    bulk, first, second = process(1), process(1), process(1)
    assert first.take(1.0)
    assert not second.take(1.0)
    now, order = 1.0, []
    callers = [first, second]
    for _ in range(9):
        now += 0.01
        holder, head = callers
        assert not bulk.take(now, bulk=True)
        holder.give(now)
        taken = head.take(now)
        if not taken:
            assert bulk.take(now, bulk=True)
            bulk.give(now, bulk=True)
            now += 0.01
            assert head.take(now)
        order.append(taken)
        assert not holder.take(now)
        callers.reverse()
    assert order == [True, True, True, False, True, True, True, False, True]


def test_bulk_work_that_has_a_slot_claims_no_other(process: Make) -> None:
    bulk, first, second = process(2), process(2), process(2)
    assert bulk.take(1.0, bulk=True)
    assert first.take(1.0)
    now = 1.0
    for _ in range(12):
        now += 0.01
        assert not second.take(now)
        assert not bulk.take(now, bulk=True)
        first.give(now)
        assert second.take(now)
        first, second = second, first


def test_a_claim_of_a_process_that_was_killed_holds_up_nobody(process: Make) -> None:
    bulk, first, second = process(1), process(1), process(1)
    assert first.take(1.0)
    now = 1.0
    for _ in range(Slots.FAVOURED):
        now += 0.01
        assert not second.take(now)
        assert not bulk.take(now, bulk=True)
        first.give(now)
        assert second.take(now)
        first, second = second, first
    assert not bulk.take(now, bulk=True)
    bulk.close()
    first.give(now)
    assert not second.take(now)
    assert second.take(now + 1)


removable = pytest.mark.skipif(os.name != "posix", reason="Windows does not remove open files")


@removable
def test_slots_that_are_held_are_held_in_a_folder_that_replaces_a_removed_one(
    process: Make,
) -> None:
    one = process(3)
    assert one.take(1.0)
    assert one.take(2.0)
    shutil.rmtree(one.folder.path)
    other = process(3)
    assert other.take(2.0)
    rejoined(one, 3)
    assert one.folder.is_whole()
    assert (one.slots.elsewhere(), other.slots.elsewhere()) == (1, 2)
    assert not other.take(3.0)
    one.give(4.0)
    assert other.take(4.0)
    one.give(5.0)
    assert (one.slots.elsewhere(), other.slots.elsewhere()) == (2, 0)


def rejoined(one: Process, slots: int) -> None:
    """Let a process use the folder that replaces a removed one."""
    assert not one.folder.is_whole()
    try:
        one.folder.renew()
    finally:
        one.slots.missed()
    one.slots.moved(slots)


@removable
def test_a_request_whose_slot_is_taken_frees_none_of_those_still_in_flight(process: Make) -> None:
    one = process(3)
    for _ in range(3):
        assert one.take(1.0)
    shutil.rmtree(one.folder.path)
    other, third = process(3), process(3)
    assert other.take(2.0)
    assert other.take(2.0)
    rejoined(one, 3)
    # Five requests are in flight, three of them of the process from before.
    assert other.slots.elsewhere() == 1
    for now in (3.0, 4.0):
        one.give(now)
        assert not third.take(now)
    # Three of them, and a slot each.
    one.give(5.0)
    assert third.take(5.0)
    assert not third.take(6.0)


@removable
def test_a_slot_that_is_free_again_is_that_of_a_request_without_one(process: Make) -> None:
    one = process(3)
    for _ in range(2):
        assert one.take(1.0)
    shutil.rmtree(one.folder.path)
    other = process(3)
    for _ in range(3):
        assert other.take(2.0)
    rejoined(one, 3)
    other.give(3.0)
    # Of four requests in flight, two have no slot of their own.
    assert not one.take(3.1)
    other.give(4.0)
    assert not one.take(4.1)
    assert (one.slots.elsewhere(), other.slots.elsewhere()) == (1, 2)
    other.give(5.0)
    assert one.take(5.1)


@removable
def test_a_rejoin_takes_no_slot_above_the_present_cap(process: Make) -> None:
    one = process(4)
    one.number = 2
    for _ in range(2):
        assert one.take(1.0)
    shutil.rmtree(one.folder.path)
    other = process(4)
    other.number = 2
    for _ in range(2):
        assert other.take(2.0)
    rejoined(one, 2)
    assert other.slots.elsewhere() == 0
    other.give(3.0)
    one.slots.moved(2)
    assert other.slots.elsewhere() == 1


@pytest.mark.parametrize("is_late", [False, True])
def test_slots_above_a_smaller_cap_count_until_they_are_released(
    process: Make, is_late: bool
) -> None:
    first, both = process(3), process(3)
    first.number = 1
    assert first.take(1.0)
    for _ in range(2):
        assert both.take(1.0)
    # A process that starts later knows no slots above its own figure.
    other = process(2) if is_late else process(3)
    first.number = both.number = other.number = 2
    # The first slot is free, but there are two requests in flight.
    first.give(2.0)
    assert other.slots.elsewhere() == 2
    assert not other.take(2.0)
    assert not other.take(2.1)
    both.give(3.0)
    assert other.take(3.1)
    assert not other.take(3.2)
    assert not first.take(3.3)
    both.give(4.0)
    assert other.take(4.1)


def test_a_cap_that_grows_counts_no_slot_twice(process: Make) -> None:
    other = process(6)
    for _ in range(3):
        assert other.take(1.0)
    one = process(3)
    assert one.slots.elsewhere() == 3
    one.number = 6
    taken = sum(one.take(2.0 + number) for number in range(20))
    assert taken == 3
    assert one.slots.elsewhere() == other.slots.elsewhere() == 3


@removable
def test_a_rejoin_that_fails_midway_leaves_each_request_its_own_slot(process: Make) -> None:
    one = process(3)
    for _ in range(3):
        assert one.take(1.0)
    shutil.rmtree(one.folder.path)
    other = process(2)
    for _ in range(2):
        assert other.take(2.0)
    (one.folder.path / "requests.2.slot").mkdir()
    with pytest.raises(ConfigurationError):
        rejoined(one, 3)
    for now in (3.0, 3.1):
        other.give(now)
        # It is that of a request in flight.
        assert not one.take(now + 0.01)
    assert other.slots.elsewhere() == 2
    (one.folder.path / "requests.2.slot").rmdir()
    rejoined(one, 3)
    assert process(3).slots.elsewhere() == 3


def test_a_head_that_leaves_a_slot_free_is_passed(process: Make) -> None:
    one, stopped, last = process(1), process(1), process(1)
    assert one.take(1.0)
    assert not stopped.take(1.0)
    assert not last.take(1.0)
    one.give(2.0)
    assert not last.take(2.0)
    # It has been free at each look since.
    assert not last.take(2.1)
    assert last.take(2.6)
    # Back again, the head of the line waits as before.
    assert not stopped.take(3.0)
    last.give(3.0)
    assert stopped.take(3.0)


def test_a_head_is_not_passed_while_slots_come_and_go(process: Make) -> None:
    one, head, last = process(1), process(1), process(1)
    assert one.take(1.0)
    assert not head.take(1.0)
    assert not last.take(1.0)
    now = 1.0
    for _ in range(5):
        now += 1
        one.give(now)
        assert not last.take(now)
        assert head.take(now)
        assert not last.take(now + 0.5)
        one, head = head, one
        last, head = head, last
        assert not last.take(now + 0.5)


def test_a_process_in_line_takes_nothing_while_the_service_is_closed(process: Make) -> None:
    one, other = process(1), process(1)
    assert not one.take(1.0, is_open=False)
    assert not other.take(1.1)
    # It is the head, although it could take none.
    assert one.take(1.2)


def test_slots_of_a_larger_size_count_until_they_are_released(process: Make) -> None:
    one, other = process(4), process(4)
    for _ in range(4):
        assert one.take(1.0)
    one.number = other.number = 2

    def take() -> bool:
        wait = other.slots.take(now, 2, 4, bulk=False, starves=False, is_open=True)
        return not wait

    now = 1.0
    assert not take()
    for now in (1.1, 1.2):
        one.give(now)
        assert not take()
    one.give(1.3)
    now = 1.3
    assert take()


class Lines(RuleBasedStateMachine):
    """Processes ask, release, leave and end in any order."""

    @initialize(slots=st.integers(1, 4), processes=st.integers(2, 5))
    def start(self, slots: int, processes: int) -> None:
        import tempfile

        self.number = slots
        self.folder = tempfile.TemporaryDirectory()
        self.place = Path(self.folder.name)
        self.now = 1.0
        self.processes = [Process(self.place, slots) for _ in range(processes)]
        self.held = [0] * processes
        self.waiting: set[int] = set()

    @rule(who=st.integers(0, 4), bulk=st.booleans(), pause=st.sampled_from([0.0, 0.001, 0.01]))
    def ask(self, who: int, bulk: bool, pause: float) -> None:
        who %= len(self.processes)
        self.now += pause
        if self.processes[who].take(self.now, bulk=bulk):
            self.held[who] += 1
            self.waiting.discard(who)
            self.processes[who].bulk = 0
        else:
            self.waiting.add(who)

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        holders = [who for who, held in enumerate(self.held) if held]
        who = data.draw(st.sampled_from(holders))
        self.processes[who].give(self.now)
        self.held[who] -= 1

    @rule(who=st.integers(0, 4))
    def leave(self, who: int) -> None:
        who %= len(self.processes)
        self.processes[who].slots.leave()
        self.waiting.discard(who)

    @rule(who=st.integers(0, 4))
    def kill(self, who: int) -> None:
        who %= len(self.processes)
        self.processes[who].close()
        self.processes[who] = Process(self.place, self.number)
        self.held[who] = 0
        self.waiting.discard(who)

    @rule()
    def settle(self) -> None:
        """Let those in line ask until nobody gets a slot any more."""
        for who in sorted(self.waiting) * 3:
            self.now += 0.06
            if who in self.waiting and self.processes[who].take(self.now):
                self.held[who] += 1
                self.waiting.discard(who)
        assert sum(self.held) == self.number or not self.waiting

    @invariant()
    def the_cap_holds(self) -> None:
        assert sum(self.held) <= self.number

    def teardown(self) -> None:
        for process in getattr(self, "processes", []):
            process.close()
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestLines = Lines.TestCase
