"""Bodies that are not what they seem: bytes that are not UTF-8, byte-order marks, slow ones."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import re
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import anyio
import pytest

from altaprofiles import (
    Alta,
    Attempt,
    CleverTap,
    ConnectError,
    DecodeError,
    RequestTimeout,
    Retry,
    Session,
    Timeout,
    TransportError,
)

from ..support.servers import Scripted, always, http, listening, scripted
from ..support.sessions import QUICK
from ..support.tasks import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]

ONCE = Retry(attempts=1)
RANGE: dict[str, Any] = {"start": 20260101, "end": 20260131}
BOM = codecs.BOM_UTF8


def session_for(server: Scripted, retry: Retry = QUICK, **options: Any) -> Session:
    return Session(
        clevertap=CleverTap("ACCOUNT", "pass-4711", base_url=server.url),
        alta=Alta("token", base_url=server.url),
        retry=retry,
        **options,
    )


def bodies(size: int) -> dict[str, bytes]:
    """Return the body of each request's answer by how its line begins; pages have `size` people."""
    people = [{"identity": f"é{n}", "unknown": "é" * 300} for n in range(2 * size)]
    return {
        "POST /1/profiles.json": b'{"cursor":"a","status":"success"}',
        "GET /1/profiles.json?cursor=a": json.dumps(
            {"status": "success", "next_cursor": "b", "records": people[:size]}, ensure_ascii=False
        ).encode(),
        "GET /1/profiles.json?cursor=b": json.dumps(
            {"status": "success", "records": people[size:]}, ensure_ascii=False
        ).encode(),
        "GET /1/profile.json": '{"status":"success","record":{"identity":"é"}}'.encode(),
        "POST /1/counts": '{"status":"partial","req_id":"7","x":"é"}'.encode(),
        "GET /1/counts": '{"status":"success","count":7,"x":"é"}'.encode(),
        "GET /v1/user": '{"code":0,"data":{"é":{"user_id":"é"}}}'.encode(),
    }


async def everything(session: Session, decode: bool = True) -> dict[str, Any]:
    """Return the result of every call."""
    person = await session.profiles.get(identity="7")
    pages = session.profiles.by_event("Charged", **RANGE).pages(decode=decode)
    return {
        "get": person and person.identity,
        "records": b"".join([page.encode() async for page in pages]).count(b"\n"),
        "count": await session.profiles.count("Charged", **RANGE),
        "cdp": list(await session.cdp.get(user_id="7")),
    }


Damage = Callable[[bytes], bytes]


def serving(size: int, damage: Damage, times: int) -> Callable[..., Any]:
    """Return an answer that damages each body as often as given, and then sends it as it is."""
    left = dict.fromkeys(bodies(size), times)
    whole = bodies(size)

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        key = max((key for key in whole if head.decode().startswith(key)), key=len)
        body = whole[key]
        if left[key] > 0:
            left[key] -= 1
            body = damage(body)
        # In pieces, so that the cursor is known before the page is.
        reply = http(body)
        writer.write(reply[:200])
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(reply[200:])

    return answer


def flipped(place: bytes) -> Damage:
    def damage(body: bytes) -> bytes:
        at = body.rfind(place) + 2 if place in body else body.index(b'"') + 1
        return body[:at] + bytes([body[at] ^ 0x80]) + body[at + 1 :]

    return damage


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("size", [3, 4_000], ids=["small", "large"])
@pytest.mark.parametrize("place", [b'"records"', b'"unknown"', b'"next_cursor"', b'"status"'])
async def test_a_flipped_bit_loses_and_doubles_nothing(
    place: bytes, size: int, decode: bool
) -> None:
    async with scripted(serving(size, flipped(place), 2)) as server:
        async with session_for(server) as session:
            found = await everything(session, decode)
        assert found == {"get": "é", "records": 2 * size, "count": 7, "cdp": ["é"]}


async def test_a_cursor_from_a_body_that_is_garbled_is_a_guess() -> None:
    """The first body names a wrong cursor, whose page must neither be delivered nor awaited."""
    whole = bodies(3)
    wrong = whole["GET /1/profiles.json?cursor=a"].replace(b'"b"', b'"guess"')
    pages = [flipped(b'"unknown"')(wrong), whole["GET /1/profiles.json?cursor=a"]]
    guessed = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        line = head.decode()
        if "cursor=guess" in line:
            guessed.set()
            writer.write(http(b'{"status":"success","records":[{"identity":"wrong"}]}'))
        elif "cursor=a" in line:
            reply = http(pages.pop(0))
            writer.write(reply[:200])
            if pages:
                await guessed.wait()
            writer.write(reply[200:])
        else:
            writer.write(http(whole[max((key for key in whole if line.startswith(key)), key=len)]))

    async with scripted(answer) as server, session_for(server) as session:
        people = [p.identity async for p in session.profiles.by_event("Charged", **RANGE)]
    assert people == [f"é{n}" for n in range(6)]


@pytest.mark.parametrize("size", [3, 4_000], ids=["small", "large"])
@pytest.mark.parametrize("decode", [True, False])
async def test_a_byte_order_mark_is_read_over_on_every_path(size: int, decode: bool) -> None:
    async with scripted(serving(size, lambda body: BOM + body, 99)) as server:
        async with session_for(server, ONCE) as session:
            found = await everything(session, decode)
        assert found == {"get": "é", "records": 2 * size, "count": 7, "cdp": ["é"]}


