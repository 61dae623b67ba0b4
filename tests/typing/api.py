"""The types of the public surface, as a type checker of a caller sees them.

Not run: mypy --strict and pyright (strict) read it. `assert_type` fails where a type changes.
Tables are left out, because pyarrow has no types.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, assert_type

import altaprofiles
from altaprofiles import (
    Alta,
    AltaProfilesError,
    AnonymousId,
    Attempt,
    BlockingEventProfiles,
    BlockingSession,
    CdpUser,
    ChainStatus,
    CleverTap,
    ConfigurationError,
    ConnectError,
    CursorExpired,
    Customer,
    DecodeError,
    EventProfiles,
    EventQuery,
    EventSummary,
    ExportProgress,
    ExportReport,
    Filter,
    Filters,
    Incomplete,
    Lookup,
    LookupProgress,
    LookupReport,
    NotReady,
    Page,
    Platform,
    Profile,
    Retry,
    Session,
    Stats,
    StatusError,
    Timeout,
    TransportError,
    parse_date,
    progress,
    windows,
)
from altaprofiles.emulator import Emulator, Recorder
from altaprofiles.notebook import Progress


def sessions() -> None:
    clevertap = CleverTap("id", "passcode", region="in1", max_in_flight=3)
    alta = Alta("token", requests_per_minute=100)
    assert_type(clevertap.url, str)
    assert_type(alta.url, str)
    assert_type(Alta("token", endpoint="gptbots.ai").endpoint, str | None)
    assert_type(Alta("token", "https://api.example.com").base_url, str | None)
    session = Session(
        clevertap=clevertap,
        alta=alta,
        retry=Retry(attempts=3, deadline=30.0),
        timeout=Timeout(connect=5.0),
        on_event=on_event,
        trust_env=True,
        ssl=ssl.create_default_context(),
        proxy="http://user:password@proxy.example:3128",
    )
    assert_type(session, Session)
    assert_type(Session.from_env(retry=Retry(attempts=1)), Session)
    assert_type(Session.from_env("SHOP_", retry=Retry(attempts=1)), Session)
    assert_type(Session.from_account("shop", timeout=Timeout(read=5)), Session)
    assert_type(CleverTap.from_account(), CleverTap)
    assert_type(Alta.from_env(prefix="SHOP_"), Alta)

    async def fetch() -> str:
        return "passcode"

    assert_type(CleverTap("id", fetch).passcode, str)
    assert_type(Alta(lambda: "token", name="support").account, str)
    assert_type(session.stats, Stats)
    assert_type(session.stats.requests, int)
    assert_type(altaprofiles.__version__, str)


def on_event(attempt: Attempt) -> None:
    assert_type(attempt.seconds, float)
    assert_type(attempt.status, int | None)
    assert_type(attempt.error, AltaProfilesError | None)
    assert_type(attempt.delay, float | None)


async def single_calls(session: Session) -> None:
    async with session as opened:
        assert_type(opened, Session)
    profile = await session.profiles.get(identity=5555555555)
    assert_type(profile, Profile | None)
    if profile is not None:
        assert_type(profile.identity, str | None)
        assert_type(profile.all_identities, list[str])
        assert_type(profile.profile_data, dict[str, Any])
        assert_type(profile.events, dict[str, EventSummary])
        assert_type(profile.events["Charged"].first_seen_at, datetime | None)
        assert_type(profile.platform_info, list[Platform])
        assert_type(profile.object_ids, list[str])
        assert_type(profile.last_seen, int | None)
        assert_type(profile.last_seen_at, datetime | None)
        assert_type(profile.platform_info[0].last_seen, int | None)
        assert_type(profile.platform_info[0].last_seen_at, datetime | None)
        assert_type(profile.platform_info[0].location, tuple[float, float] | None)
        assert_type(profile.person_key, str | None)
        assert_type(profile.raw, bytes)
        assert_type(profile.encode(), bytes)
    users = await session.cdp.get(user_id="BC123", anonymous_id="a1")
    assert_type(users, dict[str, CdpUser])
    assert_type(users["BC123"].anonymous_ids, list[AnonymousId])
    count = await session.profiles.count("Charged", start=date(2026, 1, 1), end=20260131)
    assert_type(count, int)
    assert_type(await session.profiles.count(), int)
    assert_type(parse_date("$D_0"), datetime)


async def many(session: Session) -> None:
    profiles = session.profiles.get_many(["1", 2], by="identity", concurrency=4, ordered=True)
    assert_type(profiles, AsyncGenerator[Lookup[Profile], None])
    async for lookup in profiles:
        assert_type(lookup.key, str | int)
        assert_type(lookup.value, Profile | None)
        assert_type(lookup.error, AltaProfilesError | None)
    async for binding in session.cdp.get_many(["1"], by="anonymous_id"):
        assert_type(binding.value, dict[str, CdpUser] | None)


async def chains(session: Session) -> None:
    people = session.profiles.by_event("Charged", start="2026-01-01", end=20260131, windows=3)
    assert_type(people, EventProfiles)
    async for person in people:
        assert_type(person, Profile)
    async for page in people.pages(decode=False):
        assert_type(page, Page)
        assert_type(page.profiles, list[Profile])
        assert_type(page.records, list[bytes])
        assert_type(page.next_cursor, str | None)
        assert_type(page.window, tuple[int, int] | None)
        assert_type(page.encode(), bytes)
    async for customer in session.with_cdp(people, ordered=True):
        assert_type(customer, Customer)
        assert_type(customer.profile, Profile | None)
        assert_type(customer.cdp, dict[str, CdpUser])
    await session.with_cdp(people).aclose()
    assert_type(await session.who_is(anonymous_id="aId3"), list[Customer])


async def filters(session: Session) -> None:
    amount = Filter("Amount", "greater_than", 100)
    assert_type(amount, Filter)
    assert_type(amount.name, str)
    of_event = [amount, Filter("Amount", "lte", 99.5), Filter("Gift", "equals", True)]
    of_profile = (Filter("Email", "exists"), Filter("Plan", "equals", ["pro", "team"]))
    query = {"advanced_query": {"did_all": [{"event_name": "Charged"}]}}
    people = session.profiles.by_event(
        "Charged",
        start=20260101,
        end=20260131,
        event_properties=of_event,
        profile_fields=of_profile,
        query=query,
    )
    assert_type(people, EventProfiles)
    everyone = session.profiles.everyone(profile_fields=of_profile, query=query, events=False)
    whole = EventQuery.of("Charged", date(2026, 1, 1), "2026-01-31", filters=Filters.of(of_event))
    assert_type(whole.split(3), list[EventQuery])
    assert_type(whole.window, tuple[int, int] | None)
    assert_type(session.profiles.by_query(whole, distinct=False, prefetch=1), EventProfiles)
    assert_type(windows("2026-01-01", 20260131, 3), list[tuple[int, int]])
    assert_type(everyone, EventProfiles)
    assert_type(await session.profiles.count(profile_fields=of_profile), int)
    report = await session.export(to="everyone.csv", profile_fields=of_profile)
    assert_type(report.chains[0].event, str | None)
    assert_type(report.chains[0].start, int | None)


def on_export(progress: ExportProgress) -> None:
    assert_type(progress.stage, Literal["reading", "joining", "finishing"])
    assert_type(progress.joined, int | None)
    assert_type(progress.chains, list[ChainStatus])
    assert_type(progress.done, int)
    assert_type(progress.goal, int | None)
    assert_type(progress.pace, float)
    assert_type(progress.eta, float | None)
    assert_type(progress.outcomes, dict[str, int])


def on_lookups(progress: LookupProgress) -> None:
    assert_type(progress.stage, Literal["reading", "asking", "joining", "finishing"])
    assert_type(progress.answered, int)


async def exports(session: Session) -> None:
    report = await session.export(
        ["Charged", "Refunded"],
        start=date(2026, 1, 1),
        end=date(2026, 1, 31),
        to=Path("people.parquet"),
        windows="auto",
        flatten=["plan"],
        count=True,
        on_shortfall="warn",
        on_progress=on_export,
    )
    assert_type(report, ExportReport)
    assert_type(report.people, int)
    assert_type(report.sha256, str | None)
    assert_type(report.counted, dict[str, int] | None)
    assert_type(report.warnings, list[str])
    found = await session.export_lookups(
        Path("ids.csv"), by="email", to="found.ndjson", on_progress=on_lookups
    )
    assert_type(found, LookupReport)
    assert_type(found.not_found_file, str | None)
    await session.export("Charged", start=1, end=2, to="x.csv", on_progress=Progress())
    await session.export("Charged", start=1, end=2, to="x.csv", on_progress=print)
    log = progress.log(logging.getLogger("nightly"), every=60, level=logging.DEBUG)
    assert_type(log, progress.Log)
    await session.export("Charged", start=1, end=2, to="x.csv", on_progress=log)
    await session.export_lookups(["7"], by="email", to="x.csv", on_progress=log)
    await session.sync("Charged", since="2026-01-01", to="x.duckdb", on_progress=log)
    assert_type(report.summary, list[tuple[str, str]])


def errors(error: AltaProfilesError) -> None:
    if isinstance(error, StatusError):
        assert_type(error.code, int | str | None)
        assert_type(error.retry_after, float | None)
        assert_type(error.excerpt, str)
    elif isinstance(error, DecodeError):
        assert_type(error.path, str)
        assert_type(error.api, str | None)
        assert_type(error.operation, str | None)
    elif isinstance(error, ConfigurationError):
        assert_type(error.value, object)
    elif isinstance(error, TransportError):
        assert_type(error.detail, str)
    if isinstance(error, ConnectError):
        assert_type(error.permanent, bool)
        assert_type(error.untrusted, bool)
    elif isinstance(error, CursorExpired):
        assert_type(error.message, str)
    elif isinstance(error, NotReady):
        assert_type(error.retry_after, float | None)
    elif isinstance(error, Incomplete):
        assert_type(list(error.missing), list[str])


async def emulated() -> None:
    async with Emulator(people=10) as emulator:
        assert_type(emulator.clevertap, CleverTap)
        assert_type(emulator.alta, Alta)
        assert_type(emulator.url, str)
    bindings = {"ann": ["a1"]}
    async with Emulator(records=[{"identity": "ann"}], bindings=bindings) as emulator:
        assert_type(emulator.add({"identity": 7}, bindings={"7": ("a2",)}), None)
        assert_type(emulator.faults, Mapping[str, float])
        emulator.faults = {"not_ready": 0.5}
        emulator.passcode = emulator.token = "new"
    async with Recorder("run.ndjson", alta=Alta("token")) as recorder:
        assert_type(recorder.alta, Alta)
        assert_type(recorder.environment, dict[str, str])
        assert_type(recorder.recorded, int)
    Emulator(replay=Path("run.ndjson"))


async def refused(session: Session) -> None:
    """Calls that both checkers refuse. An ignore comment without an error fails as well."""
    session.profiles.get_many(["1"], by="user_id")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    session.cdp.get_many(["1"], by="email")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.profiles.get("5555555555")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Filter("Amount", "bigger", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Filter("Amount", "equals", {"a": 1})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    session.profiles.by_query("Charged")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    EventQuery.of("Charged", 20260101.0, 20260131)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    windows(None, 20260131, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    session.profiles.everyone(profile_fields=["a"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    session.profiles.everyone(start=20260101)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    CleverTap(account_id="id")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert altaprofiles.Sessions  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def blocking_sessions() -> None:
    with altaprofiles.blocking(Session.from_env) as session:
        assert_type(session, BlockingSession)
        assert_type(session.profiles.get(identity="5555555555"), Profile | None)
        assert_type(session.profiles.count("Charged", start=20260101, end=20260131), int)
        people = session.profiles.by_event("Charged", start=20260101, end=20260131)
        assert_type(people, BlockingEventProfiles)
        for person in people:
            assert_type(person, Profile)
        assert_type(next(people.pages()), Page)
        assert_type(next(session.profiles.get_many([1], by="identity")), Lookup[Profile])
        assert_type(session.cdp.get(user_id="u1"), dict[str, CdpUser])
        assert_type(next(session.cdp.get_many(["u1"], by="user_id")), Lookup[dict[str, CdpUser]])
        assert_type(next(session.with_cdp(people)), Customer)
        assert_type(session.who_is(identity="5555555555"), list[Customer])
        assert_type(
            session.export("Charged", start=20260101, end=20260131, to="p.ndjson"), ExportReport
        )
        assert_type(session.export_lookups("ids.txt", by="identity", to="p.csv"), LookupReport)
        session.profiles.get(id="5555555555")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
