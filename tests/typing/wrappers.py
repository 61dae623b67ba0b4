"""The public surface as libraries on top of it use it: wrappers, subclasses, protocols, fakes.

Not run: mypy --strict and pyright (strict) read it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Any, Protocol, TypeVar, Unpack, assert_type

import altaprofiles
from altaprofiles import (
    Alta,
    Attempt,
    BlockingSession,
    By,
    Cdp,
    CdpBy,
    CdpUser,
    CleverTap,
    Customer,
    Day,
    EventProfiles,
    EventProfilesOptions,
    ExportOptions,
    ExportReport,
    Filter,
    FilterValue,
    Flatten,
    Format,
    Hook,
    Items,
    Key,
    Keys,
    Kind,
    Lookup,
    LookupOptions,
    LookupReport,
    MaxInFlight,
    Operator,
    Profile,
    Profiles,
    Progress,
    Report,
    Retry,
    SecretSource,
    Session,
    SessionOptions,
    SyncOptions,
    SyncReport,
    Timeout,
    ViewOptions,
    Write,
)

V = TypeVar("V")


def connect(passcode: str, slots: MaxInFlight = 3, **options: Unpack[SessionOptions]) -> Session:
    account = CleverTap("W9R", passcode, max_in_flight=slots)
    return Session(clevertap=account, alta=Alta("token"), **options)


def of_a_vault(name: str, secret: SecretSource, **options: Unpack[SessionOptions]) -> Session:
    assert_type(CleverTap.from_env("SHOP_", passcode=secret), CleverTap)
    assert_type(Alta.from_env(token=secret, name=name), Alta)
    account = CleverTap.from_account(name, passcode=secret)
    return Session(clevertap=account, alta=Alta.from_account(name, token=secret), **options)


def web(session: Session, **options: Unpack[ViewOptions]) -> Session:
    return session.with_options(bulk=False) if not options else session.with_options(**options)


def unlimited(session: Session) -> Session:
    return session.with_options(retry=None, timeout=None, deadline=None, bulk=None, on_event=None)


async def person(session: Session, identity: str, deadline: float | None) -> Profile | None:
    return await session.profiles.get(identity=identity, deadline=deadline)


def blocking_view(session: BlockingSession, **options: Unpack[ViewOptions]) -> BlockingSession:
    return session.with_options(**options)


def charged(
    session: Session, start: Day, end: Day, **options: Unpack[EventProfilesOptions]
) -> EventProfiles:
    return session.profiles.by_event("Charged", start=start, end=end, **options)


async def nightly(
    session: Session, start: Day, end: Day, to: str, **options: Unpack[ExportOptions]
) -> ExportReport:
    return await session.export("Charged", start=start, end=end, to=to, **options)


async def found(
    session: Session, keys: Keys, by: By | CdpBy, to: str, **options: Unpack[LookupOptions]
) -> LookupReport:
    return await session.export_lookups(keys, by=by, to=to, **options)


async def kept(session: Session, since: Day, to: str, **options: Unpack[SyncOptions]) -> SyncReport:
    return await session.sync(["Charged"], since=since, to=to, **options)


def kept_in_a_script(
    session: BlockingSession, since: Day, to: str, **options: Unpack[SyncOptions]
) -> SyncReport:
    return session.sync(["Charged"], since=since, to=to, **options)


def condition(name: str, operator: Operator, value: FilterValue) -> Filter:
    return Filter(name, operator, value)


async def write(
    session: Session, to: str, format: Format, write: Write, flatten: Flatten
) -> Report:
    return await session.export(to=to, format=format, write=write, flatten=flatten)


def columns(names: Sequence[str], kind: Kind) -> Flatten:
    return dict.fromkeys(names, kind)


async def values(lookups: AsyncIterable[Lookup[V]]) -> AsyncIterator[tuple[Key, V]]:
    async for lookup in lookups:
        if lookup.value is not None:
            yield lookup.key, lookup.value


async def all_values(session: Session, keys: Items[Key]) -> None:
    people = values(session.profiles.get_many(keys, by="identity"))
    assert_type(people, AsyncIterator[tuple[Key, Profile]])
    users = values(session.cdp.get_many(keys, by="user_id"))
    assert_type(users, AsyncIterator[tuple[Key, dict[str, CdpUser]]])


class Audited(Session):
    """A subclass, which the class methods of `Session` return."""

    async def customers(self, profiles: Profiles, cdp: Cdp, key: Key) -> list[Customer]:
        assert_type(await profiles.get(identity=key), Profile | None)
        assert_type(await cdp.get(user_id=key), dict[str, CdpUser])
        return await self.who_is(identity=key)


assert_type(Audited.from_env(), Audited)
assert_type(Audited.from_env().with_options(deadline=2.0), Audited)


class People(Protocol):
    """The part of `Profiles` that a service needs, so that tests can pass something else."""

    async def get(self, *, identity: Key | None = None) -> Profile | None: ...

    def by_event(self, event: str, *, start: Day, end: Day) -> AsyncIterable[Profile]: ...


def service_of(session: Session) -> People:
    return session.profiles


def hooks() -> Sequence[Hook]:
    def log(attempt: Attempt) -> None:
        assert_type(attempt.operation, str)

    return [log, print]


class Metrics:
    """One callback for every kind of job."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        self.seen.append(progress)


async def with_metrics(session: Session) -> None:
    metrics = Metrics()
    await session.export(to="a.csv", on_progress=metrics)
    await session.export_lookups(["1"], by="email", to="b.csv", on_progress=metrics)
    await session.sync("Charged", since=20260101, to="c.duckdb", on_progress=metrics)
    connect("secret", "auto", retry=Retry(attempts=1), timeout=Timeout(), on_event=hooks())


def in_a_script(keys: Iterable[Key]) -> dict[Key, Any]:
    with altaprofiles.blocking(lambda: connect("secret")) as session:
        assert_type(session, BlockingSession)
        assert_type(session.with_options(deadline=1.0), BlockingSession)
        people = {one.key: one.value for one in session.profiles.get_many(keys, by="email")}
        assert_type(people, dict[Key, Profile | None])
        return {key: person for key, person in people.items() if person}


async def refused(session: Session, blocked: BlockingSession) -> None:
    """Calls that both checkers refuse. An ignore comment without an error fails as well."""
    await session.export(to="a", format="parket")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.export(to="a.csv", write="insert")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.export(to="a.csv", on_shortfall="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.export(to="a.csv", windows="all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.export(to="a.csv", cdp_by="identity")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.export_lookups([1], by="phone", to="a.csv")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.sync("A", since=20260101, to="a.duckdb", format="duck")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    blocked.export(to="a", format="parket")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    session.with_options(trust_env=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    connect("secret", proxies="none")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    for _ in session.profiles.everyone():  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass
    await session.profiles.everyone()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    with session:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    async with blocked:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
