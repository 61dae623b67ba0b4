"""Faults of TLS and of proxies: an error with words, or the right person."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
import trustme

from altaprofiles import AltaProfilesError, CleverTap, ConnectError, Session, Timeout

from .account import PEOPLE, forged
from .calls import CALLS
from .catalog import FAULTS
from .cells import PATIENCE, QUICK, check_usable, run_call, session_for
from .server import End, blunt, serving

pytestmark = pytest.mark.anyio

CA = trustme.CA()
ALERT = b"\x15\x03\x03\x00\x02\x02"
"""The beginning of a fatal alert; its number comes next."""


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trust `CA`, in contexts of before and of now."""
    file = tmp_path / "ca.pem"
    CA.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.create_default_context()
    CA.configure_trust(context)
    # aiohttp makes its own when it is imported.
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", context)


def context_for(*names: str, **options: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CA.issue_cert(*names, **options).configure_cert(context)
    return context


def session_at(port: int, scheme: str = "https", **options: Any) -> Session:
    return Session(
        clevertap=CleverTap("ACCOUNT", "PASSCODE", base_url=f"{scheme}://127.0.0.1:{port}"),
        **{"retry": QUICK, "timeout": Timeout(connect=20, read=20, total=40), **options},
    )


async def refused(session: Session) -> AltaProfilesError:
    """Return the error of a lookup; it has words, and ends with more than a colon."""
    async with session:
        with anyio.fail_after(PATIENCE), pytest.raises(AltaProfilesError) as caught:
            await session.profiles.get(identity="id-1")
    assert not str(caught.value).strip().endswith((":", ": ''", "None"))
    return caught.value


# --------------------------------------------------------------------------------------------- TLS


async def test_a_certificate_of_nobody_is_refused() -> None:
    async with serving(context_for("127.0.0.1")) as server:
        error = await refused(session_at(server.port))
        assert isinstance(error, ConnectError)
        assert error.untrusted
        assert server.requests == []


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("kind", ["expired", "another-host"])
async def test_a_certificate_that_does_not_fit_is_refused(kind: str) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    context = (
        context_for("127.0.0.1", not_before=past, not_after=past)
        if kind == "expired"
        else context_for("elsewhere.example.com")
    )
    async with serving(context) as server:
        error = await refused(session_at(server.port))
        assert isinstance(error, ConnectError)
        assert error.untrusted
        assert "ssl=" not in str(error)
        assert server.requests == []


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    "name",
    [
        "behind:an-answer",
        "idle:an-answer",
        "idle:a-flood",
        "in-pieces",
        "close-after-half",
        "reset-after-half",
        "close-after-all",
        "length:none-cut",
        "chunks:no-end",
        "gzip:whole",
    ],
)
@pytest.mark.parametrize("call", ["get-identity", "pages"])
async def test_faults_within_tls(name: str, call: str, tmp_path: Path) -> None:
    async with serving(context_for("127.0.0.1")) as server:
        async with session_at(server.port) as session:
            server.arm(FAULTS[name], times=1000 if FAULTS[name].outcome == "read" else 1)
            found = await run_call(CALLS[call], session, tmp_path)
            assert not isinstance(found, AltaProfilesError)
            assert CALLS[call].is_right(found)
            server.disarm()
            assert await session.profiles.get(identity="id-1") is not None


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_bytes_that_wait_in_a_tls_socket_are_nobodys_answer(turns: int) -> None:
    async with serving(context_for("127.0.0.1")) as server:
        async with session_at(server.port) as session:
            assert await session.profiles.get(identity="id-0") is not None
            assert server.write_to_idle(forged("/1/profile.json?identity=id-1")) == 1
            for _ in range(turns):
                await asyncio.sleep(0)
            person = await session.profiles.get(identity="id-1")
            assert person is not None
            assert person.raw == PEOPLE[1].record


