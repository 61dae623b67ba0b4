"""`Session`: puts the parts together. It adds no rule of its own."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial, wraps
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Never,
    NoReturn,
    ParamSpec,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
)

from msgspec import UNSET
from msgspec import UnsetType as _UnsetType

from .accounts import Accounts
from .base.calls import CallName, named
from .base.checks import (
    check_callback,
    check_flag,
    check_seconds,
    check_time_left,
    check_whole,
    shown,
)
from .base.deadline import Deadline
from .base.wording import login_step
from .cdp import Cdp
from .credentials import (
    CHAIN_SLOTS,
    Alta,
    CleverTap,
    check_api_key,
    check_passcode,
    check_prefix,
    hide_misplaced,
    ignored_shared,
    ignored_variables,
    is_in_environment,
    variable,
)
from .errors import ConfigurationError, InvalidArgument, MissingCredentials
from .flow.fanout import Items
from .flow.lifetime import closed_meanwhile
from .http.engine import Engine
from .http.hooks import Hook, Observer
from .http.proxies import hide_proxy
from .http.retry import Retry
from .http.service import Load, Service
from .http.sizing import MOST, Size
from .http.transport import Timeout, Transport
from .models import Customer, Key, Profile, Stats
from .options import SessionOptions, ViewOptions
from .profiles import Profiles
from .sources.chains import PAGES, Chains
from .sources.joined import join
from .sources.lookups import CDP, PROFILES, Lookups, endpoint_of
from .sources.who import check_one, service_of, who_is
from .tables.layout import Flatten
from .wire import alta as alta_rules
from .wire import clevertap as clevertap_rules
from .wire.alta import CdpBy
from .wire.clevertap import By
from .wire.days import Day
from .wire.filters import Filter
from .wire.language import Filters
from .wire.query import BATCH_SIZE

if TYPE_CHECKING:
    from datetime import date
    from ssl import SSLContext

    import aiohttp

    from .export.formats import Format, Write
    from .export.gather.joins import Join
    from .export.job import Job
    from .export.keys import Keys
    from .export.output import Output
    from .export.part import Part
    from .export.plan import EventsPlan
    from .export.report import (
        ExportProgress,
        ExportReport,
        LookupProgress,
        LookupReport,
        SyncReport,
    )
    from .export.sync import Sync
    from .export.unfinished import Unfinished

__all__ = ["Session", "export_part", "lookups_part", "sync_part"]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("altaprofiles")

MAX_RESPONSE_BYTES = 128 * 1024 * 1024


class EventsOptions(TypedDict):
    """The arguments of `Session.export` that decide what is fetched, except the events."""

    start: Day | None
    end: Day | None
    event_properties: Sequence[Filter]
    profile_fields: Sequence[Filter]
    query: Mapping[str, Any] | None
    windows: int | Literal["auto"]
    distinct: bool
    batch_size: int
    app: bool
    event_summaries: bool
    profile: bool
    count: bool
    on_shortfall: Literal["error", "warn"]
    with_cdp: bool
    cdp_key: str
    cdp_by: CdpBy


def _name_of_who_is(arguments: Mapping[str, Any]) -> CallName | None:
    return service_of([by for by, key in arguments.items() if key is not None])


def _name_of_lookups(arguments: Mapping[str, Any]) -> CallName | None:
    by = arguments["by"]
    return service_of([by]) if isinstance(by, str) else None


def _name_of_unfinished(arguments: Mapping[str, Any]) -> CallName | None:
    by = getattr(getattr(arguments["unfinished"], "plan", None), "by", None)
    return PAGES if by is None else service_of([by])


def _refusing_what_is_fixed(method: Callable[P, T]) -> Callable[P, T]:
    """Return `with_options` with an error of its own for arguments of `Session`.

    Arguments that the method does not have are none for type checkers, either.
    """

    @wraps(method)
    def checked(*args: P.args, **options: P.kwargs) -> T:
        fixed = {"clevertap", "alta", *SessionOptions.__annotations__}
        for name in options:
            if name in fixed.difference(ViewOptions.__annotations__):
                # A traceback with locals would show the password of a proxy.
                options.clear()
                raise InvalidArgument(
                    f"{name}: belongs to the whole session, and is not an option of a view; open "
                    f"another Session with it"
                )
        return method(*args, **options)

    return checked


class Session:
    """One account on each service, over one pool of connections.

    Open it with `async with` and share it: the caps, the retry budget and the connections belong to
    the session, so one session per account keeps its limits. With `CleverTap(shared=True)`,
    all sessions of a machine keep them together. Thousands of tasks can use it at once. It can be
    closed by a different task from the one that opened it.

    Args:
        clevertap: credentials for `session.profiles` and the exports.
        alta: credentials for `session.cdp`, `with_cdp` and `who_is`.
        retry: limits of retries.
        timeout: limits of each attempt.
        max_response_bytes: largest body of one response, in bytes after decompression; 128 MiB by
            default. A larger one is refused while it arrives (`ResponseTooLarge`). An export stores
            a page while it arrives: there the limit holds for one record, and a larger page is
            refused only if it inflates to over 100 times its size.
        trace_configs: `aiohttp.TraceConfig`s for the HTTP client. They see the credentials.
        on_event: called with an `Attempt` after each request, in the event loop; or several
            functions, called in their order. They must return quickly. An exception that one
            raises ends the call it reports on, an export included, after the others have been
            called; if that call is cancelled, it is only logged. A request that is cancelled is
            not passed.
        trust_env: take http and https proxies from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
            `NO_PROXY`, which may list networks (`10.0.0.0/8`) and ports. Off by default.
        ssl: an `ssl.SSLContext` for every connection, those to an https proxy included.
            `ssl.create_default_context(cafile="ca.pem")` trusts an authority of your own, and
            `load_cert_chain` of a context adds a client certificate. By default, the authorities
            of the system are trusted.
        proxy: the URL of an http or https proxy for all requests, such as
            `http://USER:PASSWORD@HOST:PORT`, with special characters in percent-encoding. Without
            a scheme, as `HOST:PORT`, it is an http proxy; so are the variables of `trust_env`. It
            takes the place of `trust_env`: nothing is read from the environment then, `NO_PROXY`
            included. Errors name its host and port, and never its login. A service on this machine
            is not reached through a proxy on another one.

    Raises:
        ConfigurationError: an argument cannot work.

    >>> async with Session.from_env() as session:
    ...     person = await session.profiles.get(email="jack+test@example.com")
    """

    def __init__(
        self,
        *,
        clevertap: CleverTap | None = None,
        alta: Alta | None = None,
        retry: Retry = Retry(),  # noqa: B008
        timeout: Timeout = Timeout(),  # noqa: B008
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        on_event: Hook | Sequence[Hook] | None = None,
        trust_env: bool = False,
        ssl: SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        # It may hold a password, which a traceback with locals would show.
        hidden, proxy = hide_proxy(proxy), None
        for name, value, kind in (
            ("clevertap", clevertap, CleverTap),
            ("alta", alta, Alta),
            ("retry", retry, Retry),
            ("timeout", timeout, Timeout),
        ):
            optional = kind in (CleverTap, Alta)
            if not isinstance(value, kind) and not (optional and value is None):
                # In the place of credentials, the value may be the secret itself.
                text = f"an object of {type(value).__name__}" if optional else shown(value)
                raise InvalidArgument(f"{name}: expected {kind.__name__}(…), got {text}")
        max_response_bytes = check_whole("max_response_bytes", max_response_bytes, least=1)
        hooks = _hooks_of(on_event)
        self._engine = Engine(
            transport=Transport(
                max_response_bytes=max_response_bytes,
                trace_configs=trace_configs,
                trust_env=trust_env,
                ssl=ssl,
                proxy=hidden,
            ),
            retry=retry,
            timeout=timeout,
            hooks=hooks,
        )
        self._credentials = (clevertap, alta)
        self._clevertap = None if clevertap is None else _clevertap_service(clevertap, retry)
        self._alta = None if alta is None else _alta_service(alta, retry)
        self._services = [one for one in (self._clevertap, self._alta) if one is not None]
        for service in self._services:
            self._engine.stats.limits[service.api] = service.limits
        for hook in hooks:
            if isinstance(hook, Observer):
                hook.watch(self._loads)
        self._is_view = False
        self._unclosed = _Unclosed(self._engine)
        # Advice on credentials that are missing, by service, of the method that made the session.
        self._remedies: Mapping[str, str] = {}
        self._set_up()

    def _set_up(self) -> None:
        self._profiles = Profiles(self._engine, self._clevertap_service)
        self._cdp = Cdp(self._engine, self._alta_service)

    @classmethod
    def from_env(cls, prefix: str = "", **options: Unpack[SessionOptions]) -> Self:
        """Return a session with the credentials in the environment.

        Reads `CLEVERTAP_ACCOUNT_ID`, `CLEVERTAP_PASSCODE`, `CLEVERTAP_REGION`,
        `CLEVERTAP_BASE_URL`, `CLEVERTAP_MAX_IN_FLIGHT`, `CLEVERTAP_TIMEZONE`, `ALTA_TOKEN`,
        `ALTA_ENDPOINT`, `ALTA_BASE_URL`, `ALTA_MAX_IN_FLIGHT`, `ALTA_REQUESTS_PER_MINUTE`,
        `ALTA_NAME` and `ALTAPROFILES_SHARED`. One service is enough.

        Args:
            prefix: text in front of each of these names, as for `CleverTap.from_env`.
            options: the arguments of `Session` other than credentials.

        Raises:
            ConfigurationError: neither service's variables are set, or only half of CleverTap's.
                `ALTA_ENDPOINT` and the like without their secret are a warning in the log, and so
                is `ALTAPROFILES_SHARED` where only the name with the prefix would be read.

        >>> shop = Session.from_env(prefix="SHOP_", retry=Retry(attempts=3))
        """
        _hide_proxy_of(options)
        prefix = check_prefix(prefix)
        services = ("CLEVERTAP", "ALTA")
        has_clevertap, has_alta = [is_in_environment(service, prefix) for service in services]
        ignored = [
            sentence for service in services if (sentence := ignored_variables(service, prefix))
        ]
        account_id, passcode, region = [
            variable("CLEVERTAP", argument, prefix)
            for argument in ("account_id", "passcode", "region")
        ]
        token = variable("ALTA", "token", prefix)
        if not has_clevertap and not has_alta:
            raise MissingCredentials(
                "; ".join(["no credentials in the environment", *ignored])
                + f"; set {account_id} and {passcode} (and {region}), or "
                f"{token}, or both, before Session.from_env(), or use Session.from_account() after "
                f"`altaprofiles login`"
            )
        if sentence := ignored_shared(prefix):
            ignored.append(sentence)
        for sentence in ignored:
            logger.warning("%s", sentence)
        session = cls(
            clevertap=CleverTap.from_env(prefix) if has_clevertap else None,
            alta=Alta.from_env(prefix) if has_alta else None,
            **options,
        )
        session._remedies = {
            clevertap_rules.API: f"set {account_id} and {passcode} (and {region}) before "
            "Session.from_env()",
            alta_rules.API: f"set {token} before Session.from_env()",
        }
        return session

    @classmethod
    def from_account(cls, name: str | None = None, **options: Unpack[SessionOptions]) -> Self:
        """Return a session with the credentials of an account in the credentials file.

        One service is enough. See `CleverTap.from_account`: the environment's credentials are not
        read. Sessions of two names of one account keep its limits together if both have `shared`.

        Args:
            name: the name of the account; None for the file's default, else its only account.
            options: the arguments of `Session` other than credentials.

        Raises:
            MissingCredentials: there is no such account, or it has no credentials.
            ConfigurationError: the file cannot be used, or a value in it is invalid; it names the
                file, the account and the key.

        >>> shop = Session.from_account("shop", retry=Retry(attempts=3))
        """
        _hide_proxy_of(options)
        name = hide_misplaced(name)
        accounts = Accounts.read()
        account = accounts.named(name)
        clevertap = accounts.clevertap(account)
        try:
            alta = accounts.alta(account)
        except MissingCredentials as error:
            if clevertap is None or accounts.names_alta(account):
                raise
            # The file does not say that it has a key, and the keyring cannot be asked.
            logger.warning("without Alta: %s", error)
            alta = None
        if clevertap is None and alta is None:
            raise MissingCredentials(
                f"{accounts.path}: account {account!r} has no credentials; {login_step(account)}"
            )
        session = cls(
            clevertap=None if clevertap is None else clevertap.credentials,
            alta=None if alta is None else alta.credentials,
            **options,
        )
        login = login_step(account)
        session._remedies = {clevertap_rules.API: login, alta_rules.API: login}
        return session

    @property
    def profiles(self) -> Profiles:
        """The CleverTap account's people: `get`, `get_many`, `by_event`, `everyone`, `count`."""
        return self._profiles

    @property
    def cdp(self) -> Cdp:
        """The users of the Alta agent: `get`, `get_many`."""
        return self._cdp

    @property
    def stats(self) -> Stats:
        """Counters over the life of this session. The object is live: it keeps counting."""
        now = time.monotonic()
        for service in self._services:
            service.note_rate(now)
        return self._engine.stats

    @_refusing_what_is_fixed
    def with_options(
        self,
        *,
        retry: Retry | _UnsetType | None = UNSET,
        timeout: Timeout | _UnsetType | None = UNSET,
        deadline: float | _UnsetType | None = UNSET,
        bulk: bool | _UnsetType | None = UNSET,
        on_event: Hook | Sequence[Hook] | None = None,
    ) -> Self:
        """Return a view of this session with other options: cheap enough for each request.

        It has the connections, caps, retry budget, pace and statistics of the session. What is left
        out stays as it is, in a view of a view as well; with None, it is as in the session again.
        A view is neither entered nor closed.

        Args:
            retry: limits of retries. The session has one `budget`, so that another one than its own
                or the default is refused.
            timeout: limits of each attempt.
            deadline: longest duration of a single call as a whole, in seconds: of `profiles.get`,
                `profiles.count`, `cdp.get` and `who_is`. It takes the place of `Retry.deadline`.
                Chains, bulk lookups and exports have no part in it: `export` has a `deadline` of
                its own. With 0 or less, each of these calls ends at once.
            bulk: True for calls that wait behind all single calls, as bulk work does; False for
                bulk work that does not.
            on_event: called with each `Attempt` of the view, after those of the session and of the
                views before; None for no other.

        Raises:
            ConfigurationError: an argument cannot work, or belongs to the whole session.

        >>> quick = session.with_options(deadline=2.0, retry=Retry(attempts=3))
        >>> person = await quick.profiles.get(identity="5555555555")
        """
        for name, value, kind in (("retry", retry, Retry), ("timeout", timeout, Timeout)):
            if value is not None and value is not UNSET and not isinstance(value, kind):
                raise InvalidArgument(f"{name}: expected {kind.__name__}(…), got {shown(value)}")
        if isinstance(retry, Retry):
            budget = self._engine.budget
            # The default may just have been left out.
            if retry.budget not in (budget, Retry().budget):
                raise InvalidArgument(
                    f"retry: its budget of {retry.budget} cannot be that of a view, as the session "
                    f"has one of {budget} for all calls; leave it out, or open the session with it",
                    value=retry.budget,
                )
        if deadline is not None and deadline is not UNSET:
            deadline = check_time_left("deadline", deadline)
        if bulk is not None and bulk is not UNSET:
            bulk = check_flag("bulk", bulk)
        engine = self._engine.viewed(
            retry=retry, timeout=timeout, deadline=deadline, bulk=bulk, hooks=_hooks_of(on_event)
        )
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._engine, view._is_view = engine, True
        view._set_up()
        return view

    @named(CDP.name)
    def with_cdp(
        self, profiles: Items[Profile], *, concurrency: int | None = None, ordered: bool = False
    ) -> AsyncGenerator[Customer, None]:
        """Yield each of `profiles` with the CDP users bound to its identity.

        Every profile is yielded once. `customer.cdp` is empty when the profile has no identity,
        when nothing is bound to it, or when its lookup failed (`customer.error`). An outage does
        not end it, as with `session.profiles.get_many`. Customers arrive as their lookups
        complete, or in the order of `profiles` with `ordered`.
        The results can be read once: after their end, call it again.

        Args:
            profiles: any iterable or async iterable, such as `session.profiles.by_event(…)`. At
                most four profiles per worker are read ahead.
            concurrency: lookups at work at once; by default `Alta.max_in_flight`, or
                256 with "auto".
            ordered: yield customers in the order of `profiles`. Up to 10,000 of them or 32 MB,
                profiles included, wait in memory for one that is late, so that its retry holds up
                no other. Beyond that, lookups pause until it is done.

        Raises:
            ConfigurationError: an argument cannot work, or the session cannot be used.
            Unauthorized, Forbidden: the token, its agent or the plan is refused.
            AltaProfilesError: reading `profiles` failed.

        >>> people = session.profiles.by_event("Charged", start=20260101, end=20260131)
        >>> async for customer in session.with_cdp(people):
        ...     if customer.profile:
        ...         print(customer.profile.identity, list(customer.cdp))
        """
        lookups = Lookups(self._engine, self._alta_service(), CDP)
        return join(profiles, lookups, concurrency=concurrency, ordered=ordered)

    @named(_name_of_who_is)
    async def who_is(
        self,
        *,
        email: str | None = None,
        identity: Key | None = None,
        object_id: str | None = None,
        user_id: Key | None = None,
        anonymous_id: Key | None = None,
        deadline: float | _UnsetType | None = UNSET,
    ) -> list[Customer]:
        """Return the customers behind one key of either service; an empty list if there are none.

        A CleverTap profile and a CDP user are one customer if the profile's identity is the user's
        ID. The requests that do not depend on each other are sent at the same time: by `user_id`
        those to both services. By any other key, the second service is asked after the first.

        If one request fails, its error is raised, and what the other service has answered is lost.
        `profiles.get(identity=…)` and `cdp.get(user_id=…)` give a part each, with its own error.

        Args:
            email, identity, object_id: keys of CleverTap. The result is the profile, with the users
                under its identity ("Get User Profiles", Download User Profiles by ID).
            user_id: a user's ID. The result is the profile with that identity, and the users under
                the ID ("Query User CDP", Request Parameters).
            anonymous_id: an anonymous ID. The result is every user it is bound to, in the order
                sent, each with its profile.
            deadline: as for `profiles.get`, for all of its requests together.

        Returns:
            The customers. `customer.profile` is None for a user whom CleverTap does not know.
            `customer.error` is set only if the profile's identity cannot be asked for, as half a
            surrogate pair cannot.

        Raises:
            ConfigurationError: not exactly one key is given, it is not an identifier, or the
                session lacks credentials for one of the services. Nothing was sent.
            Unauthorized, Forbidden: a service refuses the credentials.
            AltaProfilesError: one of the requests failed in another way.

        >>> for customer in await session.who_is(anonymous_id="aId3"):
        ...     print(customer.profile and customer.profile.identity, list(customer.cdp))
        """
        by, key = check_one(
            {
                "email": email,
                "identity": identity,
                "object_id": object_id,
                "user_id": user_id,
                "anonymous_id": anonymous_id,
            }
        )
        clevertap, alta = self._clevertap_service(), self._alta_service()
        with self._engine.within(deadline) as engine:
            profiles, users = Lookups(engine, clevertap, PROFILES), Lookups(engine, alta, CDP)
            return await who_is(by, key, profiles, users)

    @named(PAGES)
    async def export(
        self,
        events: str | Sequence[str] | None = None,
        *,
        start: Day | None = None,
        end: Day | None = None,
        to: str | os.PathLike[str],
        event_properties: Sequence[Filter] = (),
        profile_fields: Sequence[Filter] = (),
        query: Mapping[str, Any] | None = None,
        format: Format | None = None,
        windows: int | Literal["auto"] = "auto",
        distinct: bool = True,
        flatten: Flatten = (),
        table: str | None = None,
        bom: bool = False,
        write: Write | None = None,
        batch_size: int = BATCH_SIZE,
        app: bool = False,
        event_summaries: bool = True,
        profile: bool = True,
        count: bool = False,
        on_shortfall: Literal["error", "warn"] = "error",
        with_cdp: bool = False,
        cdp_key: str = "identity",
        cdp_by: CdpBy = "user_id",
        resume: bool = True,
        spool: str | os.PathLike[str] | None = None,
        deadline: float | None = None,
        on_progress: Callable[[ExportProgress], object] | None = None,
    ) -> ExportReport:
        """Write everyone who did one or several events to a file or a database, each person once.

        Each page is made durable in a folder beside the output, `<to>.export`, as it arrives. If
        anything ends the export, even the process, the same call resumes it. Its output is then
        the same to the byte as without the interruption (of a DuckDB file: the same rows). A
        complete output is put in place with `<to>.manifest.json` beside it; after that the same
        call starts a new export. `format`, `flatten`, `distinct`, `table` and `bom` may differ
        between runs: those of the last run count.

        A chain is restarted when its cursor is older than about 4 days or refused, or when its
        records have changed on the disk, which may be found only while finishing. A warning in the
        log and `report.chains` say so.

        A chain that ends without any record is not believed at once, because the service at times
        answers so when too many exports run. It is counted. If the count is not 0, or fails, the
        chain is opened again up to twice, 10 and 60 times `Retry.base_delay` later (5 and 30
        seconds by default). If it is still empty, the export is `Incomplete`. An export of nobody
        is complete if the count agrees, and `report.warnings` says what its output replaced.

        Args:
            events: the name of an event, or several names. A person who did several of the events
                is written once. Without `events`, `start` and `end` it is everyone, as for
                `profiles.everyone`, in one chain.
            start, end: as for `profiles.by_event`.
            to: the output. Its ending decides the format: `.ndjson`, `.jsonl`, `.csv` (each with
                `.gz` or `.zst` behind it if wanted), `.parquet`, `.duckdb`; or the address of a
                table, `postgresql://user:password@host/database/table`. A file that exists is
                replaced at the end, in one step. A table is updated, and other tables of a DuckDB
                file stay. A path that ends in a slash is a folder of Parquet files. NDJSON, CSV and
                Parquet can be a file in a bucket, `s3://bucket/key`, `gs://` or `az://`: gathered
                in a folder of the current folder or of `spool`, and uploaded when it is complete.
                The extra `remote` and s3fs, gcsfs or adlfs are needed. Credentials are found by
                these, and refused in the address.
            event_properties, profile_fields, query: as for `profiles.by_event`, for each of the
                events. An unfinished export can be resumed with the same filters only; their order
                makes no difference. The counts have the same filters.
            format: "ndjson", "csv", "parquet", "duckdb" or "postgres", for endings that do not
                decide it.
            windows: number of parts that the range is split into, at most one per day. Each part
                is a chain of its own. "auto" makes as many chains as the account has slots, or as
                many as the run that is resumed.
            distinct: write each person once, even one whom the service sends several times in one
                chain. One person is one `identity`. A record without it belongs to a person seen
                before if it shares any `objectId` with such a record before it, in the order of
                `events` and days; where a later record connects two, both stay. Of each
                person the first record in that order is written. This needs some 25 bytes a
                person on disk while finishing, and no memory. An upsert needs it.
            flatten: keys of `profileData` that get a column of their own; not for NDJSON. In
                a Parquet file and in DuckDB the column has the type that all values share, which
                for dates (`$D_…`) is a timestamp, else text; elsewhere text. A mapping names the
                types: `{"Signup Date": "timestamp", "Cart Value": "double", "plan": None}`. Types
                are "bool", "int64", "double", "text" and "timestamp" (`$D_…` and ISO 8601), or None
                for no name. A value of another type than the named one is null, and is counted in
                `report.mended` and, by column, in `report.mistyped`. In a text column, equal lists
                and objects are one text: members sorted, without white space.
            table: the table in a DuckDB file, or in PostgreSQL if the address names none;
                "profiles" by default.
            write: "replace" for an output with the rows of this export only, the default of files;
                "upsert" to update the rows of the same account and person and add the others, the
                default of tables; "append" to add rows, once for each export. A table that was
                replaced with `distinct=False` has no key, and is not upserted.
            bom: write a CSV file for spreadsheets. It starts with a byte-order mark, for Excel.
                Cells hold what people typed, so an apostrophe is put before a cell that could be
                taken for a formula: one that begins with `=`, `@`, a tab or a carriage return, or
                with `+` or `-` unless the rest is digits, blanks, brackets, dots or dashes. One
                is also put before an apostrophe in front of one of these characters, so that
                `export_lookups` reads every text as it was.
            batch_size, app, profile: as for `profiles.by_event`. A chain that has been opened keeps
                its size of pages when it is resumed.
            event_summaries: include the event summaries, some 75 % of a record (`events` there).
            count: ask for the service's own counts as well: for `report.counted`, as the total of
                the progress reports, and to compare each chain with its count. A chain with fewer
                than 99 % of it, and more than 10 records short, is opened again like an empty one:
                also one that an earlier run has finished. If it stays short, the export is
                `Incomplete`. If all chains of an event together are that short, a warning says so.
            on_shortfall: "error", or with `count` "warn" to accept chains with fewer records than
                the service counts. The output is then put in place, with a warning in the log and
                in `report.warnings`. A chain that has records is accepted at once, with these; an
                empty one after it was opened again. Without `count`, "warn" accepts nothing.
            with_cdp: join each person with their CDP users, from Alta. They are looked up while
                pages are still read, under the cap of each service; each key is asked for once,
                and an answer on the disk never again. NDJSON gets a member `cdp` at the end of each
                record, `[{"user_id": …, "anonymous_ids": […]}]`, and a member of that name in the
                record becomes `record.cdp`. Tables get a column `cdp` of the same JSON. It is `[]`
                where nothing is bound or the person has no key, and null where the lookup failed.
                Failed lookups are listed in `<to>.failed.ndjson`; the output is written all the
                same, and the export is `Incomplete` unless Alta refuses the key itself. The same
                call asks for these alone, and writes the output again. If ten keys in a row fail,
                or the plan is used up, the others are asked for once all people are there.
            cdp_key: the key to look up: "identity", or a key of `profileData`, whose value counts
                if it is text or a whole number.
            cdp_by: the kind of key that it is at Alta: "user_id" or "anonymous_id".
            resume: resume an unfinished run of the same export, with `windows="auto"` whatever its
                windows. False discards what it left. Unfinished runs of other exports to the same
                output stay, with a warning; `altaprofiles status` finishes or removes them.
            spool: the folder in which `<to>.export` is made; by default the output's folder, and
                for PostgreSQL the current one. It needs room for all records as JSON. The manifest
                and lists of keys are beside the output in any case, those of PostgreSQL in the
                current folder.
            deadline: longest duration of the whole run, in seconds. When it ends, the export is
                `Incomplete`: what has been gathered stays, and the same call resumes. Once all
                records are there, it ends nothing: they are written to the output. With 0 or less,
                the run ends at once, and nothing is sent.
            on_progress: called in the event loop after each page, at least every second, at times
                while finishing, and once the output is in place. It must return quickly. An
                exception that it raises ends the export; after that of the last report, the same
                call returns the result. Pass `print`, `altaprofiles.progress.log()` for lines in a
                log, or `altaprofiles.notebook.Progress()` in a notebook.

        Returns:
            The result, with the digest of the output. `report.mended` counts values that the
            format cannot hold, and differs between formats. NDJSON holds everything. Elsewhere
            lone surrogates become U+FFFD, counted once for each top-level member of a record. NUL
            becomes U+FFFD in the text cells of CSV and in PostgreSQL, each cell counted; Parquet,
            DuckDB and JSON in CSV keep it. PostgreSQL also counts each cell of JSON with a number
            out of its range or nested too deep, which becomes text, and each `objectId` that a
            digest stands for.

        Raises:
            ConfigurationError: an argument cannot work, or an extra is missing. Nothing was sent.
            BadRequest: the service refuses one of the events, in its own words. No page of any
                other event has been requested yet.
            Unauthorized, Forbidden: the credentials of a service are refused.
            PlanMismatch: somebody has renamed the folder of another unfinished export to this
                one's name.
            ExportLocked: another process or task works on the same output.
            CancelledError: the task was cancelled. If the output was in place by then, it stays,
                and the error has the result as `report`; or the same call returns it, and an append
                adds its rows once.
            Incomplete: something is missing, for example a chain that fails for longer than
                `Retry` allows, or has fewer records than the service counts, or room on the disk.
                The same call resumes.
            ExportError: the output, or what an earlier run left, cannot be used.
            AltaProfilesError: none of the events could be asked for.

        >>> report = await session.export(
        ...     "Charged", start=date(2026, 1, 1), end=date(2026, 1, 31), to="people.parquet"
        ... )
        >>> print(report.people, report.sha256)
        """
        from .export.job import Job

        part = self._export_part(
            events,
            start=start,
            end=end,
            event_properties=event_properties,
            profile_fields=profile_fields,
            query=query,
            windows=windows,
            distinct=distinct,
            batch_size=batch_size,
            app=app,
            event_summaries=event_summaries,
            profile=profile,
            count=count,
            on_shortfall=on_shortfall,
            with_cdp=with_cdp,
            cdp_key=cdp_key,
            cdp_by=cdp_by,
            on_progress=on_progress,
        )
        output = _output(to, format, table, bom, flatten, write, resume, spool, deadline)
        # It may hold a password, which a traceback with locals would show.
        del to
        with self._engine.under_way():
            return await Job([part], output).run()

    def _export_part(
        self,
        events: str | Sequence[str] | None,
        *,
        name: str | None = None,
        on_progress: Callable[[ExportProgress], object] | None,
        **options: Unpack[EventsOptions],
    ) -> Part[ExportReport, ExportProgress]:
        """Return the part of `export` that fetches, for an output of several sessions.

        As `altaprofiles export --account … --account …` writes it.

        Args:
            events, on_progress, options: as for `export`.
            name: the name of the account, which is None for an output of this session alone.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        from .export.gather.joins import Join
        from .export.plan import EventsPlan

        self._engine.check_open()
        service = self._clevertap_service()
        filters = Filters.of(
            options["event_properties"], options["profile_fields"], options["query"]
        )
        plan = EventsPlan.of(
            service,
            events,
            start=options["start"],
            end=options["end"],
            filters=filters,
            windows=options["windows"],
            batch_size=options["batch_size"],
            app=options["app"],
            event_summaries=options["event_summaries"],
            profile=options["profile"],
        )
        join = Join.of(
            options["with_cdp"],
            options["cdp_key"],
            options["cdp_by"],
            self._alta_service,
            profile=options["profile"],
        )
        return self._part_of(
            plan if join is None else join.added_to(plan),
            join,
            on_progress,
            name,
            adopt=options["windows"] == "auto",
            distinct=options["distinct"],
            count=options["count"],
            on_shortfall=options["on_shortfall"],
        )

    def _part_of(
        self,
        plan: EventsPlan,
        join: Join | None,
        on_progress: Callable[[ExportProgress], object] | None,
        name: str | None,
        *,
        adopt: bool,
        distinct: bool = True,
        count: bool = False,
        on_shortfall: object = "error",
    ) -> Part[ExportReport, ExportProgress]:
        """Return the part of an export that fetches a plan."""
        from .export.gather.chains import EventsGathering
        from .export.gather.joined import with_joins
        from .export.gather.joins import Joins
        from .export.part import Part
        from .export.reporting import Reporting

        service = self._clevertap_service()
        calls = [(service, "get_page"), *(() if join is None else (join.call,))]
        reporting = Reporting(calls, on_progress)
        engine = reporting.counting(self._engine)
        joins = None if join is None else Joins(join, engine)
        people = EventsGathering(
            plan,
            Chains(engine, service),
            adopt=adopt,
            distinct=check_flag("distinct", distinct),
            count=check_flag("count", count),
            on_shortfall=on_shortfall,
            on_records=None if joins is None else joins.queue,
        )
        return Part(with_joins(people, joins), reporting, name)

    @named(PAGES)
    async def sync(
        self,
        events: str | Sequence[str],
        *,
        since: Day,
        to: str | os.PathLike[str],
        until: Day | None = None,
        late_days: int = 2,
        timezone: str | None = None,
        event_properties: Sequence[Filter] = (),
        profile_fields: Sequence[Filter] = (),
        query: Mapping[str, Any] | None = None,
        format: Format | None = None,
        windows: int | Literal["auto"] = "auto",
        flatten: Flatten = (),
        table: str | None = None,
        batch_size: int = BATCH_SIZE,
        app: bool = False,
        event_summaries: bool = True,
        profile: bool = True,
        with_cdp: bool = False,
        cdp_key: str = "identity",
        cdp_by: CdpBy = "user_id",
        spool: str | os.PathLike[str] | None = None,
        deadline: float | None = None,
        on_progress: Callable[[ExportProgress], object] | None = None,
    ) -> SyncReport:
        """Keep a table up to date with everyone who did one or several events: a call every night.

        It finishes what earlier calls have left unfinished, and fetches nothing of that again.
        Then it brings the days that the table lacks, up to yesterday, and the last `late_days` of
        those it has once more, because phones send events when they are next online. People are
        updated, and others stay, as in `export` with `write="upsert"`; `matched` is united with
        the events that brought a person before. The state moves in the transaction of the rows, in
        the table `altaprofiles_sync` beside the table. So a call that is killed, at any moment, has
        changed nothing or all, and two calls on one day leave the same table as one.

        The table is bound to the account, `events` in any order, filters, `since`, `app`,
        `event_summaries`, `profile`, `with_cdp` and its keys. Each account has a state of its own.
        A table that was restored with its state, as a DuckDB file is, is continued from there. Of a
        table that was restored alone, or from which rows were deleted, the next call warns once: if
        the account has fewer rows than the last run left, or if the latest fetch is older than
        then. It does not see rows that were changed, or are gone while others were added.

        A folder has no transaction. It has `day=2026-01-31/people.parquet` for each day, also for
        one without people, with a row for each account and person of that day; `matched` has the
        person's events of that day. A call replaces the file of each day that it brings by one
        rename, with the rows of other accounts, and `_altaprofiles.json` with the state last. One
        that is killed in between leaves days that are newer than the state, which the next one
        replaces. There is a chain for each event and day, whatever `windows` says. Columns of
        `flatten` are text, unless it names a type.

        It sees people with one of the events only. Profiles that change without an event, as by
        upload, and people who are deleted or merged in CleverTap, it does not see. A full `export`
        into the same table now and then updates the former; into another one with
        `write="replace"`, it leaves out the latter. Because a query of events matches days in the
        time zone of the project, so does this method
        (https://developer.clevertap.com/docs/get-user-profiles-api).

        Args:
            events: the name of an event, or several names, as for `export`.
            since: the first day of the table: a date, text such as "2026-01-31", or an int
                YYYYMMDD.
            to: a `.duckdb` file, the URL of a PostgreSQL database or table, or a folder of Parquet
                files, which ends in a slash.
            until: the last day to bring, included; by default yesterday. Days that are not over are
                left for later calls.
            late_days: days that are brought again, 0 or more: the first one is the later of `since`
                and the last day of the table + 1 - `late_days`.
            timezone: the time zone of the project, such as "Asia/Kolkata". By default that of
                `CleverTap(timezone=…)`, else UTC, with a warning.
            event_properties, profile_fields, query: as for `profiles.by_event`.
            format, windows, flatten, table, batch_size, app, event_summaries, profile, with_cdp,
                cdp_key, cdp_by, spool, deadline: as for `export`. A lookup of a join that fails is
                asked for again by the next call, and later days do not wait for it.
            on_progress: as for `export`, for one export after the other.

        Returns:
            The result, with the days brought and the last day that the table has.

        Raises:
            ConfigurationError: an argument cannot work, an extra or the data of time zones is
                missing, or the output cannot keep a state. Nothing was sent.
            PlanMismatch: another sync keeps the table; `differences` has the arguments of both.
                Nothing was sent.
            ExportLocked: another process or task works on the same table, or another program has
                had its file open for ten minutes.
            Incomplete: as from `export`; or the clock of this machine is ahead of the service's.
                The same call resumes.
            ExportError: as from `export`; or a clock that was ahead has brought the last days.
                `late_days` brings them again.
            AltaProfilesError: as from `export`.

        >>> report = await session.sync(
        ...     ["App Launched", "Charged"], since=date(2026, 1, 1), to="crm.duckdb"
        ... )
        >>> print(report)
        """
        sync = self._sync_part(
            events,
            since=since,
            until=until,
            late_days=late_days,
            timezone=timezone,
            event_properties=event_properties,
            profile_fields=profile_fields,
            query=query,
            windows=windows,
            batch_size=batch_size,
            app=app,
            event_summaries=event_summaries,
            profile=profile,
            with_cdp=with_cdp,
            cdp_key=cdp_key,
            cdp_by=cdp_by,
            on_progress=on_progress,
            output=_output(to, format, table, False, flatten, None, True, spool, deadline),
        )
        # It may hold a password, which a traceback with locals would show.
        del to
        with self._engine.under_way():
            return await sync.run()

    def _sync_part(
        self,
        events: str | Sequence[str],
        *,
        since: Day,
        until: Day | None,
        late_days: int,
        timezone: str | None,
        event_properties: Sequence[Filter],
        profile_fields: Sequence[Filter],
        query: Mapping[str, Any] | None,
        windows: int | Literal["auto"],
        batch_size: int,
        app: bool,
        event_summaries: bool,
        profile: bool,
        with_cdp: bool,
        cdp_key: str,
        cdp_by: CdpBy,
        output: Output,
        name: str | None = None,
        on_progress: Callable[[ExportProgress], object] | None,
    ) -> Sync:
        """Return one run of `sync`, for a table of several sessions.

        As `altaprofiles sync --account … --account …` keeps it.

        Args:
            events, since, until, late_days, timezone, event_properties, profile_fields, query,
                windows, batch_size, app, event_summaries, profile, with_cdp, cdp_key, cdp_by,
                on_progress: as for `sync`.
            output: the table.
            name: as for `export_part`.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        from .export.gather.joins import Join
        from .export.job import Job
        from .export.plan import EventsPlan, check_events
        from .export.sync import Sync
        from .export.synced import Days

        self._engine.check_open()
        service = self._clevertap_service()
        # Everyone, whom None asks `export` for, has no days to bring.
        names = check_events(events)
        account, _ = self._credentials
        if timezone is None and account is not None:
            timezone = account.timezone
        filters = Filters.of(event_properties, profile_fields, query)
        join = Join.of(with_cdp, cdp_key, cdp_by, self._alta_service, profile=profile)

        def plan(first: date, last: date, by_day: bool) -> EventsPlan:
            plan = EventsPlan.of(
                service,
                names,
                start=first,
                end=last,
                filters=filters,
                windows=(last - first).days + 1 if by_day else windows,
                batch_size=batch_size,
                app=app,
                event_summaries=event_summaries,
                profile=profile,
            )
            return plan if join is None else join.added_to(plan)

        def job(
            plan: EventsPlan, output: Output, is_new: bool
        ) -> Job[ExportReport, ExportProgress]:
            adopt = is_new and windows == "auto"
            return Job([self._part_of(plan, join, on_progress, name, adopt=adopt)], output)

        return Sync(job, plan, output, Days.of(since, until, late_days, timezone), timezone, name)

    @named(_name_of_lookups)
    async def export_lookups(
        self,
        keys: Keys,
        *,
        by: By | CdpBy,
        to: str | os.PathLike[str],
        column: str | None = None,
        keys_table: str | None = None,
        format: Format | None = None,
        flatten: Flatten = (),
        table: str | None = None,
        bom: bool = False,
        write: Write | None = None,
        with_cdp: bool = False,
        cdp_key: str = "identity",
        cdp_by: CdpBy = "user_id",
        resume: bool = True,
        spool: str | os.PathLike[str] | None = None,
        deadline: float | None = None,
        on_progress: Callable[[LookupProgress], object] | None = None,
    ) -> LookupReport:
        """Look up many keys, and write what is found to a file or a database.

        As durable as `export`: all keys are read first, then each is asked for once, and an answer
        that is on disk is never asked for again, whatever ends the process, unless the disk has
        changed it. The output is in the order of the keys. Keys that the service does not know are
        written to `<to>.not-found.txt`, one a line; keys without an answer to
        `<to>.failed.ndjson`, with the reason.

        `identity`, `email` and `object_id` are keys of CleverTap. Its people are written as by
        `export`; tables begin with the column `key`. `user_id` and `anonymous_id` are keys of Alta.
        NDJSON has a line for each key that is bound, `{"key": …, "users": [{"user_id": …,
        "anonymous_ids": […]}]}`. Tables have a row for each binding, with the columns `account`
        (`Alta.account`), `key`, `user_id`, `anonymous_id`, `conversation_type` and `source_id`. A
        user to whom nothing is bound is one row, with nulls.

        An upsert of bindings replaces all rows of every key that Alta has answered, by none if
        nothing is bound to it any more. A key that failed keeps its rows, and a person who is not
        found any more keeps theirs.

        Args:
            keys: any iterable or async iterable that ends, or the path of a file: a column of a CSV
                file as in RFC 4180, also with semicolons or tabs, of a Parquet file, or of a table
                in a DuckDB file; a key of each line of an NDJSON file, such as one that `export`
                has written; or the lines of any other file. Texts are in UTF-8. Blank lines are
                skipped, as are rows and objects without a key, missing values (None, NaN,
                `pandas.NA`) and blank texts, which `report.skipped` counts. Blanks around a key
                belong to it. A key that occurs twice is asked for once.
            by: the kind of key: "identity", "email", "object_id", "user_id" or "anonymous_id".
            column: the column of a file, or the key of each NDJSON line; required if there are
                several columns, and for NDJSON lines that are objects. A CSV file of one
                column may start with its name or with a key: without `column`, its first line is
                a key unless it reads like `by`.
            keys_table: the table or view of a DuckDB file; required if it has several.
            to, format, bom, write, resume, spool, deadline: as for `export`.
            flatten: as for `export`; for people only.
            table: as for `export`; "bindings" by default for keys of Alta.
            with_cdp, cdp_key, cdp_by: as for `export`; with keys of CleverTap only. Lookups run
                while other people are still looked up. Those that failed follow the failed keys in
                `<to>.failed.ndjson`, with `"join": true`.
            on_progress: as for `export`, called after each few hundred answers, at least
                every second.

        Returns:
            The result, with the number of keys by outcome and the digest of the output.

        Raises:
            ConfigurationError: an argument cannot work, a file of keys cannot be read as its name
                says (the message names the line), an extra is missing, or the session has no
                credentials for the service. Nothing was sent.
            Unauthorized, Forbidden: the credentials are refused, or Alta's agent or its plan
                refuses.
            PlanMismatch: as from `export`.
            ExportLocked: another process or task works on the same output.
            BadRequest: the service refuses every key. Nothing is written.
            Incomplete: keys, or lookups of a join, failed for longer than `Retry` allows. The files
                are written all the same, and the same call asks for these again. Or ten keys failed
                in a row, or all of fewer, or something before the service refused a hundred: the
                service then counts as down, and nothing is written.
            ExportError: the output, or what an earlier run left, cannot be used.

        >>> report = await session.export_lookups("ids.csv", by="identity", to="found.ndjson")
        >>> print(report.found, report.not_found, report.failed)
        """
        from .export.job import Job

        part = self._lookups_part(
            keys,
            by=by,
            column=column,
            keys_table=keys_table,
            with_cdp=with_cdp,
            cdp_key=cdp_key,
            cdp_by=cdp_by,
            on_progress=on_progress,
        )
        output = _output(to, format, table, bom, flatten, write, resume, spool, deadline)
        # It may hold a password, which a traceback with locals would show.
        del to
        with self._engine.under_way():
            return await Job([part], output).run()

    def _lookups_part(
        self,
        keys: Keys,
        *,
        by: By | CdpBy,
        column: str | None,
        keys_table: str | None,
        with_cdp: bool,
        cdp_key: str,
        cdp_by: CdpBy,
        name: str | None = None,
        on_progress: Callable[[LookupProgress], object] | None,
    ) -> Part[LookupReport, LookupProgress]:
        """Return the part of `export_lookups` that fetches, as `export_part` does of `export`.

        Args:
            keys, by, column, keys_table, with_cdp, cdp_key, cdp_by, on_progress: as for
                `export_lookups`.
            name: as for `export_part`.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        from .export.gather.joined import with_joins
        from .export.gather.joins import Join, Joins
        from .export.gather.lookups import KeysGathering
        from .export.keys import check_keys
        from .export.part import Part
        from .export.plan import KeysPlan
        from .export.reporting import Reporting
        from .export.tables import Content

        self._engine.check_open()
        endpoint = endpoint_of(by)
        is_of_alta = endpoint.operation == CDP.operation
        service = self._alta_service() if is_of_alta else self._clevertap_service()
        source = check_keys(keys, by, column, keys_table)
        join = Join.of(with_cdp, cdp_key, cdp_by, self._alta_service)
        if is_of_alta and join is not None:
            raise InvalidArgument(
                f"with_cdp: it joins people of CleverTap, and {by} is a key of Alta, whose users "
                f"are the result already; leave it out"
            )
        calls = [(service, endpoint.operation), *(() if join is None else (join.call,))]
        reporting = Reporting(calls, on_progress)
        engine = reporting.counting(self._engine)
        joins = None if join is None else Joins(join, engine)
        plan = KeysPlan(service.account, service.url, by)
        people: KeysGathering[Any] = KeysGathering(
            plan if join is None else join.added_to(plan),
            Lookups(engine, service, endpoint),
            source,
            content=Content(of="bindings") if is_of_alta else Content(has_key=True),
            encode=endpoint.encode,
            on_records=None if joins is None else joins.queue,
        )
        return Part(with_joins(people, joins), reporting, name)

    @named(_name_of_unfinished)
    async def finish_unfinished(
        self,
        unfinished: Unfinished,
        *,
        to: str | os.PathLike[str],
        spool: str | os.PathLike[str] | None = None,
        deadline: float | None = None,
        on_progress: Callable[[ExportProgress | LookupProgress], object] | None = None,
    ) -> ExportReport | LookupReport:
        """Finish an unfinished export with the arguments that it was started with.

        As `altaprofiles status OUT --finish-unfinished` does.

        Args:
            unfinished: one of those that `altaprofiles.unfinished_in` returns.
            to: its output. A URL needs its password again.
            spool: the folder that it was given as `spool`.
            deadline, on_progress: as for `export`.

        Returns:
            The result, as of the method that started it.

        Raises:
            ConfigurationError: it is not one, or one of another account, its journal cannot be
                read, or the session lacks credentials for one of its services.
            AltaProfilesError: as from the method that started it.
        """
        from .export.finish import finishing_job, is_of_alta
        from .export.unfinished import Unfinished

        self._engine.check_open()
        if not isinstance(unfinished, Unfinished):
            raise InvalidArgument(
                f"unfinished: expected an unfinished export, got a value of type "
                f"{type(unfinished).__name__}; pass one of unfinished_in(…)",
                value=unfinished,
            )
        service = self._alta_service() if is_of_alta(unfinished) else self._clevertap_service()
        output = _output(to, None, None, False, (), None, True, spool, deadline)
        alta = self._alta_service
        job = finishing_job(self._engine, service, alta, unfinished, output, on_progress)
        # It may hold a password, which a traceback with locals would show.
        del to
        with self._engine.under_way():
            report: ExportReport | LookupReport = await job.run()
        return report

    async def aclose(self, drain: float = 0.0) -> None:
        """Cancel all work and close all connections, as the end of `async with` does.

        With `drain`, what is under way may end first, as a service wants that shuts down: single
        calls with their retries, iterations whose first item has been asked for, up to their last
        item, exports, syncs and all that they send. The calls that a loop body makes are part of
        its iteration, also from tasks that it starts. Any other call or iteration that begins later
        raises `SessionClosed` at once: let a loop of your own, such as one over a queue, end by a
        flag of its own before. After `drain` seconds the rest is cut off, as without it. An
        iteration that is not read to its end lasts until then, unless the task that closes is the
        one that has read it last: that one is not waited for.

        Safe to call more than once. A second call during a drain ends it by its own `drain`. If the
        task that drains is cancelled, all is cut off at once.

        Args:
            drain: the longest wait, in seconds; 0 for none.

        Raises:
            ConfigurationError: `drain` is not a number of seconds, or this is a view.
            SessionClosed: the session was opened in another event loop that is still running.

        >>> async with Session.from_env() as session:
        ...     person = await session.profiles.get(identity="5555555555")
        ...     await session.aclose(drain=10)
        """
        self._check_own("closed")
        drain = check_seconds("drain", drain, zero=True)
        try:
            await self._engine.aclose(drain)
        finally:
            # Not after an attempt to close it from another event loop.
            if self._engine.is_closed:
                for service in self._services:
                    service.abandon(closed_meanwhile)
                    service.close()

    # Type checkers refuse it by themselves.
    if not TYPE_CHECKING:

        def __enter__(self) -> Never:
            raise TypeError(
                "a Session is opened with `async with`, in an async function or a notebook's cell; "
                "where no event loop runs, write `with altaprofiles.blocking(…) as session:`"
            )

        def __exit__(self, *_: object) -> None:
            # Without it, `with` does not call `__enter__`.
            raise NotImplementedError

    async def __aenter__(self) -> Self:
        self._check_own("entered")
        await self._engine.open()
        try:
            for service in self._services:
                await service.open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # In a forked child there is nothing to close, and an error of the block counts.
        if not self._engine.is_inherited:
            await self.aclose()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Session is neither pickled nor copied, because it holds credentials and "
            "connections; open one where it is used, for example with Session.from_env()"
        )

    def __repr__(self) -> str:
        if "_credentials" not in vars(self):
            # In a traceback with locals, of an argument that is refused.
            return "<Session without arguments>"
        clevertap, alta = self._credentials
        state = "" if self._engine.state == "new" else f", {self._engine.state}"
        options = "".join(f", {one}" for one in self._engine.options)
        return f"Session(clevertap={clevertap!r}, alta={alta!r}{options}{state})"

    def _loads(self) -> list[Load]:
        """Return the slots in use, for hooks that measure them: none before and after its life."""
        if self._engine.state in ("new", "closed"):
            return []
        return [service.load for service in self._services]

    def _check_own(self, what: str) -> None:
        if self._is_view:
            raise ConfigurationError(
                f"a view that with_options has returned is not {what}: it lives as long as its "
                f"session; use it as it is"
            )

    def _clevertap_service(self) -> Service:
        if self._clevertap is None:
            fix = self._remedies.get(clevertap_rules.API, "pass clevertap=CleverTap(…)")
            error = MissingCredentials(f"this Session has no CleverTap credentials; {fix}")
            # The call adds its operation.
            error.service = clevertap_rules.API
            raise error
        return self._clevertap

    def _alta_service(self) -> Service:
        if self._alta is None:
            fix = self._remedies.get(alta_rules.API, "pass alta=Alta(…)")
            error = MissingCredentials(f"this Session has no Alta credentials; {fix}")
            error.locate(*CDP.name)
            raise error
        return self._alta


class _Unclosed:
    """Warns of a session that nobody holds any more, nor a view of it, and that is still open.

    The tasks of a session hold its engine, and none of them this.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __del__(self) -> None:
        if self._engine.is_running:
            warnings.warn(
                "unclosed Session: its connections and tasks stay; open it with `async with`, or "
                "await its aclose()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


# For the command line, which writes several sessions to one output.
export_part = Session._export_part  # noqa: SLF001
lookups_part = Session._lookups_part  # noqa: SLF001
sync_part = Session._sync_part  # noqa: SLF001


def _hide_proxy_of(options: SessionOptions) -> None:
    """Hide the proxy of some options, so that a traceback with locals does not show a password."""
    if "proxy" in options:
        options["proxy"] = cast("str | None", hide_proxy(options["proxy"]))


def _hooks_of(on_event: object) -> tuple[Hook, ...]:
    several: Sequence[Any] = [on_event]
    if isinstance(on_event, Sequence) and not isinstance(on_event, str) and not callable(on_event):
        several = on_event
    for hook in several:
        check_callback("on_event", hook, takes="one Attempt, or a list of such functions")
    return tuple(hook for hook in several if hook is not None)


_ALTA_START = 4
"""First number of slots that "auto" tries with Alta. A search begins low, as each refusal costs."""


def _output(
    to: str | os.PathLike[str],
    format: Format | None,
    table: str | None,
    bom: bool,
    flatten: Flatten,
    write: Write | None,
    resume: bool,
    spool: str | os.PathLike[str] | None,
    deadline: float | None,
) -> Output:
    from .export.output import Output

    return Output(
        to=to,
        format=format,
        table=table,
        bom=bom,
        flatten=flatten,
        write=write,
        resume=resume,
        spool=spool,
        deadline=None if deadline is None else Deadline.of(deadline),
    )


def _fixed(slots: int) -> Size:
    return Size(slots, slots)


def _clevertap_service(account: CleverTap, retry: Retry) -> Service:
    if account.max_in_flight == "auto":
        # Chains and counts have a documented limit each, and lookups by ID have none.
        chains, counts = _fixed(CHAIN_SLOTS), _fixed(CHAIN_SLOTS)
        lookups = Size(CHAIN_SLOTS, MOST)
    else:
        chains = counts = lookups = _fixed(account.max_in_flight)
    return Service(
        api=clevertap_rules.API,
        account=account.account_id,
        url=account.url,
        headers=partial(clevertap_rules.auth_headers, account.account_id),
        secret=account.passcode,
        check=check_passcode,
        sizes={
            "open_chain": chains,
            "get_page": chains,
            "count": counts,
            "get_profile": lookups,
        },
        retry=retry,
        shared=account.shared,
        owner=account.owner,
    )


def _alta_service(account: Alta, retry: Retry) -> Service:
    most = account.max_in_flight
    size = Size(_ALTA_START, MOST) if most == "auto" else _fixed(most)
    return Service(
        api=alta_rules.API,
        account=account.account,
        url=account.url,
        headers=alta_rules.auth_headers,
        secret=account.token,
        check=check_api_key,
        sizes={"get_user_cdp": size, "verify_key": size},
        retry=retry,
        per_minute=account.requests_per_minute,
        shared=account.shared,
        owner=account.owner,
    )
