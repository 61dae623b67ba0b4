"""Bounded workers over any source, without a session."""

from __future__ import annotations

import asyncio
import gc
import itertools
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from altaprofiles import AltaProfilesError, ConfigurationError
from altaprofiles.flow.fanout import Items, fan_out
from altaprofiles.flow.slices import ITEMS
from altaprofiles.flow.window import MOST, MOST_BYTES

from ..support.sources import PAUSES, in_a_group, in_a_scope, in_a_timeout, numbers, within
from ..support.tasks import nothing_left_behind, spawn

pytestmark = pytest.mark.anyio


async def double(item: int) -> int:
    await asyncio.sleep(0)
    return 2 * item


def doubled(source: Items[int], *, ordered: bool = False, concurrency: int = 8) -> Any:
    return fan_out(double, source, concurrency=concurrency, ordered=ordered, spawn=spawn)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 500])
async def test_every_item_has_one_result(count: int, ordered: bool) -> None:
    found = [result async for result in doubled(range(count), ordered=ordered)]
    expected = [2 * item for item in range(count)]
    assert (found if ordered else sorted(found)) == expected


async def test_input_order_is_kept_when_later_items_are_done_first() -> None:
    gates = [asyncio.Event() for _ in range(20)]

    async def wait(item: int) -> int:
        await gates[item].wait()
        return item

    results = fan_out(wait, range(20), concurrency=20, ordered=True, spawn=spawn)
    for gate in reversed(gates):
        gate.set()
    assert [result async for result in results] == list(range(20))


async def test_results_come_as_they_complete() -> None:
    slow = asyncio.Event()

    async def wait(item: int) -> int:
        if item == 0:
            await slow.wait()
        return item

    results = fan_out(wait, range(20), concurrency=2, ordered=False, spawn=spawn)
    first = [await anext(results) for _ in range(19)]
    assert sorted(first) == list(range(1, 20))
    slow.set()
    assert [result async for result in results] == [0]


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_reader_that_pauses_holds_back_the_intake(ordered: bool) -> None:
    taken = itertools.count()
    results = doubled((next(taken) for _ in itertools.repeat(None)), ordered=ordered)
    await anext(results)
    await wait_all_tasks_blocked()
    assert next(taken) <= 1 + 4 * 8
    await results.aclose()


class Stuck:
    """A fan-out over an endless source whose first item has no result before `release` is set."""

    def __init__(self, size: Callable[[int], int] = lambda result: 0) -> None:
        self.taken = 0
        self.release = asyncio.Event()
        self.failure: Exception | None = None
        self.results = fan_out(
            self._call, self._source(), concurrency=5, ordered=True, spawn=spawn, size=size
        )

    def _source(self) -> Iterator[int]:
        for number in itertools.count():
            self.taken += 1
            yield number
            if self.failure is not None:
                raise self.failure

    async def _call(self, item: int) -> int:
        if item == 0:
            await self.release.wait()
        return item

    async def read(self) -> asyncio.Task[int]:
        """Begin to read, and return once nothing moves any more."""
        reading = asyncio.ensure_future(anext(self.results))
        before = -1
        while self.taken > before:
            before = self.taken
            await wait_all_tasks_blocked()
        assert not reading.done()
        return reading


FEW = MOST_BYTES // 100


@pytest.mark.parametrize(("size", "waiting"), [(0, MOST), (FEW, 101)])
async def test_a_late_result_holds_up_nobody_until_many_wait_for_it(
    size: int, waiting: int
) -> None:
    stuck = Stuck(lambda result: size)
    reading = await stuck.read()
    # Four per worker, and those that wait. One place of these is that of the next to come.
    assert stuck.taken == 4 * 5 + waiting - 1
    for _ in range(3):
        await wait_all_tasks_blocked()
    assert stuck.taken == 4 * 5 + waiting - 1
    stuck.release.set()
    found = [await reading, *[await anext(stuck.results) for _ in range(3 * waiting)]]
    assert found == list(range(3 * waiting + 1))
    await stuck.results.aclose()


