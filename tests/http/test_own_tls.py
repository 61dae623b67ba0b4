"""`Session(ssl=…, proxy=…)`: authorities, client certificates and proxies of the caller."""

from __future__ import annotations

import asyncio
import base64
import logging
import pickle
import ssl
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from yarl import URL

import altaprofiles
from altaprofiles import Alta, AltaProfilesError, CleverTap, ConnectError, InvalidArgument, Session

from ..support.servers import Scripted, always, http, listening, scripted, tunnel
from ..support.sessions import QUICK
from ..support.terminals import environment, run

pytestmark = pytest.mark.anyio

FOUND = http(b'{"status":"success","record":{"identity":"7"}}')
CA = trustme.CA()
CLIENTS = trustme.CA()
PASSWORD = "s3cret-pr0xy"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def server_context(authority: trustme.CA = CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


def trusting(*authorities: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for authority in authorities:
        authority.configure_trust(context)
    return context


@asynccontextmanager
async def encrypted(context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[str, Scripted]]:
    """Serve a person by TLS; yield the base URL, and the requests."""
    served = Scripted(always(FOUND))
    async with listening(served, context or server_context()) as port:
        yield f"https://127.0.0.1:{port}", served


def session_at(url: str, **options: Any) -> Session:
    account = CleverTap("ACCOUNT", "pass-4711", base_url=url)
    return Session(clevertap=account, **{"retry": QUICK, **options})


async def identity_at(url: str, **options: Any) -> str | None:
    async with session_at(url, **options) as session:
        person = await session.profiles.get(identity="7")
        return None if person is None else person.identity


async def refused(url: str, **options: Any) -> ConnectError:
    """Return the error of a lookup, which is not retried."""
    async with session_at(url, **options) as session:
        with pytest.raises(ConnectError) as caught:
            await session.profiles.get(identity="7")
        assert session.stats.requests == 1
    return caught.value


# --------------------------------------------------------------------------------------------- TLS


async def test_an_authority_of_ones_own_is_trusted() -> None:
    async with encrypted() as (url, server):
        assert await identity_at(url, ssl=trusting(CA)) == "7"
        for options in ({}, {"ssl": ssl.create_default_context()}, {"ssl": trusting(CLIENTS)}):
            error = await refused(url, **options)
            assert error.untrusted
            assert error.permanent
        assert len(server.heads) == 1


async def test_a_command_advises_the_variable_that_it_reads(tmp_path: Path) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with encrypted() as (url, _):
        env = environment(
            tmp_path,
            CLEVERTAP_ACCOUNT_ID="ACCOUNT",
            CLEVERTAP_PASSCODE="pass-4711",
            CLEVERTAP_BASE_URL=url,
        )
        refusal = await asyncio.to_thread(run, env, "get", "--identity", "7")
        env["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")
        done = await asyncio.to_thread(run, env, "get", "--identity", "7")
    assert "or of a proxy, let SSL_CERT_FILE name its certificate)" in refusal.stderr
    assert "ssl=" not in refusal.stderr
    assert (refusal.code, done.code) == (1, 0), done.stderr


async def test_a_client_certificate_is_sent(tmp_path: Path) -> None:
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    CLIENTS.configure_trust(context)
    certificate = CLIENTS.issue_cert("service@example.com")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    ours = trusting(CA)
    ours.load_cert_chain(tmp_path / "client.pem")
    async with encrypted(context) as (url, server):
        assert await identity_at(url, ssl=ours) == "7"
        with pytest.raises(AltaProfilesError):
            await identity_at(url, ssl=trusting(CA))
        assert len(server.heads) == 1


async def test_a_context_without_verification_is_the_callers_own_choice() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with encrypted() as (url, _):
        assert await identity_at(url, ssl=context) == "7"


@pytest.mark.parametrize("value", [False, True, "ca.pem", Path("ca.pem"), ("a", "b"), 0])
def test_only_a_context_is_taken(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^ssl: expected an ssl\.SSLContext.*cafile"):
        session_at("https://h.example", ssl=value)


def test_a_context_of_servers_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"^ssl: .*servers.*create_default_context"):
        session_at("https://h.example", ssl=server_context())


async def test_a_session_of_the_environment_has_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "ACCOUNT")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "pass-4711")
    async with encrypted() as (url, _), tunnel() as (proxy, heads):
        monkeypatch.setenv("CLEVERTAP_BASE_URL", url)
        async with Session.from_env(ssl=trusting(CA), proxy=f"http://{proxy}") as session:
            assert await session.profiles.get(identity="7") is not None
        assert len(heads) == 1


