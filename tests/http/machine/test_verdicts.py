"""Sizes and paces of several processes, which decide as those of one would."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altaprofiles.http.machine.commons import Commons, use_of
from altaprofiles.http.machine.shared_pace import SharedPace
from altaprofiles.http.pace import Pace
from altaprofiles.http.sizing import Extent, Size

from ..test_pace import Bucket, Closed, Plan, ask

OPERATIONS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.one_of(
            st.tuples(st.just("refused"), st.integers(0, 3)),
            st.tuples(st.just("succeeded"), st.integers(0, 3), st.booleans(), st.floats(0.01, 1)),
            st.tuples(st.just("bound"), st.integers(1, 20)),
        ),
    ),
    max_size=200,
)


@given(
    start=st.integers(1, 16),
    more=st.sampled_from([0, 240]),
    steps=OPERATIONS,
    many=st.integers(2, 40),
)
def test_sizes_that_share_their_extent_are_one_size(
    start: int, more: int, steps: list[tuple[int, tuple[Any, ...]]], many: int
) -> None:
    one = Size(start, start + more)
    several = [Size(start, start + more) for _ in range(4)]
    shared: Extent = one.extent
    for who, (what, number, *more_of_it) in steps:
        for _ in range(many if what == "succeeded" else 1):
            several[who].extent = shared
            for size in (one, several[who]):
                if what == "refused":
                    size.refused(size.changes - number)
                elif what == "succeeded":
                    was_full, seconds = more_of_it
                    if not size.is_settled:
                        size.succeeded(size.changes - number, was_full=was_full, seconds=seconds)
                else:
                    size.bound(number)
            shared = several[who].extent
            assert shared == one.extent
            assert 1 <= one.allowed <= one.most


@given(steps=OPERATIONS)
def test_a_settled_size_is_changed_by_no_success(
    steps: list[tuple[int, tuple[Any, ...]]],
) -> None:
    size = Size(16, 16)
    for _, (what, number, *more) in steps:
        if what == "refused":
            size.refused(size.changes - number)
        elif what == "succeeded":
            was_settled, before = size.is_settled, size.extent
            size.succeeded(size.changes - number, was_full=more[0], seconds=more[1])
            assert not was_settled or size.extent == before


def test_a_size_never_grows_beyond_its_bound() -> None:
    size = Size(2, 2)
    for _ in range(2):
        size.refused(0)
    size.bound(1)
    for _ in range(3 * Size.LONGEST_RUN):
        size.succeeded(size.changes, was_full=True, seconds=0.1)
    assert (size.allowed, size.most) == (1, 1)


def test_a_fixed_size_follows_its_bound_down_and_up() -> None:
    size = Size(3, 3)
    size.bound(1)
    assert (size.allowed, size.most) == (1, 1)
    size.bound(3)
    assert (size.allowed, size.most) == (3, 3)


def test_a_size_that_was_refused_does_not_follow_its_bound_up() -> None:
    size = Size(8, 8)
    for _ in range(2):
        size.refused(0)
    size.bound(16)
    assert (size.allowed, size.most) == (4, 16)


class One(NamedTuple):
    """A request, and the process that sends it."""

    pace: SharedPace
    number: float


class Together:
    """Several processes, with the pace of each; they ask in turn."""

    def __init__(self, folder: Path, processes: int, **options: Any) -> None:
        self.paces: list[SharedPace] = []
        self.commons: list[Commons] = []
        for _ in range(processes):
            settings = {"floor": 0.5, "ceiling": 30.0, "per_minute": None, "jitter": lambda: 0.0}
            pace = SharedPace("Alta", **{**settings, **options})
            commons = Commons(folder, "name", pace, {})
            pace.record = commons.record
            pace.count = partial(self._others, pace)
            commons.open()
            self.paces.append(pace)
            self.commons.append(commons)
        self._turns = cycle(zip(self.paces, self.commons, strict=True))
        self._number = 0.0

    def _others(self, pace: SharedPace) -> int:
        return self.in_flight - pace.in_flight

    def close(self) -> None:
        for commons in self.commons:
            commons.close()

    @property
    def in_flight(self) -> int:
        return sum(pace.in_flight for pace in self.paces)

    def wait(self, now: float) -> float:
        self._pace, commons = next(self._turns)
        commons.record.refresh()
        if not self._pace.is_free:
            wait = self._pace.start(now)
            self._number = self._pace.number
            return wait
        self._number = self._pace.begin(now)
        return 0.0

    def begin(self, now: float) -> One:
        return One(self._pace, self._number)

    def end(self, one: One, *, is_answered: bool = False) -> None:
        one.pace.end(one.number, is_answered=is_answered)

    def succeeded(self, one: One, now: float) -> None:
        one.pace.succeeded(one.number, now)

    def refused(self, one: One, now: float) -> bool:
        return one.pace.refused(one.number, now)


@pytest.fixture
def four(tmp_path: Path) -> Iterator[Together]:
    together = Together(tmp_path, 4)
    yield together
    together.close()


def refuse(together: Together, pace: SharedPace, now: float) -> bool:
    number = pace.begin(now)
    pace.end(number, is_answered=True)
    return pace.refused(number, now)


def test_a_service_that_one_process_has_closed_is_closed_for_all(four: Together) -> None:
    first, *others = four.paces
    closing = [refuse(four, first, 100.0) for _ in range(Pace.SIGNS)]
    assert closing == [False] * (Pace.SIGNS - 1) + [True]
    for commons in four.commons:
        commons.record.refresh()
    for pace in others:
        assert pace.closed_since == 100.0
        assert pace.wait(100.0) == pytest.approx(0.5)
    # One of them asks, and nobody else in the meantime.
    assert others[0].start(101.0) == 0
    number = others[0].number
    for pace in (first, *others):
        assert pace.start(101.5) > 0
    others[0].end(number, is_answered=True)
    others[0].succeeded(number, 101.6)
    for commons in four.commons:
        commons.record.refresh()
    assert [pace.closed_since for pace in four.paces] == [None] * 4


def test_requests_from_before_do_not_open_a_service_that_another_process_has_closed(
    four: Together,
) -> None:
    first, second = four.paces[:2]
    early = second.begin(99.0)
    for _ in range(Pace.SIGNS):
        refuse(four, first, 100.0)
    second.end(early, is_answered=True)
    second.succeeded(early, 100.5)
    four.commons[1].record.refresh()
    assert first.closed_since == second.closed_since == 100.0


def test_a_request_that_never_ends_lets_another_process_ask(four: Together) -> None:
    first, second = four.paces[:2]
    for _ in range(Pace.SIGNS):
        refuse(four, first, 100.0)
    assert first.start(101.0) == 0
    # Its process is killed.
    assert second.start(102.0) == pytest.approx(Pace.PATIENCE - 1)
    assert second.start(101.0 + Pace.PATIENCE) == 0


def test_processes_together_never_exceed_the_configured_pace(tmp_path: Path) -> None:
    together = Together(tmp_path, 3, per_minute=60)
    starts: list[float] = []
    now = 100.0
    while len(starts) < 50:
        if not (wait := together.wait(now)):
            starts.append(now)
            together.end(together.begin(now))
            continue
        now += min(wait, 0.3)
    for earlier, later in pairwise(starts):
        assert later - earlier >= 1 - Pace.SLACK - 1e-6
    assert starts[-1] - starts[0] <= 51
    together.close()


def test_the_slowest_configured_pace_holds_while_its_process_lives(tmp_path: Path) -> None:
    fast, slow = Together(tmp_path, 1, per_minute=600), Together(tmp_path, 1, per_minute=60)
    assert fast.wait(100.0) == 0
    assert fast.wait(100.0) == pytest.approx(1)
    slow.close()
    fast.commons[0].refresh(1e9)
    assert fast.wait(101.0) == 0
    assert fast.wait(101.0) == pytest.approx(0.1)
    fast.close()


@pytest.mark.parametrize("kind", [Plan, Bucket])
@pytest.mark.parametrize("processes", [2, 4, 8])
def test_a_hundred_a_minute_refuse_few_requests_of_several_processes(
    tmp_path: Path, kind: Any, processes: int
) -> None:
    together = Together(tmp_path, processes)
    _, refusals = ask(kind(100, 60.0).takes, 250, workers=16, pace=together)
    together.close()
    # Before the first closing, each process needs its own refusals.
    assert len(refusals) <= 0.15 * (250 + len(refusals))


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_settle_at_the_rate_that_the_service_takes(
    tmp_path: Path, processes: int
) -> None:
    together = Together(tmp_path, processes)
    seconds, refusals = ask(Plan(100, 3.0).takes, 5000, pace=together)
    together.close()
    assert seconds < 50 * 3.0 / 0.9
    late = [answered for answered in refusals if answered > 2500]
    assert len(late) < 0.01 * 2500


def test_several_processes_are_as_fast_after_another_reason_as_before(tmp_path: Path) -> None:
    together = Together(tmp_path, 4)
    seconds, refusals = ask(Closed(60, 180).takes, 600, workers=3, seconds=3.0, pace=together)
    together.close()
    undisturbed, _ = ask(lambda now: True, 600, workers=3, seconds=3.0)
    assert seconds < undisturbed + 1.6 * 120
    assert len(refusals) < 40


def test_few_requests_left_are_left_to_all_processes(four: Together) -> None:
    four.paces[0].learn(0, 50.0, 100.0)
    for pace, commons in zip(four.paces, four.commons, strict=True):
        commons.record.refresh()
        assert pace.is_near(0)
        assert pace.start(101.0) > 40
    assert os.listdir(four.commons[0]._place or "") == ["name"]  # noqa: PTH208, SLF001


def test_a_process_that_starts_late_takes_over_no_rate_of_long_ago(tmp_path: Path) -> None:
    together = Together(tmp_path, 2)
    busy, _ = ask(lambda now: True, 60, pace=together)
    seconds, _ = ask(Closed(busy, busy + 30).takes, 1, begin=busy, pace=together)
    late = Together(tmp_path, 1)
    [pace], [commons] = late.paces, late.commons
    commons.record.refresh()
    assert pace.rate(busy + seconds) is not None
    assert pace.rate(busy + seconds + 30) is None
    assert pace.wait(busy + seconds + 30) == 0
    late.close()
    together.close()


def test_the_files_tell_the_rate_while_a_process_uses_them(tmp_path: Path) -> None:
    now = time.monotonic()
    together = Together(tmp_path, 1)
    busy, _ = ask(lambda now: True, 60, begin=now, pace=together)
    end = now + busy
    ask(Closed(end, end + 30).takes, 1, begin=end, pace=together)
    rate = use_of(tmp_path, "name").rate
    assert rate is not None
    assert 1 < rate < 3
    together.close()
    assert use_of(tmp_path, "name").rate is None