async def test_a_reader_that_pauses_while_many_results_are_due_holds_back_the_intake() -> None:
    stuck = Stuck(lambda result: FEW)
    reading = await stuck.read()
    stuck.release.set()
    found = [await reading]
    for _ in range(300):
        await wait_all_tasks_blocked()
        assert stuck.taken <= len(found) + 4 * 5 + 101
        found.append(await anext(stuck.results))
    assert found == list(range(301))
    # Once they are read, no more are ahead than with results that are never late.
    await wait_all_tasks_blocked()
    assert stuck.taken <= len(found) + 4 * 5
    await stuck.results.aclose()


async def test_other_tasks_run_while_many_results_are_due() -> None:
    """The caller may await nothing else."""
    stuck = Stuck()
    reading = await stuck.read()
    stuck.release.set()
    await reading
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(take_turns())
    for _ in range(MOST - 1):
        await anext(stuck.results)
    other.cancel()
    assert turns >= (MOST - 1) // ITEMS
    await stuck.results.aclose()


async def test_a_full_window_is_left_behind_by_nobody() -> None:
    async with nothing_left_behind():
        stuck = Stuck(lambda result: FEW)
        reading = await stuck.read()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await stuck.results.aclose()


async def test_an_error_of_a_full_window_s_source_loses_nothing_that_was_taken() -> None:
    stuck = Stuck(lambda result: FEW)
    reading = await stuck.read()
    stuck.failure = OSError("unplugged")
    stuck.release.set()
    found = [await reading]
    with pytest.raises(OSError, match="unplugged"):
        async for result in stuck.results:
            found.append(result)
    assert found == list(range(stuck.taken))


async def test_an_error_that_dooms_all_waits_for_no_late_result() -> None:
    async def call(item: int) -> int:
        if item == 0:
            await asyncio.Event().wait()
        if item == 3000:
            raise ConfigurationError("three thousand")
        return item

    results = fan_out(call, itertools.count(), concurrency=5, ordered=True, spawn=spawn)
    async with nothing_left_behind():
        with pytest.raises(ConfigurationError, match="three thousand"):
            await anext(results)


@pytest.mark.slow
async def test_a_million_keys_of_an_endless_generator_take_no_memory() -> None:
    async def look_up(key: str) -> str:
        return key

    keys = (f"customer-{number:012}" for number in itertools.count())
    results = fan_out(look_up, keys, concurrency=8, ordered=False, spawn=spawn)
    grown_from = 0
    for done in itertools.count():
        await anext(results)
        if done == 50_000:
            grown_from = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if done == 1_000_000:
            break
    await results.aclose()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown_from
    # A million keys held in memory would take 80 MB.
    assert grown < 8 * 1024


async def test_generators_of_any_kind_are_closed() -> None:
    closed: list[str] = []

    async def numbers(name: str) -> AsyncIterator[int]:
        try:
            with anyio.fail_after(60):
                for number in itertools.count():
                    yield number
        finally:
            closed.append(name)

    class Made:
        def __aiter__(self) -> AsyncIterator[int]:
            return numbers("made")

    async with nothing_left_behind():
        for source in (Made(), numbers("passed in")):
            async with aclosing(doubled(source)) as results:
                async for _ in results:
                    break
            await wait_all_tasks_blocked()
    assert closed == ["made", "passed in"]


async def test_a_failing_call_is_raised_and_ends_the_others() -> None:
    async def fail(item: int) -> int:
        if item == 5:
            raise ConfigurationError("five")
        await asyncio.sleep(0)
        return item

    async with nothing_left_behind():
        with pytest.raises(ConfigurationError, match="five"):
            async for _ in fan_out(
                fail, itertools.count(), concurrency=3, ordered=False, spawn=spawn
            ):
                pass


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_failing_source_loses_nothing_that_was_taken(ordered: bool) -> None:
    def source() -> Iterator[int]:
        yield from range(10)
        raise OSError("unplugged")

    found = []
    with pytest.raises(OSError, match="unplugged"):
        async for result in doubled(source(), ordered=ordered):
            found.append(result)
    assert sorted(found) == [2 * item for item in range(10)]


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_source_that_is_cancelled_from_inside_is_an_error(ordered: bool) -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(20):
            yield number
        helper = asyncio.ensure_future(asyncio.Event().wait())
        helper.cancel()
        await helper

    with pytest.raises(AltaProfilesError, match="results are incomplete"):
        async for _ in doubled(source(), ordered=ordered):
            pass


