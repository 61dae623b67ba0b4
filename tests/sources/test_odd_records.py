"""Records that decoders refuse: the same people and bytes, whichever way they come."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import duckdb
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from altaprofiles import Alta, CleverTap, DecodeError, Page, Profile, Session
from altaprofiles.flow.slices import at_once
from altaprofiles.wire import clevertap
from altaprofiles.wire.messages import Response

from ..support.odd import PARTS, RECORDS, pretty
from ..support.servers import Answer, http, scripted
from ..support.sessions import QUICK
from ..support.thorough import pairwise

pytestmark = pytest.mark.each_value

DEEP = b"[" * 1000 + b"]" * 1000
ABYSS = b'{"a":[' * 8000 + b"]}" * 8000

ODD = {
    "phone out of range": b'{"identity":"1","phone":1e400}',
    "huge integer": b'{"identity":"2","phone":%b}' % (b"7" * 5000),
    "whole number": b'{"identity":9.19876543210E11}',
    "deep properties": b'{"identity":"3","profileData":{"a":%b}}' % DEEP,
    "deep unknown key": b'{"x":%b,"identity":"4"}' % DEEP,
    "deep devices": b'{"objectId":"d5","platformInfo":[{"objectId":"e5","x":%b}]}' % DEEP,
    "abyss": b'{"identity":"6","events":%b}' % ABYSS,
    "deep identity": b'{"identity":%b}' % DEEP,
    "number in events": b'{"identity":"7","events":{"A":{"count":1e400}}}',
    "surrogates": rb'{"\udc00":1,"identity":"8","name":"\ud800","profileData":{"a":"\ud800"}}',
    "surrogate and deep": rb'{"identity":"9","name":"\ud800","x":%b}' % DEEP,
    "members twice": b'{"identity":"0","identity":"10"}',
    "wrong types": b'{"identity":"11","profileData":[1],"events":[],"platformInfo":{}}',
    "list of strings": b'{"identity":"12","platformInfo":["a"],"all_identities":{"a":1}}',
    "list as identity": b'{"identity":["a",{"b":1.50}]}',
    "bool as identity": b'{"identity":true}',
    "no identity": b'{"identity":null,"objectId":7,"email":1.50}',
    "in order": b'{"identity":"13"}',
}
RECORDS_OF_ODD = [*ODD.values()]
IDENTITIES = [Profile.decode(record).identity for record in RECORDS_OF_ODD]
PADDING = [b'{"identity":"pad%d","pad":"%b"}' % (n, b"x" * 3000) for n in range(600)]


def body_of(records: list[bytes], *, is_pretty: bool, large: bool) -> bytes:
    """Return a page of `records`, amid a megabyte of others if it is to be large."""
    if large:
        records = [*PADDING, *records, *PADDING]
    body = b'{"status":"success","x":%b,"records":[%b]}' % (b"7", b",".join(records))
    return pretty(body) if is_pretty else body


def read(body: bytes, *, decode: bool) -> Page:
    return at_once(clevertap.read_page(Response(200, CIMultiDict(), body), "c", decode=decode))


def lines_of(page: Page) -> list[bytes]:
    """Return the lines of the records that are no padding."""
    lines = page.encode().split(b"\n")
    assert lines.pop() == b""
    return [line for line in lines if not line.startswith(b'{"identity":"pad')]


def texts(profile: Profile) -> list[str | None]:
    return [
        profile.identity,
        profile.email,
        profile.name,
        profile.phone,
        profile.object_id,
        profile.person_key,
        *profile.all_identities,
    ]


WAYS: list[list[bool]] = [[False, True], [False, True], [True, False]]


@pytest.mark.parametrize(("name", "is_pretty", "large", "decode"), pairwise([*ODD], *WAYS))
def test_an_odd_record_is_the_same_in_every_page(
    name: str, is_pretty: bool, large: bool, decode: bool
) -> None:
    page = read(body_of([ODD[name]], is_pretty=is_pretty, large=large), decode=decode)
    assert lines_of(page) == [ODD[name]]
    [profile] = [one for one in page.profiles if not str(one.identity).startswith("pad")]
    assert texts(profile) == texts(Profile.decode(ODD[name]))


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(records=st.lists(RECORDS, max_size=4))
def test_any_records_are_the_same_in_every_page(records: list[bytes]) -> None:
    expected = [texts(Profile.decode(record)) for record in records]
    for is_pretty in (False, True):
        for large in (False, True):
            body = body_of(records, is_pretty=is_pretty, large=large)
            for decode in (True, False):
                page = read(body, decode=decode)
                assert lines_of(page) == records
                profiles = page.profiles[600:-600] if large else page.profiles
                assert [*map(texts, profiles)] == expected
                assert [one.encode() for one in profiles] == records


@settings(max_examples=50, deadline=None)
@given(part=PARTS)
def test_an_odd_part_raises_when_it_is_touched_and_costs_no_other(part: str) -> None:
    for name in ("profileData", "events", "platformInfo"):
        record = f'{{"identity":"7","{name}":{part},"name":"Ann"}}'.encode()
        profile = Profile.decode(record)
        assert (profile.identity, profile.name, profile.raw) == ("7", "Ann", record)
        for touched in ("profile_data", "events", "platform_info", "object_ids"):
            is_odd = (
                touched
                == {
                    "profileData": "profile_data",
                    "events": "events",
                    "platformInfo": touched if touched in ("platform_info", "object_ids") else "",
                }[name]
            )
            path = ""
            try:
                getattr(profile, touched)
            except DecodeError as error:
                path = error.path
            assert not path or (is_odd and path.startswith(f"$.{name}"))


GARBLED = [
    b'{"identity":NaN}',
    b'{"identity":"1","x":Infinity}',
    b'{"x":%b,"y":-NaN}' % DEEP,
    b'{"x":%b]}' % DEEP,
    b'{"x":%b' % DEEP,
    b'{"x":[%b,]}' % DEEP,
    b'{"x":%b}' % DEEP.replace(b"[]", b"[nul]"),
    b'{"x":%b}' % DEEP.replace(b"[]", b"[\x00]"),
    rb'{"x":"\ud800","y":"\ud8"}',
]


@pytest.mark.parametrize(("record", "is_pretty", "large", "decode"), pairwise(GARBLED, *WAYS))
def test_garbled_json_is_never_believed(
    record: bytes, is_pretty: bool, large: bool, decode: bool
) -> None:
    body = body_of([b'{"identity":"1"}', record], is_pretty=is_pretty, large=large)
    with pytest.raises(DecodeError):
        read(body, decode=decode)


@pytest.mark.parametrize("large", [False, True])
def test_a_page_with_deep_records_cut_anywhere_is_an_error(large: bool) -> None:
    body = body_of(RECORDS_OF_ODD, is_pretty=False, large=large)
    for end in (*range(1, 60, 7), *range(60, len(body) - 1, len(body) // 7), len(body) - 1):
        with pytest.raises(DecodeError):
            read(body[:end], decode=False)


def test_members_around_the_records_may_be_odd_too() -> None:
    body = b'{"x":%b,"status":"success","records":[{"identity":"1"}],"y":%b,"next_cursor":"c2"}'
    for odd in (DEEP, ABYSS, rb'"\ud800"', b"1e400", b"[%b]" % (b"7" * 5000)):
        for decode in (True, False):
            page = read(body % (odd, odd), decode=decode)
            assert (page.records, page.next_cursor) == ([b'{"identity":"1"}'], "c2")


# ------------------------------------------------------------------------------------ over a socket

pages = pytest.mark.parametrize(
    ("is_pretty", "large"), [(False, False), (True, False), (False, True), (True, True)]
)


def answering(body: bytes, record: bytes = b"null") -> Answer:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST"):
            writer.write(http(b'{"status":"success","cursor":"c1"}'))
        elif head.startswith(b"GET /1/profiles.json"):
            writer.write(http(body))
        elif head.startswith(b"GET /1/profile.json"):
            writer.write(http(b'{"status":"success","record":%b}' % record))
        else:
            writer.write(http(b'{"code":0,"message":"OK","data":{}}'))

    return answer


def session_at(url: str) -> Session:
    return Session(
        clevertap=CleverTap("A", "P", base_url=url), alta=Alta("T", base_url=url), retry=QUICK
    )


@pytest.mark.anyio
@pages
async def test_by_event_and_with_cdp_pass_odd_records(is_pretty: bool, large: bool) -> None:
    body = body_of(RECORDS_OF_ODD * 2, is_pretty=is_pretty, large=large)
    async with scripted(answering(body)) as server, session_at(server.url) as session:
        query = session.profiles.by_event("E", start=20260101, end=20260101)
        people = [one.encode() async for one in query]
        assert [one for one in people if one not in PADDING] == RECORDS_OF_ODD
        assert len(people) == len(RECORDS_OF_ODD) + (len(PADDING) if large else 0)
        found: list[bytes] = []
        async for page in query.pages(decode=False):
            found += lines_of(page)
        assert found == RECORDS_OF_ODD
        if not large:
            joined = [one.profile async for one in session.with_cdp(query, ordered=True)]
            assert [one and one.encode() for one in joined] == RECORDS_OF_ODD


@pytest.mark.anyio
@pages
@pytest.mark.parametrize("ending", ["ndjson", "csv", "parquet", "duckdb"])
async def test_every_format_takes_odd_records_once(
    tmp_path: Path, ending: str, is_pretty: bool, large: bool
) -> None:
    body = body_of(RECORDS_OF_ODD * 2, is_pretty=is_pretty, large=large)
    to = tmp_path / f"x.{ending}"
    padding = [f"pad{number}" for number in range(len(PADDING))] if large else []
    expected = [*padding, *IDENTITIES]
    async with scripted(answering(body)) as server, session_at(server.url) as session:
        report = await session.export("E", start=20260101, end=20260101, to=to)
    assert (report.people, report.mended) == (len(expected), 0 if ending == "ndjson" else 4)
    if ending == "ndjson":
        lines = to.read_bytes().split(b"\n")
        assert lines == [*(PADDING if large else []), *RECORDS_OF_ODD, b""]
        return
    if ending == "duckdb":
        source = duckdb.connect(str(to), read_only=True)
        table = "profiles"
    else:
        source = duckdb.connect()
        table = f"'{to}'"
        if ending == "csv":
            table = (
                f"read_csv('{to}', all_varchar=true, allow_quoted_nulls=false, header=true,"
                " max_line_size=10000000)"
            )
    with source:
        rows = source.execute(f"SELECT identity FROM {table}").fetchall()
        assert [identity for (identity,) in rows] == expected
        [(mended, name)] = source.execute(
            f"SELECT profile_data->>'a', name FROM {table} WHERE identity = '8'"
        ).fetchall()
        assert (mended, name) == ("\ufffd", "\ufffd")
        for column in ("profile_data", "events", "platform_info", "extra"):
            source.execute(f"SELECT {column}::JSON, json_type({column}) FROM {table}").fetchall()
    if ending == "parquet":
        read_back = pyarrow.parquet.read_table(to).column("phone").to_pylist()
        assert {"1e400", "7" * 5000} <= {*read_back}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("is_pretty", [False, True])
async def test_get_returns_an_odd_record(name: str, is_pretty: bool) -> None:
    record = pretty(ODD[name]) if is_pretty else ODD[name]
    async with scripted(answering(b"", record)) as server, session_at(server.url) as session:
        person = await session.profiles.get(identity="1")
    assert person is not None
    assert person.raw == record
    assert person.encode() == ODD[name]
    assert texts(person) == texts(Profile.decode(ODD[name]))


@pytest.mark.anyio
@pytest.mark.parametrize("ending", ["ndjson", "csv", "parquet"])
@pytest.mark.parametrize("name", ODD)
async def test_lookups_and_their_exports_take_an_odd_record(
    tmp_path: Path, name: str, ending: str
) -> None:
    to = tmp_path / f"x.{ending}"
    answer = answering(b"", pretty(ODD[name]))
    async with scripted(answer) as server, session_at(server.url) as session:
        [found] = [one async for one in session.profiles.get_many(["1"], by="identity")]
        assert found.value is not None
        assert found.value.encode() == ODD[name]
        report = await session.export_lookups(["1"], by="identity", to=to)
    assert (report.found, report.failed) == (1, 0)
    if ending == "ndjson":
        assert to.read_bytes() == ODD[name] + b"\n"


@pytest.mark.anyio
async def test_a_page_of_nan_is_asked_for_again(tmp_path: Path) -> None:
    garbled = b'{"status":"success","records":[{"identity":NaN}]}'
    bodies = [garbled, garbled.replace(b"NaN", b'"1"')]

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST"):
            writer.write(http(b'{"status":"success","cursor":"c1"}'))
        else:
            writer.write(http(bodies.pop(0)))

    to = tmp_path / "x.ndjson"
    async with scripted(answer) as server, session_at(server.url) as session:
        await session.export("E", start=20260101, end=20260101, to=to)
    assert [json.loads(line) for line in to.read_bytes().splitlines()] == [{"identity": "1"}]
