"""`session.profiles`: CleverTap's people, by event, by filters and by ID.

Vendor facts are from CleverTap's pages "Get User Profiles",
https://developer.clevertap.com/docs/get-user-profiles-api, and "CleverTap Query Language",
https://developer.clevertap.com/docs/clevertap-query-language; `wire.clevertap` and `wire.language`
cite each rule.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from msgspec import UNSET
from msgspec import UnsetType as _UnsetType

from .base.calls import named, naming
from .base.checks import NONE_GIVEN, check_flag, check_whole
from .base.zones import latest_day
from .errors import InvalidArgument
from .flow.fanout import Items
from .flow.lifetime import Reading
from .flow.results import AsyncOnly, Results
from .flow.slices import ITEMS, finish
from .http.engine import Engine
from .http.service import Service, account_of
from .models import Key, Lookup, Page, Profile
from .models.page import new_people
from .models.people import Distinct
from .sources.chains import COUNT, PAGES, Chains
from .sources.lookups import PROFILES, Lookups
from .wire.clevertap import By
from .wire.days import Day
from .wire.filters import Filter
from .wire.language import Filters
from .wire.pages import Pages
from .wire.query import BATCH_SIZE, EventQuery, check_cursor

__all__ = ["EventProfiles", "Profiles"]

logger = logging.getLogger("altaprofiles")


class Profiles:
    """The people of one CleverTap account. Use it as `session.profiles`."""

    def __init__(self, engine: Engine, service: Callable[[], Service]) -> None:
        self._engine = engine
        self._service = service

    def __repr__(self) -> str:
        return f"Profiles({account_of(self._service)})"

    @named(PROFILES.name)
    async def get(
        self,
        *,
        identity: Key | None = None,
        email: str | None = None,
        object_id: str | None = None,
        deadline: float | _UnsetType | None = UNSET,
    ) -> Profile | None:
        """Return the person with this identifier, or None when the service knows none.

        Pass exactly one identifier ("Get User Profiles", Download User Profiles by ID).

        Args:
            identity: the customer's own ID of the person.
            email: the person's email address.
            object_id: CleverTap's ID of one of the person's devices.
            deadline: longest duration of the call in seconds, with all waits and retries; by
                default that of `with_options`, else `Retry.deadline`; None for the latter. It ends
                in `RequestTimeout`, or in the last failure if no time is left to try again. With 0
                or less it ends at once, and nothing is sent.

        Raises:
            ConfigurationError: not exactly one identifier is given, it is empty or holds a control
                character, or the session cannot be used. Nothing was sent.
            Unauthorized: the credentials or the region are wrong.
            AltaProfilesError: the last attempt failed in another way.

        >>> person = await session.profiles.get(identity="5555555555")
        >>> person.profile_data if person else "nobody"
        {'favoriteFood': 'pizza'}
        """
        given: list[tuple[By, Key]] = [
            (by, value)
            for by, value in _pairs(identity=identity, email=email, object_id=object_id)
            if value is not None
        ]
        if len(given) != 1:
            names = ", ".join(by for by, _ in given) or NONE_GIVEN
            raise InvalidArgument(f"identity, email, object_id: pass exactly one, got {names}")
        by, value = given[0]
        service = self._service()
        with self._engine.within(deadline) as engine:
            return await Lookups(engine, service, PROFILES).get(by, value)

    @named(PROFILES.name)
    def get_many(
        self,
        keys: Items[Key],
        *,
        by: By,
        concurrency: int | None = None,
        ordered: bool = False,
    ) -> AsyncGenerator[Lookup[Profile], None]:
        """Yield one `Lookup` for each of `keys`, repeated keys included.

        Results arrive as they complete, or in input order with `ordered`. `keys` may be any
        iterable or async iterable, even an endless one: at most four keys per worker are read
        ahead. A key that fails or is invalid has a `lookup.error`, and the others continue. So do
        they in an outage, each with its retries; `session.export_lookups` stops there after ten
        failures in a row. The results can be read once: after their end, call it again.

        Args:
            keys: identifiers, as text or int. A missing value or a blank text has a result with an
                `error`, as each key has one result; `export_lookups` skips it. In pandas
                `keys[keys.str.strip() != ""].dropna()` is text without them.
            by: the kind of identifier: "identity", "email" or "object_id".
            concurrency: lookups at work at once, beside those that wait for a retry; by default
                the account's `max_in_flight`. The requests in flight never exceed that cap.
            ordered: yield results in the order of `keys`. Those that arrive early wait in memory,
                so that a key that is retried holds up no other: up to 10,000 results or 32 MB,
                beside the four per worker. Beyond that, lookups pause until the late key is done.

        Raises:
            ConfigurationError: an argument cannot work, or the session cannot be used.
            Unauthorized, Forbidden: the credentials are refused, which would fail every key.

        >>> async for lookup in session.profiles.get_many(["5555555555", "nobody"], by="identity"):
        ...     print(lookup.key, lookup.value)
        """
        return self._lookups().get_many(keys, by=by, concurrency=concurrency, ordered=ordered)

    @named(PAGES)
    def by_event(
        self,
        event: str,
        *,
        start: Day,
        end: Day,
        event_properties: Sequence[Filter] = (),
        profile_fields: Sequence[Filter] = (),
        query: Mapping[str, Any] | None = None,
        batch_size: int = BATCH_SIZE,
        app: bool = False,
        events: bool = True,
        profile: bool = True,
        windows: int = 1,
        distinct: bool = True,
        cursor: str | None = None,
        prefetch: int = 2,
    ) -> EventProfiles:
        """Return everyone who did `event`, to be read with `async for` as people or as pages.

        Nothing is sent before the first item is asked for. A window without any record is counted
        and, unless the count is 0, opened again before it is believed.

        Args:
            event: the name of the event as the dashboard spells it, upper case included.
            start, end: first and last day, both included, in the time zone of the CleverTap
                project: dates, text such as "2026-01-31" or "20260131", or ints YYYYMMDD. Or two
                ints of epoch seconds, which are sent as they are: that CleverTap takes them has
                been seen in one example only. The emulator takes them for their days in UTC. The
                first day has begun in some time zone. A last one in the future is a warning.
            event_properties: conditions on the event, all of which must hold.
            profile_fields: conditions on the person's profile, all of which must hold.
            query: other members of the vendor's query language, as plain JSON that is copied:
                `session_properties`, `advanced_query`, and `common_profile_properties` with
                `demographics`, `geo_fields` and `technographics`
                (https://developer.clevertap.com/docs/clevertap-query-language). Misspelled names,
                unknown operators and wrong types are refused where the page documents them. True
                and False are sent as the texts "True" and "False". Members without a condition are
                left out. It may not hold anything that another argument sets.
            batch_size: people per page, a multiple of 23 from 23 to 4,991.
            app: include app version, OS version, make and model of the devices.
            events: include the event summaries, some 75 % of a record.
            profile: include the custom properties.
            windows: number of contiguous parts that the range is split into, at most one per day.
                Each part is a chain of its own, and the chains are walked side by side. A person
                who did the event in several parts is sent with each of them, so that more windows
                mean more bytes. Windows pay where the service prepares a page for longer than the
                page takes to arrive.
            distinct: return each person once, even one whom the service sends several times. A
                person is one `identity`. A record without it belongs to a person seen before if it
                shares any `objectId` with such a record before it, so that the order of arrival
                decides where a later record connects two. With several windows that order may
                differ between calls. This keeps some 100 bytes per person in memory. A resumed
                chain does not know the people of its earlier pages.
            cursor: resume one chain at this `page.next_cursor`, which is valid for about 4 days.
                The event, range, filters and flags that opened the chain then hold, not those
                passed here, and `windows` must be 1. None opens a new chain, so do not pass on the
                None of a last page.
            prefetch: pages fetched ahead. At most `prefetch + 1` pages per window exist at once,
                those still arriving included, and fewer if all of them would take more than 192
                MiB: a smaller `batch_size` then keeps more slots busy. A page is requested as soon
                as the page before it names its cursor, mostly in its first bytes: with 2, one chain
                can use three slots.

        Raises:
            ConfigurationError: an argument cannot work, or the session has no CleverTap
                credentials.

        >>> async for person in session.profiles.by_event(
        ...     "App Launched", start=date(2026, 1, 1), end=date(2026, 1, 31)
        ... ):
        ...     print(person.identity)
        >>> buyers = session.profiles.by_event(
        ...     "Charged",
        ...     start=20260101,
        ...     end=20260131,
        ...     event_properties=[Filter("Amount", "greater_than", 100)],
        ...     profile_fields=[Filter("Customer Type", "equals", "Gold")],
        ... )
        """
        if event is None:
            # Otherwise it would be everyone if the days are None as well.
            raise InvalidArgument(
                "event: expected the name of an event, got None; for everyone use "
                "session.profiles.everyone()"
            )
        for name, day in (("start", start), ("end", end)):
            if day is None:
                # `EventQuery` takes None for all three.
                raise InvalidArgument(
                    f"{name}: got None; pass a date, or for everyone use "
                    f"session.profiles.everyone()"
                )
        event_query = EventQuery.of(
            event,
            start,
            end,
            batch_size=batch_size,
            app=app,
            summaries=check_flag("events", events),
            profile=profile,
            filters=Filters.of(event_properties, profile_fields, query),
        )
        _check_days(event_query, "returned")
        windows = check_whole("windows", windows, least=1)
        return self._people(
            event_query, windows, distinct=distinct, cursor=cursor, prefetch=prefetch
        )

    @named(PAGES)
    def everyone(
        self,
        *,
        profile_fields: Sequence[Filter] = (),
        query: Mapping[str, Any] | None = None,
        batch_size: int = BATCH_SIZE,
        app: bool = False,
        events: bool = True,
        profile: bool = True,
        distinct: bool = True,
        cursor: str | None = None,
        prefetch: int = 2,
    ) -> EventProfiles:
        """Return everyone with any event in the last 365 days, in one chain.

        The query then has no event and no days. The vendor's page "CleverTap Query Language"
        documents this with filters of profiles or other events, and is silent about a query
        without any filter. Neither has been tried on the live service.

        Args:
            profile_fields, batch_size, app, events, profile, distinct, prefetch: as for `by_event`.
            query: as for `by_event`, without `event_properties` and `session_properties`.
            cursor: as for `by_event`.

        Raises:
            ConfigurationError: an argument cannot work, or the session has no CleverTap
                credentials.

        >>> gold = session.profiles.everyone(
        ...     profile_fields=[Filter("Customer Type", "equals", "Gold")]
        ... )
        >>> async for person in gold:
        ...     print(person.identity)
        """
        event_query = EventQuery.of(
            None,
            None,
            None,
            batch_size=batch_size,
            app=app,
            summaries=check_flag("events", events),
            profile=profile,
            filters=Filters.of((), profile_fields, query),
        )
        return self._people(event_query, 1, distinct=distinct, cursor=cursor, prefetch=prefetch)

    @named(PAGES)
    def by_query(
        self,
        query: EventQuery,
        *,
        distinct: bool = True,
        cursor: str | None = None,
        prefetch: int = 2,
    ) -> EventProfiles:
        """Return everyone whom `query` asks for, in one chain, as `by_event` and `everyone` do.

        For several processes: one splits a query, and each reads its part with a session of its
        own. A person who did the event in several parts is in each of them. The cap holds for the
        sessions of one process, or of one machine with `CleverTap(shared=True)`.

        Args:
            query: made with `EventQuery.of`, or one part of its `split`. A part may be of days in
                the future, in which nobody is.
            distinct, cursor, prefetch: as for `by_event`.

        Raises:
            ConfigurationError: an argument cannot work, or the session has no CleverTap
                credentials.

        >>> charged = EventQuery.of("Charged", date(2026, 1, 1), date(2026, 1, 31))
        >>> first, second = charged.split(2)
        >>> async for person in session.profiles.by_query(first):
        ...     print(person.identity)
        """
        if not isinstance(query, EventQuery):
            raise InvalidArgument(
                f"query: expected EventQuery.of(event, start, end), got the {type(query).__name__}",
                value=query,
            )
        return self._people(query.checked(), 1, distinct=distinct, cursor=cursor, prefetch=prefetch)

    @named(COUNT)
    async def count(
        self,
        event: str | None = None,
        *,
        start: Day | None = None,
        end: Day | None = None,
        event_properties: Sequence[Filter] = (),
        profile_fields: Sequence[Filter] = (),
        query: Mapping[str, Any] | None = None,
        deadline: float | _UnsetType | None = UNSET,
    ) -> int:
        """Return the number of people who did `event`, by the service's own count.

        Each person is counted once, as in `ExportReport.counted`.
        Without event, start and end it counts everyone, as `everyone` asks for them.

        Args:
            event, start, end: as for `by_event`: all three, or none of them.
            event_properties, profile_fields, query: as for `by_event`.
            deadline: as for `get`, for the start of the count and the wait for it together.

        Raises:
            ConfigurationError: an argument cannot work, or the session cannot be used. Nothing
                was sent.
            NotReady: the service was still counting when `Retry.ready_timeout` ran out.
            AltaProfilesError: the last attempt failed in another way.

        >>> people = await session.profiles.count("Charged", start=20260101, end=20260131)
        """
        filters = Filters.of(event_properties, profile_fields, query)
        service = self._service()
        event_query = EventQuery.of(event, start, end, filters=filters)
        _check_days(event_query, "counted")
        with self._engine.within(deadline) as engine:
            return await Chains(engine, service).count(event_query)

    def _people(
        self, query: EventQuery, windows: int, *, distinct: bool, cursor: str | None, prefetch: int
    ) -> EventProfiles:
        chains = self._chains()
        prefetch = check_whole("prefetch", prefetch, least=0)
        distinct = check_flag("distinct", distinct)
        beginnings: list[EventQuery | str] = [*query.split(windows)]
        if cursor is not None:
            if windows > 1:
                raise InvalidArgument(
                    f"windows: a cursor belongs to one chain, got {windows}; leave windows at 1"
                )
            beginnings = [check_cursor(cursor)]

        def pages(decode: bool, keep: bool, reading: Reading) -> AsyncGenerator[Page, None]:
            return chains.walk(
                beginnings,
                prefetch=prefetch,
                new_sink=partial(Pages, decode=decode, keep=keep),
                weigh=attrgetter("weight"),
                query=query,
                reading=reading,
            )

        new_reading = self._engine.reading
        return EventProfiles(pages, new_reading, distinct=distinct, query=query, cursor=cursor)

    def _chains(self) -> Chains:
        return Chains(self._engine, self._service())

    def _lookups(self) -> Lookups[Profile]:
        return Lookups(self._engine, self._service(), PROFILES)


class EventProfiles(AsyncOnly):
    """The people of one query: iterate over it for people, or over `pages()` for pages.

    Each iteration opens new chains. Leaving an iteration early, cancelling it or closing the
    session cancels the requests behind it.
    """

    def __init__(
        self,
        pages: Callable[[bool, bool, Reading], AsyncGenerator[Page, None]],
        new_reading: Callable[[], Reading],
        *,
        distinct: bool,
        query: EventQuery,
        cursor: str | None,
    ) -> None:
        self._pages = pages
        self._new_reading = new_reading
        self._distinct = distinct
        self._query = query
        self._cursor = cursor

    def __aiter__(self) -> AsyncGenerator[Profile, None]:
        """Yield each person, page by page; those of one window in server order.

        With `distinct`, each person is yielded once.

        Raises:
            Incomplete: a chain has no records although the service counts some, or does not count.
                It was opened again twice, 10 and 60 times `Retry.base_delay` later.
            CursorLoop, CursorExpired: a chain cannot continue.
            AltaProfilesError: a chain could not be opened, or a page not fetched.
        """
        reading = self._new_reading()
        return Results(self._name, self._people(reading), reading)

    @property
    def _name(self) -> str:
        return "everyone" if self._query.event is None else "by_event"

    async def _people(self, reading: Reading) -> AsyncGenerator[Profile, None]:
        pages = self._walk(reading, decode=True, keep=False)
        with naming(None), reading.noting_failure():
            try:
                async for page in pages:
                    for number, profile in enumerate(page.profiles, 1):
                        yield profile
                        if number % ITEMS == 0:
                            # A page holds thousands of people, and the caller may never await.
                            await asyncio.sleep(0)
                    # Freed before the next page is awaited.
                    del page
            finally:
                await pages.aclose()

    @named(PAGES)
    def pages(self, *, decode: bool = True) -> AsyncGenerator[Page, None]:
        """Yield each page; with `distinct`, without the people who came before.

        A page may be left with no people, and still has its cursors.
        The results can be read once: after their end, call it again.

        Args:
            decode: decode `page.profiles` beforehand, in slices of a few milliseconds, so that the
                event loop stays free. With False, `page.profiles` is decoded at once when it is
                first used: for callers who pass on `page.encode()` or `page.records` and need no
                profiles.

        Raises:
            AltaProfilesError: as for iterating over people.

        >>> charged = session.profiles.by_event("Charged", start=20260101, end=20260131)
        >>> with open("people.ndjson", "wb") as file:
        ...     async for page in charged.pages(decode=False):
        ...         file.write(page.encode())
        """
        decode = check_flag("decode", decode)
        reading = self._new_reading()
        return Results("pages", self._walk(reading, decode=decode, keep=True), reading)

    async def _walk(
        self, reading: Reading, *, decode: bool, keep: bool
    ) -> AsyncGenerator[Page, None]:
        seen = Distinct() if self._distinct else None
        pages = self._pages(decode, keep, reading)
        with naming(PAGES), reading.noting_failure():
            try:
                async for page in pages:
                    yield page if seen is None else await finish(new_people(page, seen))
                    del page
            finally:
                await pages.aclose()

    def __repr__(self) -> str:
        # Neither cursors nor the values of filters, which may be people's data.
        query = self._query
        parts = ["everyone" if query.event is None else repr(query.event)]
        if query.window is not None:
            parts += [f"start={query.start}", f"end={query.end}"]
        if query.filters:
            parts.append(f"filters={query.filters.outline}")
        if self._cursor is not None:
            parts.append("cursor=…")
        return f"EventProfiles({', '.join(parts)})"


def _check_days(query: EventQuery, outcome: str) -> None:
    """Refuse days that are all to come, and warn of a last one that is.

    `outcome` is what nobody of such days is, such as "counted".
    """
    today = latest_day()
    query.check_begun(today)
    if (to_come := query.to_come(today)) is not None:
        logger.warning("%s; nobody of days to come is %s", to_come, outcome)


def _pairs(
    *, identity: Key | None, email: str | None, object_id: str | None
) -> list[tuple[By, Key | None]]:
    return [("identity", identity), ("email", email), ("object_id", object_id)]