async def test_a_call_that_is_cancelled_from_inside_is_an_error() -> None:
    async def call(item: int) -> int:
        if item == 7:
            raise asyncio.CancelledError
        return item

    with pytest.raises(AltaProfilesError, match="results are incomplete"):
        async for _ in fan_out(call, range(50), concurrency=4, ordered=False, spawn=spawn):
            pass


class Unusual(BaseException):
    """An exception that passes every `except Exception`, as test frameworks raise."""


@pytest.mark.parametrize("error", [StopAsyncIteration("mine"), StopIteration("mine"), Unusual()])
async def test_no_exception_of_a_call_is_mistaken_for_the_end(error: BaseException) -> None:
    async def call(item: int) -> int:
        if item == 7:
            raise error
        return item

    with pytest.raises((Unusual, RuntimeError)):
        async for _ in fan_out(call, range(50), concurrency=4, ordered=False, spawn=spawn):
            pass


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("error", [SystemExit("bad row"), KeyboardInterrupt(), Unusual()])
async def test_an_exit_in_a_source_is_raised_as_it_is(error: BaseException, ordered: bool) -> None:
    def source() -> Iterator[int]:
        yield 1
        raise error

    async def source_with_await() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0)
        raise error

    async def never(item: int) -> int:
        await asyncio.Event().wait()
        return item

    for items in (source(), source_with_await()):
        results = fan_out(never, items, concurrency=8, ordered=ordered, spawn=spawn)
        async with nothing_left_behind():
            with pytest.raises(type(error)) as caught:
                await anext(results)
        assert caught.value is error


async def test_a_source_may_hold_scopes_open_across_its_items() -> None:
    async def grouped() -> AsyncIterator[int]:
        async with anyio.create_task_group(), asyncio.timeout(60):
            for number in range(50):
                yield number

    assert sorted([result async for result in doubled(grouped())]) == [2 * n for n in range(50)]


@pytest.mark.parametrize(
    ("pause", "is_within"),
    [*((pause, False) for pause in PAUSES), *((pause, True) for pause in PAUSES[1:])],
)
@pytest.mark.parametrize("ordered", [False, True])
async def test_what_comes_of_a_scope_of_a_source_is_the_source_s_decision(
    pause: float | None, is_within: bool, ordered: bool
) -> None:
    """Wherever the task is that reads it: in the source, or waiting for room.

    The scope may be in a generator within the source, unless that one never waits for anything.
    """

    async def read(source: AsyncIterator[int]) -> list[int]:
        async with nothing_left_behind():
            found = []
            items = within(source) if is_within else source
            async for result in doubled(items, ordered=ordered):
                found.append(result)
                # The reader has time, and the source is read ahead of it.
                await asyncio.sleep(0.001)
            return sorted(found)

    with pytest.raises(TimeoutError):
        await read(in_a_timeout(numbers(pause)))
    found = await read(in_a_scope(numbers(pause), -1))
    assert found == [-2, *range(0, 2 * len(found) - 2, 2)]
    with pytest.raises(ExceptionGroup) as caught:
        await read(in_a_group(numbers(pause)))
    assert [str(error) for error in caught.value.exceptions] == ["unplugged"]


@pytest.mark.parametrize("is_generator", [False, True])
@pytest.mark.parametrize("has_started", [False, True])
async def test_a_reading_that_is_cancelled_from_outside_is_an_error(
    has_started: bool, is_generator: bool
) -> None:
    class Ones:
        def __aiter__(self) -> Ones:
            return self

        async def __anext__(self) -> int:
            return 1

    results = doubled(numbers(None) if is_generator else Ones())
    async with nothing_left_behind():
        first = asyncio.ensure_future(anext(results))
        await next_task()
        # Behind the task of the whole fan-out comes the one that reads its source.
        reading = await next_task()
        if has_started:
            await first
            # It waits for room now.
            await wait_all_tasks_blocked()
        reading.cancel()
        with pytest.raises(AltaProfilesError, match="results are incomplete"):
            await first
            async for _ in results:
                pass


