"""A body that is taken apart while it arrives is read as one that is decoded as a whole.

The whole body is decoded where the status is not 200, which is the yardstick here.
"""

from __future__ import annotations

import codecs
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from altaprofiles import AltaProfilesError, DecodeError, Page, ResponseTooLarge
from altaprofiles.flow.slices import at_once
from altaprofiles.wire.clevertap import PageReader
from altaprofiles.wire.messages import Response
from altaprofiles.wire.pages import Pages

from ..faults.test_bodies import KINDS, mutated
from ..support.odd import DEEP, RECORDS, pretty
from ..support.tried import TRIED

Result = tuple[Any, ...]


def result_of(page: Page) -> Result:
    return page.records, page.next_cursor, page.encode(), page.raw


def error_of(error: AltaProfilesError) -> Result:
    path = (error.path, error.excerpt) if isinstance(error, DecodeError) else ()
    return type(error), str(error).replace("HTTP 203", "HTTP 200"), *path


def whole(body: bytes, *, decode: bool) -> Result:
    reader = PageReader(Pages(decode=decode), len(body), "asked")
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        body.decode()
    except UnicodeDecodeError as error:
        excerpt = body[:120].decode("utf-8", "replace").strip()
        return error_of(DecodeError(str(error), path="$", excerpt=excerpt))
    try:
        return result_of(at_once(reader.read(Response(203, CIMultiDict(), body))))
    except AltaProfilesError as error:
        return error_of(error)


def in_pieces(pieces: Sequence[bytes], *, decode: bool, step: int) -> Result:
    size = sum(map(len, pieces))
    return read_by(PageReader(Pages(decode=decode), size, "asked", step=step), pieces)


def read_by(reader: PageReader[Page], pieces: Sequence[bytes]) -> Result:
    try:
        for piece in pieces:
            for _ in reader.feed(piece):
                pass
        return result_of(at_once(reader.read(Response(200, CIMultiDict(), b""))))
    except AltaProfilesError as error:
        return error_of(error)


def split(body: bytes, chance: random.Random) -> list[bytes]:
    """Return `body` in pieces, of one byte or of many."""
    TRIED["bodies split at random"] += 1
    longest = chance.choice([1, 3, 20, 300, 5000])
    pieces = []
    at = 0
    while at < len(body):
        size = chance.randint(1, longest)
        pieces.append(body[at : at + size])
        at += size
    return pieces


KEYS = ["records", "recorcs", "profiles", "next_cursor", "status", "code", "x", "b"]
VALUES = [
    '"success"', '"fail"', "null", "0", "200", '"c%2B2"', '"\\ud83d"', "[]", "[ ]", "{}", "1e400",
    '{"records":[{"identity":"no"}]}', "[7]", '[{"identity":"no"},{"identity":"2"}]', DEEP, '""',
]  # fmt: skip
BLANKS = ["", "", " ", "\n", "\r\n\t "]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Return a page in any form, often a right one."""
    records = draw(st.lists(RECORDS, max_size=5))
    if draw(st.booleans()):
        records = [*map(pretty, records)]
    blank = draw(st.sampled_from(BLANKS)).encode()
    listed = b"[" + blank + (blank + b"," + blank).join(records) + blank + b"]"
    odd = draw(st.sampled_from([b"", b"", b"", b"7", b'"a"', b"null", b"[{}]", b"-", b"tru", b","]))
    if odd:
        listed = listed[:-1] + (b"," if records else b"") + odd + b"]"
    members = [(b"status", b'"success"'), (b"next_cursor", b'"c%2B2"')]
    if draw(st.booleans()):
        others = st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES))
        members = [
            (key.encode(), value.encode()) for key, value in draw(st.lists(others, max_size=4))
        ]
    names = [b"records", b"records", b"rec\\u006frds", b"recorcs", b"Records"]
    members.insert(draw(st.integers(0, len(members))), (draw(st.sampled_from(names)), listed))
    if draw(st.integers(0, 4)) == 0:
        members.insert(draw(st.integers(0, len(members))), (b"records", listed))
    inner = (blank + b"," + blank).join(
        b'"' + key + b'"' + blank + b":" + blank + value for key, value in members
    )
    body = blank + b"{" + blank + inner + blank + b"}" + blank
    if draw(st.integers(0, 5)) == 0:
        body = codecs.BOM_UTF8 + body
    return body


RIGHT = b'{"status":"success","records":[{"a":[{"a":1}]},{"a":"\xc3\xa9"}],"next_cursor":"c"}'


@settings(max_examples=60, deadline=None, derandomize=True)
@given(bodies(), st.integers(0, 2**32), st.lists(st.sampled_from(KINDS), max_size=2), st.booleans())
@example(RIGHT, 1, [], True)
@example(RIGHT.replace(b"\xa9", b""), 1, [], True)
@example(RIGHT[:-1], 1, [], True)
@example(b'{"status":"success","records":[{"a":1},]}', 1, [], False)
@example(b'{"records":[{"a":%b},{"a" 1}]}' % DEEP.encode(), 1, [], False)
@example(b'{"records":[{"a":%b},5,x]}' % DEEP.encode(), 1, [], False)
@example(b'{"records":[{"a":%b},5],"x":}' % DEEP.encode(), 1, [], False)
@example(
    b'{"records":"no","records":[{"a":%b}],"records":"no","records":[tru]}' % DEEP.encode(),
    1,
    [],
    False,
)
@example(b'{"records":[{"a":%b}],"records":"no","x":tru}' % DEEP.encode(), 1, [], False)
@example(b'{"x":tru,"records":[{"a":%b}]}' % DEEP.encode(), 1, [], False)
@example(b'{"records":[{"a":"\\ud83d"},{"a":"\\ud83d}]}', 1, [], False)
@example(b'{"records":[{}],"records":[{"a":1}],"records":[{} {}]}', 1, [], False)
def test_a_body_in_pieces_is_read_as_a_whole_one(
    body: bytes, seed: int, kinds: list[str], decode: bool
) -> None:
    chance = random.Random(seed)  # noqa: S311
    changed = mutated(body, chance, kinds)
    expected = whole(changed, decode=decode)
    for _ in range(3):
        pieces = split(changed, chance)
        step = chance.choice([8, 64, 1024])
        assert in_pieces(pieces, decode=decode, step=step) == expected


class Passing(Pages):
    """Takes the records as an export does, which holds no page as a whole."""

    in_memory = False


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(RECORDS, min_size=1, max_size=30),
    st.sampled_from(["as they are", "pretty", "apart"]),
    st.integers(0, 2**32),
)
@example([b"{}"] * 1999 + [b'{"a":"%b"}' % (b"x" * 9_990)], "as they are", 1)
@example([b'{"a":"%b"}' % (b"x" * 9_990)] * 9, "apart", 1)
def test_the_limit_holds_for_one_record(records: list[bytes], form: str, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    records = [*map(pretty, records)] if form == "pretty" else records
    gap = b"\r\n , \t" if form == "apart" else b","
    body = b'{"next_cursor":"c","records":[%b]}' % gap.join(records)
    rest = len(b'{"next_cursor":"c","records":[]}')
    longest = max(rest, *map(len, records), 0)
    pieces = chance.choice([split(body, chance), [body]])
    step = chance.choice([8, 1024, 1 << 19])

    def result(limit: int) -> Result:
        return read_by(PageReader(Passing(decode=False), limit, "asked", step=step), pieces)

    assert result(longest) == whole(body, decode=False)
    if longest < len(body) and longest > rest:
        assert result(longest - 1)[0] is ResponseTooLarge
