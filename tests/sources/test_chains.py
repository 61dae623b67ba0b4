"""Cursor chains with the emulator: every person exactly once, even if the service fails."""

from __future__ import annotations

import gc
import pickle
import traceback
import weakref
from collections import Counter
from datetime import UTC, datetime, time, timedelta

import pytest

from altaprofiles import (
    BadRequest,
    CursorExpired,
    EventQuery,
    InvalidArgument,
    NotReady,
    Page,
    Profile,
    Retry,
    ServerError,
    Session,
    Unauthorized,
)
from altaprofiles.credentials import CleverTap
from altaprofiles.emulator import Emulator, Fault

from ..support.sessions import EVENT, QUICK, RANGE, delivered, expected, session_for

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("windows", [1, 2, 5, 31, 400])
async def test_everyone_is_delivered_exactly_once(windows: int) -> None:
    async with Emulator(people=400, seed=1) as emulator, session_for(emulator) as session:
        query = session.profiles.by_event(EVENT, **RANGE, windows=windows, batch_size=46)
        assert delivered([person async for person in query]) == expected(emulator)
        assert emulator.stats.requests["open_chain"] == min(windows, 31)


async def test_without_distinct_people_of_several_days_come_several_times() -> None:
    async with Emulator(people=200, seed=1) as emulator, session_for(emulator) as session:
        query = session.profiles.by_event(EVENT, **RANGE, windows=4, distinct=False)
        found = delivered([person async for person in query])
        assert found.keys() == expected(emulator).keys()
        assert max(found.values()) > 1


LOSSLESS: list[Fault] = [
    fault
    for fault in Fault
    if fault not in (Fault.COUNTING_NOT_READY, Fault.CUT_SHORT, Fault.TEXT_ERRORS)
]
"""Every fault but that of counts, the one that only a count finds, and that of refused queries."""

OTHERS = {Fault.TEXT_CODES: {Fault.NOT_READY: 0.4}}
"""Faults that must occur as well, for a fault to show."""


@pytest.mark.parametrize("fault", LOSSLESS)
async def test_each_fault_alone_costs_nobody(fault: Fault) -> None:
    faults = {fault: 0.4, **OTHERS.get(fault, {})}
    async with Emulator(people=300, seed=2, faults=faults) as emulator:
        async with session_for(emulator) as session:
            query = session.profiles.by_event(EVENT, **RANGE, windows=2, batch_size=46)
            assert delivered([person async for person in query]) == expected(emulator)
        assert emulator.stats.faults[fault] > 0
        assert emulator.stats.peak_in_flight["clevertap"] <= 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_all_faults_together_cost_nobody(seed: int) -> None:
    faults: dict[str, float] = dict.fromkeys(LOSSLESS, 0.08)
    async with Emulator(people=400, seed=seed, faults=faults) as emulator:
        async with session_for(emulator) as session:
            query = session.profiles.by_event(EVENT, **RANGE, windows=3, batch_size=46)
            assert delivered([person async for person in query]) == expected(emulator)
            ids = [
                identity
                for index in range(150)
                if (identity := emulator.population.identity(index)) is not None
            ]
            lookups = [lookup async for lookup in session.profiles.get_many(ids, by="identity")]
            assert Counter(lookup.key for lookup in lookups) == Counter(ids)
            assert all(lookup.value and lookup.value.identity == lookup.key for lookup in lookups)
            bound = [lookup async for lookup in session.cdp.get_many(ids, by="user_id")]
            assert {lookup.key: sorted(lookup.value or ()) for lookup in bound} == {
                key: sorted(emulator.bindings.by_user(key) or ()) for key in ids
            }
            assert not [lookup for lookup in bound if lookup.error]
        stats = emulator.stats
        assert stats.peak_in_flight["clevertap"] <= 3
        assert stats.too_many == 0
        assert stats.overlapping_cursors == 0


async def test_records_arrive_as_they_were_sent() -> None:
    async with Emulator(people=300, seed=3) as emulator, session_for(emulator) as session:
        async for page in session.profiles.by_event(EVENT, **RANGE, batch_size=69).pages():
            for profile in page.profiles:
                assert profile.raw in page.raw


async def test_flags_reach_the_service() -> None:
    async with Emulator(people=100, seed=3) as emulator, session_for(emulator) as session:
        lean = session.profiles.by_event(EVENT, **RANGE, events=False, profile=False)
        async for person in lean:
            assert not person.events
            assert not person.profile_data
        rich = session.profiles.by_event(EVENT, **RANGE, app=True)
        devices = [device async for person in rich for device in person.platform_info]
        assert any(device.app_version for device in devices)


