"""Compressed answers are inflated piece by piece, completely or not at all."""

from __future__ import annotations

import asyncio
import gzip
import sys
from collections.abc import Callable

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from altaprofiles import CleverTap, ResponseTooLarge, Retry, Session, TransportError
from altaprofiles.http.inflate import Garbled, Inflater, codings

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from ..support.servers import Answer, Scripted, always, http, in_turn, scripted
from ..support.sessions import QUICK

pytestmark = pytest.mark.anyio

MIB = 1 << 20
PACK: dict[str, Callable[[bytes], bytes]] = {
    # Without the time of day, so that a failure can be reproduced.
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": zstd.compress,
}
every_coding = pytest.mark.parametrize("coding", PACK)

SAMPLE = bytes(range(256)) + b"abc" * 300


def fed(inflater: Inflater, *pieces: bytes) -> bytes:
    return b"".join(out for piece in pieces for out in inflater.feed(piece))


def test_these_are_all_the_codings_there_are() -> None:
    assert set(codings()) == set(PACK)


@every_coding
@settings(deadline=None)
@given(
    units=st.lists(st.binary(max_size=60), max_size=4),
    times=st.integers(1, 100_000),
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=8).filter(any),
)
def test_a_packed_body_is_inflated_however_it_arrives(
    coding: str, units: list[bytes], times: int, sizes: list[int]
) -> None:
    members = [unit * times for unit in units]
    packed = b"".join(map(PACK[coding], members))
    inflater = Inflater(coding)
    position = turn = 0
    found: list[bytes] = []
    while position < len(packed):
        size = sizes[turn % len(sizes)]
        found += inflater.feed(packed[position : position + size])
        position, turn = position + size, turn + 1
    # Compared outside the assertion, because a diff of megabytes takes minutes.
    same = b"".join(found) == b"".join(members)
    assert same
    assert inflater.complete == bool(members)
    assert all(0 < len(piece) <= MIB for piece in found)


@every_coding
@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 3 * MIB, 5 * MIB + 7])
@pytest.mark.parametrize("step", [100_000_000, 7])
def test_a_little_that_becomes_a_lot_is_inflated_a_mib_at_a_time(
    coding: str, size: int, step: int
) -> None:
    packed = PACK[coding](b"\0" * size)
    assert len(packed) < 10_000
    inflater = Inflater(coding)
    sizes: list[int] = []
    for start in range(0, len(packed), step):
        sizes += map(len, inflater.feed(packed[start : start + step]))
    assert sum(sizes) == size
    assert max(sizes) <= MIB
    assert inflater.complete


@every_coding
@pytest.mark.parametrize("data", [b"", b"a", SAMPLE, b"\0" * (MIB + 7)], ids=len)
def test_a_body_is_complete_at_its_end_and_never_before(coding: str, data: bytes) -> None:
    packed = PACK[coding](data)
    for end in range(len(packed)):
        inflater = Inflater(coding)
        assert data.startswith(fed(inflater, packed[:end]))
        assert not inflater.complete
        assert fed(inflater, b"") == b""
        assert not inflater.complete
    inflater = Inflater(coding)
    assert fed(inflater, packed) == data
    assert inflater.complete


@every_coding
def test_members_are_one_body_and_an_open_one_is_not_complete(coding: str) -> None:
    first, second = PACK[coding](SAMPLE), PACK[coding](b"second")
    for end in range(1, len(second)):
        inflater = Inflater(coding)
        found = fed(inflater, first + second[:end])
        assert not inflater.complete
        assert found + fed(inflater, second[end:]) == SAMPLE + b"second"
        assert inflater.complete


@every_coding
def test_many_members_are_read_and_very_many_small_ones_at_once_are_refused(coding: str) -> None:
    member = PACK[coding](b"a")
    inflater = Inflater(coding)
    for _ in range(30):
        assert fed(inflater, member * 1000) == b"a" * 1000
        assert inflater.complete
    with pytest.raises(Garbled, match="1024"):
        fed(Inflater(coding), member * 100_000)


@every_coding
@pytest.mark.parametrize("bit", [1, 16, 128])
def test_a_flipped_bit_is_noticed_or_does_not_matter(coding: str, bit: int) -> None:
    packed = PACK[coding](SAMPLE)
    noticed = 0
    for position in range(len(packed)):
        flipped = bytearray(packed)
        flipped[position] ^= bit
        inflater = Inflater(coding)
        try:
            found = fed(inflater, bytes(flipped))
        except Garbled:
            noticed += 1
            continue
        noticed += not inflater.complete
        if coding == "gzip" and inflater.complete:
            # gzip carries a checksum. That of Zstandard is optional, and servers leave it out.
            assert found == SAMPLE
    assert noticed > 5


