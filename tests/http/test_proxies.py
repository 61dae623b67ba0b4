"""Which proxy is used, and what its refusals say."""

from __future__ import annotations

import asyncio
import base64
from socket import socket

import pytest

from altaprofiles import (
    CleverTap,
    ConfigurationError,
    ConnectError,
    RequestTimeout,
    Retry,
    Session,
    Timeout,
)
from altaprofiles.http.proxies import Proxy, proxy_from_env, proxy_secrets

from ..support.servers import always, http, listening, read_request, scripted
from ..support.sessions import QUICK

pytestmark = pytest.mark.anyio

FOUND = http(b'{"status":"success","record":{"identity":"7"}}')
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("service", ["https://h.example", "http://127.0.0.1:8080"])
def test_all_proxy_serves_every_scheme(
    name: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "localhost:3128")
    assert proxy_from_env(service) == Proxy("http://localhost:3128", None, "ALL_PROXY")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.2")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.2")
    variable = f"{service.partition(':')[0].upper()}_PROXY"
    assert proxy_from_env(service) == Proxy("http://127.0.0.2", None, variable)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_no_other_machine_is_asked_for_a_service_on_this_one(
    scheme: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = f"{scheme}://{host}:8080"
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://ann:s3cret@proxy.example:3128")
    assert proxy_from_env(service) is None
    for proxy in ("localhost", "127.0.0.1", "[::1]"):
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://{proxy}:3128")
        found = proxy_from_env(service)
        assert found is not None
        assert found.url == f"http://{proxy}:3128"


@pytest.mark.parametrize("password", ["s3c#ret", "1#s3cret", "s3c/ret", "s3c?ret", "1/s3c#r?t"])
def test_a_password_that_must_be_encoded_is_refused_with_the_fix(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{password}@proxy.example:1")
    with pytest.raises(ConfigurationError, match=r"^HTTPS_PROXY: .* percent-encod") as caught:
        proxy_from_env("https://h.example")
    assert "s3c" not in str(caught.value)


def test_user_and_password_go_into_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", " http://ann:p%40ss%3Awo%e4rd@[::1]:3128/\n")
    found = proxy_from_env("https://h.example")
    assert found is not None
    url, headers, _ = found
    assert url == "http://[::1]:3128"
    assert str(found) == "[::1]:3128 from ALL_PROXY"
    login = base64.b64encode(b"ann:p@ss:wo\xe4rd").decode()
    assert headers == {"Proxy-Authorization": f"Basic {login}"}
    assert "word" not in repr(proxy_secrets(headers))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("socks5://ann:s3cret@proxy.example:1080", "'socks5' proxies are not supported"),
        ("SOCKS5H://s3cret@proxy.example", "'socks5h' proxies are not supported"),
        ("ftp://s3cret@proxy.example", "'ftp' proxies are not supported"),
        ("http://ann:s3cret@h:99999", "no valid port"),
        ("http://ann:s3cret@", "no valid host|host with a label"),
        ("http://ann:s3cret@a..b", "label that is empty"),
        (f"http://s3cret@{'a' * 64}", "over 63"),
        ("http://s3cret@[::1", "no valid host"),
        ("http://s3cret@h:80\\x", "backslash"),
        ("http://", "no host"),
        ("http://ann:s3cret\udc80@h", "not text in UTF-8"),
        ("ann:s3cret://h", "not an http or https proxy; write"),
    ],
)
@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY"])
def test_a_proxy_that_cannot_be_used_is_an_error_without_its_password(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name}: .*({words})") as caught:
        proxy_from_env("https://h.example")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("no_proxy", "url", "bypassed"),
    [
        ("*", "https://h.example", True),
        ("h.example", "https://h.example", True),
        ("H.Example", "https://h.EXAMPLE", True),
        (".h.example", "https://a.h.example", True),
        ("*.h.example", "https://a.h.example", True),
        ("h.example", "https://a.h.example", True),
        ("h.example", "https://ah.example", False),
        ("a, h.example ,b", "https://h.example", True),
        ("a h.example", "https://h.example", True),
        ("h.example:8443", "https://h.example:8443", True),
        ("h.example:8443", "https://h.example", False),
        ("h.example:443", "https://h.example", True),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.1.2.3/8", "https://10.9.9.9", True),
        ("10.0.0.0/8:8443", "https://10.1.2.3:8443", True),
        ("10.0.0.0/8:8443", "https://10.1.2.3", False),
        ("10.0.0.0/99", "https://10.1.2.3", False),
        ("10.0.0.0/8", "https://10.h.example", False),
        ("fd00::/8", "https://[fd12::1]", True),
        ("fd00::/8", "https://[fe12::1]", False),
        ("[fd12::1]:8443", "https://[fd12::1]:8443", True),
        ("[fd12::1]", "https://[fd12:0::1]", True),
        ("127.0.0.1", "http://127.0.0.1:8080", True),
        ("", "https://h.example", False),
        (",,", "https://h.example", False),
        (".", "https://h.example", False),
        ("example", "https://h.example", True),
    ],
)
def test_no_proxy_names_hosts_networks_and_ports(
    no_proxy: str, url: str, bypassed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_from_env(url) is None) is bypassed


