"""Pages: the next cursor before a page has arrived, and large pages slice by slice."""

from __future__ import annotations

import json
import re
import sys
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from altaprofiles import DecodeError, Page, ServerError, Unauthorized
from altaprofiles.flow.slices import Slices, at_once
from altaprofiles.wire import clevertap
from altaprofiles.wire.messages import Response
from altaprofiles.wire.page import peek_next_cursor

from ..support.thorough import THOROUGH, examples

pytestmark = pytest.mark.each_value

MIB = 1 << 20

# ------------------------------------------------------------------------------------ early cursors

LEGAL = st.text("ABCXYZabcxyz0189-._~%!$'()*+,;=:@/?", min_size=1, max_size=12)
FOOLED = {"next_cursor": "fooled", "records": []}
FRAGMENTS = ['"next_cursor":"fooled"', '","next_cursor":"fooled', '\\"', "\\", "}{"]
TEXTS = st.one_of(st.text(max_size=6), st.sampled_from([json.dumps(FOOLED), *FRAGMENTS]))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, TEXTS)
NAMES = ["next_cursor", "records", "status", 'a"next_cursor', "next_cursor "]
KEYS = st.one_of(st.sampled_from(NAMES), TEXTS)
INNER = st.one_of(SCALARS, st.just(FOOLED))
CONTAINERS = st.one_of(st.lists(INNER, max_size=3), st.dictionaries(KEYS, INNER, max_size=3))
NO_CURSORS = st.one_of(
    st.sampled_from([None, "", 7, 1.5, True, "a b", "a\nb", "a\x00b", "a&b", 'a"b', "\ud83d", "é"]),
    CONTAINERS,
)


class Writer:
    """Writes valid JSON with drawn white space and escapes."""

    def __init__(self, spaces: list[str], escaped: list[bool]) -> None:
        self._spaces = cycle(spaces)
        self._escaped = cycle(escaped)

    def write(self, value: Any) -> str:
        if isinstance(value, dict):
            inner = ",".join(f"{self.write(k)}:{self.write(item)}" for k, item in value.items())
            text = "{" + (inner or self._space()) + "}"
        elif isinstance(value, list):
            text = "[" + (",".join(map(self.write, value)) or self._space()) + "]"
        elif isinstance(value, str):
            # With escapes in its name, the cursor would not be found early.
            plain = value == "next_cursor"
            text = '"' + "".join(self._letter(letter, plain) for letter in value) + '"'
        else:
            text = json.dumps(value)
        return self._space() + text + self._space()

    def _space(self) -> str:
        return next(self._spaces)

    def _letter(self, letter: str, plain: bool) -> str:
        if letter.isascii() and letter.isprintable() and letter not in '"\\':
            if plain or not next(self._escaped):
                return letter
            return "\\/" if letter == "/" else f"\\u{ord(letter):04X}"
        if letter.isprintable() and not letter.isascii() and not next(self._escaped):
            return letter
        return json.dumps(letter)[1:-1]


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, str | None, bool]:
    """Return a page, its cursor if it is valid, and whether it comes before all containers."""
    keys = KEYS.filter(lambda key: key != "next_cursor")
    values = st.one_of(SCALARS, SCALARS, CONTAINERS)
    members = list(draw(st.dictionaries(keys, values, min_size=1, max_size=4)).items())
    cursor: Any = draw(LEGAL if draw(st.integers(0, 3)) else NO_CURSORS)
    place = draw(st.integers(0, len(members)))
    members.insert(place, ("next_cursor", cursor))
    spaces = st.lists(st.sampled_from(["", "", " ", "\n", "\t\r\n "]), min_size=1, max_size=9)
    writer = Writer(draw(spaces), draw(st.lists(st.booleans(), min_size=1, max_size=9)))
    body = writer.write(dict(members)).encode()
    assert json.loads(body) == dict(members)
    early = not any(isinstance(value, dict | list) for _, value in members[:place])
    legal = isinstance(cursor, str) and re.fullmatch("[!#-%'-~]+", cursor)
    return body, cursor if legal else None, early


@pytest.mark.slow
@settings(max_examples=examples(100, 200), deadline=None)
@given(bodies())
def test_an_early_cursor_is_the_cursor_of_the_page(drawn: tuple[bytes, str | None, bool]) -> None:
    body, cursor, early = drawn
    found = [peek_next_cursor(body[:length]) for length in range(len(body) + 1)]
    assert set(found) <= {None, cursor}
    # Once found, it does not change with the bytes that follow.
    first = found.index(found[-1])
    assert set(found[first:]) == {found[-1]}
    assert found[-1] == (cursor if early else None)


