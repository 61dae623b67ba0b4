"""Wrong calls: each raises a clear error before anything is sent.

It names the argument and shows the value of an option. A key is `error.value` instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date, datetime
from functools import partial
from socket import socket
from typing import Any

import pytest

from altaprofiles import (
    Alta,
    CleverTap,
    ConfigurationError,
    Filter,
    InvalidArgument,
    Profile,
    Retry,
    Session,
    Timeout,
    progress,
)

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]

DAYS: dict[str, Any] = {"start": 20260101, "end": 20260131}

Call = Callable[[Session, dict[str, Any]], Any]


@asynccontextmanager
async def unsent(*, opened: bool = True) -> AsyncIterator[Session]:
    """Yield a session for a port without a server; nothing may be sent through it."""
    with socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        session = Session(
            clevertap=CleverTap("W9R", "passcode", base_url=url),
            alta=Alta("token", base_url=url),
            retry=Retry(attempts=1),
        )
        if opened:
            async with session:
                yield session
        else:
            yield session
        assert session.stats.requests == 0


async def drained(results: Any) -> list[Any]:
    return [result async for result in results]


async def refusal(call: Callable[[Session], object], *said: str) -> InvalidArgument:
    """Make a call, which must be refused at once, or at the latest when awaited or iterated."""
    async with unsent() as session:
        with pytest.raises(InvalidArgument) as caught:
            made = call(session)
            if isinstance(made, Awaitable):
                await made
            else:
                await drained(made)
    for words in said:
        assert words in str(caught.value)
    return caught.value


async def refused(call: Callable[[Session], object], *said: str) -> str:
    """Make a call as `refusal` does, and return the text of its error."""
    return str(await refusal(call, *said))


def is_kept_out(value: object, error: ConfigurationError) -> bool:
    """Return whether an error holds a key that its text does not show."""
    texts = (str(error), repr(error), *getattr(error, "__notes__", ()))
    shown = [form for form in (str(value), repr(value)) if form.strip()]
    return error.value is value and not any(form in text for form in shown for text in texts)


def in_words(value: object) -> str:
    """Return the words of an error for a value: itself, or its type if it may hold anything."""
    if isinstance(value, list | tuple | bytes):
        empty = isinstance(value, list) and not value
        return f"an empty {type(value).__name__}" if empty else f"of type {type(value).__name__}"
    return repr(value)


# ----------------------------------------------------------------------------------- one identifier


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "none, as None counts as not given"),
        ({"identity": None, "email": None}, "none, as None counts as not given"),
        ({"identity": "7", "email": "a@example.com"}, "identity, email"),
        ({"identity": "7", "object_id": "d"}, "identity, object_id"),
        (
            {"identity": "7", "email": "a@example.com", "object_id": "d"},
            "identity, email, object_id",
        ),
    ],
)
async def test_a_profile_is_asked_for_by_exactly_one_identifier(
    given: dict[str, Any], named: str
) -> None:
    await refused(
        lambda session: session.profiles.get(**given),
        "identity, email, object_id: pass exactly one",
        f"got {named}",
    )


@pytest.mark.parametrize("given", [{}, {"user_id": None, "anonymous_id": None}])
async def test_a_cdp_user_is_asked_for_by_at_least_one_id(given: dict[str, Any]) -> None:
    await refused(lambda session: session.cdp.get(**given), "user_id, anonymous_id: ")


NO_IDENTIFIER: list[Any] = [
    "",
    " ",
    "\t\n",
    "a\nb",
    "7\r\n",
    "\x00",
    "a\x7f",
    "a\x85",
    "\ufeff7",
    "7\u2028",
    "a\ud83d",
    # Too long for the address of a request; the second one takes nine bytes for each character.
    "a" * 8001,
    "\u20ac" * 889,
    "/" * 2_000_000,
    True,
    1.5,
    b"7",
    ["7"],
    {"identity": "7"},
]


@pytest.mark.parametrize("value", NO_IDENTIFIER, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("name", ["identity", "email", "object_id"])
async def test_what_is_no_identifier_of_a_profile_is_refused(name: str, value: Any) -> None:
    error = await refusal(lambda session: session.profiles.get(**{name: value}))
    assert str(error).startswith(f"{name}: ")
    assert is_kept_out(value, error)


@pytest.mark.parametrize("value", NO_IDENTIFIER, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("name", ["user_id", "anonymous_id"])
async def test_what_is_no_id_of_a_cdp_user_is_refused(name: str, value: Any) -> None:
    error = await refusal(lambda session: session.cdp.get(**{name: value}))
    assert str(error).startswith(f"{name}: ")
    assert is_kept_out(value, error)
    other = "user_id" if name == "anonymous_id" else "anonymous_id"
    await refused(lambda session: session.cdp.get(**{name: value, other: "7"}), f"{name}: ")


@pytest.mark.parametrize("value", NO_IDENTIFIER, ids=lambda value: repr(value)[:20])
async def test_what_is_no_identifier_among_many_is_its_own_error_alone(value: Any) -> None:
    async with unsent() as session:
        for results in (
            session.profiles.get_many([value, value], by="email"),
            session.cdp.get_many([value, value], by="user_id"),
        ):
            lookups = await drained(results)
            assert [lookup.key for lookup in lookups] == [value, value]
            for number, lookup in enumerate(lookups):
                assert isinstance(lookup.error, InvalidArgument)
                assert str(lookup.error).startswith(f"keys[{number}]: ")
                assert is_kept_out(value, lookup.error)
                assert lookup.value is None


_LONG = (
    "keys[5]: would take 9,000 bytes in the address of a request, and servers take at most 8,000"
)


async def test_an_error_of_one_key_names_its_index() -> None:
    async with unsent() as session:
        keys: list[Any] = ["a\nb", "\ud800", "", 10**200, 1.5, "/" * 3000]
        lookups = await drained(session.profiles.get_many(keys, by="identity", ordered=True))
    assert [str(lookup.error).partition("; ")[0] for lookup in lookups] == [
        "keys[0]: holds the control character U+000A at index 1",
        "keys[1]: holds half a surrogate pair at index 0",
        "keys[2]: empty",
        "keys[3]: an int of over 100 digits is not an identifier",
        "keys[4]: expected text or an int, got a value of type float",
        _LONG,
    ]


@pytest.mark.parametrize(
    ("sent", "identity"),
    [(rb'"a\nb"', "a\nb"), (rb'"u\ud83d"', "u\ud83d"), (rb'["\ude00"]', '["\ude00"]')],
)
async def test_a_profile_whose_identity_is_no_id_is_still_delivered(
    sent: bytes, identity: str
) -> None:
    person = Profile.decode(b'{"identity":%b}' % sent)
    async with unsent() as session:
        [customer] = await drained(session.with_cdp([person]))
    assert customer.profile is person
    assert customer.cdp == {}
    assert isinstance(customer.error, InvalidArgument)
    assert str(customer.error).startswith("profiles[0].identity: ")
    assert customer.error.value == identity
    assert is_kept_out(customer.error.value, customer.error)


async def test_no_keys_are_no_results() -> None:
    async with unsent() as session:
        assert await drained(session.profiles.get_many([], by="identity")) == []
        assert await drained(session.cdp.get_many(iter(()), by="user_id")) == []
        assert await drained(session.with_cdp([])) == []


# --------------------------------------------------------------------------------- many identifiers


async def test_several_identifiers_in_the_place_of_one_lead_to_get_many() -> None:
    fix, several = "pass one value of each row, and several to get_many", ["7", "8"]
    await refused(lambda session: session.profiles.get(identity=several), "identity: ", fix)  # type: ignore[arg-type]
    await refused(lambda session: session.cdp.get(user_id=several), "user_id: ", fix)  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["user-id", "USER_ID", "userid", "user id"])
async def test_a_kind_of_key_that_is_nearly_right_is_suggested(by: Any) -> None:
    meant = "(did you mean 'user_id'?)"
    await refused(lambda session: session.cdp.get_many(["7"], by=by), "by: ", meant)


async def test_a_kind_of_key_of_the_other_service_leads_there() -> None:
    of_alta: Any = "user_id"
    of_clevertap: Any = "identity"
    await refused(
        lambda session: session.profiles.get_many(["7"], by=of_alta),
        "; session.cdp.get_many takes 'user_id'",
    )
    await refused(
        lambda session: session.cdp.get_many(["7"], by=of_clevertap),
        "; session.profiles.get_many takes 'identity'",
    )


@pytest.mark.parametrize("by", ["objectId", "id", "", "Identity", None, 1, ["identity"]])
async def test_an_unknown_by_is_refused(by: Any) -> None:
    known = ("by: ", in_words(by), "identity, email, object_id")
    await refused(lambda session: session.profiles.get_many(["7"], by=by), *known)


@pytest.mark.parametrize("by", ["identity", "userId", "", None, 1, ["user_id"]])
async def test_an_unknown_by_of_cdp_users_is_refused(by: Any) -> None:
    known = ("by: ", in_words(by), "user_id, anonymous_id")
    await refused(lambda session: session.cdp.get_many(["7"], by=by), *known)


@pytest.mark.parametrize("keys", ["5555555555", "", b"5555", 7, None, object()], ids=type)
async def test_keys_that_are_not_several_are_refused(keys: Any) -> None:
    calls: dict[str, Callable[[Session], object]] = {
        "keys: ": lambda session: session.profiles.get_many(keys, by="identity"),
        "keys:  ": lambda session: session.cdp.get_many(keys, by="user_id"),
        "profiles: ": lambda session: session.with_cdp(keys),
    }
    for name, call in calls.items():
        error = await refusal(call, name.strip(), type(keys).__name__, "list")
        assert error.value is keys
        assert keys is None or not str(keys) or str(keys) not in str(error)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4"])
async def test_a_concurrency_below_one_is_refused(value: Any) -> None:
    said = ("concurrency: ", repr(value))
    await refused(
        lambda session: session.profiles.get_many(["7"], by="identity", concurrency=value), *said
    )
    await refused(
        lambda session: session.cdp.get_many(["7"], by="user_id", concurrency=value), *said
    )
    await refused(lambda session: session.with_cdp([], concurrency=value), *said)


# ------------------------------------------------------------------------------------ event queries


def asking(**options: Any) -> Callable[[Session], object]:
    event = options.pop("event", "Charged")
    return lambda session: session.profiles.by_event(event, **DAYS | options)


def counting(**options: Any) -> Callable[[Session], object]:
    event = options.pop("event", "Charged")
    return lambda session: session.profiles.count(event, **DAYS | options)


either = pytest.mark.parametrize("query", [asking, counting], ids=["by_event", "count"])
Query = Callable[..., Callable[[Session], object]]


@either
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (20260102, 20260101),
        (date(2026, 1, 2), date(2026, 1, 1)),
        (date(2026, 1, 2), 20260101),
        (1625097600, 1622505600),
    ],
)
async def test_an_end_before_the_start_is_refused(query: Query, start: Any, end: Any) -> None:
    said = await refused(query(start=start, end=end), "end: ", "before", str(start), str(end))
    assert "start" in said


@either
@pytest.mark.parametrize("name", ["start", "end"])
@pytest.mark.parametrize(
    "value",
    [
        20261399,
        20260230,
        20250229,
        20260100,
        10000000,
        2026,
        260101,
        202601,
        0,
        -20260101,
        1767225600000,
        17672256000,
        20260101.0,
        1767225600.5,
        float("nan"),
        "2026-W01",
        "2026-01-01T00:00",
        "yesterday",
        b"20260101",
        True,
        None,
        (2026, 1, 1),
        datetime(2026, 1, 1),  # noqa: DTZ001
        datetime.fromisoformat("2026-01-01T00:00:00+00:00"),
    ],
    ids=repr,
)
async def test_a_date_of_the_wrong_form_is_refused(query: Query, name: str, value: Any) -> None:
    said = await refused(query(**{name: value}), f"{name}: ", in_words(value))
    if value == 1767225600000:
        assert "milliseconds" in said


@either
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (20260101, 1767225600),
        (1767225600, 20260131),
        (date(2026, 1, 1), 1767225600),
        ("2026-01-01", 1767225600),
    ],
)
async def test_two_forms_of_date_do_not_mix(query: Query, start: Any, end: Any) -> None:
    await refused(query(start=start, end=end), "end: ", str(end), "start", str(start))


@either
@pytest.mark.parametrize("event", ["", " ", "App\nLaunched", "\x00", None, 1.5, b"Charged", []])
async def test_what_is_no_event_name_is_refused(query: Query, event: Any) -> None:
    await refused(query(event=event), "event: ", in_words(event))


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        (22, 23),
        (1, 23),
        (0, 23),
        (-46, 23),
        (24, 23),
        (34, 23),
        (35, 46),
        (50, 46),
        (4990, 4991),
        (4992, 4991),
        (5000, 4991),
        (5001, 4991),
        (5014, 4991),
        (10**9, 4991),
    ],
)
async def test_a_batch_size_that_cannot_work_is_refused_with_the_nearest_that_can(
    size: int, nearest: int
) -> None:
    said = await refused(asking(batch_size=size), "batch_size: ", f" {size} ", "23")
    assert said.endswith(f" {nearest}")


@pytest.mark.parametrize("size", [23.0, "23", True, None, float("inf")])
async def test_a_batch_size_that_is_no_int_is_refused(size: Any) -> None:
    await refused(asking(batch_size=size), "batch_size: ", repr(size))


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        " ",
        "a b",
        "a\n",
        "a\r\nX-Evil: 1",
        "a&batch_size=1",
        "a#b",
        'a"b',
        "é",
        "a\x00",
        7,
        b"a",
    ],
)
async def test_a_cursor_with_characters_that_no_cursor_has_is_refused(cursor: Any) -> None:
    await refused(asking(cursor=cursor), "cursor: ", in_words(cursor))


@pytest.mark.parametrize("name", ["app", "events", "profile"])
@pytest.mark.parametrize("value", ["false", "no", "ja", 0, None])
async def test_a_flag_that_is_no_bool_is_refused(name: str, value: Any) -> None:
    await refused(asking(**{name: value}), f"{name}: ", repr(value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("windows", value) for value in (0, -1, 1.5, True, "2", None)),
        *(("prefetch", value) for value in (-1, 0.5, False, "2", None)),
    ],
)
async def test_windows_and_prefetch_that_cannot_work_are_refused(name: str, value: Any) -> None:
    await refused(asking(**{name: value}), f"{name}: ", repr(value))


async def test_a_cursor_and_windows_exclude_each_other() -> None:
    await refused(asking(cursor="c", windows=3), "windows: ", "cursor", "3")


def everyone(**options: Any) -> Callable[[Session], object]:
    return lambda session: session.profiles.everyone(**options)


NO_FILTERS: list[Any] = ["Amount > 100", Filter("a", "exists"), {"name": "a"}, None, 5]


@pytest.mark.parametrize("value", NO_FILTERS, ids=repr)
@pytest.mark.parametrize("name", ["event_properties", "profile_fields"])
@either
async def test_filters_that_are_no_list_are_refused(query: Query, name: str, value: Any) -> None:
    error = await refusal(query(**{name: value}), f"{name}: expected a list of filters, got ")
    assert error.value is value


@either
async def test_an_item_that_is_no_filter_is_refused_by_its_index(query: Query) -> None:
    for name in ("event_properties", "profile_fields"):
        items: list[Any] = [Filter("a", "exists"), {"name": "jane@example.com"}]
        error = await refusal(query(**{name: items}), f"{name}[1]: expected a Filter, got ")
        assert is_kept_out(items[1], error)


@pytest.mark.parametrize("query", [asking, counting, everyone])
@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("{}", "query: "),
        ([], "query: "),
        ({"from": 20260101}, "query: `from` "),
        ({"advanced": {}}, "query: unknown member 'advanced'"),
        ({"advanced_query": {"did_any": "Charged"}}, "query.advanced_query.did_any: "),
        ({"advanced_query": {"likes": object()}}, "query.advanced_query.likes: "),
    ],
)
async def test_a_query_outside_of_the_language_is_refused(
    query: Query, value: Any, place: str
) -> None:
    assert str(await refusal(query(query=value))).startswith(place)


async def test_everyone_has_the_checks_of_a_query() -> None:
    for name, value in (
        ("batch_size", 50),
        ("app", "yes"),
        ("events", 1),
        ("profile", None),
        ("distinct", "no"),
        ("prefetch", -1),
        ("cursor", "a b"),
    ):
        await refused(everyone(**{name: value}), f"{name}: ", str(value))
    await refused(everyone(query={"event_properties": []}), "event_properties: ")


async def test_no_event_is_everyone_only_where_it_says_so() -> None:
    await refused(asking(event=None, start=None, end=None), "event: ", "None", "everyone()")
    for name in ("start", "end"):
        await refused(asking(**{name: None}), f"{name}: got None; pass a date, or for everyone use")
    await refused(counting(start=None), "start: ", "`event`", "`end`", "everyone")
    await refused(counting(event=None), "event: ", "`start` and `end`", "everyone")


# -------------------------------------------------------------------------------------- the session


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clevertap", "W9R"),
        ("clevertap", Alta("token")),
        ("alta", {"url": 1}),
        ("alta", CleverTap("W9R", "passcode")),
        ("retry", None),
        ("retry", 3),
        ("timeout", 30),
        ("timeout", None),
        ("max_response_bytes", 0),
        ("max_response_bytes", -1),
        ("max_response_bytes", True),
        ("max_response_bytes", 1e6),
        ("max_response_bytes", None),
    ],
)
def test_a_session_of_wrong_parts_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Session(**{name: value})
    assert str(caught.value).startswith(f"{name}: expected ")
    # The value itself is not shown if it could hold a secret.
    assert (type(value).__name__ if name in ("clevertap", "alta") else repr(value)) in str(
        caught.value
    )


def test_a_session_of_right_parts_is_not() -> None:
    Session(retry=Retry(attempts=2), timeout=Timeout(total=None), max_response_bytes=1)


CALLS: dict[str, Callable[[Session], object]] = {
    "profiles.get": lambda session: session.profiles.get(identity="7"),
    "profiles.count": counting(),
    "profiles.by_event": asking(),
    "profiles.everyone": everyone(),
    "profiles.by_event.pages": lambda session: session.profiles.by_event("Charged", **DAYS).pages(),
    "profiles.get_many": lambda session: session.profiles.get_many(["7"], by="identity"),
    "cdp.get": lambda session: session.cdp.get(user_id="7"),
    "cdp.get_many": lambda session: session.cdp.get_many(["7"], by="user_id"),
    "with_cdp": lambda session: session.with_cdp([Profile.decode(b'{"identity":"7"}')]),
}
every_call = pytest.mark.parametrize("name", CALLS)


async def use(session: Session, name: str) -> None:
    made = CALLS[name](session)
    if isinstance(made, Awaitable):
        await made
    else:
        await drained(made)


@every_call
async def test_a_session_cannot_be_used_before_it_is_entered(name: str) -> None:
    async with unsent(opened=False) as session:
        with pytest.raises(
            ConfigurationError,
            match=r"not open yet; .*async with.*guide in-a-web-service.*AsyncExitStack",
        ):
            await use(session, name)


@every_call
async def test_a_session_cannot_be_used_after_it_is_closed(name: str) -> None:
    async with unsent() as session:
        await session.aclose()
        with pytest.raises(ConfigurationError, match="is closed"):
            await use(session, name)


@every_call
async def test_a_session_cannot_be_used_without_the_credentials(name: str) -> None:
    api, given = (
        ("CleverTap", {"alta": Alta("token", base_url="http://127.0.0.1:1")})
        if name.startswith("profiles")
        else ("Alta", {"clevertap": CleverTap("W9R", "p", base_url="http://127.0.0.1:1")})
    )
    async with Session(**given) as session:
        with pytest.raises(ConfigurationError, match=rf"{api.lower()}={api}\("):
            await use(session, name)
    assert session.stats.requests == 0


async def test_a_session_is_entered_once() -> None:
    async with unsent() as session:
        with pytest.raises(ConfigurationError, match="opened before"):
            await session.__aenter__()
    with pytest.raises(ConfigurationError, match="opened before"):
        await session.__aenter__()


async def later(attempt: object) -> None:
    """A callback that would have to be awaited."""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("on_event", 5),
        ("on_event", later),
        ("trust_env", "yes"),
        ("trace_configs", 5),
        ("trace_configs", [5]),
    ],
)
def test_a_session_option_that_cannot_work_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: expected "):
        Session(**{name: value})


@pytest.mark.parametrize(
    "url", ["https://in1.api.clevertap.com/1", "https://gateway.example/x/v1/"]
)
def test_a_base_url_with_the_version_is_refused(url: str) -> None:
    """It would be there twice, and every lookup would be "404, no such person"."""
    with pytest.raises(ConfigurationError, match="remove the version"):
        CleverTap("ACCOUNT", "passcode", base_url=url)
    with pytest.raises(ConfigurationError, match="remove the version"):
        Alta("token", base_url=url)


@pytest.mark.parametrize("event", [5, None, b"Charged", "", " ", "a\nb"])
def test_an_event_that_is_no_name_is_refused(event: Any) -> None:
    session = Session(clevertap=CleverTap("ACCOUNT", "passcode"))
    with pytest.raises(ConfigurationError, match=r"^event: "):
        session.profiles.by_event(event, start=20260101, end=20260131)


@pytest.mark.parametrize("value", [None, "", b"bytes"])
def test_a_missing_secret_says_what_came_instead(value: Any) -> None:
    came = {None: "None", "": "empty text", b"bytes": "bytes"}[value]
    with pytest.raises(ConfigurationError, match=rf"^passcode: .* got {came}"):
        CleverTap("ACCOUNT", value)
    with pytest.raises(ConfigurationError, match=rf"^token: .* got {came}"):
        Alta(value)


HUGE = [10**400, -(10**400), 10**5000, -(10**5000)]
NO_FLOAT: dict[str, Callable[[Any], object]] = {
    "Retry.base_delay": lambda value: Retry(base_delay=value),
    "Retry.max_delay": lambda value: Retry(max_delay=value),
    "Retry.throttle_timeout": lambda value: Retry(throttle_timeout=value),
    "Retry.ready_timeout": lambda value: Retry(ready_timeout=value),
    "Retry.deadline": lambda value: Retry(deadline=value),
    "Timeout.connect": lambda value: Timeout(connect=value),
    "Timeout.read": lambda value: Timeout(read=value),
    "Timeout.total": lambda value: Timeout(total=value),
    "progress.log": lambda value: progress.log(every=value),
    "with_options": lambda value: Session().with_options(deadline=value),
}


@pytest.mark.parametrize("name", NO_FLOAT)
def test_seconds_that_no_float_can_hold_are_refused(name: str) -> None:
    for value in HUGE:
        with pytest.raises(InvalidArgument, match=r"expected (a number of )?seconds"):
            NO_FLOAT[name](value)


def test_whole_numbers_of_any_size_are_taken_or_refused() -> None:
    Session(retry=Retry(attempts=10**400, budget=10**400), max_response_bytes=10**400)
    for name in ("attempts", "budget"):
        with pytest.raises(InvalidArgument, match=f"^{name}: expected a whole number"):
            Retry(**{name: -(10**5000)})


@pytest.mark.parametrize("value", HUGE, ids=["400", "-400", "5000", "-5000"])
async def test_days_and_sizes_of_any_length_are_refused(value: int) -> None:
    await refused(asking(start=value), "start: ")
    await refused(asking(batch_size=value), "batch_size: ", "the nearest is ")
    await refused(lambda session: session.profiles.get(identity="7", deadline=value), "deadline: ")


class Unprintable:
    """A value that has no `repr`, as rows of a closed connection have none."""

    def __repr__(self) -> str:
        raise RuntimeError("closed")


class Digits(int):
    def __repr__(self) -> str:
        raise RuntimeError("closed")


BOUND = "5555555555"


class Report:
    def __repr__(self) -> str:
        return f"Report({BOUND})"

    async def write(self, *_: object) -> None:
        """Do nothing with any argument."""


class Frame:
    """A table of customers, which is neither true nor false, as a DataFrame of pandas."""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"   cid\n0  {BOUND}\n" * 10_000

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a DataFrame is ambiguous")


ODD: dict[str, Any] = {
    "no repr": Unprintable(),
    "an endless int": 10**5000,
    "a file's bytes": BOUND.encode() * 10_000,
    "a list that nobody can hash": [[BOUND] * 10_000],
    "a function with bound values": partial(Report().write, BOUND),
    "a method": Report().write,
    "a table of many lines": Frame(),
}
OPTIONS: dict[str, tuple[Call, str]] = {
    "CleverTap": (
        lambda _, given: CleverTap("W9R", "passcode", **given),
        "region base_url timezone max_in_flight shared",
    ),
    "Alta": (
        lambda _, given: Alta("token", **given),
        "endpoint base_url name max_in_flight requests_per_minute shared",
    ),
    "Session": (
        lambda _, given: Session(clevertap=CleverTap("W9R", "passcode"), **given),
        "timeout retry proxy ssl trace_configs on_event trust_env",
    ),
    "by_event": (
        lambda session, given: session.profiles.by_event(**{"event": "Charged", **DAYS, **given}),
        "event start end batch_size windows prefetch cursor distinct app profile",
    ),
    "get_many": (
        lambda session, given: session.profiles.get_many(["1"], **{"by": "identity", **given}),
        "by concurrency ordered",
    ),
    "export": (
        lambda session, given: session.export(
            **{"events": "Charged", "to": "people.ndjson", **DAYS, **given}
        ),
        "events to format write table windows flatten on_shortfall cdp_by deadline distinct start",
    ),
    "export_lookups": (
        lambda session, given: session.export_lookups(
            **{"keys": ["1"], "by": "identity", "to": "people.ndjson", **given}
        ),
        "keys by to format write table column keys_table flatten deadline",
    ),
    "sync": (
        lambda session, given: session.sync(
            **{
                "events": "Charged",
                "to": "new.duckdb",
                "since": 20260101,
                "timezone": "UTC",
                **given,
            }
        ),
        "events to format since timezone windows flatten",
    ),
}
OPTIONS["Filter"] = (
    lambda _, given: Filter(**{"name": "Age", "operator": "equals", "value": 5, **given}),
    "name operator",
)
OF_ANY_SIZE = {"windows", "max_in_flight", "requests_per_minute", "prefetch", "concurrency"}


@pytest.mark.parametrize("label", ODD)
@pytest.mark.parametrize(
    ("call", "name"),
    [
        pytest.param(call, name, id=f"{label}-{name}")
        for label, (call, names) in OPTIONS.items()
        for name in names.split()
    ],
)
async def test_a_value_that_cannot_be_shown_is_refused_in_one_short_line(
    call: Call, name: str, label: str
) -> None:
    if isinstance(ODD[label], int) and name in OF_ANY_SIZE:
        return
    async with unsent() as session:
        with pytest.raises(InvalidArgument) as caught:
            made = call(session, {name: ODD[label]})
            if isinstance(made, Awaitable):
                await made
            else:
                await drained(made)
    text = str(caught.value)
    assert text.startswith(name)
    assert len(text) < 700
    assert "\n" not in text
    assert BOUND not in text


async def test_no_table_of_customers_is_shown() -> None:
    """Wherever it is passed, it is named by its type, also if it is neither true nor false."""
    for label, (call, names) in OPTIONS.items():
        for name in names.split():
            for given in (Frame(), [[BOUND]], BOUND.encode()):
                async with unsent() as session:
                    with pytest.raises(ConfigurationError) as caught:
                        made = call(session, {name: given})
                        await (made if isinstance(made, Awaitable) else drained(made))
                assert BOUND not in str(caught.value), (label, name)


WORDS = "by concurrency ordered windows batch_size distinct app format write deadline on_shortfall"


async def test_a_key_in_the_place_of_an_option_is_not_shown() -> None:
    """As of two arguments in the wrong order."""
    for label, (call, names) in OPTIONS.items():
        for name in {*names.split()} & {*WORDS.split()}:
            for key in ("jack+test@example.com", "+919876543210"):
                async with unsent() as session:
                    with pytest.raises(InvalidArgument, match=rf"^{name}: .*'\*\*\*'") as caught:
                        made = call(session, {name: key})
                        await (made if isinstance(made, Awaitable) else drained(made))
                assert key not in str(caught.value), label


def test_a_function_in_an_error_has_its_name_only() -> None:
    for function, name in (
        (unsent, "<function unsent>"),
        (print, "<function print>"),
        (Report().write, "<function Report.write>"),
        (partial(partial(print, BOUND), end=BOUND), "functools.partial(<function print>, …)"),
        (partial(Report().write, BOUND), "functools.partial(<function Report.write>, …)"),
        (partial(dict, key=BOUND), "functools.partial(<class 'dict'>, …)"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            Retry(deadline=function)  # type: ignore[arg-type]
        assert str(caught.value).endswith(f"got {name}")


def test_something_else_than_a_function_is_named_by_its_type() -> None:
    for given, form in (([BOUND], "a list"), (Report(), "a value of type Report"), (5, "a number")):
        with pytest.raises(InvalidArgument) as caught:
            Session(clevertap=CleverTap("W9R", "passcode"), on_event=[given])  # type: ignore[list-item]
        assert str(caught.value).endswith(f"or a list of such functions, got {form}")


def test_an_int_that_fails_to_show_itself_is_shown_as_an_int() -> None:
    with pytest.raises(InvalidArgument, match=r"'auto', got 0$"):
        CleverTap("W9R", "passcode", max_in_flight=Digits(0))
