"""`Session`: puts the parts together and adds no rule of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from inspect import iscoroutinefunction
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypedDict, Unpack

from .cdp import Cdp
from .checks import check_flag, check_whole
from .credentials import Alta, CleverTap, Secret
from .engine import Engine, Service
from .errors import ConfigurationError
from .fanout import Source
from .limits import Cap, Pace
from .models import Attempt, Customer, Profile, Stats
from .profiles import Profiles
from .retry import Retry
from .transport import Timeout, Transport
from .wire import alta as alta_rules
from .wire import clevertap as clevertap_rules

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Session"]

MAX_RESPONSE_BYTES = 128 * 1024 * 1024


class SessionOptions(TypedDict, total=False):
    """What `Session` takes besides credentials."""

    retry: Retry
    timeout: Timeout
    max_response_bytes: int
    trace_configs: Sequence[aiohttp.TraceConfig]
    on_event: Callable[[Attempt], object] | None
    trust_env: bool


class Session:
    """Everything one account on each service can be asked, over one pool of connections.

    Use it with `async with`, in any task, and share it: caps, retry budget and connections are the
    session's, so one session per account and process is what keeps the service's limits. It can be
    used by thousands of tasks at once, and closed from another task than the one that opened it.

    Args:
        clevertap: needed by `session.profiles`.
        alta: needed by `session.cdp` and `with_cdp`.
        retry: how long to keep trying.
        timeout: limits of each attempt.
        max_response_bytes: most bytes of one answer, decompressed; 128 MiB. A larger one is refused
            while it arrives (`ResponseTooLarge`).
        trace_configs: `aiohttp.TraceConfig`s for the HTTP client underneath. What they see includes
            the credentials.
        on_event: called with an `Attempt` after each request, in the event loop. It must be quick
            and must not raise: what it raises ends the call that it reports on.
        trust_env: take proxies from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. Off by default.

    Raises:
        ConfigurationError: a value that cannot work.

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
        on_event: Callable[[Attempt], object] | None = None,
        trust_env: bool = False,
    ) -> None:
        for name, value, kind in (
            ("clevertap", clevertap, CleverTap),
            ("alta", alta, Alta),
            ("retry", retry, Retry),
            ("timeout", timeout, Timeout),
        ):
            optional = kind in (CleverTap, Alta)
            if not isinstance(value, kind) and not (optional and value is None):
                # Where credentials belong, the value may be the secret itself.
                shown = f"a {type(value).__name__}" if optional else repr(value)
                raise ConfigurationError(f"{name}: expected {kind.__name__}(…), got {shown}")
        check_whole("max_response_bytes", max_response_bytes, least=1)
        check_flag("trust_env", trust_env)
        if on_event is not None and (not callable(on_event) or iscoroutinefunction(on_event)):
            raise ConfigurationError(
                f"on_event: expected a plain function of one Attempt, got {on_event!r}"
            )
        self._engine = Engine(
            transport=Transport(
                timeout=timeout,
                max_response_bytes=max_response_bytes,
                trace_configs=trace_configs,
                trust_env=trust_env,
            ),
            retry=retry,
            on_event=on_event,
        )
        self._credentials = (clevertap, alta)
        self._clevertap = None if clevertap is None else _clevertap_service(clevertap)
        self._alta = None if alta is None else _alta_service(alta)
        self._profiles = Profiles(self._engine, self._clevertap_service)
        self._cdp = Cdp(self._engine, self._alta_service)

    @classmethod
    def from_env(cls, **options: Unpack[SessionOptions]) -> Self:
        """Return a session with the credentials that the environment holds.

        Reads `CLEVERTAP_ACCOUNT_ID`, `CLEVERTAP_PASSCODE`, `CLEVERTAP_REGION`,
        `CLEVERTAP_BASE_URL`, `ALTA_TOKEN` and `ALTA_BASE_URL`. One service is enough.

        Args:
            options: everything that `Session` takes besides credentials.

        Raises:
            ConfigurationError: neither service's variables are set, or only half of CleverTap's.
        """
        has_clevertap = "CLEVERTAP_ACCOUNT_ID" in os.environ or "CLEVERTAP_PASSCODE" in os.environ
        has_alta = "ALTA_TOKEN" in os.environ
        if not has_clevertap and not has_alta:
            raise ConfigurationError(
                "no credentials in the environment; set CLEVERTAP_ACCOUNT_ID and "
                "CLEVERTAP_PASSCODE (and CLEVERTAP_REGION), or ALTA_TOKEN, or both"
            )
        return cls(
            clevertap=CleverTap.from_env() if has_clevertap else None,
            alta=Alta.from_env() if has_alta else None,
            **options,
        )

    @property
    def profiles(self) -> Profiles:
        """CleverTap's people: `get`, `get_many`, `by_event`, `count`."""
        return self._profiles

    @property
    def cdp(self) -> Cdp:
        """Alta's users: `get`, `get_many`."""
        return self._cdp

    @property
    def stats(self) -> Stats:
        """What this session has sent and received so far; it goes on counting."""
        return self._engine.stats

    def with_cdp(
        self, profiles: Source[Profile], *, concurrency: int | None = None, ordered: bool = False
    ) -> AsyncGenerator[Customer, None]:
        """Yield each of `profiles` with what Alta has bound to its identity.

        Every profile is delivered once: without an identity, with nothing bound, or when its lookup
        failed (`customer.error`), `customer.cdp` is empty. Customers come as their lookups
        complete, or in the order of `profiles` with `ordered`.

        Args:
            profiles: any iterable or async iterable, such as `session.profiles.by_event(…)`. It is
                read no further ahead than four profiles per worker.
            concurrency: lookups at work at once; `Alta.max_in_flight` when None.
            ordered: keep the order of `profiles`.

        Raises:
            ConfigurationError: an argument is wrong, or the session cannot be used.
            Unauthorized, Forbidden: the token is refused.
            AltaProfilesError: what reading `profiles` raised.

        >>> people = session.profiles.by_event("Charged", start=20260101, end=20260131)
        >>> async for customer in session.with_cdp(people):
        ...     print(customer.profile.identity, list(customer.cdp))
        """
        return self._cdp.join(profiles, concurrency=concurrency, ordered=ordered)

    async def aclose(self) -> None:
        """Stop all work and close all connections. What `async with` does at its end."""
        await self._engine.aclose()

    async def __aenter__(self) -> Self:
        await self._engine.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        clevertap, alta = self._credentials
        return f"Session(clevertap={clevertap!r}, alta={alta!r})"

    def _clevertap_service(self) -> Service:
        if self._clevertap is None:
            raise ConfigurationError(
                "this Session has no CleverTap credentials; pass clevertap=CleverTap(…)"
            )
        return self._clevertap

    def _alta_service(self) -> Service:
        if self._alta is None:
            raise ConfigurationError("this Session has no Alta credentials; pass alta=Alta(…)")
        return self._alta


def _clevertap_service(account: CleverTap) -> Service:
    return Service(
        api=clevertap_rules.API,
        url=account.url,
        headers=_hidden(clevertap_rules.auth_headers(account.account_id, account.passcode)),
        secret=account.passcode,
        cap=Cap(account.max_in_flight),
    )


def _alta_service(account: Alta) -> Service:
    rate = account.requests_per_minute
    return Service(
        api=alta_rules.API,
        url=account.url,
        headers=_hidden(alta_rules.auth_headers(account.token)),
        secret=account.token,
        cap=Cap(account.max_in_flight),
        pace=None if rate is None else Pace(rate),
    )


def _hidden(headers: dict[str, str]) -> dict[str, str]:
    # "Bearer " and a token is plain text again.
    return {name: Secret(value) for name, value in headers.items()}
