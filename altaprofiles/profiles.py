"""`session.profiles`: CleverTap's people, by event and by ID."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from .base.checks import check_flag, check_whole
from .errors import ConfigurationError
from .flow.fanout import Items
from .flow.slices import ITEMS, finish
from .http.engine import Engine
from .http.service import Service
from .models import Key, Lookup, Page, Profile
from .models.people import Distinct
from .sources.chains import Chains
from .sources.lookups import PROFILES, Lookups
from .wire.clevertap import By
from .wire.query import BATCH_SIZE, Day, EventQuery, check_cursor

__all__ = ["EventProfiles", "Profiles"]


class Profiles:
    """People of one CleverTap account. Reached as `session.profiles`."""

    def __init__(self, engine: Engine, service: Callable[[], Service]) -> None:
        self._engine = engine
        self._service = service

    async def get(
        self,
        *,
        identity: Key | None = None,
        email: str | None = None,
        object_id: str | None = None,
    ) -> Profile | None:
        """Return the person with this identifier, or None when the service knows none.

        Pass exactly one: `identity` is the customer's own ID, `object_id` CleverTap's ID of one
        device ("Download User Profiles by ID").

        Raises:
            ConfigurationError: none or more than one is given, it is empty or holds a control
                character, or the session cannot be used; nothing was sent.
            Unauthorized: the credentials or the region are wrong.
            AltaProfilesError: the last try ended with something else.

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
            names = ", ".join(by for by, _ in given) or "none"
            raise ConfigurationError(f"identity, email, object_id: pass exactly one, got {names}")
        by, value = given[0]
        return await self._lookups().get(by, value)

    def get_many(
        self,
        keys: Items[Key],
        *,
        by: By,
        concurrency: int | None = None,
        ordered: bool = False,
    ) -> AsyncGenerator[Lookup[Profile], None]:
        """Yield what became of each of `keys`, one `Lookup` per key, repeats included.

        Results come as they complete, or in input order with `ordered`. `keys` may be any iterable
        or async iterable, also an endless one: it is read no further ahead than four keys per
        worker. A failing key, an invalid one included, is that key's `lookup.error`.

        Args:
            keys: identifiers, as text or int.
            by: "identity", "email" or "object_id".
            concurrency: lookups at work at once, beside those that wait to be tried again; the
                account's `max_in_flight` when None. The requests in flight never exceed that cap.
            ordered: keep the order of `keys`.

        Raises:
            ConfigurationError: an argument is wrong, or the session cannot be used.
            Unauthorized, Forbidden: the credentials are refused, which would fail every key.

        >>> async for lookup in session.profiles.get_many(["5555555555", "nobody"], by="identity"):
        ...     print(lookup.key, lookup.value)
        """
        return self._lookups().get_many(keys, by=by, concurrency=concurrency, ordered=ordered)

    def by_event(
        self,
        event: str,
        *,
        start: Day,
        end: Day,
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

        Args:
            event: its name, in the spelling of the dashboard: the service minds upper case.
            start, end: first and last day, both included, in the time zone of the CleverTap
                project: dates or ints YYYYMMDD. Or two ints of epoch seconds.
            batch_size: people per page, a multiple of 23 from 23 to 4,991.
            app: add app version, OS version, make and model to the devices.
            events: include the event summaries, some 75 % of a record.
            profile: include the custom properties.
            windows: split the range into so many contiguous parts (at most one per day), each a
                chain of its own, walked side by side. Whoever did the event in several parts is
                sent with each, so that more windows mean more bytes: worth it where the service
                takes longer over a page than the page takes to arrive.
            distinct: with several windows, leave out people that an earlier page has had. Some 100
                bytes per person are kept in memory for this.
            cursor: go on with one chain from this `page.next_cursor`, for about 4 days. The chain's
                own event, range and flags hold then, whatever is passed here, and `windows` must
                be 1. None begins anew, so do not pass on the None of a last page.
            prefetch: pages fetched ahead; at most `prefetch + 1` per window exist at once, those
                still on their way included. A page is asked for as soon as the one before names
                its cursor, which most do in their first bytes: two ahead are enough for one chain
                to use three slots.

        Raises:
            ConfigurationError: an argument is wrong. Nothing is sent before the first item is
                asked for.

        >>> async for person in session.profiles.by_event(
        ...     "App Launched", start=date(2026, 1, 1), end=date(2026, 1, 31)
        ... ):
        ...     print(person.identity)
        """
        chains = self._chains()
        query = EventQuery.of(
            event,
            start,
            end,
            batch_size=batch_size,
            app=app,
            summaries=check_flag("events", events),
            profile=profile,
        )
        check_whole("windows", windows, least=1)
        check_whole("prefetch", prefetch, least=0)
        check_flag("distinct", distinct)
        beginnings: list[EventQuery | str] = [*query.split(windows)]
        if cursor is not None:
            if windows > 1:
                raise ConfigurationError(
                    f"windows: a cursor belongs to one chain, got {windows}; leave windows at 1"
                )
            beginnings = [check_cursor(cursor)]

        def pages(decode: bool) -> AsyncGenerator[Page, None]:
            return chains.walk(beginnings, prefetch=prefetch, decode=decode)

        return EventProfiles(pages, distinct=distinct and len(beginnings) > 1)

    async def count(self, event: str, *, start: Day, end: Day) -> int:
        """Return how many people did `event`, by the service's own count.

        Args:
            event, start, end: as for `by_event`.

        Raises:
            ConfigurationError: an argument is wrong; nothing was sent.
            NotReady: the service was still counting when `Retry.ready_timeout` ran out.
            AltaProfilesError: the last try ended with something else.
        """
        return await self._chains().count(EventQuery.of(event, start, end))

    def _chains(self) -> Chains:
        return Chains(self._engine, self._service())

    def _lookups(self) -> Lookups[Profile]:
        return Lookups(self._engine, self._service(), PROFILES)


class EventProfiles:
    """Everyone who did one event: iterate for people, or over `pages()` for pages.

    Each iteration walks anew. Leaving one early, cancelling it or closing the session stops the
    requests behind it.
    """

    def __init__(
        self, pages: Callable[[bool], AsyncGenerator[Page, None]], *, distinct: bool
    ) -> None:
        self._pages = pages
        self._distinct = distinct

    async def __aiter__(self) -> AsyncGenerator[Profile, None]:
        """Yield each person once, page by page; those of one window in server order.

        Raises:
            CursorLoop, CursorExpired: a chain cannot go on.
            AltaProfilesError: a chain could not be opened or a page not be fetched.
        """
        pages = self.pages()
        try:
            async for page in pages:
                for number, profile in enumerate(page.profiles, 1):
                    yield profile
                    if number % ITEMS == 0:
                        # Thousands of people are there at once, and the caller may not await.
                        await asyncio.sleep(0)
                # Not held while the next one is waited for.
                del page
        finally:
            await pages.aclose()

    def pages(self, *, decode: bool = True) -> AsyncGenerator[Page, None]:
        """Yield each page; with several windows, without the people seen before.

        Args:
            decode: have `page.profiles` decoded beforehand, in slices of a few milliseconds, so
                that nothing else in the event loop has to wait for it. Without, it is decoded when
                it is touched, all at once: for those who pass `page.encode()` or `page.records` on
                and want no profiles. With `distinct` and several windows they are decoded in any
                case, as that tells people apart.

        Raises: as for iterating over people.

        >>> charged = session.profiles.by_event("Charged", start=20260101, end=20260131)
        >>> with open("people.ndjson", "wb") as file:
        ...     async for page in charged.pages(decode=False):
        ...         file.write(page.encode())
        """
        check_flag("decode", decode)
        return self._walk(decode or self._distinct)

    async def _walk(self, decode: bool) -> AsyncGenerator[Page, None]:
        seen = Distinct() if self._distinct else None
        pages = self._pages(decode)
        try:
            async for page in pages:
                yield page if seen is None else await finish(page.of_new_people(seen))
                del page
        finally:
            await pages.aclose()


def _pairs(
    *, identity: Key | None, email: str | None, object_id: str | None
) -> list[tuple[By, Key | None]]:
    return [("identity", identity), ("email", email), ("object_id", object_id)]