def session_for(url: str, retry: Retry = QUICK) -> Session:
    account = CleverTap("ACCOUNT", "pass-4711", base_url=url)
    return Session(clevertap=account, retry=retry, trust_env=True)


@pytest.mark.parametrize("service", ["http://127.0.0.1:9", "https://h.example"])
async def test_a_proxy_that_needs_credentials_is_named(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = http(b"<html>", "407 Proxy Authentication Required", "Proxy-Authenticate: Basic")
    async with scripted(always(refusal)) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url.replace("://", "://ann:s3cret@"))
        async with session_for(service) as session:
            with pytest.raises(ConnectError, match=r"HTTP 407.*USER:PASSWORD@HOST") as caught:
                await session.profiles.get(identity="7")
            assert session.stats.requests == 1
    assert caught.value.permanent
    assert "s3cret" not in repr(vars(caught.value)) + str(caught.value)


@pytest.mark.parametrize("is_given", [True, False])
async def test_a_proxy_gets_its_login_with_a_request_that_needs_no_tunnel(
    is_given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[str] = []

    async def serve(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head.decode())
        writer.write(FOUND)

    async with scripted(serve) as proxy:
        with_login = proxy.url.replace("://", "://ann:s3cret@")
        if not is_given:
            monkeypatch.setenv("HTTP_PROXY", with_login)
        async with Session(
            clevertap=CleverTap("ACCOUNT", "pass-4711", base_url="http://127.0.0.1:9"),
            proxy=with_login if is_given else None,
            trust_env=True,
        ) as session:
            await session.profiles.get(identity="7")
    [head] = heads
    assert head.startswith("GET http://127.0.0.1:9/1/profile.json?")
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'ann:s3cret').decode()}\r\n" in head
    assert "X-CleverTap-Passcode: pass-4711\r\n" in head