@every_coding
@pytest.mark.parametrize(
    "behind", [b"\0x", b"x", b"\x1f", b"\x28", b'{"a":1}', b"<html>", b"garbage" * 10]
)
def test_data_behind_the_body_is_not_overlooked(coding: str, behind: bytes) -> None:
    for pieces in ([PACK[coding](SAMPLE) + behind], [PACK[coding](SAMPLE), behind]):
        inflater = Inflater(coding)
        try:
            found = fed(inflater, *pieces)
        except Garbled:
            continue
        assert found == SAMPLE
        assert not inflater.complete


@every_coding
@settings(deadline=None)
@given(data=st.binary(max_size=200))
def test_garbage_never_passes_for_a_body(coding: str, data: bytes) -> None:
    inflater = Inflater(coding)
    try:
        fed(inflater, data, data)
    except Garbled:
        return
    assert not inflater.complete


# -------------------------------------------------------------------------------- over real sockets

ONCE = Retry(attempts=1)
PERSON = b'{"identity":"7","name":"%b"}' % (b"Zo\xc3\xab " * 200)
FOUND = b'{"status":"success","record":%b}' % PERSON
PAGE = b'{"status":"success","records":[%b]}' % b",".join(
    b'{"identity":"%d"}' % number for number in range(500)
)
OPENED = http(b'{"cursor":"a","status":"success"}')


def session_for(server: Scripted, retry: Retry = QUICK) -> Session:
    account = CleverTap("ACCOUNT", "pass-4711-code", base_url=server.url)
    return Session(clevertap=account, retry=retry, max_response_bytes=50 * MIB)


def packed_as(coding: str, body: bytes, status: str = "200 OK", name: str | None = None) -> bytes:
    return http(PACK[coding](body), status, f"Content-Encoding: {name or coding}")


@pytest.mark.parametrize("name", ["gzip", "x-gzip", "GZIP", "X-GZip", "zstd", "ZSTD"])
async def test_a_compressed_answer_is_read_however_its_coding_is_spelt(name: str) -> None:
    coding = name.lower().removeprefix("x-")
    answer = always(packed_as(coding, FOUND, name=name))
    async with scripted(answer) as server, session_for(server, ONCE) as session:
        person = await session.profiles.get(identity="7")
        assert person is not None
        assert person.raw == PERSON
        assert session.stats.bytes == len(FOUND)


async def test_the_codings_that_can_be_read_are_offered() -> None:
    async with scripted(always(http(FOUND))) as server, session_for(server) as session:
        await session.profiles.get(identity="7")
        lines = server.heads[0].lower().split(b"\r\n")
    asked = [line for line in lines if line.startswith(b"accept-encoding:")]
    assert asked == [b"accept-encoding: " + ", ".join(codings()).encode()]