async def test_a_chain_goes_on_from_a_kept_cursor_in_another_session() -> None:
    async with Emulator(people=400, seed=4) as emulator:
        people: list[Profile] = []
        kept: str | None = None
        async with session_for(emulator) as session:
            async for page in session.profiles.by_event(EVENT, **RANGE, batch_size=46).pages():
                people += page.profiles
                kept = page.next_cursor
                if len(people) > 100:
                    break
        async with session_for(emulator) as session:
            rest = session.profiles.by_event(EVENT, **RANGE, cursor=kept)
            people += [person async for person in rest]
        assert delivered(people) == expected(emulator)
        assert emulator.stats.requests["open_chain"] == 1


async def test_pages_say_how_to_ask_for_them_again() -> None:
    async with Emulator(people=100, seed=4) as emulator, session_for(emulator) as session:
        query = session.profiles.by_event(EVENT, **RANGE, batch_size=23)
        pages = [page async for page in query.pages()]
        assert [page.next_cursor for page in pages] == [
            *(page.cursor for page in pages[1:]),
            None,
        ]
        again = await anext(
            session.profiles.by_event(EVENT, **RANGE, cursor=pages[1].cursor).pages()
        )
        assert isinstance(again, Page)
        assert again.raw == pages[1].raw


async def test_pages_name_the_window_whose_cursor_they_carry() -> None:
    async with Emulator(people=400, seed=4) as emulator:
        people: list[Profile] = []
        left: dict[tuple[int, int], str | None] = {}
        async with session_for(emulator) as session:
            query = session.profiles.by_event(EVENT, **RANGE, windows=3, batch_size=46)
            pages = query.pages()
            while len(left) < 3 or len(people) < 200:
                page = await anext(pages)
                assert page.window is not None
                people += page.profiles
                left[page.window] = page.next_cursor
            await pages.aclose()
            assert sorted(left) == [
                (20260101, 20260110),
                (20260111, 20260120),
                (20260121, 20260131),
            ]
            for cursor in filter(None, left.values()):
                rest = session.profiles.by_event(EVENT, **RANGE, cursor=cursor)
                async for page in rest.pages():
                    assert page.window is None
                    people += page.profiles
        assert delivered(people).keys() == expected(emulator).keys()


async def test_a_chain_that_breaks_off_names_the_cursor_to_go_on_from() -> None:
    async with Emulator(people=300, seed=7) as emulator, session_for(emulator) as session:
        people: list[Profile] = []
        query = session.profiles.by_event(EVENT, **RANGE, batch_size=46)
        with pytest.raises(ServerError) as caught:
            async for person in query:
                people.append(person)
                emulator.faults = {Fault.SERVER_ERROR: 1.0}
        emulator.faults = {}
        said = "".join(traceback.format_exception(pickle.loads(pickle.dumps(caught.value))))  # noqa: S301
        cursor = said.split("cursor='")[1].split("'")[0]
        rest = session.profiles.by_event(EVENT, **RANGE, cursor=cursor)
        people += [person async for person in rest]
        assert delivered(people) == expected(emulator)


async def test_an_iteration_can_be_repeated() -> None:
    async with Emulator(people=60, seed=4) as emulator, session_for(emulator) as session:
        query = session.profiles.by_event(EVENT, **RANGE)
        for _ in range(2):
            assert delivered([person async for person in query]) == expected(emulator)


async def test_epoch_seconds_are_sent_as_they_are() -> None:
    async with Emulator(people=100, seed=5) as emulator, session_for(emulator) as session:
        start, end = 1767225600, 1767225600 + 31 * 86400 - 1
        query = session.profiles.by_event(EVENT, start=start, end=end, windows=3)
        found = [person async for person in query]
        assert len(found) == len(emulator.population.active(EVENT, start, end))


async def test_days_that_are_all_to_come_are_refused_before_a_request() -> None:
    day = datetime.now(UTC).date() + timedelta(days=3)
    seconds = int(datetime.combine(day, time(12), UTC).timestamp())
    async with Emulator(people=20) as emulator, session_for(emulator) as session:
        for start, end in ((day, day + timedelta(days=7)), (seconds, seconds + 10)):
            words = f"^start: {day} is in the future, as it is .*; pass days that have begun"
            with pytest.raises(InvalidArgument, match=words):
                await session.profiles.count(EVENT, start=start, end=end)
            with pytest.raises(InvalidArgument, match=words):
                session.profiles.by_event(EVENT, start=start, end=end)
        assert not any(emulator.stats.requests.values())
        # The last days of a range may be to come, and so may a part of it.
        query = EventQuery.of(EVENT, 20260101, day + timedelta(days=700))
        assert query.start is not None
        assert query.end is not None
        people = await session.profiles.count(EVENT, start=query.start, end=query.end)
        parts = [session.profiles.by_query(part) for part in query.split(3)]
        assert people == len(delivered([one for part in parts async for one in part])) > 0


