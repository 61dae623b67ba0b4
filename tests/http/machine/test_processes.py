"""Processes that share an account: the emulator's own count says how many requests they send."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

from altaprofiles import CleverTap, ConfigurationError, Profile, RequestTimeout, Retry, Session
from altaprofiles.cli.app import App
from altaprofiles.cli.doctor import examine
from altaprofiles.emulator import Emulator
from altaprofiles.http.machine.commons import common_name, use_of

from ...support.containers import run_apart, started_apart
from ...support.terminals import emulated
from ...support.waiting import until, wait_until
from ...support.workers import workers

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="workers are forked"),
    pytest.mark.anyio,
]

THINK = 0.02
"""Seconds for which a request is in flight: long enough for others to meet it."""


def lookups(emulator: Emulator) -> int:
    return emulator.stats.requests["profile"]


def more(emulator: Emulator, requests: int) -> None:
    """Wait until the emulator has had so many more requests."""
    before = lookups(emulator)
    wait_until(lambda: lookups(emulator) >= before + requests)


def test_four_workers_on_three_slots_are_never_refused(tmp_path: Path) -> None:
    with (
        emulated(people=100, think=THINK, max_in_flight=3) as emulator,
        workers(emulator, tmp_path / "slots", callers=6) as four,
    ):
        for _ in range(4):
            four.start()
        more(emulator, 400)
        counts = four.stop_all()
    assert emulator.stats.peak_in_flight["clevertap"] == 3
    assert emulator.stats.too_many == 0
    assert [one["throttles"] for one in counts] == [0] * 4


def test_no_worker_has_less_than_half_its_share(tmp_path: Path) -> None:
    with (
        emulated(people=100, think=THINK, max_in_flight=3) as emulator,
        workers(emulator, tmp_path / "slots", callers=6) as four,
    ):
        for _ in range(4):
            four.start(keys=1)
        four.stop_all()
        for _ in range(4):
            four.start()
        more(emulator, 600)
        done = [one["done"] for one in four.stop_all()]
    assert min(done) >= 0.5 * sum(done) / 4, done


def test_a_greedy_process_beside_three_takes_no_more_than_its_share(tmp_path: Path) -> None:
    with (
        emulated(people=100, think=THINK, max_in_flight=3) as emulator,
        workers(emulator, tmp_path / "slots") as some,
    ):
        greedy = some.start(callers=60)
        more(emulator, 20)
        for _ in range(3):
            some.start(callers=3)
        more(emulator, 20)
        more(emulator, 200)
        first, *others = some.stop_all()
    assert first["pid"] == greedy
    assert emulator.stats.too_many == 0
    # The others started later, and have had a part of these requests only.
    assert min(one["done"] for one in others) >= 0.5 * 200 / 4
    assert first["done"] >= 0.5 * 200 / 4


def test_killed_holders_and_waiters_hold_nothing_up(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311
    with (
        emulated(people=100, think=0.01, max_in_flight=100) as emulator,
        workers(emulator, tmp_path / "slots", callers=3) as some,
    ):
        account = common_name(emulator.url, emulator.clevertap.account_id)

        def users() -> list[int]:
            return use_of(tmp_path / "slots", account).pids

        for _ in range(5):
            some.start()
        for _ in range(30):
            more(emulator, 5)
            # Of five processes on three slots, at least two wait.
            some.kill(chance.choice(some.pids))
            more(emulator, 5)
            # On a busy machine, a killed process may take a while to end.
            wait_until(lambda: users() == sorted(some.pids))
            some.start()
        some.stop_all()
        # One that is killed has its request in flight until the emulator sees its connection end.
        assert emulator.stats.peak_in_flight["clevertap"] <= 6
        use = use_of(tmp_path / "slots", account)
        assert (use.held, use.pids) == (0, [])
        # All three slots are there again.
        wait_until(lambda: emulator.stats.in_flight["clevertap"] == 0)
        some.start(callers=6)
        wait_until(lambda: emulator.stats.in_flight["clevertap"] == 3)
        assert users() == some.pids
        some.stop_all()


def test_single_calls_go_before_the_bulk_work_of_another_process(tmp_path: Path) -> None:
    with (
        emulated(people=100, think=THINK, max_in_flight=3) as emulator,
        workers(emulator, tmp_path / "slots") as some,
    ):
        greedy = some.start(bulk=True)
        more(emulator, 20)
        for _ in range(3):
            some.start(callers=4)
        more(emulator, 400)
        bulk, *single = some.stop_all()
    assert bulk["pid"] == greedy
    assert emulator.stats.peak_in_flight["clevertap"] == 3
    assert emulator.stats.too_many == 0
    # It gets a slot after three single calls, and the others share the rest.
    done = [one["done"] for one in single]
    assert bulk["done"] - 20 <= 0.5 * sum(done)
    assert bulk["done"] >= 0.05 * sum(done)
    assert min(done) >= 0.5 * sum(done) / 3, done


def test_single_calls_that_leave_slots_free_leave_them_to_bulk_work(tmp_path: Path) -> None:
    with (
        emulated(people=100, think=THINK, max_in_flight=3) as emulator,
        workers(emulator, tmp_path / "slots") as some,
    ):
        some.start(callers=1)
        some.start(bulk=True)
        more(emulator, 200)
        single, bulk = some.stop_all()
    assert bulk["done"] >= 0.5 * single["done"]
    assert emulator.stats.too_many == 0


def test_the_smallest_figure_holds_while_its_process_lives(tmp_path: Path) -> None:
    with (
        emulated(people=100, think=THINK, max_in_flight=100) as emulator,
        workers(emulator, tmp_path / "slots", callers=6) as some,
    ):
        large = some.start(most=4)
        wait_until(lambda: emulator.stats.in_flight["clevertap"] == 4)
        small = some.start(most=1)
        seen: set[int] = set()
        # Requests that were in flight before it came are let end.
        more(emulator, 10)

        def look() -> bool:
            seen.add(emulator.stats.in_flight["clevertap"])
            return lookups(emulator) >= goal

        goal = lookups(emulator) + 60
        wait_until(look)
        assert max(seen) == 1
        some.kill(small)
        wait_until(lambda: emulator.stats.in_flight["clevertap"] == 4)
        assert some.stop(large)["done"] > 0
    assert emulator.stats.peak_in_flight["clevertap"] == 4


def test_a_refusal_of_one_process_makes_the_cap_of_all_smaller(tmp_path: Path) -> None:
    with (
        emulated(people=100, think=THINK, max_in_flight=2) as emulator,
        workers(emulator, tmp_path / "slots", bulk=True, most=8) as four,
    ):
        for _ in range(4):
            four.start()
        more(emulator, 600)
        settled = emulator.stats.too_many
        more(emulator, 300)
        four.stop_all()
        # Four caps that shrink by themselves stay at one slot each, which is two too many.
        assert emulator.stats.too_many - settled <= 30
        assert settled <= 100


def test_a_limit_per_minute_is_kept_by_all_processes_together(tmp_path: Path) -> None:
    with (
        emulated(people=100, think=0.005, alta_per_minute=60, window_seconds=3.0) as emulator,
        workers(emulator, tmp_path / "slots", api="cdp", bulk=True, keys=60, most=16) as three,
    ):
        for _ in range(3):
            three.start()
        wait_until(lambda: emulator.stats.requests["cdp"] - emulator.stats.rate_limited >= 180)
        counts = three.stop_all()
    assert [one["done"] for one in counts] == [60] * 3
    assert emulator.stats.rate_limited <= 0.15 * emulator.stats.requests["cdp"]


def test_auto_finds_one_limit_for_all_processes(tmp_path: Path) -> None:
    with (
        emulated(people=100, think=THINK, alta_max_in_flight=8) as emulator,
        workers(emulator, tmp_path / "slots", api="cdp", bulk=True, most="auto") as three,
    ):
        for _ in range(3):
            three.start()
        wait_until(lambda: emulator.stats.requests["cdp"] >= 600)
        settled = emulator.stats.too_many
        wait_until(lambda: emulator.stats.requests["cdp"] >= 1200)
        three.stop_all()
        assert emulator.stats.peak_in_flight["alta"] >= 8
        assert settled <= 60
        assert emulator.stats.too_many - settled <= 30


def test_a_stopped_process_at_the_head_of_the_line_is_passed(tmp_path: Path) -> None:
    with (
        emulated(people=100, think=THINK, max_in_flight=3) as emulator,
        workers(emulator, tmp_path / "slots", callers=1) as some,
    ):
        # With one caller each, a process holds one slot at most, and two are in line at any time.
        for _ in range(5):
            some.start()
        more(emulator, 30)
        for pid in some.pids[:2]:
            os.kill(pid, signal.SIGSTOP)
        more(emulator, 60)
        for pid in some.pids[:2]:
            os.kill(pid, signal.SIGCONT)
        more(emulator, 60)
        some.stop_all()
    assert emulator.stats.too_many == 0


async def test_a_stopped_process_that_holds_every_slot_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, ahead, clock = tmp_path / "slots", 0.0, time.monotonic
    with (
        emulated(people=100, think=3600, max_in_flight=3) as emulator,
        workers(emulator, place, callers=3) as some,
    ):
        pid = some.start()
        await until(lambda: emulator.stats.in_flight["clevertap"] == 3)
        os.kill(pid, signal.SIGSTOP)
        account = CleverTap(
            emulator.clevertap.account_id,
            emulator.clevertap.passcode,
            base_url=emulator.url,
            shared=place,
        )
        async with Session(clevertap=account) as session:
            with pytest.raises(RequestTimeout) as caught:
                await session.profiles.get(identity="user_1", deadline=0.05)
            told = f"it waited for one of 3 slots, held by the process {pid}; no request was sent"
            assert str(caught.value).endswith(told)
            (advice,) = caught.value.__notes__
            assert f"look into the process {pid}: one that is stopped keeps" in advice
            assert caplog.messages == []
            for name, value in emulator.environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("ALTAPROFILES_SHARED", str(place))
            monkeypatch.delenv("ALTA_TOKEN")
            monkeypatch.setattr(examine, "QUICK", Retry(deadline=0.05))
            findings = [one async for one in examine.examine(App(), {})]
            pids = ", ".join(map(str, sorted((pid, os.getpid()))))
            users = f"shared by 2 processes now ({pids}), with 3 slots in use by the process {pid}"
            assert any(users in one.text for one in findings)
            assert f"held by the process {pid}" in findings[-1].text
            assert findings[-1].advice == advice.rstrip(".")
            monkeypatch.setattr(time, "monotonic", lambda: clock() + ahead)
            call = asyncio.ensure_future(session.profiles.get(identity="user_1"))
            await until(lambda: session._clevertap_service().load.waiting == 1)  # noqa: SLF001
            ahead = 11
            await until(lambda: caplog.messages, during=call)
            (warning,) = caplog.messages
            held = f"the same requests have held every slot, those of the process {pid}; "
            assert f"{held}a process that is stopped keeps its slots" in warning
            some.kill(pid)
            await until(lambda: lookups(emulator) == 4, during=call)
            call.cancel()


async def test_no_process_is_suspected_whose_requests_come_and_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, ahead, clock = tmp_path / "slots", 0.0, time.monotonic
    with (
        emulated(people=100, think=0.1, max_in_flight=1) as emulator,
        workers(emulator, place, callers=1, most=1) as some,
    ):
        for _ in range(4):
            some.start()
        more(emulator, 1)
        account = CleverTap(
            emulator.clevertap.account_id,
            emulator.clevertap.passcode,
            base_url=emulator.url,
            max_in_flight=1,
            shared=place,
        )
        monkeypatch.setattr(time, "monotonic", lambda: clock() + ahead)
        async with Session(clevertap=account) as session:
            service = session._clevertap_service()  # noqa: SLF001
            has_waited = False

            async def wait_for_two_others(call: asyncio.Future[Profile | None]) -> bool:
                await until(lambda: service.load.waiting == 1 or call.done())
                before = lookups(emulator)
                await until(lambda: lookups(emulator) >= before + 2 or call.done())
                return service.load.waiting == 1

            while not has_waited:
                call = asyncio.ensure_future(session.profiles.get(identity="user_1"))
                if has_waited := await wait_for_two_others(call):
                    # It seems to have waited for long, and others have had their turns meanwhile.
                    ahead = 11
                await call
        assert caplog.messages == []
        some.stop_all()


ASKS = """
import asyncio, sys
from altaprofiles import CleverTap, RequestTimeout, Session
async def main():
    url, account, passcode, shared, deadline = sys.argv[1:]
    account = CleverTap(account, passcode, base_url=url, shared=shared, max_in_flight=1)
    async with Session(clevertap=account) as session:
        try:
            await session.profiles.get(identity="user_1", deadline=float(deadline))
        except RequestTimeout as error:
            print(error, *error.__notes__)
