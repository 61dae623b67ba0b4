"""Values that processes share: none is lost, and none is taken from a broken file."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import msgpack

from altaprofiles.http.machine.folder import Folder
from altaprofiles.http.machine.record import Record

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]


class Counter:
    """A number."""

    def __init__(self) -> None:
        self.value = 0
        self.loads = 0

    def dump(self) -> bytes:
        return msgpack.encode(self.value)

    def load(self, data: bytes, now: float) -> None:
        self.value = msgpack.decode(data, type=int)
        self.loads += 1

    def add(self) -> int:
        self.value += 1
        return self.value


class Process:
    """A record as one process has it open."""

    def __init__(self, place: Path, *names: str) -> None:
        self.folder = Folder(place, "account")
        self.counters = {name: Counter() for name in names or ("one",)}
        self.counter = next(iter(self.counters.values()))
        self.record = Record({**self.counters})
        self.lock = self.folder.lock("record")
        self.record.open(self.lock)

    def close(self) -> None:
        self.record.close()
        self.folder.close()


Make = Callable[..., Process]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Make]:
    opened: list[Process] = []

    def make(*names: str) -> Process:
        opened.append(Process(tmp_path, *names))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_a_change_is_one_of_the_values_of_all(process: Make) -> None:
    one, other = process(), process()
    assert [one.record.change(one.counter.add), other.record.change(other.counter.add)] == [1, 2]
    assert one.counter.value == 1
    one.record.refresh()
    assert one.counter.value == 2
    assert one.counter.loads == 1


def test_parts_of_other_processes_are_left_as_they_are(process: Make) -> None:
    one, other = process("one", "both"), process("both", "other")
    one.record.change(one.counters["one"].add)
    other.record.change(other.counters["other"].add)
    third = process("one", "both", "other")
    third.record.refresh()
    assert [counter.value for counter in third.counters.values()] == [1, 0, 1]


def test_an_operation_inside_of_another_one_is_a_part_of_it(process: Make) -> None:
    one, other = process(), process()

    def twice() -> int | None:
        one.counter.add()
        assert not other.lock.take()
        return one.record.change(one.counter.add)

    assert one.record.change(twice) == 2
    other.record.refresh()
    assert other.counter.value == 2


async def test_a_change_waits_for_that_of_another_process(process: Make) -> None:
    one, other = process(), process()
    assert other.lock.take()
    assert one.record.attempt(one.counter.add) is None
    assert [one.record.change(one.counter.add) for _ in range(3)] == [None] * 3
    assert one.counter.value == 0
    other.lock.drop()
    while one.counter.value < 3:
        await asyncio.sleep(0.001)
    other.record.refresh()
    assert other.counter.value == 3


async def test_the_next_change_brings_those_that_wait(process: Make) -> None:
    one, other = process(), process()
    assert other.lock.take()
    one.record.change(one.counter.add)
    other.lock.drop()
    assert one.record.change(one.counter.add) == 2


async def test_a_closed_record_changes_nothing(process: Make) -> None:
    one, other = process(), process()
    assert other.lock.take()
    one.record.change(one.counter.add)
    one.record.close()
    other.lock.drop()
    assert one.record.change(one.counter.add) is None
    one.record.refresh()
    other.record.refresh()
    assert (one.counter.value, other.counter.value) == (0, 0)


@pytest.mark.parametrize(
    "breaking",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:-1],
        lambda data: bytes(len(data)),
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"\xff" * 100,
    ],
)
def test_a_broken_record_is_replaced_by_the_values_of_the_next_process(
    process: Make, breaking: Callable[[bytes], bytes]
) -> None:
    one, other = process(), process()
    one.record.change(one.counter.add)
    other.record.refresh()
    path = one.folder.path / "record"
    path.write_bytes(breaking(path.read_bytes()))
    other.record.refresh()
    assert other.counter.value == 1
    assert one.record.change(one.counter.add) == 2
    other.record.refresh()
    assert other.counter.value == 2


def test_a_value_of_another_form_is_replaced(process: Make) -> None:
    one, other = process(), process()

    class Text(Counter):
        def dump(self) -> bytes:
            return msgpack.encode("text")

    strange = Text()
    record = Record({"one": strange})
    record.open(one.lock)
    record.change(lambda: None)
    assert other.record.change(other.counter.add) == 1


_ADDING = """
import sys
from pathlib import Path
from tests.http.machine.test_record import Process
process = Process(Path(sys.argv[1]))
print(flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    while process.record.attempt(process.counter.add) is None:
        pass
"""


@pytest.mark.skipif(os.name != "posix", reason="starts processes with descriptors of POSIX")
def test_no_change_of_several_processes_is_lost(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _ADDING, str(tmp_path), "2000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        for _ in range(3)
    ]
    for one in started:
        assert one.stdout is not None
        one.stdout.readline()
    for one in started:
        one.communicate(b"\n")
    assert [one.returncode for one in started] == [0] * 3
    last = Process(tmp_path)
    last.record.refresh()
    assert last.counter.value == 6000
    last.close()
