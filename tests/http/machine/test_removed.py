"""A folder, or a file in it, that is removed while sessions use it: their cap stays one."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from altaprofiles import CleverTap, Session
from altaprofiles.emulator import Emulator
from altaprofiles.http.machine.commons import common_name, use_of

from ...support.terminals import emulated
from ...support.waiting import wait_until
from ...support.workers import workers

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix", reason="Windows does not remove open files"),
]


@pytest.fixture(autouse=True)
def looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("altaprofiles.http.machine.commons._LOOK", 0.0)


def sharing(emulator: Emulator, place: Path, most: int = 3) -> Session:
    account = emulator.clevertap
    return Session(
        clevertap=CleverTap(
            account.account_id,
            account.passcode,
            base_url=account.base_url,
            max_in_flight=most,
            shared=place,
        )
    )


def folder_of(emulator: Emulator, place: Path) -> Path:
    return place / common_name(emulator.url, emulator.clevertap.account_id)


async def look_up(session: Session, calls: int) -> None:
    await asyncio.gather(*(session.profiles.get(identity=f"user_{n}") for n in range(calls)))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = [record.getMessage() for record in caplog.records]
    return [text for text in texts if "or a file in it, was removed" in text]


def everything(folder: Path) -> None:
    shutil.rmtree(folder.parent)


def the_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replaced(folder: Path) -> None:
    moved(folder)
    folder.mkdir(mode=0o700)


def the_slots(folder: Path) -> None:
    for path in folder.glob("*.slot"):
        path.unlink()


def one_slot(folder: Path) -> None:
    next(folder.glob("*.slot")).unlink()


def the_record(folder: Path) -> None:
    (folder / "record").unlink()


def the_seats(folder: Path) -> None:
    for path in folder.glob("*.seat"):
        path.unlink()


REMOVALS = [everything, the_folder, moved, replaced, the_slots, one_slot, the_record, the_seats]


@pytest.mark.parametrize("remove", REMOVALS)
async def test_sessions_from_before_and_after_keep_one_cap(
    tmp_path: Path, remove: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "slots"
    async with Emulator(people=100, think=0.005, max_in_flight=3) as emulator:
        async with sharing(emulator, place) as one, sharing(emulator, place) as other:
            await asyncio.gather(look_up(one, 6), look_up(other, 6))
            remove(folder_of(emulator, place))
            # The smallest figure holds for those from before, too.
            async with sharing(emulator, place, most=2) as late:
                emulator.max_in_flight = 2
                await asyncio.gather(*(look_up(session, 20) for session in (one, other, late)))
                use = use_of(place, folder_of(emulator, place).name)
                assert use.pids == [os.getpid()]
        assert emulator.stats.too_many == 0
    # Each of the two says so once.
    assert len(warnings(caplog)) == 2
    assert "shares its limits again" in warnings(caplog)[0]


async def test_a_folder_that_is_removed_is_missed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("altaprofiles.http.machine.commons._LOOK", 1e6)
    async with Emulator(people=100, think=0.005, max_in_flight=3) as emulator:
        async with sharing(emulator, tmp_path) as session:
            await look_up(session, 3)
            shutil.rmtree(folder_of(emulator, tmp_path))
            async with sharing(emulator, tmp_path) as late:
                await asyncio.gather(look_up(session, 12), look_up(late, 12))
        assert emulator.stats.too_many == 0


async def test_a_session_that_can_make_no_files_goes_on_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "slots"
    async with Emulator(people=100, think=0.005, max_in_flight=3) as emulator:
        async with sharing(emulator, place) as session:
            await look_up(session, 3)
            shutil.rmtree(place)
            place.write_bytes(b"")
            await look_up(session, 12)
            [warning] = warnings(caplog)
            assert f"{place} is not a folder" in warning
            place.unlink()
            async with sharing(emulator, place) as late:
                await asyncio.gather(look_up(session, 12), look_up(late, 12))
        assert emulator.stats.too_many == 0
    assert len(warnings(caplog)) == 2


def test_workers_find_those_that_use_the_new_folder(tmp_path: Path) -> None:
    place = tmp_path / "slots"
    with (
        emulated(people=100, think=0.01, max_in_flight=100) as emulator,
        workers(emulator, place, callers=6) as some,
    ):
        for _ in range(2):
            some.start()
        # A folder that is renamed is removed at once, while the workers use it.
        place.rename(tmp_path / "elsewhere")
        some.start()
        name = folder_of(emulator, place).name
        # They look every second.
        wait_until(lambda: use_of(place, name).pids == sorted(some.pids))
        seen: set[int] = set()

        def look() -> bool:
            seen.add(emulator.stats.in_flight["clevertap"])
            return emulator.stats.requests["profile"] >= goal

        goal = emulator.stats.requests["profile"] + 20
        wait_until(look)
        seen.clear()
        goal += 60
        wait_until(look)
        assert max(seen) == 3
        some.stop_all()