WITHOUT_CURSOR = {
    "HTML": b'<html>{"next_cursor":"abc"}</html>',
    "behind the records": b'{"records":[],"next_cursor":"abc"}',
    "inside a record": b'{"records":[{"next_cursor":"abc"',
    "inside a string": b'{"note":"\\",\\"next_cursor\\":\\"abc\\"","a":1}',
    "as a value": b'{"note":"next_cursor","a":"abc"}',
    "empty cursor": b'{"next_cursor":"","a":"abc"}',
    "number": b'{"next_cursor":77,"a":"abc"}',
    "raw line break": b'{"next_cursor":"a\nc"}',
    "escaped line break": b'{"next_cursor":"a\\nc"}',
    "half an escape": b'{"next_cursor":"abc\\u00"}',
    "lone surrogate": b'{"next_cursor":"abc\\ud83d"}',
    "no comma": b'{"status":"success""next_cursor":"abc"}',
}


@pytest.mark.parametrize("head", WITHOUT_CURSOR.values(), ids=WITHOUT_CURSOR)
def test_no_cursor_is_made_up(head: bytes) -> None:
    assert all(peek_next_cursor(head[:end]) is None for end in range(len(head) + 1))


UNITS = rb"""" \ , \" "" "", ": { {" : - "a":" tr {}, "a":1, "":"",""".split()