async def test_a_last_day_to_come_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    day = datetime.now(UTC).date() + timedelta(days=3)
    async with Emulator(people=20) as emulator, session_for(emulator) as session:
        await session.profiles.count(EVENT, **RANGE)
        session.profiles.by_event(EVENT, **RANGE)
        assert not caplog.messages
        await session.profiles.count(EVENT, start=20260101, end=day)
        session.profiles.by_event(EVENT, start=20260101, end=day)
    for message, outcome in zip(caplog.messages, ("counted", "returned"), strict=True):
        assert message.startswith(f"the last day, {day}, is in the future, as it is ")
        assert message.endswith(f"; nobody of days to come is {outcome}")


async def test_a_count_is_polled_until_it_is_there() -> None:
    async with Emulator(people=200, seed=6) as emulator, session_for(emulator) as session:
        for event in ("App Launched", "Charged", "Product Viewed"):
            counted = await session.profiles.count(event, **RANGE)
            assert counted == len(emulator.population.active(event, 20260101, 20260131))
        assert session.stats.not_ready > 0


async def test_an_expired_cursor_says_what_to_do() -> None:
    async with (
        Emulator(people=50, cursor_lifetime=0) as emulator,
        session_for(emulator) as session,
    ):
        with pytest.raises(CursorExpired, match="open a new chain"):
            await anext(aiter(session.profiles.by_event(EVENT, **RANGE)))


@pytest.mark.parametrize(
    ("event", "words"),
    [("Notification Sent", "Export not allowed"), ("app launched", "Invalid event")],
)
async def test_refused_events_carry_the_words_of_the_service(event: str, words: str) -> None:
    async with (
        Emulator(people=5, notification_exports=False) as emulator,
        session_for(emulator) as session,
    ):
        with pytest.raises(BadRequest, match=words):
            await anext(aiter(session.profiles.by_event(event, **RANGE)))
        assert session.stats.requests == 1


async def test_wrong_credentials_are_asked_once_and_name_the_region() -> None:
    async with Emulator(people=5) as emulator:
        account = CleverTap("nobody", "no-such-passcode", base_url=emulator.url)
        async with Session(clevertap=account, retry=QUICK) as session:
            with pytest.raises(Unauthorized, match="wrong region"):
                await anext(aiter(session.profiles.by_event(EVENT, **RANGE)))
            assert session.stats.requests == 1


async def test_an_outage_ends_after_the_attempts_and_not_as_the_end_of_the_chain() -> None:
    async with Emulator(people=300, seed=7) as emulator, session_for(emulator) as session:
        pages = session.profiles.by_event(EVENT, **RANGE, batch_size=46, prefetch=0).pages()
        first = await anext(pages)
        emulator.faults = {Fault.SERVER_ERROR: 1.0}
        before = session.stats.requests
        with pytest.raises(ServerError):
            await anext(pages)
        assert session.stats.requests - before == QUICK.attempts
        emulator.faults = {}
        rest = session.profiles.by_event(EVENT, **RANGE, cursor=first.next_cursor)
        people = first.profiles + [person async for person in rest]
        assert delivered(people) == expected(emulator)


@pytest.mark.usefixtures("clock")
async def test_pages_that_never_get_ready_are_given_up_on() -> None:
    patience = Retry(base_delay=0.001, max_delay=0.01, ready_timeout=0.2, attempts=1)
    async with Emulator(people=50, faults={Fault.NOT_READY: 1.0}) as emulator:
        async with session_for(emulator, retry=patience) as session:
            with pytest.raises(NotReady):
                await anext(aiter(session.profiles.by_event(EVENT, **RANGE)))
            assert session.stats.not_ready > 2


async def test_one_window_that_fails_ends_the_others_and_is_raised() -> None:
    async with Emulator(people=300, seed=8) as emulator, session_for(emulator) as session:
        pages = session.profiles.by_event(
            EVENT, **RANGE, windows=3, batch_size=23, prefetch=0
        ).pages()
        await anext(pages)
        emulator.faults = {Fault.EMPTY: 1.0}
        with pytest.raises(Exception, match=r"CleverTap|malformed|truncated"):
            async for _ in pages:
                pass


async def test_chains_that_fail_leave_nothing_in_memory() -> None:
    """An error holds frames of its walk. The garbage collector must be able to free them."""
    errors: list[weakref.ref[ServerError]] = []
    retry = Retry(attempts=1)
    async with (
        Emulator(people=30, seed=2) as emulator,
        session_for(emulator, retry=retry) as session,
    ):
        for _ in range(3):
            emulator.faults = {}
            pages = session.profiles.by_event(EVENT, **RANGE, batch_size=23, prefetch=0).pages()
            await anext(pages)
            emulator.faults = {"server_error": 1.0}
            with pytest.raises(ServerError) as caught:
                while True:
                    await anext(pages)
            errors.append(weakref.ref(caught.value))
            del caught, pages
    gc.collect()
    assert [error() for error in errors] == [None] * 3