async def test_a_client_certificate_that_is_missing_is_no_passing_fault() -> None:
    context = context_for("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    CA.configure_trust(context)
    async with serving(context) as server:
        await refused(session_at(server.port))
        assert server.requests == []


@pytest.mark.parametrize("number", [0, 10, 40, 42, 47, 48, 70, 71, 80, 112, 116, 120])
async def test_an_alert_is_an_error_with_words(number: int) -> None:
    async with blunt(ALERT + bytes([number]), End.CLOSE) as (port, met):
        error = await refused(session_at(port))
        assert isinstance(error, ConnectError)
        if number in (40, 42, 47, 48, 70, 71, 116, 120):
            assert len(met) == 1


@pytest.mark.parametrize("way", [End.CLOSE, End.RESET])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "data",
    [b"", b"\x16\x03\x03", b"junk\r\n" * 50, b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(5000)],
    ids=lambda value: (
        (value.decode("latin-1")[:60].strip() or "nothing")
        if isinstance(value, bytes)
        else str(getattr(value, "value", value))
    ),
)
async def test_a_handshake_that_fails_is_an_error_with_words(
    data: bytes, at_once: bool, way: End
) -> None:
    async with blunt(data, way, at_once=at_once) as (port, _):
        assert isinstance(await refused(session_at(port)), ConnectError)


async def test_a_handshake_that_hangs_ends_by_the_limit() -> None:
    async with blunt(b"", End.HOLD) as (port, _):
        await refused(session_at(port, timeout=Timeout(connect=0.05)))


async def test_plain_http_to_a_tls_port_is_an_error() -> None:
    async with serving(context_for("127.0.0.1")) as server:
        await refused(session_at(server.port, "http"))
        assert server.requests == []


# ----------------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize(
    ("data", "way", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", End.CLOSE, "403"),
        (b"HTTP/1.1 407 Authenticate\r\nContent-Length: 0\r\n\r\n", End.CLOSE, "407"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops", End.CLOSE, "502"),
        (b"HTTP/1.1 302 Away\r\nLocation: http://127.0.0.1:1/\r\n\r\n", End.CLOSE, "302"),
        (b"HTTP/1.1 200 OK\r\n\r\n", End.CLOSE, ""),
        (b"HTTP/1.1 200 OK\r\n\r\n", End.RESET, ""),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"garbage" * 40, End.CLOSE, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", End.CLOSE, ""),
        (b"HTTP/1.1 200 OK\r\n\r\n" + forged("/1/profile.json"), End.CLOSE, ""),
        (b"HTTP/1.1 200 OK\r\n", End.CLOSE, ""),
        (b"garbage", End.CLOSE, ""),
        (b"SSH-2.0-OpenSSH_9.6\r\n", End.CLOSE, ""),
        (b"\x05\xff", End.CLOSE, ""),
        (b"", End.CLOSE, ""),
        (b"", End.RESET, ""),
    ],
    ids=[
        "403",
        "407",
        "502",
        "302",
        "200-close",
        "200-reset",
        "200-garbage",
        "200-body",
        "200-forged",
        "half",
        "garbage",
        "ssh",
        "socks",
        "close",
        "reset",
    ],
)
async def test_a_proxy_that_makes_no_tunnel(
    data: bytes, way: End, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with blunt(data, way) as (port, met):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        session = session_at(9, trust_env=True)
        error = await refused(session)
        assert words in str(error)
        assert met[0].startswith(b"CONNECT 127.0.0.1:9 HTTP/1.1\r\n")
        assert b"PASSCODE" not in b"".join(met)


async def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert isinstance(await refused(session_at(9, trust_env=True)), ConnectError)


@pytest.mark.parametrize(
    "name",
    [
        "behind:an-answer",
        "idle:an-answer",
        "close-after-half",
        "status:407",
        "gzip:bomb",
        "text:html",
    ],
)
async def test_faults_of_a_proxy_for_plain_http(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with serving() as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        async with session_for(server, trust_env=True) as session:
            server.arm(FAULTS[name])
            await run_call(CALLS["get-identity"], session, tmp_path)
            assert server.struck == 1
            await check_usable(session, server, tmp_path)