@pytest.mark.parametrize("unit", [b" ", *UNITS])
@pytest.mark.parametrize("begin", [b"", b"{", b'{"', b'{"a":"', b'{"a":1,', b'{"next_cursor":"'])
def test_ambiguous_heads_are_matched_without_backtracking(begin: bytes, unit: bytes) -> None:
    """A pattern that backtracks would try 2 ** 8,000 ways, and never return."""
    head = begin + unit * (16_384 // len(unit))
    assert peek_next_cursor(head) is None


def test_thousands_of_members_in_front_are_skipped() -> None:
    members = b'"a\\"":"\\\\","b":-1.5e3, \t"next_cursors":true ,' * 300
    assert peek_next_cursor(b"{" + members + b'"next_cursor":"abc",') == "abc"


# ----------------------------------------------------------------------------------- slice by slice


def record(number: int, inner: str = "") -> bytes:
    """Return a record of about 2 KiB."""
    return b'{"identity":"%d",%b"pad":"%b"}' % (number, inner.encode(), b"x" * 2000)


def pretty(number: int) -> bytes:
    value = {"identity": str(number), "a": [1.50, {"identity": [], "b": {}}], "pad": "x" * 2000}
    return json.dumps(value, indent=2).replace("\n", "\r\n").encode()


RECORDS: dict[str, list[bytes]] = {
    "plain": [record(number) for number in range(2000)],
    "pretty-printed": [pretty(number) for number in range(2000)],
    "lists of the same first key": [
        record(number, '"devices":[' + '{"identity":1},' * 150 + "1],") for number in range(1200)
    ],
    "nothing but lists of the same first key": [
        b'{"identity":[%b]}' % b",".join([b'{"identity":{"identity":1}}'] * 4000) for _ in range(40)
    ],
    "different first keys": [
        record(number).replace(b"identity", b"email", number % 3) for number in range(2000)
    ],
    "a first key of its own": [b'{"email":1}', *map(record, range(2000))],
    "longer than the search for an end": [b'{"identity":"%b"}' % (b"x" * 400_000)] * 12,
    "look-alikes in strings": [
        record(number, '"note":"%s",' % ('},{\\"identity\\":1' * 60)) for number in range(1200)
    ],
    "a first key with escapes": [
        record(number).replace(b"identity", rb"id\"},{\"\\en") for number in range(2000)
    ],
    "not ASCII": [record(number, '"näme":"Zoë 🙂 鈴木",' * 30) for number in range(1200)],
    "lone surrogates": [
        record(number, r'"mood":"\ud83d \\ud83d \udc00",') for number in range(2000)
    ],
    "empty records between": [record(n) if n % 2 else b"{ }" for n in range(1, 4000)],
}
PLAIN = RECORDS["plain"]
ENVELOPES = {
    "all before": b'{"status":"success","next_cursor":"c%%2B2","records":[%b]}',
    "all behind": b'{"records":[%b],"next_cursor":"c%%2B2","status":"success"}',
    "on both sides": b'\n{ "a" : null ,\t"status" : "success" , "records" : [ %b ] '
    b', "code" : 200 , "next_cursor" : "c%%2B2" , "b" : { "records" : [ 7 ] } }\r\n',
    "behind others": b'{"b":{"next_cursor":"no","records":[1]},"status":"success",'
    b'"next_cursor":"c%%2B2","records":[%b],"c":[]}',
    "other lone surrogates": b'{"message":"\\ud83d","status":"success","records":[%b],'
    b'"next_cursor":"c%%2B2"}',
}


def body_of(records: list[bytes], envelope: str = "on both sides", comma: bytes = b",") -> bytes:
    return ENVELOPES[envelope] % comma.join(records)


def slices(body: bytes, *, decode: bool) -> Slices[Page]:
    return clevertap.read_page(Response(200, CIMultiDict(), body), "asked", decode=decode)


def read_page(body: bytes, *, decode: bool) -> Page:
    return at_once(slices(body, decode=decode))


@pytest.mark.slow
@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("name", RECORDS)
def test_every_record_of_a_large_page_is_as_sent(name: str, decode: bool) -> None:
    comma = b" ,\r\n " if name == "pretty-printed" else b","
    body = body_of(RECORDS[name], comma=comma)
    assert len(body) > 3 * MIB
    page = read_page(body, decode=decode)
    assert [bytes(found) for found in page.records] == RECORDS[name]
    assert [profile.raw for profile in page.profiles] == RECORDS[name]
    assert (page.cursor, page.next_cursor) == ("asked", "c%2B2")
    assert page.raw is body


@pytest.mark.slow
@pytest.mark.parametrize("envelope", ENVELOPES)
def test_members_around_many_records_are_read_wherever_they_are(envelope: str) -> None:
    body = body_of(PLAIN, envelope)
    page = read_page(body, decode=False)
    assert [bytes(found) for found in page.records] == PLAIN
    assert page.next_cursor == "c%2B2"
    # Only an absent cursor ends a chain.
    last = read_page(body.replace(b'"next_cursor"', b'"nobody"'), decode=False)
    assert (last.next_cursor, len(last.records)) == (None, len(PLAIN))


@pytest.mark.parametrize("body", [b"{%b,%%b}", b"{%%b,%b}"], ids=["before", "behind"])
@pytest.mark.parametrize(
    ("members", "kind"),
    [
        (b'"status":"fail","error":"Invalid Credentials","code":401', Unauthorized),
        (b'"error":"Invalid Credentials","status":"fail"', Unauthorized),
        (b'"status":"success","code":77', ServerError),
        (b'"status":"fail","error":"\\ud83d"', ServerError),
        (b'"status":"odd"', DecodeError),
        (b'"status":"success","next_cursor":null', DecodeError),
        (b'"status":"success","next_cursor":"a b"', DecodeError),
    ],
)
def test_a_large_page_can_be_a_failure(body: bytes, members: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        read_page(body % members % (b'"records":[%b]' % b",".join(PLAIN)), decode=False)


def test_the_last_of_two_equal_members_counts_on_pages_of_any_size() -> None:
    for people in (PLAIN[:1], PLAIN):
        body = b'{"status":"success","records":[%b],%%b}' % b",".join(people)
        page = read_page(body % b'"records":[{"identity":"last"}]', decode=True)
        assert [profile.identity for profile in page.profiles] == ["last"]
        with pytest.raises(DecodeError):
            read_page(body % b'"status":null', decode=True)


@pytest.mark.slow
@pytest.mark.parametrize("envelope", ["all before", "all behind"])
@pytest.mark.parametrize("name", ["plain", "lists of the same first key"])
def test_a_large_page_cut_short_is_an_error(name: str, envelope: str) -> None:
    body = body_of(RECORDS[name], envelope)
    size = len(body)
    # The last record ends with padding, of which one byte shows as much as another.
    ends = size - body.rindex(b"x") + 2
    middle, last = (150_001, 120) if THOROUGH else (600_007, ends)
    for end in (*range(40), *range(40, size, middle), *range(size - last, size)):
        with pytest.raises(DecodeError):
            read_page(body[:end], decode=False)


def test_a_large_page_cut_short_after_a_record_is_an_error() -> None:
    """Only the end of the list is missing, wherever the slices end."""
    body = body_of(PLAIN, "all before")
    ends = [found.end() - 2 for found in re.finditer(rb"},{", body)]
    for position in ends[::80]:
        for end in (b"", b",", b"]", b"}", b",]}"):
            with pytest.raises(DecodeError):
                read_page(body[:position] + end, decode=False)


@pytest.mark.parametrize("wrong", [b"7", b'"a"', b"null", b"[]", b'[{"identity":"1"}]'])
@pytest.mark.parametrize("position", [0, 700, 1999])
@pytest.mark.parametrize("decode", [True, False])
def test_an_invalid_record_of_a_large_page_is_an_error_with_its_path(
    position: int, wrong: bytes, decode: bool
) -> None:
    body = body_of([*PLAIN[:position], wrong, *PLAIN[position + 1 :]])
    with pytest.raises(DecodeError) as caught:
        # Even if it is not decoded: an export would notice too late to retry the page.
        read_page(body, decode=decode)
    assert caught.value.path == f"$.records[{position}]"


def pauses(body: bytes, *, decode: bool) -> int:
    return sum(1 for _ in slices(body, decode=decode))


def test_reading_a_large_page_pauses_between_slices() -> None:
    body = body_of(PLAIN * 2)
    assert len(body) // MIB == 7
    # The last two MiB are one slice.
    taken_apart = pauses(body, decode=False)
    assert taken_apart >= 5
    assert pauses(body, decode=True) >= taken_apart + 7


def test_decoding_few_but_large_records_pauses_between_them() -> None:
    large = [b'{"identity":"%d","pad":"%b"}' % (number, b"x" * 50_000) for number in range(140)]
    body = body_of(large)
    assert len(body) // MIB == 6
    assert pauses(body, decode=True) >= pauses(body, decode=False) + 5


@pytest.mark.parametrize(
    "name",
    sorted(
        RECORDS.keys()
        - {"nothing but lists of the same first key", "longer than the search for an end"}
    ),
)
def test_odd_records_are_read_in_slices_as_well(name: str) -> None:
    body = body_of(RECORDS[name] * 2)
    assert pauses(body, decode=False) >= len(body) // MIB - 2


@pytest.mark.slow
@pytest.mark.parametrize("count", [40, 300, 600])
def test_deep_records_are_read_in_small_slices(count: int) -> None:
    # The page is small or large, or large with an end that must be read in small slices as well.
    depth = 1000 if sys.version_info < (3, 12) else 20_000
    deep = [b'{"a":' + b"[" * depth + b"]" * depth + b"}"] * (count * 1000 // depth)
    body = b'{"status":"success","records":[%b]}' % b",".join(deep)
    assert pauses(body, decode=False) >= len(body) // (1 << 15) - 1
    assert read_page(body, decode=True).records == deep


@pytest.mark.parametrize("tail", [b'"":[]', b'"x":[{"a":1}]'])
def test_unknown_members_after_the_records_lose_none_of_them(tail: bytes) -> None:
    body = body_of(PLAIN, "all before").removesuffix(b"}") + b"," + tail + b"}"
    assert len(read_page(body, decode=False).records) == len(PLAIN)


# ----------------------------------------------------------------------------------------- as lines


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("indent", [None, 1, "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_page_encodes_to_one_line_for_each_record(
    newline: str, indent: int | str | None, decode: bool
) -> None:
    people: list[dict[str, Any]] = [
        {"identity": "1", "a": {}, "b": [[], {"c": [1, 2.5e300, -0.0]}]},
        {"identity": 2**70, "name": 'Zoë\n\r\u2028\x85 "quoted" \\n', "n": None},
        {"email": "a@b.c", "mood": "\ud83d", "x": {"\n": "\n"}},
        {},
    ]
    text = json.dumps({"status": "success", "records": people}, indent=indent)
    page = read_page(text.replace("\n", newline).encode(), decode=decode)
    lines = page.encode().split(b"\n")
    assert lines.pop() == b""
    assert not any(b"\r" in line for line in lines)
    # Numbers as text, because every digit must be kept.
    for line, person in zip(lines, people, strict=True):
        as_sent = json.loads(json.dumps(person), parse_int=str, parse_float=str)
        assert json.loads(line, parse_int=str, parse_float=str) == as_sent


def test_an_empty_page_encodes_to_nothing() -> None:
    for body in (b'{"status":"success"}', b'{\n"status":"success",\n"records":[\n]\n}\n'):
        assert read_page(body, decode=False).encode() == b""
