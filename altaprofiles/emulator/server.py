"""The emulator: both services on one port of 127.0.0.1, with their limits and faults."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

from ..credentials import Alta, CleverTap
from .alta import AltaService
from .clevertap import CleverTapService
from .dice import Dice
from .dispatch import OPERATIONS, Dispatcher, Services
from .faults import Fault, Plan, check_rates
from .limits import Rates
from .listener import Listener
from .load import Load, Tally
from .people import Population
from .replay import Replay
from .settings import Settings, check_number, check_record_size
from .shape import check_bindings, check_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

    from .bindings import Bindings
    from .load import Stats
    from .settings import BaseQuery, RecordSize

__all__ = ["Emulator"]


class Emulator(Settings):
    """CleverTap's Get User Profiles and Alta's Query User CDP, served on loopback.

    An async context manager. It listens while it is entered, and may be exited from another task.
    The arguments and the requests alone decide the answers. Limits of None do not exist. All
    arguments from `faults` on are attributes as well: assign them to change the emulator, even
    while it runs and from any thread. So are `passcode` and `token`, for a rotation: the next
    request is checked against the new one, which `clevertap`, `alta` and `environment` then have.
    `PUT /passcode` and `PUT /token` change them from outside of the process, with a JSON text.
    Requests that a limit refuses do not count towards any limit.

    Args:
        people: number of people of the seed, 0 or more; by default 1,000, or 0 if `records` or
            `bindings` are given, so that nobody else is there.
        records: people of your own, by their records as CleverTap sends them: `identity`, `email`,
            `profileData` and so on. Each is served as it is. A record without `events` is that of
            someone who did every event on every day, under any name; one with `events` did them on
            their first and their last day, in UTC. An event's summary may have `properties`, which
            are not sent: filters on `event_properties` are about them.
        bindings: users of your own in Alta: lists of anonymous IDs by user ID, of the type WEB.
        replay: a file of `Recorder`, whose answers are served in the place of people. Requests with
            the same query, cursor or key get the answers that they got, one after the other, and
            then the last one again. The size of pages, and the values of filters, need not be the
            same. Any other request fails with HTTP 400. Limits and faults hold as they do for
            people, but for faults that change pages, records or counts.
        seed: decides the people, the variants of answers, and the faults.
        port: the TCP port, or 0 for any free one.
        record_size: "small" for records of some 1 KB, or "real" for 17 KB each, most of it the
            summary of some 170 events, as in a capture of a real account.
        faults: rates from 0 to 1 by fault name (see `Fault`, and the table in `altaprofiles guide
            testing`). After 3 failures in a row the next
            attempt at the same request succeeds, unless the rate is 1, which is an outage. Of three
            chains of the same query, the third has neither `empty_chain` nor `cut_short`.
        think: seconds before each answer. `PUT /think` changes it from outside of the process.
        max_in_flight: requests for chains and pages answered at the same time, 1 or more, by-ID
            requests included. Any further request gets HTTP 429.
        lookups_max_in_flight: the same for by-ID requests, which then do not count towards
            `max_in_flight`. No page documents such a limit.
        counts_max_in_flight: the same for counts, which have a limit of their own; by default as
            many as `max_in_flight`.
        alta_max_in_flight: the same for Alta. No page documents such a limit.
        clevertap_per_minute: CleverTap requests answered in one window of a minute. Any further
            one gets code 1, with HTTP 200 or 429. No page documents such a limit, but accounts stay
            throttled for minutes.
        alta_per_minute, alta_per_day: Alta requests answered in one window of a minute, or of a
            day. Any further one gets code 40008, with HTTP 200 or 429.
        window_seconds: the length of a minute; a day is 1,440 of them. A window begins with the
            first request that is counted in it.
        rate_limit_headers: True if every answer of Alta has the headers `X-RateLimit-Limit`,
            `-Remaining` and `-Reset` (Unix seconds, rounded up) once `alta_per_minute` or
            `alta_per_day` is set. Of two windows they describe the one with fewer requests left.
        max_open_chains: chains that can be read at the same time. A further one is empty: its first
            page is the last, with success and without records. A chain is open from its opening to
            its last page, and not while nothing has asked for it for one `window_seconds`.
        cursor_lifetime: seconds for which a cursor is valid after its chain was opened.
        notification_exports: True if people can be exported by "Notification Sent" and
            "Notification Viewed", as the vendor's page says; False if the service refuses them, as
            some clients have seen.
        base_query: "optional" if a query without `event_name`, `from` and `to` is about everyone;
            "with_filters" if it needs a filter then, as "CleverTap Query Language" describes it;
            "required" if it is refused. A refusal has HTTP 400 and code 4002, for counts as well.
            A filter with the event "-1" is always accepted.
        alta_envelope: "classic" for `{"code": 0, "message": "OK", "data": …}`, as the page "Query
            User CDP" has it; "v1.5" for `{"data": …, "meta": …, "links": …}` and `{"error": …}`, as
            the overview of V1.5 has it.
        alta_error: a documented code, such as 20055, with which Alta refuses every lookup.
        key_verification: True if Alta answers `GET /v1/api-key/verify`, as GPTBots does.

    Raises:
        ValueError: an argument is out of bounds, also when it is assigned; or one of the `records`
            or `bindings` is not of the vendor's form, or a line of the `replay`. The message names
            its place and its fault.
        OSError: the replay cannot be read.
        AttributeError: another attribute is assigned.

    >>> from altaprofiles.emulator import Emulator
    >>> day = 20260101
    >>> async with Emulator(people=100, faults={"server_error": 0.1}) as emulator:
    ...     async with Session(clevertap=emulator.clevertap) as session:
    ...         people = session.profiles.by_event("Charged", start=day, end=day)
    ...         emails = [person.email async for person in people]
    >>> numbers = emulator.population.active("Charged", day, day)
    >>> emails == [emulator.population.email(number) for number in numbers]
    True
    """

    def __init__(
        self,
        *,
        people: int | None = None,
        records: Iterable[Mapping[str, Any]] | None = None,
        bindings: Mapping[str, Iterable[str]] | None = None,
        replay: str | PathLike[str] | None = None,
        seed: int = 0,
        port: int = 0,
        record_size: RecordSize = "small",
        faults: Mapping[str, float] | Mapping[Fault, float] | None = None,
        think: float = 0.0,
        max_in_flight: int = 3,
        lookups_max_in_flight: int | None = None,
        counts_max_in_flight: int | None = None,
        alta_max_in_flight: int | None = None,
        clevertap_per_minute: int | None = None,
        alta_per_minute: int | None = None,
        alta_per_day: int | None = None,
        window_seconds: float = 60.0,
        rate_limit_headers: bool = True,
        max_open_chains: int | None = None,
        cursor_lifetime: float = 4 * 86_400,
        notification_exports: bool = True,
        base_query: BaseQuery = "optional",
        alta_envelope: Literal["classic", "v1.5"] = "classic",
        alta_error: int | None = None,
        key_verification: bool = True,
    ) -> None:
        is_own = records is not None or bindings is not None
        if replay is not None and (people is not None or is_own):
            raise ValueError("replay: has its own people; leave out people, records and bindings")
        self._replay = None if replay is None else Replay(replay)
        if people is None:
            people = 0 if is_own or replay is not None else 1000
        check_number("people", people, 0, int)
        check_number("port", port, 0, int)
        check_record_size("record_size", record_size)
        self._dice = Dice(seed)
        self._plan = Plan(self._dice)
        self.faults = faults or {}
        self.think = think
        self.max_in_flight = max_in_flight
        self.lookups_max_in_flight = lookups_max_in_flight
        self.counts_max_in_flight = counts_max_in_flight
        self.alta_max_in_flight = alta_max_in_flight
        self.clevertap_per_minute = clevertap_per_minute
        self.alta_per_minute = alta_per_minute
        self.alta_per_day = alta_per_day
        self.window_seconds = window_seconds
        self.rate_limit_headers = rate_limit_headers
        self.max_open_chains = max_open_chains
        self.cursor_lifetime = cursor_lifetime
        self.notification_exports = notification_exports
        self.base_query = base_query
        self.alta_envelope = alta_envelope
        self.alta_error = alta_error
        self.key_verification = key_verification
        self._population = Population(people, seed, record_size)
        if records is not None:
            self._population.add(check_records(records, "records"))
        self._services = Services(
            CleverTapService(self._population, self._dice, self._plan, self),
            AltaService(self._population, self._dice, self._plan, self),
        )
        if bindings is not None:
            self.bindings.add(check_bindings(bindings))
        # In the form of the service's own, by which a passcode in its place is known.
        words = self._dice.token(5, "account").hex().upper()
        self._account_id = f"TEST-{words[:3]}-{words[3:6]}-{words[6:9]}Z"
        self.passcode = self._dice.token(12, "passcode").hex()
        self.token = f"app-{self._dice.token(12, 'token').hex()}"
        self._port = port
        load = Load(self)
        self._tally = Tally(load, OPERATIONS)
        dispatcher = Dispatcher(
            self._services,
            self._account_id,
            self._dice,
            self._plan,
            self,
            load,
            Rates(self),
            self._tally,
            self._replay,
        )
        self._listener = Listener(dispatcher.respond, self._tally.count_connection)

    async def __aenter__(self) -> Self:
        if self._listener.url is not None:
            raise RuntimeError("this emulator is already running; create another one")
        await self._listener.start(self._port)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._listener.stop()

    def __repr__(self) -> str:
        served = f"people={len(self._population)}" if self._replay is None else "a replay"
        place = "not running" if self._listener.url is None else self._listener.url
        return f"<Emulator of {served}, {place}>"

    @property
    def url(self) -> str:
        """The base URL of both services, such as "http://127.0.0.1:40123".

        Raises:
            RuntimeError: the emulator is not running.
        """
        if self._listener.url is None:
            raise RuntimeError("the emulator has a URL only while it runs; enter it: async with …")
        return self._listener.url

    @property
    def clevertap(self) -> CleverTap:
        """Credentials for the CleverTap account, with the emulator's URL."""
        return CleverTap(account_id=self._account_id, passcode=self.passcode, base_url=self.url)

    @property
    def alta(self) -> Alta:
        """Credentials for the Alta agent, with the emulator's URL."""
        return Alta(token=self.token, base_url=self.url)

    @property
    def environment(self) -> dict[str, str]:
        """Both credentials as environment variables, as `Session.from_env()` reads them."""
        return {
            "CLEVERTAP_ACCOUNT_ID": self._account_id,
            "CLEVERTAP_PASSCODE": self.passcode,
            "CLEVERTAP_BASE_URL": self.url,
            "ALTA_TOKEN": self.token,
            "ALTA_BASE_URL": self.url,
        }

    def add(
        self,
        *records: Mapping[str, Any],
        bindings: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """Add people and bindings of your own, even while it runs and from any thread.

        A record takes the place of one that was added with the same identity, so that a person can
        change between two runs. Chains that are being read stay as they are.

        Args:
            records: as `records` of `Emulator`.
            bindings: as `bindings` of `Emulator`. A user keeps the anonymous IDs added before.

        Raises:
            ValueError: one of them is not of the vendor's form, or the emulator serves a replay.
                Nothing is added then.

        >>> from altaprofiles.emulator import Emulator
        >>> async with Emulator(records=[{"identity": "ann"}]) as emulator:
        ...     emulator.add({"identity": "bo"}, bindings={"bo": ["a1"]})
        ...     async with Session(clevertap=emulator.clevertap, alta=emulator.alta) as session:
        ...         found = await session.profiles.get(identity="bo")
        ...         users = await session.cdp.get(anonymous_id="a1")
        >>> found and found.identity, list(users)
        ('bo', ['bo'])
        """
        if self._replay is not None:
            raise ValueError("replay: has its own people, to whom nobody can be added")
        checked = check_records(records, "records")
        if bindings is not None:
            self.bindings.add(check_bindings(bindings))
        if checked:
            self._population.add(checked)

    @property
    def faults(self) -> Mapping[str, float]:
        """Rates by fault name, read-only. Assign a mapping to change them, even while it runs.

        `emulator.faults = {**emulator.faults, "server_error": 0.1}` adds one. `GET /faults` returns
        them as JSON, and `PUT /faults` replaces them.
        """
        return MappingProxyType({fault.value: rate for fault, rate in self._plan.rates.items()})

    @faults.setter
    def faults(self, faults: Mapping[str, float] | Mapping[Fault, float]) -> None:
        self._plan.rates = check_rates(faults)

    @property
    def stats(self) -> Stats:
        """Counters of requests, faults and connections. `GET /stats` returns them as JSON."""
        return self._tally.snapshot()

    @property
    def population(self) -> Population:
        """Everyone in the CleverTap account, to compare answers with."""
        return self._population

    @property
    def bindings(self) -> Bindings:
        """The users and anonymous IDs of the Alta agent, to compare answers with."""
        return self._services.alta.bindings
