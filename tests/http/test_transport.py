"""One request against a hostile or broken server, over raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import pickle
import socket
import ssl
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import aiohttp
import anyio
import pytest
import trustme

from altaprofiles import (
    Alta,
    AltaProfilesError,
    Attempt,
    BadRequest,
    CleverTap,
    ConfigurationError,
    ConnectError,
    CursorLoop,
    DecodeError,
    RateLimited,
    RequestTimeout,
    ResponseTooLarge,
    Retry,
    ServerError,
    Session,
    StatusError,
    Timeout,
    TransportError,
)
from altaprofiles.base.wording import GARBLED
from altaprofiles.http.transport import _Request
from altaprofiles.wire.messages import Response

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from ..support.servers import Scripted, always, http, in_turn, scripted
from ..support.sessions import QUICK
from ..support.tasks import PATIENCE, nothing_left_behind

pytestmark = pytest.mark.anyio

PASSCODE = "pass-4711-code"
TOKEN = "app-token-0815"
ONCE = Retry(attempts=1)
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
}
FOUND = http(b'{"status":"success","record":{"identity":"7"}}')
RANGE: dict[str, Any] = {"start": 20260101, "end": 20260131}


def session_for(server: Scripted, retry: Retry = QUICK, **options: Any) -> Session:
    return Session(
        clevertap=CleverTap("ACCOUNT", PASSCODE, base_url=server.url),
        alta=Alta(TOKEN, base_url=server.url),
        retry=retry,
        **options,
    )


async def test_a_cursor_goes_on_the_request_line_byte_for_byte() -> None:
    cursor = "ZiZj%2FmNw+ME/BQ%3d%3D~a%25b=*"
    pages = in_turn(
        http(b'{"cursor":"%b","status":"success"}' % cursor.encode()),
        http(b'{"status":"success","records":[{"identity":"7"}]}'),
    )
    async with scripted(pages) as server, session_for(server) as session:
        async for _ in session.profiles.by_event("App Launched", **RANGE, batch_size=46):
            pass
        assert server.request_lines == [
            "POST /1/profiles.json?batch_size=46 HTTP/1.1",
            f"GET /1/profiles.json?cursor={cursor} HTTP/1.1",
        ]


async def test_identifiers_are_encoded_once() -> None:
    async with scripted(always(FOUND)) as server, session_for(server) as session:
        await session.profiles.get(email="jack+test@example.com")
        await session.profiles.get(identity="a b/c&d=é%2F")
        assert server.request_lines == [
            "GET /1/profile.json?email=jack%2Btest%40example.com HTTP/1.1",
            "GET /1/profile.json?identity=a%20b%2Fc%26d%3D%C3%A9%252F HTTP/1.1",
        ]


async def test_requests_carry_the_credentials_of_their_own_service_only() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        alta = b"get-user-cdp" in head
        writer.write(http(b'{"code":0,"data":{}}') if alta else FOUND)

    async with scripted(answer) as server, session_for(server) as session:
        await session.profiles.get(identity="7")
        await session.cdp.get(user_id="7")
        first, second = (head.decode().lower() for head in server.heads)
        assert "x-clevertap-account-id: account\r\n" in first
        assert f"x-clevertap-passcode: {PASSCODE}\r\n" in first
        assert "content-type: application/json\r\n" in first
        assert "authorization" not in first
        assert f"authorization: bearer {TOKEN}\r\n" in second
        assert "passcode" not in second


async def test_a_redirect_is_an_error_and_takes_the_passcode_nowhere() -> None:
    async with scripted(always(FOUND)) as other:
        redirect = http(b"", "302 Found", f"Location: {other.url}/1/profile.json")
        async with scripted(always(redirect)) as server, session_for(server) as session:
            with pytest.raises(StatusError, match="Redirects are not followed") as caught:
                await session.profiles.get(identity="7")
            assert caught.value.status == 302
            assert len(server.heads) == 1
        assert other.heads == []


async def test_aiohttp_calls_the_hooks_that_take_headers_as_they_were_prepared() -> None:
    """They are private. A version that renames them would copy every header again, unnoticed."""
    calls: list[str] = []

    class Recording(_Request):
        def update_headers(self, headers: Any) -> None:
            calls.append("update_headers")
            super().update_headers(headers)

        def update_auto_headers(self, skip_auto_headers: Any) -> None:
            calls.append("update_auto_headers")
            super().update_auto_headers(skip_auto_headers)

    headers = {"Host": "clevertap.example", "X-Prepared": "once"}
    async with scripted(always(FOUND)) as server:
        async with aiohttp.ClientSession(headers=headers, request_class=Recording) as client:
            async with client.get(server.url) as response:
                assert response.status == 200
        assert server.heads[0] == (
            b"GET / HTTP/1.1\r\nHost: clevertap.example\r\nX-Prepared: once\r\n\r\n"
        )
    assert calls == ["update_headers", "update_auto_headers"]


async def test_cookies_are_not_kept() -> None:
    cookie = http(b'{"status":"success"}', "200 OK", "Set-Cookie: track=1; Path=/")
    async with scripted(always(cookie)) as server, session_for(server) as session:
        for _ in range(2):
            await session.profiles.get(identity="7")
        assert all(b"ookie" not in head for head in server.heads)


@pytest.mark.parametrize("encoding", PACKED)
async def test_a_body_over_the_cap_is_refused_while_it_streams(encoding: str) -> None:
    body = b'{"status":"success","pad":"' + b"a" * 50_000_000
    packed = PACKED[encoding](body)
    sent = 0

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n".encode()
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(packed))
        for start in range(0, len(packed), 65536):
            writer.write(packed[start : start + 65536])
            await writer.drain()
            sent = start

    async with scripted(answer) as server:
        async with session_for(server, max_response_bytes=100_000) as session:
            with pytest.raises(ResponseTooLarge, match="100,000") as caught:
                await session.profiles.get(identity="7")
            assert caught.value.limit == 100_000
            assert len(server.heads) == 1
    if encoding == "identity":
        assert sent < len(body) // 2


@pytest.mark.usefixtures("clock")
async def test_a_server_that_drips_runs_into_the_total_timeout() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.01)

    limits = Timeout(read=10, total=0.3)
    async with scripted(answer) as server, session_for(server, ONCE, timeout=limits) as session:
        with pytest.raises(RequestTimeout, match=r"within 0\.3 s"):
            await session.profiles.get(identity="7")


@pytest.mark.usefixtures("clock")
async def test_a_server_that_falls_silent_runs_into_the_read_timeout() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
        await writer.drain()
        await asyncio.Event().wait()

    limits = Timeout(read=0.1)
    async with scripted(answer) as server, session_for(server, ONCE, timeout=limits) as session:
        with pytest.raises(RequestTimeout, match=r"nothing for 0\.1 s"):
            await session.profiles.get(identity="7")


@pytest.mark.usefixtures("clock")
async def test_a_deadline_bounds_an_attempt_that_hangs() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with scripted(answer) as server:
        async with session_for(server, Retry(deadline=0.2)) as session:
            with pytest.raises(RequestTimeout, match=r"deadline of 0\.2 s"):
                await session.profiles.get(identity="7")


async def test_a_wait_beyond_the_deadline_is_not_started() -> None:
    busy = http(b"", "429 Too Many Requests", "Retry-After: 3600")
    async with scripted(always(busy)) as server:
        async with session_for(server, Retry(deadline=60)) as session:
            with pytest.raises(RateLimited) as caught:
                await session.profiles.get(identity="7")
            assert caught.value.retry_after == 3600
            assert session.stats.requests == 1


async def test_a_wait_of_more_than_ten_minutes_is_an_error() -> None:
    busy = http(b"", "503 Back next year", "Retry-After: 30000000")
    async with scripted(always(busy)) as server, session_for(server) as session:
        with pytest.raises(ServerError) as caught:
            await session.profiles.get(identity="7")
        assert caught.value.retry_after == 30_000_000
        assert session.stats.requests == 1


async def test_an_untrusted_certificate_is_refused_and_not_retried() -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    received = b""

    def serve_once(listening: socket.socket) -> None:
        nonlocal received
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            received = tls.wrap_socket(connection, server_side=True).recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        url = f"https://localhost:{listening.getsockname()[1]}"
        async with Session(
            clevertap=CleverTap("ACCOUNT", PASSCODE, base_url=url), retry=QUICK
        ) as session:
            serving = asyncio.ensure_future(asyncio.to_thread(serve_once, listening))
            with pytest.raises(ConnectError, match="CERTIFICATE_VERIFY_FAILED") as caught:
                await session.profiles.get(identity="7")
            assert "(for a CA of your own, or of a proxy, pass ssl=)" in str(caught.value)
            assert caught.value.untrusted
            assert session.stats.requests == 1
            await serving
    assert received == b""


async def test_a_timeout_in_a_callback_is_not_mistaken_for_the_deadline() -> None:
    def fail(attempt: Attempt) -> None:
        raise TimeoutError("my own")

    async with scripted(always(FOUND)) as server:
        async with session_for(server, Retry(deadline=60), on_event=fail) as session:
            with pytest.raises(TimeoutError, match="my own"):
                await session.profiles.get(identity="7")


async def test_closing_the_session_ends_a_wait_before_the_next_attempt() -> None:
    busy = http(b"", "429 Too Many Requests", "Retry-After: 500")
    told = asyncio.Event()
    async with scripted(always(busy)) as server:
        async with session_for(server, on_event=lambda attempt: told.set()) as session:
            call = asyncio.ensure_future(session.profiles.get(identity="7"))
            await told.wait()
        with anyio.fail_after(PATIENCE), pytest.raises(ConfigurationError, match="closed"):
            await call


async def test_closing_the_session_while_a_name_is_resolved_does_not_cancel_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        asked.set()
        answered.wait(PATIENCE)
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    account = CleverTap("ACCOUNT", PASSCODE, base_url="https://clevertap.example")
    async with Session(clevertap=account, retry=QUICK) as session:
        call = asyncio.ensure_future(session.profiles.get(identity="7"))
        await asyncio.to_thread(asked.wait, PATIENCE)
    with pytest.raises(ConfigurationError, match="closed"):
        await call
    answered.set()


@pytest.mark.parametrize("service", ["profiles", "cdp"])
async def test_a_call_that_its_caller_gave_up_shows_no_credential(service: str) -> None:
    arrived = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async with scripted(answer) as server, session_for(server) as session:
        call = asyncio.ensure_future(
            session.profiles.get(identity="7")
            if service == "profiles"
            else session.cdp.get(user_id="7")
        )
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "".join(shown.format())
    assert "identity" in text or "user_id" in text
    assert PASSCODE not in text
    assert TOKEN not in text


async def test_an_error_keeps_neither_the_body_nor_its_frames() -> None:
    page = http(b"<html>" + b"x" * 2_000_000, "502 Bad Gateway")
    async with scripted(always(page)) as server:
        async with session_for(server, ONCE) as session:
            lookups = session.profiles.get_many(map(str, range(3)), by="identity")
            errors = [lookup.error async for lookup in lookups]
    for error in errors:
        assert isinstance(error, ServerError)
        assert error.__cause__ is None
        assert error.__context__ is None
        assert len(pickle.dumps(error)) < 2000
        for frame, _ in traceback.walk_tb(error.__traceback__):
            assert not any(isinstance(value, Response) for value in frame.f_locals.values())


async def test_an_endless_error_text_is_cut() -> None:
    words = http(b'{"status":"fail","error":"%b","code":400}' % (b"pass-4711-" * 100_000))
    async with scripted(always(words)) as server, session_for(server) as session:
        with pytest.raises(BadRequest) as caught:
            await session.profiles.get(identity="7")
        assert len(str(caught.value)) < 1000
        assert "pass-4711" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["http://h:99999", "http://[::1", "socks5://127.0.0.1:9"])
async def test_a_proxy_that_cannot_be_used_is_named(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    async with scripted(always(FOUND)) as server:
        async with session_for(server, trust_env=True) as session:
            with pytest.raises(ConfigurationError, match="HTTP_PROXY"):
                await session.profiles.get(identity="7")


async def test_nobody_listening_is_retried_and_named() -> None:
    with socket.socket() as unheard:
        # Bound, so that nobody else can listen there.
        unheard.bind(("127.0.0.1", 0))
        account = CleverTap("A", PASSCODE, base_url=f"http://127.0.0.1:{unheard.getsockname()[1]}")
        async with Session(clevertap=account, retry=QUICK) as session:
            with pytest.raises(ConnectError, match=r"127\.0\.0\.1"):
                await session.profiles.get(identity="7")
            assert session.stats.requests == QUICK.attempts


BROKEN = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "cut short": b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"status":"succ',
    "cut short in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{",
    "no status line": b"",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_broken_answers_are_retried(broken: bytes) -> None:
    answers = [broken, broken, FOUND]

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(reply := answers.pop(0))
        if reply is not FOUND:
            writer.close()

    async with scripted(answer) as server, session_for(server) as session:
        person = await session.profiles.get(identity="7")
        assert person is not None
        assert answers == []


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_broken_answers_are_transport_errors_in_the_end(broken: bytes) -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(broken)
        writer.close()

    async with scripted(answer) as server, session_for(server) as session:
        with pytest.raises(TransportError):
            await session.profiles.get(identity="7")
        assert session.stats.requests == QUICK.attempts


async def test_a_body_that_ends_early_without_a_length_is_an_error() -> None:
    cut = b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"status":"success"'

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(cut)
        writer.close()

    async with scripted(answer) as server, session_for(server) as session:
        with pytest.raises(DecodeError):
            await session.profiles.get(identity="7")


async def test_a_kept_connection_that_was_closed_is_replaced() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.heads) == 2:
            writer.transport.abort()
        else:
            writer.write(FOUND)

    attempts: list[Attempt] = []
    async with scripted(answer) as server:
        async with session_for(server, on_event=attempts.append) as session:
            for _ in range(2):
                assert await session.profiles.get(identity="7") is not None
            assert session.stats.requests == len(server.heads) == 3
    assert [(one.number, type(one.error)) for one in attempts] == [
        (1, type(None)),
        (1, TransportError),
        (2, type(None)),
    ]


async def test_retry_after_is_honoured() -> None:
    busy = http(b"", "429 Too Many Requests", "Retry-After: 0.05")
    attempts: list[Attempt] = []
    async with scripted(in_turn(busy, FOUND)) as server:
        async with session_for(server, on_event=attempts.append) as session:
            assert await session.profiles.get(identity="7") is not None
            assert session.stats.throttles == 1
    first, second = attempts
    assert isinstance(first.error, RateLimited)
    assert (first.number, first.status, first.delay) == (1, 429, 0.05)
    assert (second.number, second.error, second.delay) == (2, None, None)


@pytest.mark.parametrize(
    "status", ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found"]
)
async def test_errors_of_the_caller_are_not_retried(status: str) -> None:
    page = http(b"<html>nothing here</html>", status)
    async with scripted(always(page)) as server, session_for(server) as session:
        with pytest.raises(StatusError):
            await session.profiles.get(identity="7")
        assert len(server.heads) == 1


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found"])
async def test_a_failure_cut_short_is_asked_for_again(status: str) -> None:
    cut = http(b'{"status":"fail","error":"Pr', status)
    found = http(b'{"status":"success","record":{"identity":"7"}}')
    async with scripted(in_turn(cut, found)) as server, session_for(server) as session:
        assert await session.profiles.get(identity="7") is not None
    async with scripted(always(cut)) as server, session_for(server) as session:
        with pytest.raises(DecodeError, match="the JSON ends in the middle"):
            await session.profiles.get(identity="7")
        assert len(server.heads) == QUICK.attempts


async def test_a_web_page_instead_of_an_answer_is_shown() -> None:
    page = http(b"<html>Sign in to the hotel wifi</html>")
    async with scripted(always(page)) as server, session_for(server) as session:
        with pytest.raises(DecodeError, match="a web page instead of JSON") as caught:
            await session.profiles.get(identity="7")
    assert "hotel wifi" in caught.value.excerpt


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"status":"success","rec', "the JSON ends in the middle"),
        (b"", "expected JSON, got nothing"),
        (b"nonsense", "JSON is malformed: invalid character (byte 4)"),
        (b'{"a":' * 100_000, "JSON is malformed or cut short after byte 499996"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"status":7}', "expected `success` at $.status"),
    ],
)
async def test_a_garbled_answer_is_described_in_words(body: bytes, words: str) -> None:
    async with scripted(always(http(body))) as server, session_for(server) as session:
        with pytest.raises(DecodeError) as caught:
            await session.profiles.get(identity="7")
    assert str(caught.value) == f"CleverTap, get_profile: {words}"
    # JSON of another form is the service's own.
    assert getattr(caught.value, "__notes__", []) == [GARBLED] * (caught.value.path == "$")


@pytest.mark.usefixtures("clock")
async def test_the_budget_keeps_an_outage_from_being_multiplied() -> None:
    retry = Retry(base_delay=0.001, max_delay=0.001, budget=10)
    async with scripted(always(http(b"", "503 Busy"))) as server:
        async with session_for(server, retry) as session:
            results = await asyncio.gather(
                *(session.profiles.get(identity=str(number)) for number in range(100)),
                return_exceptions=True,
            )
            assert {type(result) for result in results} == {ServerError}
            assert 110 <= session.stats.requests <= 120


async def test_a_repeated_cursor_is_named_and_not_followed() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST"):
            writer.write(http(b'{"cursor":"a","status":"success"}'))
        else:
            following = b"b" if b"cursor=a" in head else b"a"
            body = b'{"records":[],"status":"success","next_cursor":"%b"}' % following
            writer.write(http(body))

    async with scripted(answer) as server, session_for(server) as session:
        with pytest.raises(CursorLoop, match="after 2 pages"):
            async for _ in session.profiles.by_event("App Launched", **RANGE):
                pass
        assert len(server.heads) == 3


async def test_only_an_absent_cursor_ends_a_chain() -> None:
    answers = in_turn(
        http(b'{"cursor":"a","status":"success"}'),
        http(b'{"status":"success","records":[],"next_cursor":"b"}'),
        http(b'{"status":"fail","error":"what","code":77}'),
        http(b'{"status":"success","records":[{"identity":"1"}],"next_cursor":"c"}'),
        http(b'{ "status" : "success"}'),
    )
    async with scripted(answers) as server, session_for(server) as session:
        people = session.profiles.by_event("App Launched", **RANGE)
        assert [person.identity async for person in people] == ["1"]


async def test_a_malformed_cursor_is_the_callers_error() -> None:
    refused = http(b'{"status":"fail","error":"Incorrect Usage","code":"3"}')
    async with scripted(always(refused)) as server, session_for(server) as session:
        pages = session.profiles.by_event("App Launched", **RANGE, cursor="gone%2Fbad").pages()
        with pytest.raises(BadRequest, match="byte for byte"):
            await anext(pages)
        assert len(server.heads) == 1


@pytest.mark.usefixtures("clock")
async def test_an_even_rate_is_kept_between_starts() -> None:
    answer = always(http(b'{"code":0,"data":{}}'))
    async with scripted(answer) as server:
        alta = Alta(TOKEN, base_url=server.url, requests_per_minute=6)
        async with Session(alta=alta, retry=Retry(attempts=1, deadline=1.0)) as session:
            await session.cdp.get(user_id="1")
            with pytest.raises(RequestTimeout):
                await session.cdp.get(user_id="2")
        assert len(server.heads) == 1


async def test_proxies_of_the_environment_are_used_only_when_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scripted(always(FOUND)) as server, scripted(always(FOUND)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.url.replace("://", "://user:pw@"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with session_for(server) as session:
            await session.profiles.get(identity="7")
        assert (len(server.heads), len(proxy.heads)) == (1, 0)
        async with session_for(server, trust_env=True) as session:
            await session.profiles.get(identity="7")
        assert (len(server.heads), len(proxy.heads)) == (1, 1)
        assert proxy.request_lines[0].startswith(f"GET {server.url}/1/profile.json")


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("kind", ["echo", "hang", "reset", "html", "refused"])
async def test_no_error_shows_a_credential(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if kind == "echo":
            words = head.replace(b"\r\n", b" ").replace(b'"', b"").decode()
            writer.write(http(b'{"status":"fail","error":"%b","code":9}' % words.encode()))
        elif kind == "html":
            writer.write(http(b"<html>" + head[head.index(b"X-CleverTap") :], "502 Bad Gateway"))
        elif kind == "hang":
            await asyncio.Event().wait()
        elif kind == "reset":
            writer.transport.abort()
        else:
            writer.write(http(head, "401 Unauthorized"))

    async with scripted(answer) as server:
        limits = Timeout(total=0.2)
        async with session_for(server, Retry(attempts=1), timeout=limits) as session:
            with pytest.raises(AltaProfilesError) as caught:
                await session.profiles.get(identity="7")
            error = caught.value
            shown = "".join(
                traceback.TracebackException.from_exception(error, capture_locals=True).format()
            )
            for text in (
                shown,
                repr(error),
                str(error),
                repr(vars(error)),
                repr(session),
                caplog.text,
                pickle.dumps(error).decode("latin-1"),
            ):
                assert PASSCODE not in text
                assert TOKEN not in text


async def test_cancelling_a_request_closes_its_connection_and_frees_its_slot() -> None:
    arrived = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"hang" in head:
            arrived.set()
            await asyncio.Event().wait()
        writer.write(FOUND)

    async with nothing_left_behind(), scripted(answer) as server:
        account = CleverTap("ACCOUNT", PASSCODE, base_url=server.url, max_in_flight=1)
        async with Session(clevertap=account, retry=QUICK) as session:
            for _ in range(5):
                arrived.clear()
                hanging = asyncio.ensure_future(session.profiles.get(identity="hang"))
                await arrived.wait()
                hanging.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await hanging
            with anyio.fail_after(PATIENCE):
                assert await session.profiles.get(identity="7") is not None