# ----------------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize("scheme", ["http", "https", ""])
async def test_requests_go_through_the_proxy(scheme: str) -> None:
    context = server_context(CLIENTS) if scheme == "https" else None
    prefix = f"{scheme}://" if scheme else ""
    login = base64.b64encode(f"ann:{PASSWORD}/#".encode()).decode()
    async with encrypted() as (url, server), tunnel(context=context) as (proxy, heads):
        address = f" {prefix}ann:{PASSWORD}%2F%23@{proxy}\n"
        assert await identity_at(url, ssl=trusting(CA, CLIENTS), proxy=address) == "7"
    assert len(heads) == len(server.heads) == 1
    assert heads[0].startswith(f"CONNECT {url.removeprefix('https://')} ")
    assert f"Proxy-Authorization: Basic {login}\r\n" in heads[0]
    assert "pass-4711" not in heads[0]
    assert b"Proxy-Authorization" not in server.heads[0]


async def test_both_services_go_through_the_proxy() -> None:
    async with scripted(always(http(b'{"7":{"anonymousIds":[]}}'))) as proxy:
        session = Session(
            clevertap=CleverTap("ACCOUNT", "pass-4711", base_url="http://127.0.0.1:9"),
            alta=Alta("token-4711", base_url="http://127.0.0.2:9"),
            proxy=proxy.url,
            retry=QUICK,
        )
        async with session:
            for call in (session.profiles.get(identity="7"), session.cdp.get(user_id="7")):
                try:
                    await call
                except AltaProfilesError:
                    # Only the way there counts.
                    continue
    hosts = {line.split()[1].split("/")[2] for line in proxy.request_lines}
    assert hosts == {"127.0.0.1:9", "127.0.0.2:9"}


async def test_a_proxy_that_is_not_trusted_is_named() -> None:
    async with encrypted() as (url, server), tunnel(context=server_context(CLIENTS)) as (proxy, _):
        error = await refused(url, ssl=trusting(CA), proxy=f"https://ann:{PASSWORD}@{proxy}")
        assert "the proxy for 127.0.0.1" in str(error)
        assert error.untrusted
        assert server.heads == []