def dripping(response: bytes) -> Answer:
    """Write a response byte by byte, each byte in its own packet."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        for position in range(len(response)):
            writer.write(response[position : position + 1])
            await writer.drain()
            await asyncio.sleep(0)

    return answer


@every_coding
async def test_a_compressed_answer_that_drips_is_read(coding: str) -> None:
    async with scripted(dripping(packed_as(coding, FOUND))) as server:
        async with session_for(server, ONCE) as session:
            person = await session.profiles.get(identity="7")
            assert person is not None
            assert person.raw == PERSON


def cut(coding: str, body: bytes, kept: float, status: str = "200 OK") -> bytes:
    """Return a response whose body is truncated, but whose length header is correct."""
    packed = PACK[coding](body)
    end = kept if isinstance(kept, int) else int(len(packed) * kept)
    return http(packed[:end], status, f"Content-Encoding: {coding}")


@every_coding
@pytest.mark.parametrize("kept", [1, 5, 11, 0.3, 0.9, -8, -1])
async def test_a_compressed_answer_cut_short_is_an_error(coding: str, kept: float) -> None:
    answer = always(cut(coding, FOUND, kept))
    async with scripted(answer) as server, session_for(server) as session:
        with pytest.raises(TransportError, match="ended before it was complete"):
            await session.profiles.get(identity="7")
        assert session.stats.requests == QUICK.attempts


@every_coding
@pytest.mark.parametrize("kept", [1, 6, 10, 0.3, -1])
async def test_a_404_cut_short_does_not_mean_not_found(coding: str, kept: float) -> None:
    refused = b'{"status":"fail","error":"Invalid Credentials","code":401}'
    answer = always(cut(coding, refused, kept, "404 Not Found"))
    async with scripted(answer) as server, session_for(server, ONCE) as session:
        with pytest.raises(TransportError):
            await session.profiles.get(identity="7")


@every_coding
async def test_a_compressed_page_cut_short_is_retried(coding: str) -> None:
    answers = in_turn(
        OPENED, cut(coding, PAGE, 0.5), cut(coding, PAGE, -1), packed_as(coding, PAGE)
    )
    async with scripted(answers) as server, session_for(server) as session:
        people = session.profiles.by_event("Charged", start=20260101, end=20260131)
        found = [person.identity async for person in people]
        assert found == [str(number) for number in range(500)]
        assert len(server.heads) == 4


@every_coding
@pytest.mark.parametrize(
    "damaged", [lambda packed: b"damaged!" * 40, lambda packed: packed + b"behind it" * 9]
)
async def test_a_garbled_answer_is_retried(coding: str, damaged: Callable[[bytes], bytes]) -> None:
    garbled = http(damaged(PACK[coding](FOUND)), "200 OK", f"Content-Encoding: {coding}")
    async with scripted(in_turn(garbled, packed_as(coding, FOUND))) as server:
        async with session_for(server) as session:
            assert await session.profiles.get(identity="7") is not None
            assert session.stats.retries == 1
    async with scripted(always(garbled)) as server, session_for(server, ONCE) as session:
        with pytest.raises(TransportError, match="garbled"):
            await session.profiles.get(identity="7")


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "snappy\xff", "a" * 5000])
async def test_a_coding_that_was_not_offered_is_named(coding: str) -> None:
    answer = always(http(FOUND, "200 OK", f"Content-Encoding: {coding}"))
    async with scripted(answer) as server, session_for(server, ONCE) as session:
        with pytest.raises(TransportError, match="not offered") as caught:
            await session.profiles.get(identity="7")
        assert coding[:6] in str(caught.value)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("zeros", [1, 512, 200_000])
async def test_zeros_behind_the_last_member_are_no_part_of_the_body(zeros: int) -> None:
    packed = gzip.compress(FOUND) + bytes(zeros)
    answer = http(packed, "200 OK", "Content-Encoding: gzip")
    async with scripted(always(answer)) as server, session_for(server, ONCE) as session:
        person = await session.profiles.get(identity="7")
        assert person is not None
        assert person.identity == "7"


@pytest.mark.parametrize("behind", [b"\0\0garbage", b"x", b"\x1f\x8b"])
async def test_other_bytes_behind_the_last_member_may_be_a_damaged_one(behind: bytes) -> None:
    answer = http(gzip.compress(FOUND) + behind, "200 OK", "Content-Encoding: gzip")
    async with scripted(always(answer)) as server, session_for(server, ONCE) as session:
        with pytest.raises(TransportError):
            await session.profiles.get(identity="7")


@every_coding
async def test_an_empty_body_needs_no_inflating(coding: str) -> None:
    unknown = http(b"", "404 Not Found", f"Content-Encoding: {coding}")
    async with scripted(in_turn(unknown, packed_as(coding, b"", "404 Not Found"))) as server:
        async with session_for(server, ONCE) as session:
            for _ in range(2):
                assert await session.profiles.get(identity="7") is None


@every_coding
async def test_a_little_that_becomes_too_much_is_refused_and_lets_others_work(coding: str) -> None:
    answer = always(packed_as(coding, b"\0" * (60 * MIB)))
    turns = 0

    async def work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with scripted(answer) as server, session_for(server, ONCE) as session:
        other = asyncio.ensure_future(work())
        with pytest.raises(ResponseTooLarge):
            await session.profiles.get(identity="7")
        other.cancel()
    assert turns > 40


WITHOUT = """
import sys
for name in ("isal", "backports", "backports.zstd", "compression", "compression.zstd"):
    sys.modules[name] = None
import asyncio
from altaprofiles import CleverTap, Session

async def main():
    async with Session(clevertap=CleverTap("ACCOUNT", "CODE", base_url=sys.argv[1])) as session:
        print((await session.profiles.get(identity="7")).identity)

asyncio.run(main())
"""


async def test_without_the_speedups_gzip_alone_is_offered_and_read() -> None:
    async with scripted(always(packed_as("gzip", FOUND))) as server:
        done = await anyio.run_process([sys.executable, "-W", "error", "-c", WITHOUT, server.url])
        assert done.stdout.split() == [b"7"]
        assert b"\r\naccept-encoding: gzip\r\n" in server.heads[0].lower()