async def test_a_byte_order_mark_does_not_hide_the_next_cursor() -> None:
    asked = asyncio.Event()
    whole = bodies(3)

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"cursor=a" in head:
            reply = http(BOM + whole["GET /1/profiles.json?cursor=a"])
            writer.write(reply[:200])
            await asked.wait()
            writer.write(reply[200:])
        elif b"cursor=b" in head:
            asked.set()
            writer.write(http(whole["GET /1/profiles.json?cursor=b"]))
        else:
            writer.write(http(whole["POST /1/profiles.json"]))

    async with scripted(answer) as server, session_for(server) as session:
        with anyio.fail_after(PATIENCE):
            people = [p.identity async for p in session.profiles.by_event("Charged", **RANGE)]
    assert len(people) == 6


@pytest.mark.parametrize("coding", ["latin-1", "utf-16"])
async def test_a_body_in_another_coding_is_an_error_in_the_end(coding: str) -> None:
    page = http('{"status":"success","record":{"identity":"é"}}'.encode(coding))
    async with scripted(always(page)) as server, session_for(server) as session:
        with pytest.raises(DecodeError):
            await session.profiles.get(identity="7")
        assert session.stats.requests == QUICK.attempts


# ------------------------------------------------------------------------------------------- words


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("call", ["page", "person"])
async def test_a_slow_download_that_is_ended_comes_with_advice(call: str) -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b" ")
                await asyncio.sleep(0.01)

    limits = Timeout(read=10, total=0.3)
    async with scripted(answer) as server, session_for(server, ONCE, timeout=limits) as session:
        with pytest.raises(RequestTimeout, match=r"within 0\.3 s, although") as caught:
            if call == "person":
                await session.profiles.get(identity="7")
            else:
                pages = session.profiles.by_event("Charged", **RANGE, cursor="a").pages()
                await anext(pages)
        assert "a longer `timeout`" in str(caught.value)
        assert ("`batch_size`" in str(caught.value)) is (call == "page")


@pytest.mark.parametrize("answered", [[], UnicodeError("label empty or too long")])
async def test_a_resolver_without_an_answer_is_named(
    answered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        if isinstance(answered, Exception):
            raise answered
        return answered

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    account = CleverTap("ACCOUNT", "pass-4711", base_url="https://clevertap.example")
    async with Session(clevertap=account, retry=QUICK) as session:
        with pytest.raises(ConnectError, match=r"clevertap\.example: the name "):
            await session.profiles.get(identity="7")


async def test_an_end_amid_the_handshake_is_named_and_retried() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with listening(serve) as port:
        account = CleverTap("ACCOUNT", "pass-4711", base_url=f"https://localhost:{port}")
        async with Session(clevertap=account, retry=QUICK) as session:
            with pytest.raises(
                ConnectError, match=r"reset by peer|closed the connection during the TLS handshake"
            ):
                await session.profiles.get(identity="7")
            assert session.stats.requests == QUICK.attempts


async def test_an_orderly_end_amid_the_handshake_is_named() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write_eof()
        await reader.read()

    async with listening(serve) as port:
        account = CleverTap("ACCOUNT", "pass-4711", base_url=f"https://localhost:{port}")
        async with Session(clevertap=account, retry=ONCE) as session:
            with pytest.raises(
                ConnectError, match="the other side closed the connection during the TLS handshake"
            ):
                await session.profiles.get(identity="7")


def alert(number: int) -> bytes:
    return b"\x15\x03\x03\x00\x02\x02" + bytes([number])


@pytest.mark.parametrize(
    ("reply", "requests"),
    [
        (alert(40), 1),  # handshake failure
        (alert(70), 1),  # protocol version
        (alert(48), 1),  # unknown CA
        (alert(116), 1),  # certificate required
        (alert(112), 1),  # unrecognised name
        (alert(80), QUICK.attempts),  # internal error: theirs, and it may pass
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 1),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 1),
    ],
)
async def test_what_tls_refuses_is_not_tried_again(reply: bytes, requests: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(reply)
        await reader.read()

    async with listening(serve) as port:
        account = CleverTap("ACCOUNT", "pass-4711", base_url=f"https://localhost:{port}")
        async with Session(clevertap=account, retry=QUICK) as session:
            with pytest.raises(ConnectError) as caught:
                await session.profiles.get(identity="7")
            assert session.stats.requests == requests
    fix = "" if reply.startswith(b"\x15") else r" \(it may not speak TLS\)"
    assert re.search(rf"no TLS connection to localhost:\d+{fix}: \S", str(caught.value))


ODD = {
    "a name without a value": b"HTTP/1.1 200 OK\r\nX\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "an odd length": b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\n{}",
    "a huge length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
    "a length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"
    ),
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "a negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of a thousand": b"HTTP/1.1 1000 OK\r\n\r\n",
    "another protocol": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b'{"status":"success"}',
    "NUL in a header": b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
    "nothing": b"",
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: br\r\n\r\n{}",
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
async def test_an_answer_that_is_not_http_has_an_error_with_a_reason(answer: bytes) -> None:
    async def reply(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with scripted(reply) as server, session_for(server, ONCE) as session:
        with pytest.raises((TransportError, DecodeError)) as caught:
            await session.profiles.get(identity="7")
        assert not str(caught.value).rstrip().endswith(":")


async def test_an_exception_of_a_callers_hook_is_the_callers_own() -> None:
    async def fail(*_: object) -> None:
        raise OSError("the disk of the tracer is full")

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(fail)
    attempts: list[Attempt] = []
    async with scripted(always(http(b"{}"))) as server:
        options: dict[str, Any] = {"trace_configs": [trace], "on_event": attempts.append}
        async with session_for(server, **options) as session:
            with pytest.raises(OSError, match="tracer"):
                await session.profiles.get(identity="7")
