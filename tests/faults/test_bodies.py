"""Pages whose bytes were changed on the way, read by both ways of reading a page.

The oracle is the standard library's `json`: a changed body that it reads as a page may be believed,
as that page. Any other body is asked for again, or raised. No record is ever lost in silence.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from altaprofiles import AltaProfilesError, Session

from ..support.tried import TRIED
from .account import EVENT, PEOPLE, Reply, answer, forged
from .cells import PATIENCE, usable
from .server import Exchange, Fault, Steps, WireServer

pytestmark = pytest.mark.each_value

RANGE: dict[str, Any] = {"start": 20260101, "end": 20260131}
_CURSORS = ("a%2F0", "a%2F2", "b%2F1")
"""Of a small page that others follow, of a small last one, and of a large last one."""


def page_of(cursor: str) -> bytes:
    return answer("GET", f"/1/profiles.json?cursor={cursor}", b"").body


def in_place(body: bytes) -> Fault:
    """Return the fault that puts `body` in the place of the right one."""

    def steps(exchange: Exchange) -> Steps:
        yield Reply(body).whole

    return Fault("changed", steps)


class Unreadable(Exception):
    """The oracle does not read a body as a page."""


def _refuse(constant: str) -> None:
    raise Unreadable(constant)


def loads(data: bytes) -> Any:
    """Return a JSON value. Numbers stay text, because no number is too long for a record."""
    try:
        return json.loads(
            data.removeprefix(b"\xef\xbb\xbf").decode(),
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse,
        )
    except (ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from None


def records_of(body: bytes) -> list[Any]:
    """Return the records of a page, as the oracle reads it."""
    page = loads(body)
    if not isinstance(page, dict) or page.get("status") != "success":
        raise Unreadable("no success")
    records = page.get("records") or []
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise Unreadable("no records")
    return records


async def read(session: Session, cursor: str, *, decode: bool) -> list[bytes]:
    """Return the lines of all pages from `cursor` on."""
    people = session.profiles.by_event(EVENT, **RANGE, cursor=cursor, distinct=False)
    pages = people.pages(decode=decode)
    return [line async for page in pages for line in page.encode().splitlines()]


async def check(
    server: WireServer, session: Session, cursor: str, body: bytes, *, decode: bool
) -> str:
    """Let `body` come in the place of a page, and return "right", "changed" or "error"."""
    server.arm(in_place(body))
    try:
        with anyio.fail_after(PATIENCE):
            lines = await read(session, cursor, decode=decode)
    except AltaProfilesError:
        return "error"
    found = [loads(line) for line in lines]
    first = records_of(page_of(cursor))
    behind = [loads(one.record) for one in PEOPLE[3:]] if cursor == "a%2F0" else []
    if found == first + behind:
        return "right"
    believed = records_of(body)
    page = loads(body)
    # A cursor under another name may be followed.
    ended = [] if page.get("next_cursor") is not None else [believed]
    assert found in [believed + behind, *ended]
    return "changed"


# ------------------------------------------------------------------------------------- single bits

_STRUCTURE = (b'"next_cursor"', b'"records"', b'"status"', b'"success"', b'"record"', b'"data"')


def _bits(body: bytes, step: int) -> Iterator[int]:
    """Yield every bit of the members' names, and each `step`th of the rest."""
    named = set[int]()
    for name in _STRUCTURE:
        start = body.find(name)
        if start >= 0:
            named.update(range(start * 8, (start + len(name) + 3) * 8))
    yield from sorted({*named, *range(0, len(body) * 8, step)})


def _flip(body: bytes, bit: int) -> bytes:
    TRIED["flipped bits"] += 1
    changed = bytearray(body)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.anyio