async def test_a_proxy_that_refuses_names_the_argument(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with tunnel("407 Proxy Authentication Required") as (proxy, _):
        address = f"http://ann:{PASSWORD}@{proxy}"
        error = await refused("https://h.example", proxy=address)
    assert "HTTP 407" in str(error)
    assert "write them in `proxy`, as http://USER:PASSWORD@HOST:PORT" in str(error)
    assert error.permanent
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [frame for frame in shown.stack if "/tests/" not in frame.filename]
    texts = [caplog.text, repr(error), repr(vars(error)), *(str(frame.locals) for frame in ours)]
    assert ours
    assert PASSWORD.encode() not in pickle.dumps(error)
    assert not [text for text in texts if PASSWORD in text]


@pytest.mark.parametrize("login", [f"ann:{PASSWORD}", PASSWORD], ids=["password", "key"])
async def test_what_a_proxy_echoes_is_masked(login: str) -> None:
    encoded = base64.b64encode(login.encode() + (b"" if ":" in login else b":")).decode()
    echo = http(f"{encoded} {PASSWORD}".encode(), "502 Bad Gateway")
    async with scripted(always(echo)) as proxy:
        address = proxy.url.replace("://", f"://{login}@")
        with pytest.raises(AltaProfilesError) as caught:
            await identity_at("http://127.0.0.1:9", proxy=address)
    assert vars(caught.value)["excerpt"] == "*** ***"


async def test_the_argument_takes_the_place_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scripted(always(FOUND)) as given, scripted(always(FOUND)) as other:
        url = "http://127.0.0.1:9"
        monkeypatch.setenv("HTTP_PROXY", other.url)
        assert await identity_at(url, proxy=given.url, trust_env=True) == "7"
        monkeypatch.setenv("HTTP_PROXY", "socks5://h.example")
        monkeypatch.setenv("NO_PROXY", "*")
        assert await identity_at(url, proxy=given.url, trust_env=True) == "7"
    assert (len(given.heads), len(other.heads)) == (2, 0)


async def test_no_other_machine_is_asked_for_a_service_on_this_one() -> None:
    async with scripted(always(FOUND)) as server:
        assert await identity_at(server.url, proxy="http://proxy.example:3128") == "7"


# The URLs are built inside each function: as an argument or a local of the test they would be the
# caller's own responsibility.
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "socks5": (lambda: f"socks5://ann:{PASSWORD}@h:1080", "'socks5' proxies are not supported"),
    "kind": (lambda: f"ann:{PASSWORD}://h", "not an http or https proxy; write"),
    "port": (lambda: f"http://ann:{PASSWORD}@h:99999", "no valid port.*USER:PASSWORD@HOST"),
    "host": (lambda: f"http://ann:{PASSWORD}@", "no valid host|host with a label"),
    "slash": (lambda: f"http://ann:{PASSWORD}/@h", "percent-encoding"),
    "unicode": (lambda: f"http://ann:{PASSWORD}\udc80@h", "not text in UTF-8"),
    "empty": (lambda: "", "no host"),
    "bytes": (lambda: f"http://ann:{PASSWORD}@h".encode(), "expected .* as text, got a bytes"),
    "yarl": (lambda: URL(f"http://ann:{PASSWORD}@h"), "expected .* as text, got a URL"),
    "dict": (lambda: {"https": f"http://{PASSWORD}@h"}, "expected .* as text, got a dict"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("way", ["Session", "from_env"])
def test_a_proxy_that_cannot_be_used_is_refused_and_not_shown(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "ACCOUNT")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "pass-4711")
    make, words = WRONG[name]
    with pytest.raises(InvalidArgument, match=f"^proxy: .*({words})") as caught:
        if way == "Session":
            Session(proxy=make())
        else:
            Session.from_env(proxy=make())
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert PASSWORD not in "".join(shown.format())


async def view_of(**options: Any) -> object:
    return session_at("https://h.example", **options).with_options(proxy=f"http://{PASSWORD}@h")  # type: ignore[call-arg]


def blocking_view_of(**options: Any) -> object:
    with altaprofiles.blocking(lambda: session_at("https://h.example", **options)) as session:
        return session.with_options(proxy=f"http://{PASSWORD}@h")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "make",
    [
        lambda: session_at("https://h.example", proxy=f"http://{PASSWORD}@h", retry="no"),
        lambda: session_at("https://h.example", proxy=f"http://{PASSWORD}@h", ssl=False),
        lambda: Session.from_env(proxy=f"http://{PASSWORD}@h"),
        lambda: Session.from_account("nobody", proxy=f"http://{PASSWORD}@h"),
        blocking_view_of,
    ],
    ids=["another argument", "ssl", "no credentials", "no account", "blocking view"],
)
def test_no_other_mistake_shows_the_proxy(
    make: Callable[[], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALTAPROFILES_CONFIG", str(tmp_path / "credentials.toml"))
    for name in ("CLEVERTAP_ACCOUNT_ID", "CLEVERTAP_PASSCODE", "ALTA_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(altaprofiles.ConfigurationError) as caught:
        make()
    assert PASSWORD not in ours(caught.value)


async def test_a_view_has_no_proxy_of_its_own() -> None:
    with pytest.raises(InvalidArgument, match=r"^proxy: belongs to the whole session") as caught:
        await view_of()
    assert PASSWORD not in ours(caught.value)


def ours(error: BaseException) -> str:
    """Return the locals in all frames of the library."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in shown.stack if "/tests/" not in frame.filename]
    assert frames
    return "\n".join(str(frame.locals) for frame in frames)


def test_nothing_shows_the_proxy() -> None:
    session = session_at("https://h.example", proxy=f"http://ann:{PASSWORD}@h")
    assert PASSWORD not in repr(session) + str(vars(session)) + repr(vars(session))