asyncio.run(main())
"""


def test_a_holder_in_another_container_is_told_from_one_of_the_same_number(tmp_path: Path) -> None:
    """Each is the first process of its own."""
    with emulated(people=100, think=3600, max_in_flight=1) as emulator:
        account = emulator.clevertap
        shared = tmp_path / "slots"
        asks = [sys.executable, "-c", ASKS, emulator.url, account.account_id, account.passcode]
        with started_apart([*asks, str(shared), "3600"]):
            wait_until(lambda: emulator.stats.in_flight["clevertap"] == 1)
            told = run_apart([*asks, str(shared), "0.05"]).stdout
            holder = "a process in another container (its number 1)"
            assert f"it waited for one of 1 slot, held by {holder}; no request was sent" in told
            assert f"look into {holder}: one that is stopped keeps" in told
            (slot,) = (path for path in shared.rglob("*.slot") if path.stat().st_size)
            signature = slot.read_bytes()
            # For earlier versions, which sign with no more.
            assert signature[:4] == (1).to_bytes(4, "little")
            use = use_of(shared, common_name(account.url, account.owner))
            assert (use.holders.own, use.holders.pids, use.holders.apart) == (False, [], [1])
            for pid, found in ((1, ([1], [])), (os.getpid(), ([], [os.getpid()]))):
                for rest in (b"", signature[4:] if pid != 1 else b""):
                    slot.write_bytes(pid.to_bytes(4, "little") + rest)
                    some = use_of(shared, common_name(account.url, account.owner)).holders
                    assert (some.own, (some.pids, some.apart)) == (False, found)


def test_a_forked_child_has_files_of_its_own(tmp_path: Path) -> None:
    with (
        emulated(people=100, think=THINK, max_in_flight=3) as emulator,
        workers(emulator, tmp_path / "slots", callers=6) as some,
    ):
        # It forks while it has requests in flight.
        parent = some.start(forks=True)
        child = some.forked()
        more(emulator, 60)
        assert emulator.stats.too_many == 0
        some.kill(parent)
        # The child keeps none of the locks of its parent.
        wait_until(lambda: emulator.stats.in_flight["clevertap"] == 0 or lookups(emulator) > 200)
        wait_until(lambda: emulator.stats.in_flight["clevertap"] == 3)
        account = common_name(emulator.url, emulator.clevertap.account_id)
        assert use_of(tmp_path / "slots", account).pids == [child]
        assert some.stop(child)["done"] > 0


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can be others")
def test_users_of_a_group_keep_one_cap() -> None:
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    shared = place / "slots"
    shared.mkdir()
    os.chown(shared, 0, 54321)
    shared.chmod(0o2770)
    try:
        with (
            emulated(people=100, think=THINK, max_in_flight=3) as emulator,
            workers(emulator, shared, callers=6, group=54321) as some,
        ):
            some.start()
            for user in (65534, 1234):
                some.start(user=user)
            more(emulator, 150)
            done = [one["done"] for one in some.stop_all()]
    finally:
        shutil.rmtree(place)
    assert min(done) > 0
    assert emulator.stats.peak_in_flight["clevertap"] == 3
    assert emulator.stats.too_many == 0


def test_processes_that_count_in_different_ways_refuse_to_share(tmp_path: Path) -> None:
    with (
        emulated(people=100, think=THINK) as emulator,
        workers(emulator, tmp_path / "slots") as some,
    ):
        pid = some.start(most=3)
        auto = CleverTap(
            emulator.clevertap.account_id,
            "passcode",
            base_url=emulator.url,
            max_in_flight="auto",
            shared=tmp_path / "slots",
        )

        async def opened() -> None:
            async with Session(clevertap=auto):
                raise AssertionError("it is open")

        with pytest.raises(ConfigurationError) as raised:
            asyncio.run(opened())
        some.stop_all()
    message = str(raised.value)
    assert message.startswith(f"max_in_flight: the process {pid} shares the account in ")
    assert message.endswith("use 'auto' in all processes, or a number in all of them")