@pytest.mark.parametrize("cursor", ["a%2F0", "a%2F2"])
@pytest.mark.parametrize("decode", [True, False])
async def test_one_flipped_bit_loses_nobody(
    cursor: str, decode: bool, request: pytest.FixtureRequest
) -> None:
    body = page_of(cursor)
    step = 1 if request.config.getoption("--all-faults") else 61
    lost = []
    async with usable() as (server, session):
        right = await read(session, cursor, decode=decode)
        for bit in _bits(body, step):
            changed = _flip(body, bit)
            server.arm(in_place(changed))
            try:
                found = await read(session, cursor, decode=decode)
            except AltaProfilesError:
                continue
            if found == right:
                continue
            try:
                # A letter became another one. No client can know.
                believed = records_of(changed)
            except Unreadable:
                believed = []
            same = [loads(line) for line in found[: len(believed)]] == believed
            if len(found) != len(right) or not same:
                lost.append((bit, changed[max(0, bit // 8 - 12) : bit // 8 + 12]))
    assert lost == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("/1/profile.json?identity=id-1", "profile"),
        ("/v1/user/get-user-cdp?user_id=id-1", "users"),
    ],
)
async def test_one_flipped_bit_makes_nobody_unknown(
    target: str, name: str, request: pytest.FixtureRequest
) -> None:
    body = answer("GET", target, b"").body
    step = 1 if request.config.getoption("--all-faults") else 61
    lost = []
    async with usable() as (server, session):
        for bit in _bits(body, step):
            changed = _flip(body, bit)
            server.arm(in_place(changed))
            try:
                if name == "profile":
                    found: Any = await session.profiles.get(identity="id-1")
                else:
                    found = await session.cdp.get(user_id="id-1")
            except AltaProfilesError:
                continue
            if not found:
                lost.append((bit, changed[max(0, bit // 8 - 12) : bit // 8 + 12]))
                continue
            if name == "profile" and found.raw != PEOPLE[1].record:
                try:
                    believed = loads(changed)["record"]
                except Unreadable:
                    believed = None
                if loads(found.raw) != believed:
                    lost.append((bit, changed[max(0, bit // 8 - 12) : bit // 8 + 12]))
    assert lost == []


# --------------------------------------------------------------------------------- any other change

TOKENS = (
    b"null", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"1e999", b"\xff", b"\xc3", b"\0",
    b'"next_cursor":"x",', b'"records":[],', b'"records":null,', b'"status":"fail",', b'"code":2,',
    b"\xef\xbb\xbf", b"\\ud800", b"//", b"\n", b"NaN", b"-", b"0", b"{}", b'{"identity":"new"},',
)  # fmt: skip


KINDS = ("flip", "cut", "insert", "double", "swap", "replace")


@st.composite
def _mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Return a change of one to three places of a body."""
    seed = draw(st.integers(0, 2**32))
    kinds = draw(
        st.lists(
            st.sampled_from(["flip", "cut", "insert", "double", "swap", "replace"]),
            min_size=1,
            max_size=3,
        )
    )
    return lambda body: mutated(body, random.Random(seed), kinds)  # noqa: S311


def mutated(body: bytes, chance: random.Random, kinds: Sequence[str]) -> bytes:
    """Return `body` with changes of these kinds at places that `chance` picks."""
    TRIED["changed bodies"] += bool(kinds)
    for kind in kinds:
        # Mostly near the members of the page; elsewhere it is all records.
        near = chance.random() < 0.5
        place = chance.randrange(min(200, len(body)) if near else len(body))
        width = chance.choice((1, 2, 7, 60))
        before, part, behind = body[:place], body[place : place + width], body[place + width :]
        if kind == "flip":
            part = bytes([part[0] ^ 1 << chance.randrange(8)]) + part[1:]
        elif kind == "cut":
            part = b""
        elif kind == "insert":
            part = chance.choice(TOKENS) + part
        elif kind == "double":
            part *= 2
        elif kind == "swap":
            part = part[::-1]
        else:
            part = chance.choice(TOKENS)
        body = before + part + behind or b"0"
    return body


@pytest.mark.parametrize("cursor", _CURSORS)
@pytest.mark.parametrize("decode", [True, False])
def test_a_changed_page_is_read_as_it_is_or_again(cursor: str, decode: bool) -> None:
    examples = 2 if cursor.startswith("b") else 30
    body = page_of(cursor)

    @settings(max_examples=examples)
    @given(st.lists(_mutations(), min_size=4, max_size=4))
    def hold(changes: list[Callable[[bytes], bytes]]) -> None:
        async def run() -> None:
            async with usable() as (server, session):
                for change in changes:
                    await check(server, session, cursor, change(body), decode=decode)

        anyio.run(run)

    hold()


@st.composite
def _pages(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Return a valid page in an unusual form, and its records in order."""
    records = draw(st.lists(st.sampled_from([one.record for one in PEOPLE]), max_size=5))
    blank = draw(st.sampled_from(["", " ", "\n", "\t \r\n"]))
    members = draw(st.permutations(["status", "records", "other", "code", "error"]))

    def key(name: str) -> str:
        place = draw(st.integers(-1, len(name) - 1))
        spelled = (
            name if place < 0 else f"{name[:place]}\\u{ord(name[place]):04x}{name[place + 1 :]}"
        )
        return f'"{spelled}"'

    filler = "x" * draw(st.sampled_from([0, 10, 3 << 19]))
    values = {
        "status": '"success"',
        "records": f"[{blank}{f'{blank},{blank}'.join(one.decode() for one in records)}{blank}]",
        "other": json.dumps({"records": [{"identity": "no"}], "x": [filler, '"}],']}),
        "code": draw(st.sampled_from(["0", "200", "null", '"200"'])),
        "error": "null",
    }
    if draw(st.booleans()):
        members = [name for name in members if name in ("status", "records")]
    inner = f"{blank},{blank}".join(f"{key(name)}{blank}:{blank}{values[name]}" for name in members)
    return f"{blank}{{{blank}{inner}{blank}}}{blank}".encode(), records


@given(_pages(), st.booleans())
@settings(max_examples=25)
def test_a_page_in_any_form_is_read(page: tuple[bytes, list[bytes]], decode: bool) -> None:
    body, records = page

    async def run() -> None:
        async with usable(max_response_bytes=1 << 24) as (server, session):
            server.arm(in_place(body))
            assert await read(session, "a%2F2", decode=decode) == records
            assert server.struck == 1
            assert len(server.requests) == 1

    anyio.run(run)


def test_the_oracle_knows_a_page() -> None:
    assert records_of(page_of("a%2F2")) == [loads(PEOPLE[6].record)]
    assert b"mallory" in forged("/1/profiles.json?cursor=a")