@pytest.mark.parametrize(
    ("status", "requests"),
    [("403 Blocked by policy", 1), ("502 Bad Gateway", 8), ("429 Slow down", 8), ("302 Found", 8)],
)
async def test_a_proxy_that_opens_no_tunnel_is_named_with_its_status(
    status: str, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ": ".join(status.split(" ", 1))
    async with scripted(always(http(b"", status))) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        async with session_for("https://h.example") as session:
            with pytest.raises(ConnectError, match=f"proxy answered HTTP {said}"):
                await session.profiles.get(identity="7")
            assert session.stats.requests == requests


async def test_a_proxy_that_ends_after_its_yes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

    async with listening(serve) as port:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
        async with session_for("https://h.example", Retry(attempts=1)) as session:
            with pytest.raises(ConnectError, match=r"h\.example through the .*: \S"):
                await session.profiles.get(identity="7")


async def test_a_service_with_status_407_is_no_proxy() -> None:
    async with scripted(always(http(b"", "407 Odd"))) as server:
        async with session_for(server.url) as session:
            with pytest.raises(Exception, match="CleverTap answered HTTP 407"):
                await session.profiles.get(identity="7")


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", None])
async def test_a_proxy_that_cannot_be_reached_is_named_with_its_setting(
    variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        if variable is not None:
            monkeypatch.setenv(variable, f"ann:s3cret@{place}")
        account = CleverTap("ACCOUNT", "pass-4711", region="in1")
        given = f"ann:s3cret@{place}" if variable is None else None
        async with Session(
            clevertap=account, retry=Retry(attempts=1), trust_env=True, proxy=given
        ) as session:
            with pytest.raises(ConnectError) as caught:
                await session.profiles.get(identity="7")
    assert (
        f"no connection to the proxy for in1.api.clevertap.com, {place} from "
        f"{variable.upper() if variable else '`proxy`'}: Connection refused"
    ) in str(caught.value)
    assert "s3cret" not in repr(vars(caught.value)) + str(caught.value)


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "502 Bad Gateway"])
async def test_a_proxy_that_refuses_is_named_with_its_setting(
    status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted(always(http(b"", status))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with session_for("https://h.example", Retry(attempts=1)) as session:
            with pytest.raises(ConnectError) as caught:
                await session.profiles.get(identity="7")
    place = proxy.url.removeprefix("http://")
    words = f"no connection to h.example through the proxy {place} from HTTPS_PROXY: the proxy "
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://proxy.example", "proxy.example:80"),
        ("https://proxy.example", "proxy.example:443"),
        ("proxy.example", "proxy.example:80"),
        ("http://[::1]", "[::1]:80"),
    ],
)
def test_the_port_of_a_proxy_is_named_even_by_default(
    url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    assert str(proxy_from_env("https://h.example")) == f"{place} from HTTPS_PROXY"


@pytest.mark.parametrize("kind", ["deadline", "read", "total"])
@pytest.mark.parametrize("through", [True, False])
async def test_a_connection_that_never_stands_is_not_a_wait_for_an_answer(
    kind: str, through: bool
) -> None:
    """The other side takes the connection, and says nothing: no tunnel, or no TLS."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 10):
            pass

    async with listening(hang) as port:
        place = f"127.0.0.1:{port}"
        host = "h.example" if through else place
        limits = {"deadline": Timeout(), "read": Timeout(read=0.3), "total": Timeout(total=0.3)}
        session = Session(
            clevertap=CleverTap("ACCOUNT", "pass-4711", base_url=f"https://{host}"),
            retry=Retry(attempts=1),
            timeout=limits[kind],
            proxy=f"http://ann:s3cret@{place}" if through else None,
        )
        async with session:
            with pytest.raises(RequestTimeout) as caught:
                deadline = 0.3 if kind == "deadline" else None
                await session.profiles.get(identity="7", deadline=deadline)
            assert session.stats.requests == 1
    way = f"{host} through the proxy {place} from `proxy`" if through else host
    if kind == "deadline":
        words = f"it waited for the connection to {way}; no request was sent"
    else:
        words = f"no connection to {way} within 0.3 s"
    assert words in str(caught.value)
    assert "s3cret" not in repr(vars(caught.value)) + str(caught.value)


async def test_only_requests_with_a_connection_count_as_sent() -> None:
    """The first connection gets no tunnel, the second one a tunnel in which nothing speaks TLS."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        if connections == 1:
            writer.write(http(b"", "502 Bad Gateway"))
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        while await reader.read(1 << 10):
            pass

    async with listening(serve) as port:
        session = Session(
            clevertap=CleverTap("ACCOUNT", "pass-4711", base_url="https://h.example"),
            retry=Retry(base_delay=0.01),
            proxy=f"http://127.0.0.1:{port}",
        )
        async with session:
            with pytest.raises(RequestTimeout, match=r"the connection to .*; no request was sent"):
                await session.profiles.get(identity="7", deadline=1.0)
            assert session.stats.requests == connections == 2