async def test_a_source_that_swallows_its_cancellation_is_closed() -> None:
    log: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            for number in range(3):
                yield number
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            # There is no room for more.
            yield 3
        finally:
            log.append("closed")

    async def never(item: int) -> int:
        await asyncio.Event().wait()
        return item

    results = fan_out(never, source(), concurrency=1, ordered=False, spawn=spawn)
    async with nothing_left_behind():
        first = asyncio.ensure_future(anext(results))
        await wait_all_tasks_blocked()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    assert log == ["closed"]


async def next_task() -> asyncio.Task[Any]:
    """Return the task that is started next, before its first step."""
    known = asyncio.all_tasks()
    while not (new := asyncio.all_tasks() - known):
        await asyncio.sleep(0)
    [task] = new
    return task


async def test_no_more_workers_are_started_than_there_is_work_for() -> None:
    before = len(asyncio.all_tasks())
    busy = 0

    async def call(item: int) -> int:
        nonlocal busy
        busy = max(busy, len(asyncio.all_tasks()) - before)
        return item

    results = fan_out(call, range(3), concurrency=100_000, ordered=False, spawn=spawn)
    assert len([result async for result in results]) == 3
    assert busy <= 5


async def test_workers_beside_paused_calls_retire_when_the_pause_is_over() -> None:
    pausing = 3
    running: dict[int, asyncio.Event] = {}

    async def call(item: int) -> int:
        running[item] = asyncio.Event()
        await running[item].wait()
        del running[item]
        return item

    results = fan_out(
        call,
        range(100),
        concurrency=3,
        ordered=False,
        spawn=spawn,
        pausing=lambda: pausing,
    )
    found: list[int] = []

    async def read() -> None:
        async for result in results:
            found.append(result)

    reading = asyncio.ensure_future(read())
    await wait_all_tasks_blocked()
    assert len(running) == 6
    pausing = 0
    while running:
        for done in list(running.values()):
            done.set()
        await wait_all_tasks_blocked()
        # The first six are done by now.
        assert len(running) <= 3
        assert len(running) == 3 or len(found) > 90
    await reading
    assert sorted(found) == list(range(100))


async def test_workers_come_back_with_the_next_pause() -> None:
    pausing = 0
    running: dict[int, asyncio.Event] = {}

    async def call(item: int) -> int:
        running[item] = asyncio.Event()
        await running[item].wait()
        del running[item]
        return item

    results = fan_out(
        call, range(100), concurrency=3, ordered=False, spawn=spawn, pausing=lambda: pausing
    )
    found: list[int] = []

    async def read() -> None:
        async for result in results:
            found.append(result)

    reading = asyncio.ensure_future(read())
    await wait_all_tasks_blocked()
    for wanted in (0, 2, 3, 50, 1, 0):
        pausing = wanted
        for _ in range(3):
            for done in list(running.values()):
                done.set()
            await wait_all_tasks_blocked()
        # Never more than twice as many.
        assert len(running) == 3 + min(wanted, 3)
    while running:
        for done in list(running.values()):
            done.set()
        await wait_all_tasks_blocked()
    await reading
    assert sorted(found) == list(range(100))


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_a_worker_that_is_cancelled_before_it_starts_is_an_error() -> None:
    """No item is lost without an error, even if its worker never runs."""
    before = asyncio.all_tasks()

    async def source() -> AsyncIterator[int]:
        known = asyncio.all_tasks()
        yield 1
        # The worker for this item has been made, and the loop has not turned since.
        [worker] = asyncio.all_tasks() - known
        worker.cancel()

    with pytest.raises(AltaProfilesError, match="results are incomplete"):
        async for _ in doubled(source(), concurrency=1):
            pass
    await wait_all_tasks_blocked()
    assert asyncio.all_tasks() <= before
    # What never ran warns when it is freed: here, and not in another test.
    gc.collect()
