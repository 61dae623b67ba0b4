"""Credentials: accepted and refused values, and that nothing shows a secret."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import pytest

from altaprofiles import (
    Alta,
    AltaProfilesError,
    CleverTap,
    ConfigurationError,
    ConnectError,
    DecodeError,
    InvalidArgument,
    MissingCredentials,
    Retry,
    Session,
    StatusError,
)
from altaprofiles.credentials import ENDPOINTS, REGIONS
from altaprofiles.redaction import masked
from altaprofiles.session import _alta_service
from altaprofiles.wire import alta, clevertap
from altaprofiles.wire.messages import Response

PASSCODE = "pa55-c0de-of-nobody"
TOKEN = "t0k3n-of-nobody"
VARIABLES = [
    "CLEVERTAP_ACCOUNT_ID",
    "CLEVERTAP_PASSCODE",
    "CLEVERTAP_REGION",
    "CLEVERTAP_BASE_URL",
    "CLEVERTAP_MAX_IN_FLIGHT",
    "CLEVERTAP_TIMEZONE",
    "ALTA_TOKEN",
    "ALTA_BASE_URL",
    "ALTA_ENDPOINT",
    "ALTA_MAX_IN_FLIGHT",
    "ALTA_REQUESTS_PER_MINUTE",
    "ALTA_NAME",
    "ALTAPROFILES_SHARED",
]


def account(**options: Any) -> CleverTap:
    return CleverTap(**{"account_id": "W9R-654-865Z", "passcode": PASSCODE} | options)


def key(**options: Any) -> Alta:
    return Alta(**{"token": TOKEN} | options)


both = pytest.mark.parametrize(
    ("build", "secret", "field"),
    [(account, PASSCODE, "passcode"), (key, TOKEN, "token")],
    ids=["CleverTap", "Alta"],
)
Build = Callable[..., Any]


# ------------------------------------------------------------------------------------ where to send


@pytest.mark.parametrize("region", ["in1", "us1", "sg1", "aps3", "mec1", "eu1", "sk1"])
@pytest.mark.parametrize("spelled", [str, str.upper, str.title, " {} ".format, "{}\n".format])
def test_a_region_has_a_host_of_its_own_in_any_case(
    region: str, spelled: Callable[[str], str]
) -> None:
    given = account(region=spelled(region))
    assert given.url == f"https://{region}.api.clevertap.com"
    assert given.region == region
    assert given == account(region=region)
    assert f"region={region!r}" in repr(given)


def test_europe_is_the_default_and_global_the_host_without_region() -> None:
    assert account().url == REGIONS["eu1"] == "https://eu1.api.clevertap.com"
    assert account(region="global").url == "https://api.clevertap.com"
    assert key().url == "https://altatech.ai"


@pytest.mark.parametrize("region", ["mars", "", " ", "e u1", "eu-1", None, 1])
def test_an_unknown_region_is_refused(region: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        account(region=region)
    assert str(caught.value).startswith("region: ")
    assert repr(region) in str(caught.value)
    assert "eu1, global, in1, us1, sg1, aps3, mec1, sk1" in str(caught.value)


@pytest.mark.parametrize(
    ("region", "meant"),
    [("in", "in1"), ("US", "us1"), ("in-1", "in1"), ("sg", "sg1"), ("eu", "eu1"), ("mec", "mec1")],
)
def test_a_region_that_is_nearly_right_is_suggested(region: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        account(region=region)
    assert str(caught.value).endswith(f"sk1 (did you mean {meant!r}?)")


@pytest.mark.parametrize(
    "region",
    [
        "https://in1.api.clevertap.com",
        "HTTPS://in1.api.clevertap.com/",
        "in1.api.clevertap.com",
        "//gateway.example.com/clevertap",
        "localhost:8080",
        "http://127.0.0.1:8080",
        f"https://ann:{PASSCODE}@gateway.example.com",
    ],
)
def test_an_address_as_region_is_named_as_one(region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError) as caught:
        account(region=region)
    assert str(caught.value) == "region: looks like an address; pass it as `base_url`"
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", PASSCODE)
    monkeypatch.setenv("CLEVERTAP_REGION", region)
    with pytest.raises(ConfigurationError) as caught:
        CleverTap.from_env()
    assert str(caught.value) == (
        "CLEVERTAP_REGION: looks like an address; pass it as CLEVERTAP_BASE_URL"
    )


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: account(base_url="In1"),
            "base_url: holds the name of a region; pass it as `region`",
        ),
        (
            lambda: key(base_url="sg"),
            "base_url: holds the name of a platform; pass it as `endpoint`",
        ),
        (
            lambda: account(passcode="https://in1.api.clevertap.com"),
            "passcode: holds a URL; pass an address as `base_url`, and the passcode",
        ),
        (
            lambda: account(account_id="https://in1.api.clevertap.com"),
            "account_id: holds a URL; pass an address as `base_url`, and the account ID",
        ),
    ],
)
def test_an_address_in_the_place_of_another_argument_is_named(
    build: Callable[[], object], words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build()
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("endpoint", "name", "url"),
    [
        ("altatech", "altatech", "https://altatech.ai"),
        ("sg", "sg", "https://api-sg.gptbots.ai"),
        ("jp", "jp", "https://api-jp.gptbots.ai"),
        ("th", "th", "https://api-th.gptbots.ai"),
        ("gptbots.ai", "gptbots.ai", "https://api.gptbots.ai"),
        ("example.com", "example.com", "https://api.example.com"),
        ("eu.example.com", "eu.example.com", "https://api.eu.example.com"),
        ("api-eu.example.com", "api-eu.example.com", "https://api.api-eu.example.com"),
        ("bücher.example", "xn--bcher-kva.example", "https://api.xn--bcher-kva.example"),
        ("gptbots.ai.", "gptbots.ai", "https://api.gptbots.ai"),
    ],
)
@pytest.mark.parametrize("spelled", [str, str.upper, " {} ".format])
def test_an_endpoint_names_a_platform_in_any_case(
    endpoint: str, name: str, url: str, spelled: Callable[[str], str]
) -> None:
    given = key(endpoint=spelled(endpoint))
    assert (given.endpoint, given.base_url, given.url) == (name, None, url)
    assert repr(given) == f"Alta(token='***', endpoint={name!r}, max_in_flight=16)"
    assert given.account == key().account


def test_the_endpoint_is_altatech_unless_another_one_or_a_base_url_is_given() -> None:
    assert key().url == key(endpoint="altatech").url == ENDPOINTS["altatech"]
    assert (key().endpoint, key().base_url) == (None, None)
    # As before there was an endpoint.
    assert Alta(TOKEN, "https://api-sg.gptbots.ai/", 4, 90, "agent") == Alta(
        TOKEN,
        base_url="https://api-sg.gptbots.ai/",
        max_in_flight=4,
        requests_per_minute=90,
        name="agent",
    )


def test_the_endpoint_of_credentials_can_be_replaced() -> None:
    given = key(endpoint="sg", max_in_flight=2)
    assert dataclasses.replace(given, max_in_flight=3).url == given.url
    assert dataclasses.replace(given, endpoint="jp").url == ENDPOINTS["jp"]
    assert dataclasses.replace(key(), endpoint="jp").url == ENDPOINTS["jp"]
    assert dataclasses.replace(key(), base_url="https://example.com").url == "https://example.com"
    moved = dataclasses.replace(given, endpoint=None, base_url="http://[::1]:1")
    assert (moved.url, moved.max_in_flight) == ("http://[::1]:1", 2)
    assert copy.deepcopy(given) == given


@pytest.mark.parametrize("endpoint", ["gptbots.ai", "altatech", "mars"])
@pytest.mark.parametrize("base_url", ["https://api.gptbots.ai", "https://altatech.ai", "nonsense"])
def test_an_endpoint_beside_a_base_url_is_refused(endpoint: str, base_url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        key(endpoint=endpoint, base_url=base_url)
    assert "endpoint" in str(caught.value)
    assert "base_url" in str(caught.value)
    with pytest.raises(ConfigurationError):
        Alta(TOKEN, base_url, endpoint=endpoint)


def test_an_endpoint_has_to_be_named() -> None:
    with pytest.raises(TypeError):
        Alta(TOKEN, None, 16, None, None, "sg")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("endpoint", "advice"),
    [
        ("mars", "use one of altatech, gptbots.ai, sg, jp, th"),
        ("gptbots", "use one of altatech, gptbots.ai, sg, jp, th"),
        ("localhost", "use one of altatech, gptbots.ai, sg, jp, th"),
        ("", "use one of altatech, gptbots.ai, sg, jp, th"),
        (" ", "use one of altatech, gptbots.ai, sg, jp, th"),
        ("${endpoint}", "use one of altatech, gptbots.ai, sg, jp, th"),
        ("api.gptbots.ai", "pass 'gptbots.ai'"),
        ("API.gptbots.ai ", "pass 'gptbots.ai'"),
        ("api-sg.gptbots.ai", "pass 'sg'"),
        ("api-eu.gptbots.ai", "pass its URL as `base_url`"),
        (" API-KR.GPTBots.ai", "is a host, before which api. would be put"),
        ("gptbots", "did you mean 'gptbots.ai'?"),
        ("GPTBots", "did you mean 'gptbots.ai'?"),
        ("alta", "did you mean 'altatech'?"),
        ("api.example.com", "pass 'example.com'"),
        ("https://api.gptbots.ai", "pass a URL as `base_url`"),
        ("http://127.0.0.1:8080", "pass a URL as `base_url`"),
        ("gptbots.ai/v1", "pass a URL as `base_url`"),
        ("gptbots.ai:8443", "pass a URL as `base_url`"),
        ("gptbots.ai?key=hunter2", "pass a URL as `base_url`"),
        ("gptbots.ai#hunter2", "pass a URL as `base_url`"),
        ("127.0.0.1", "pass a URL as `base_url`"),
        ("gptbots..ai", "pass a URL as `base_url`"),
        (".ai", "pass a URL as `base_url`"),
        (".", "pass a URL as `base_url`"),
        ("gpt bots.ai", "pass a URL as `base_url`"),
        ("gptbots.ai\r\nX-Evil: 1", "pass a URL as `base_url`"),
        ("gptbots.ai\\x", "pass a URL as `base_url`"),
        ("gptbots,ai.", "pass a URL as `base_url`"),
        ("\udcff.example.com", "pass a URL as `base_url`"),
        (f"{'a' * 64}.example.com", "pass a URL as `base_url`"),
        (7, "expected the name of a platform"),
        (b"sg", "expected the name of a platform"),
        (["sg"], "expected the name of a platform"),
        ("user:hunter2@gptbots.ai", "holds an @"),
    ],
)
def test_an_endpoint_that_is_not_a_platform_is_refused_with_the_fix(
    endpoint: Any, advice: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"\Aendpoint: ") as caught:
        key(endpoint=endpoint)
    assert advice in str(caught.value)
    assert "hunter2" not in str(caught.value)


@both
@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api-sg.gptbots.ai", "https://api-sg.gptbots.ai"),
        ("https://api-sg.gptbots.ai/", "https://api-sg.gptbots.ai"),
        ("https://gateway.example:8443/proxy/", "https://gateway.example:8443/proxy"),
        ("HTTPS://example.com", "HTTPS://example.com"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://LOCALHOST", "http://LOCALHOST"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.0.0.2", "http://127.0.0.2"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
        ("https://eu1\u3002api\uff0eclevertap.com", "https://eu1.api.clevertap.com"),
        ("https://bücher.example:8443/a", "https://xn--bcher-kva.example:8443/a"),
        ("https://api.clevertap.com./a/", "https://api.clevertap.com/a"),
        ("http://localhost.:8080", "http://localhost:8080"),
        ("https://my_gateway/a%20b", "https://my_gateway/a%20b"),
    ],
)
def test_a_base_url_replaces_the_host(
    build: Build, secret: str, field: str, base_url: str, url: str
) -> None:
    assert build(base_url=base_url).url == url


@both
@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.clevertap.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://[2001:db8::1]",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "ftp://example.com",
        "file:///etc/hosts",
        "//example.com",
        "example.com",
        "example.com:443",
        "https://",
        "https:///path",
        "",
        " ",
        "https://example.com?x=1",
        "https://example.com/#top",
        "https://example.com?",
        "https://example.com/?",
        "https://example.com#",
        "https://example.com/a b",
        "https://exa\tmple.com",
        7,
    ],
)
def test_a_base_url_that_is_unsafe_or_not_a_url_is_refused(
    build: Build, secret: str, field: str, base_url: Any
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(base_url=base_url)
    assert str(caught.value).startswith("base_url: ")
    # A query may hold a credential.
    place = re.split("[?#]", base_url)[0] if isinstance(base_url, str) else base_url
    assert repr(place) in str(caught.value)
    assert "x=1" not in str(caught.value)


@both
@pytest.mark.parametrize(
    "base_url",
    [
        "https://example.com:port",
        "https://example.com:99999",
        "https://example.com:0",
        "https://example.com:",
        "https://example.com:443:443",
        "https://example.com:\uff14\uff14\uff13",
        "https://[::1",
        "https://[::1]x",
        "https://[fe80::1%eth0]",
        "https://[v1.x]",
        "https://::1",
        "https://example.com\r\nX-Evil: 1",
        "https://eu1..api.clevertap.com",
        "https://.api.clevertap.com",
        "https://api.clevertap.com..",
        "https://.",
        f"https://{'a' * 64}.example.com",
        f"https://{'.'.join(['a' * 60] * 5)}",
        "https:/api.clevertap.com",
        "https:api.clevertap.com",
        "https://https://api.clevertap.com",
        "https://api.clevertap.com\\in1",
        "https://api,clevertap.com",
        "https://api clevertap.com",
        "https://api%2eclevertap.com",
        "https://api.clevertap.com/%zz",
        "https://api.clevertap.com/é",
        "https://127.1",
        "https://2130706433",
        "https://0x7f.1",
        "https://999.1.1.1",
        "https://\u200d.example.com",
        "https://\udcff.example.com",
        "https://a\u2100b.example.com",
    ],
)
def test_a_base_url_with_a_broken_host_is_refused(
    build: Build, secret: str, field: str, base_url: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"^base_url: .*https://HOST"):
        build(base_url=base_url)


@both
@pytest.mark.parametrize(
    "base_url",
    [
        "https://user:hunter2@example.com",
        "https://hunter2@example.com",
        "https://:hunter2@example.com/path",
        "http://user:hunter2@127.0.0.1:8080",
        "https://user:hunter2@example.com:port",
        "https://user:hunter2@example.com?x#y",
        "//user:hunter2@example.com",
        "user:hunter2@example.com",
        "https:/user:hunter2@example.com",
        "https://user:1#hunter2@example.com",
        "https://user:hunter2#1@example.com",
    ],
)
def test_a_password_in_a_base_url_is_refused_and_not_shown(
    build: Build, secret: str, field: str, base_url: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"^base_url: ") as caught:
        build(base_url=base_url)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


@both
@pytest.mark.parametrize(
    "base_url", ["127.0.0.1:9", "localhost:8080", "10.0.0.1/v", "[::1]:8080", "gateway.example:443"]
)
def test_a_base_url_without_its_scheme_is_shown(
    build: Build, secret: str, field: str, base_url: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"^base_url: ") as caught:
        build(base_url=base_url)
    assert repr(base_url) in str(caught.value)


# ------------------------------------------------------------------------------------- what to send

NOT_A_HEADER = ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\x00b", "a b", " a", "a\n", "a\x7f", "é", "密"]


@both
@pytest.mark.parametrize("value", NOT_A_HEADER)
def test_a_secret_that_would_break_a_header_is_refused_and_not_shown(
    build: Build, secret: str, field: str, value: str
) -> None:
    given = f"{secret}{value}"
    with pytest.raises(ConfigurationError) as caught:
        build(**{field: given})
    assert str(caught.value).startswith(f"{field}: ")
    assert secret not in str(caught.value)


@pytest.mark.parametrize("value", ["", *NOT_A_HEADER, None, 7, b"abc"])
def test_an_account_id_that_would_break_a_header_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^account_id: "):
        account(account_id=value)


@both
@pytest.mark.parametrize("value", ["", None, 7, b"hunter2", ["hunter2"]])
def test_a_secret_that_is_not_text_is_refused_and_not_shown(
    build: Build, secret: str, field: str, value: Any
) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{field}: ") as caught:
        build(**{field: value})
    assert "hunter2" not in str(caught.value)


@both
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", None])
def test_a_cap_below_one_is_refused(build: Build, secret: str, field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(max_in_flight=value)
    assert str(caught.value).startswith("max_in_flight: ")
    assert repr(value) in str(caught.value)


@both
@pytest.mark.parametrize("text", ["auto", "AUTO", " Auto "])
def test_a_cap_can_be_looked_for(build: Build, secret: str, field: str, text: str) -> None:
    given = build(max_in_flight=text)
    assert given.max_in_flight == "auto"
    assert "max_in_flight='auto'" in repr(given)


@pytest.mark.parametrize(
    ("text", "most"), [("auto", "auto"), ("7", 7), (" 12 ", 12), ("", None), (" ", None)]
)
def test_the_environment_can_set_the_caps(
    monkeypatch: pytest.MonkeyPatch, text: str, most: object
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R-654-865Z")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", PASSCODE)
    monkeypatch.setenv("CLEVERTAP_MAX_IN_FLIGHT", text)
    monkeypatch.setenv("ALTA_TOKEN", TOKEN)
    monkeypatch.setenv("ALTA_MAX_IN_FLIGHT", text)
    assert CleverTap.from_env().max_in_flight == (most or 3)
    assert Alta.from_env().max_in_flight == (most or 16)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_cap_of_the_environment_that_cannot_work_is_named(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALTA_TOKEN", TOKEN)
    monkeypatch.setenv("ALTA_MAX_IN_FLIGHT", text)
    with pytest.raises(ConfigurationError) as caught:
        Alta.from_env()
    assert str(caught.value).startswith("ALTA_MAX_IN_FLIGHT: expected a whole number")
    assert text in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "100"])
def test_a_rate_below_one_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^requests_per_minute: ") as caught:
        key(requests_per_minute=value)
    assert repr(value) in str(caught.value)


def test_the_secret_reaches_the_headers() -> None:
    sent = clevertap.auth_headers("W9R-654-865Z", account().passcode)
    assert str(sent["X-CleverTap-Passcode"]) == PASSCODE
    assert "".join(alta.auth_headers(key().token)["Authorization"]) == f"Bearer {TOKEN}"


# --------------------------------------------------------------------------- the account of a token


def test_the_account_of_a_token_is_its_name_else_its_digest() -> None:
    assert key().account == "baa703755e9d38bf"
    assert key(base_url="http://[::1]:1", max_in_flight=2).account == key().account
    assert key(token=f"{TOKEN}2").account != key().account
    assert key(name="support-agent").account == "support-agent"
    assert key(token=f"{TOKEN}2", name="support-agent").account == "support-agent"


def test_the_owner_of_limits_is_the_key_and_does_not_show_it() -> None:
    assert key().owner == key(name="support-agent").owner == key(name="sales").owner
    assert key(token=f"{TOKEN}2").owner != key().owner
    assert key(token=lambda: TOKEN, name="support-agent").owner == "support-agent"
    assert account().owner == account().account_id


def test_a_session_asks_in_the_name_of_that_account() -> None:
    for given in (key(), key(name="support-agent")):
        assert _alta_service(given, Retry()).account == given.account


@pytest.mark.parametrize("name", ["a", "x" * 100, "the shop's agent", "客服"])
def test_a_name_can_be_any_printable_text(name: str) -> None:
    assert key(name=name).account == name
    assert f", name={name!r})" in repr(key(name=name))


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb", "\x1b[31m", "\ufeffa", 7, True])
def test_a_name_that_cannot_be_used_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^name: .* use a short name") as caught:
        key(name=name)
    assert f"got {name!r}" in str(caught.value)


# -------------------------------------------------------------------------------- nothing shows it


@both
def test_no_way_of_looking_at_credentials_shows_the_secret(
    build: Build, secret: str, field: str
) -> None:
    for base_url in ("https://example.com", "http://[::1]:1"):
        given = build(base_url=base_url)
        looks = [
            repr(given),
            str(given),
            f"{given}",
            f"{given!r:>80}",
            f"{given!a}",
            repr([given]),
            repr(dataclasses.asdict(given)),
            repr(dataclasses.astuple(given)),
            repr(dataclasses.replace(given, max_in_flight=2)),
            repr(copy.deepcopy(given)),
            *(str(getattr(given, name)) for name in dir(given) if name != field),
            repr(getattr(given, field)),
            repr({"passcode": getattr(given, field)}),
            repr(Session(**{"clevertap" if field == "passcode" else "alta": given})),
        ]
        for look in looks:
            assert secret not in look
        assert "***" in looks[0]


@both
def test_no_table_made_of_credentials_shows_the_secret(
    build: Build, secret: str, field: str
) -> None:
    import pandas as pd  # type: ignore[import-untyped]
    import polars as pl

    given: Any = build()
    pd.set_option("display.max_columns", None)
    tables = [pd.DataFrame([given]), pd.DataFrame({"of": [given]})]
    looks = [look for table in tables for look in (str(table), table.to_html())]
    with pl.Config(tbl_cols=-1, fmt_str_lengths=100):
        looks += [str(pl.DataFrame([given])), str(pl.Series([given]))]
    looks += [json.dumps(dataclasses.asdict(given)), str(dataclasses.astuple(given))]
    for look in looks:
        assert secret not in look
    assert "***" in looks[0]
    copied = copy.deepcopy({"of": given})["of"]
    assert str(getattr(copied, field)) == secret
    with pytest.raises(ConfigurationError, match=f"^{field}: holds the stars that stand for"):
        build(**{field: dataclasses.asdict(given)[field]})


SWAPPED = r"^passcode: has the form of an account ID, .*; swap `account_id` and `passcode`$"


@pytest.mark.parametrize("form", ["W9R-654-865Z", "TEST-W9R-654-865Z"])
def test_a_passcode_in_the_place_of_the_account_is_refused_and_not_shown(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for passcode in (PASSCODE, "QWE-ASD-ZXCL"):
        with pytest.raises(ConfigurationError, match=SWAPPED) as caught:
            CleverTap(passcode, form)
        assert form not in str(caught.value)
        assert passcode not in str(caught.value)
        monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", passcode)
        monkeypatch.setenv("CLEVERTAP_PASSCODE", form)
        for make in (CleverTap.from_env, Session.from_env):
            with pytest.raises(ConfigurationError) as caught:
                make()
            assert str(caught.value).endswith("swap CLEVERTAP_ACCOUNT_ID and CLEVERTAP_PASSCODE")
            assert passcode not in str(caught.value)
    # A passcode may have any form beside an account ID, and an account ID any beside a passcode.
    for account_id, passcode in [(form, "QWE-ASD-ZXCZ"), ("local", "QWE-ASD-ZXCL"), ("local", "x")]:
        assert CleverTap(account_id, passcode).account_id == account_id


def test_credentials_show_what_they_are_for() -> None:
    assert repr(account(region="in1")) == (
        "CleverTap(account_id='W9R-654-865Z', passcode='***', region='in1', max_in_flight=3)"
    )
    assert repr(account(timezone="UTC")).endswith("max_in_flight=3, timezone='UTC')")
    assert "http://[::1]:1" in repr(account(base_url="http://[::1]:1"))
    assert "https://altatech.ai" in repr(key())
    assert "requests_per_minute=90" in repr(key(requests_per_minute=90))
    assert "name" not in repr(key())


@pytest.mark.parametrize(
    ("timezone", "words"),
    [
        ("kolkata", "there is no time zone 'kolkata' (did you mean 'Asia/Kolkata'?)"),
        ("america/new york", "(did you mean 'America/New_York'?)"),
        ("Kolkatta", "there is no time zone 'Kolkatta' (did you mean 'Asia/Kolkata'?)"),
        # Countries: what is spelt alike is elsewhere.
        ("India", "there is no time zone 'India'; use a name of the IANA database, such as 'Asia/"),
        ("Nigeria", "there is no time zone 'Nigeria'; use a name of the IANA database"),
        ("Asia", "there is no time zone 'Asia'"),
        ("Europe/berlin", "there is no time zone 'Europe/berlin' (did you mean 'Europe/Berlin'?)"),
        ("europe/Berlinn", "there is no time zone 'europe/Berlinn' (did you mean"),
        ("Secret/aB3dE5gH7", "there is no time zone '***'"),
        ("Europe/aB3dE5gH7", "there is no time zone '***'"),
        ("/etc/localtime", "there is no time zone '/etc/localtime'"),
        ("../UTC", "there is no time zone '../UTC'"),
        ("GMT+5:30", "there is no time zone 'GMT+5:30'"),
        ("\ud800", "there is no time zone"),
        ("x" * 5000, "there is no time zone"),
        ("", "expected the name of a time zone, such as 'Asia/Kolkata', got ''"),
        (5.5, "expected the name of a time zone, such as 'Asia/Kolkata', got 5.5"),
    ],
)
def test_a_time_zone_that_does_not_exist_is_refused_with_the_fix(timezone: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        account(timezone=timezone)
    assert str(caught.value).startswith("timezone: ")
    assert words in str(caught.value)


@pytest.mark.usefixtures("no_zones")
def test_without_zone_data_only_utc_is_known_and_the_error_names_the_package() -> None:
    assert account(timezone="UTC").timezone == "UTC"
    with pytest.raises(ConfigurationError, match=r"timezone: .* run: pip install tzdata$"):
        account(timezone="Asia/Kolkata")


@both
def test_credentials_refuse_to_pickle_and_say_why(build: Build, secret: str, field: str) -> None:
    given = build()
    for thing in (given, [given], getattr(given, field), dataclasses.asdict(given)):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="credentials do not pickle") as caught:
                pickle.dumps(thing, protocol)
            assert secret not in str(caught.value)


@both
def test_credentials_copy(build: Build, secret: str, field: str) -> None:
    given = build(base_url="https://example.com", max_in_flight=2)
    for twin in (copy.copy(given), copy.deepcopy(given), dataclasses.replace(given)):
        assert twin == given
        assert str(getattr(twin, field)) == secret
        assert twin.url == given.url
    assert given != build()
    assert dataclasses.replace(key(name="agent"), max_in_flight=2).account == "agent"
    assert len({given, copy.deepcopy(given)}) == 1


def with_locals(error: BaseException) -> str:
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(shown.format())


# The secrets are read from the module inside each function: as an argument or a local of the test
# they would be the caller's own responsibility.
MISTAKES: dict[str, Callable[[], object]] = {
    "region": lambda: CleverTap("W9R", PASSCODE, region="mars"),
    "account": lambda: CleverTap("W9R\n", PASSCODE),
    "cap": lambda: CleverTap("W9R", PASSCODE, max_in_flight=0),
    "base_url": lambda: CleverTap("W9R", PASSCODE, base_url="http://example.com"),
    "login": lambda: CleverTap("W9R", "other", base_url=f"https://u:{PASSCODE}@example.com"),
    "query": lambda: Alta("other", base_url=f"https://example.com/?key={TOKEN}"),
    "passcode": lambda: CleverTap("W9R", PASSCODE + "\n"),
    "token": lambda: Alta(TOKEN + "\n"),
    "alta cap": lambda: Alta(TOKEN, max_in_flight=0),
    "swapped": lambda: CleverTap("W9R", "in1", PASSCODE),
    "alta swapped": lambda: Alta("https://api.gptbots.ai", TOKEN),
    "endpoint swapped": lambda: Alta("GPTBots.ai", endpoint=TOKEN),
    "endpoint": lambda: Alta(TOKEN, endpoint="mars"),
    "endpoint and base_url": lambda: Alta(TOKEN, "https://example.com", endpoint="sg"),
    "account swapped": lambda: CleverTap(PASSCODE, "W9R-654-865Z"),
    "address as region": lambda: CleverTap("W9R", "o", f"https://ann:{PASSCODE}@example.com"),
    "region swapped": lambda: CleverTap("W9R", "IN1", PASSCODE),
    "token as base_url": lambda: Alta("agent-1", TOKEN),
    "token before a query": lambda: Alta("agent-1", TOKEN + "?a=1"),
    "token as cap": lambda: Alta("agent-1", None, TOKEN),  # type: ignore[arg-type]
    "token as pace": lambda: Alta("agent-1", None, 4, TOKEN),  # type: ignore[arg-type]
    "token as folder": lambda: Alta("agent-1", shared=TOKEN),
    "passcode as region": lambda: CleverTap("W9R", "project", PASSCODE),
    "passcode as base_url": lambda: CleverTap("W9R", "project", "in1", PASSCODE),
    "passcode as cap": lambda: CleverTap("W9R", "project", max_in_flight=PASSCODE),  # type: ignore[arg-type]
    "passcode as zone": lambda: CleverTap("W9R", "project", timezone=PASSCODE),
    "alta name": lambda: Alta(TOKEN, name=""),
    "alta base_url": lambda: Alta(TOKEN, base_url="http://example.com"),
}


@pytest.mark.parametrize(
    "given", [{"alta": TOKEN}, {"clevertap": ("W9R", PASSCODE)}, {"clevertap": {"key": PASSCODE}}]
)
def test_a_bare_secret_in_place_of_credentials_is_refused_and_not_shown(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^(alta|clevertap): expected ") as caught:
        Session(**given)
    assert PASSCODE not in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("name", MISTAKES)
def test_no_traceback_of_a_mistake_shows_a_secret_in_its_locals(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MISTAKES[name]()
    shown = with_locals(caught.value) + str(caught.value)
    assert "__init__" in shown
    assert PASSCODE not in shown
    assert TOKEN not in shown


def test_a_setting_that_could_be_a_secret_stays_the_text_that_it_is() -> None:
    agent = Alta("token", name="Support Agent 2", shared="/caches/Team 7")
    shop = CleverTap("W9R", "passcode", timezone="America/Port-au-Prince")
    texts = [agent.name, agent.shared, shop.timezone]
    assert texts == ["Support Agent 2", "/caches/Team 7", "America/Port-au-Prince"]
    assert {*map(type, texts)} == {str}


@asynccontextmanager
async def to_nobody() -> AsyncIterator[Session]:
    """Open a session for a port without a server."""
    with socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        async with Session(
            clevertap=account(base_url=url), alta=key(base_url=url), retry=Retry(attempts=1)
        ) as session:
            yield session


async def first_page(session: Session) -> None:
    async for _ in session.profiles.by_event("Charged", start=20260101, end=20260101).pages():
        pass


CALLS: dict[str, Callable[[Session], Awaitable[object]]] = {
    "profiles.get": lambda session: session.profiles.get(identity="7"),
    "profiles.count": lambda session: session.profiles.count(
        "Charged", start=20260101, end=20260101
    ),
    "profiles.by_event": first_page,
    "cdp.get": lambda session: session.cdp.get(user_id="7"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", CALLS)
async def test_no_traceback_of_a_failed_request_shows_a_secret_in_its_locals(name: str) -> None:
    async with to_nobody() as session:
        with pytest.raises(ConnectError) as caught:
            await CALLS[name](session)
    shown = with_locals(caught.value)
    assert f"{name.partition('.')[0]}.py" in shown
    assert PASSCODE not in shown
    assert TOKEN not in shown


@pytest.mark.parametrize("position", [0, 60, 75, 80, 85, 100, 500])
def test_an_echoed_secret_is_hidden_wherever_the_excerpt_ends(position: int) -> None:
    body = b"x" * position + f"<!-- X-CleverTap-Passcode: {PASSCODE} -->".encode()
    for status in (200, 502):
        with pytest.raises(AltaProfilesError) as caught:
            clevertap.read_cursor(Response(status, {}, body))
        error = caught.value
        error.redact(partial(masked, secrets=[PASSCODE]))
        assert isinstance(error, DecodeError | StatusError)
        for length in range(3, len(PASSCODE) + 1):
            assert PASSCODE[:length] not in error.excerpt
            assert PASSCODE[:length] not in str(error)


# --------------------------------------------------------------------------------- the environment


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_environment_gives_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", PASSCODE)
    monkeypatch.setenv("ALTA_TOKEN", TOKEN)
    assert CleverTap.from_env() == CleverTap("W9R", PASSCODE)
    assert Alta.from_env() == Alta(TOKEN)
    monkeypatch.setenv("CLEVERTAP_REGION", "in1")
    monkeypatch.setenv("ALTA_BASE_URL", "https://api-jp.gptbots.ai")
    assert CleverTap.from_env() == CleverTap("W9R", PASSCODE, "in1")
    assert Alta.from_env().url == "https://api-jp.gptbots.ai"
    monkeypatch.setenv("CLEVERTAP_BASE_URL", "http://127.0.0.1:1/")
    assert CleverTap.from_env().url == "http://127.0.0.1:1"
    monkeypatch.delenv("ALTA_BASE_URL")
    for endpoint in ("gptbots.ai", " GPTBots.AI "):
        monkeypatch.setenv("ALTA_ENDPOINT", endpoint)
        assert Alta.from_env() == Alta(TOKEN, endpoint="gptbots.ai")
    monkeypatch.setenv("CLEVERTAP_REGION", " SK1 ")
    assert CleverTap.from_env().region == "sk1"
    assert CleverTap.from_env().timezone is None
    monkeypatch.setenv("CLEVERTAP_TIMEZONE", "Asia/Kolkata")
    assert CleverTap.from_env().timezone == "Asia/Kolkata"
    monkeypatch.setenv("CLEVERTAP_TIMEZONE", "Asia/Calcuta")
    with pytest.raises(
        ConfigurationError,
        match=r"\ACLEVERTAP_TIMEZONE: there is no time zone 'Asia/Calcuta' \(did you mean"
        r" 'Asia/Calcutta'\?\)",
    ):
        CleverTap.from_env()


def test_both_addresses_of_alta_in_the_environment_are_an_error_that_names_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALTA_TOKEN", TOKEN)
    monkeypatch.setenv("ALTA_ENDPOINT", "sg")
    monkeypatch.setenv("ALTA_BASE_URL", "https://example.com")
    for make in (Alta.from_env, Session.from_env):
        with pytest.raises(ConfigurationError, match=r"ALTA_ENDPOINT: .* ALTA_BASE_URL; pass one"):
            make()
    monkeypatch.setenv("ALTA_BASE_URL", "")
    assert Alta.from_env().endpoint == "sg"
    monkeypatch.setenv("ALTA_ENDPOINT", "https://api.gptbots.ai")
    with pytest.raises(ConfigurationError, match=r"\AALTA_ENDPOINT: .* as ALTA_BASE_URL$"):
        Alta.from_env()


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (["ALTA_ENDPOINT"], "ALTA_ENDPOINT has no effect, because ALTA_TOKEN is not set"),
        (["ALTA_BASE_URL"], "ALTA_BASE_URL has no effect, because ALTA_TOKEN is not set"),
        (
            ["CLEVERTAP_REGION", "CLEVERTAP_BASE_URL", "CLEVERTAP_TIMEZONE"],
            "have no effect, because CLEVERTAP_ACCOUNT_ID and CLEVERTAP_PASSCODE are not set",
        ),
    ],
)
def test_variables_that_need_another_one_are_not_ignored_silently(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variables: list[str],
    sentence: str,
) -> None:
    for name in variables:
        monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigurationError, match="no credentials in the environment; ") as caught:
        Session.from_env()
    assert f"{sentence}; set " in str(caught.value)
    if variables[0].startswith("ALTA"):
        monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R")
        monkeypatch.setenv("CLEVERTAP_PASSCODE", PASSCODE)
    else:
        monkeypatch.setenv("ALTA_TOKEN", TOKEN)
    Session.from_env()
    [message] = caplog.messages
    assert message.startswith(" and ".join(variables))
    assert message.endswith(sentence)


def test_an_empty_optional_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", PASSCODE)
    monkeypatch.setenv("ALTA_TOKEN", TOKEN)
    assert CleverTap.from_env() == CleverTap("W9R", PASSCODE)
    assert Alta.from_env() == Alta(TOKEN)


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("name", ["CLEVERTAP_ACCOUNT_ID", "CLEVERTAP_PASSCODE", "ALTA_TOKEN"])
def test_a_missing_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    for other in ("CLEVERTAP_ACCOUNT_ID", "CLEVERTAP_PASSCODE", "ALTA_TOKEN"):
        if other != name:
            monkeypatch.setenv(other, PASSCODE)
        elif value is not None:
            monkeypatch.setenv(other, value)
    with pytest.raises(ConfigurationError, match=name) as caught:
        (Alta if name == "ALTA_TOKEN" else CleverTap).from_env()
    assert PASSCODE not in str(caught.value)


def test_a_wrong_variable_is_refused_like_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", f"{PASSCODE}\n")
    with pytest.raises(ConfigurationError, match=r"^CLEVERTAP_PASSCODE: ") as caught:
        CleverTap.from_env()
    assert PASSCODE not in str(caught.value)
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "eu1")
    with pytest.raises(
        ConfigurationError, match=r"swap CLEVERTAP_PASSCODE and CLEVERTAP_REGION$"
    ) as caught:
        CleverTap.from_env()
    assert str(caught.value).startswith("CLEVERTAP_PASSCODE: holds the name of a region")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", PASSCODE)
    monkeypatch.setenv("CLEVERTAP_REGION", "mars")
    with pytest.raises(ConfigurationError, match=r"^CLEVERTAP_REGION: .*'mars'"):
        CleverTap.from_env()
    monkeypatch.setenv("CLEVERTAP_REGION", "in1")
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R 1")
    with pytest.raises(ConfigurationError, match=r"^CLEVERTAP_ACCOUNT_ID: "):
        CleverTap.from_env()
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R")
    monkeypatch.setenv("ALTA_TOKEN", TOKEN)
    for variable, make in (("CLEVERTAP_BASE_URL", CleverTap), ("ALTA_BASE_URL", Alta)):
        for url in ("htps://h.example", "http://h.example", "https://h/?a", "https://a:b@h"):
            monkeypatch.setenv(variable, url)
            with pytest.raises(ConfigurationError, match=f"^{variable}: "):
                make.from_env()
            with pytest.raises(ConfigurationError, match=f"^{variable}: "):
                Session.from_env()
        monkeypatch.delenv(variable)


def test_a_session_from_the_environment_needs_one_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"CLEVERTAP_ACCOUNT_ID.*ALTA_TOKEN"):
        Session.from_env()
    monkeypatch.setenv("ALTA_TOKEN", TOKEN)
    assert isinstance(Session.from_env(), Session)
    monkeypatch.setenv("CLEVERTAP_PASSCODE", PASSCODE)
    with pytest.raises(ConfigurationError, match="CLEVERTAP_ACCOUNT_ID"):
        Session.from_env()
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R")
    assert isinstance(Session.from_env(retry=Retry(attempts=1)), Session)


# ------------------------------------------------------------------------------------ shared limits


@pytest.mark.parametrize("kind", [CleverTap, Alta])
def test_limits_are_each_session_s_own_unless_they_are_shared(kind: Any, tmp_path: Path) -> None:
    given = ("id", "passcode") if kind is CleverTap else ("token",)
    assert kind(*given).shared is False
    assert "shared" not in repr(kind(*given))
    assert kind(*given, shared=True).shared is True
    assert repr(kind(*given, shared=True)).endswith(", shared=True)")
    shared = kind(*given, shared=tmp_path / "slots")
    assert shared.shared == str(tmp_path / "slots")
    assert dataclasses.replace(shared, max_in_flight=2).shared == shared.shared


@pytest.mark.parametrize("value", ["slots", "~/slots", "", 1, None, "true"])
def test_a_shared_folder_is_an_absolute_path(value: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        CleverTap("id", "passcode", shared=value)
    assert str(raised.value) == (
        f"shared: expected True, False or the absolute path of a folder, got {value!r}"
    )


def test_a_shared_folder_can_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a file name; choose another"):
        CleverTap("id", "passcode", shared="/a\0b")


@pytest.mark.parametrize(
    ("text", "shared"),
    [(None, False), ("", False), ("0", False), ("1", True), ("/srv/slots", "/srv/slots")],
)
def test_the_environment_says_whether_limits_are_shared(
    monkeypatch: pytest.MonkeyPatch, text: str | None, shared: bool | str
) -> None:
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "id")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "passcode")
    monkeypatch.setenv("ALTA_TOKEN", "token")
    monkeypatch.delenv("ALTAPROFILES_SHARED", raising=False)
    if text is not None:
        monkeypatch.setenv("ALTAPROFILES_SHARED", text)
    assert CleverTap.from_env().shared == Alta.from_env().shared == shared
    # Credentials in code say it themselves.
    assert CleverTap("id", "passcode").shared is False


def test_the_variable_is_named_if_its_value_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALTA_TOKEN", "token")
    monkeypatch.setenv("ALTAPROFILES_SHARED", "yes")
    with pytest.raises(ConfigurationError) as raised:
        Alta.from_env()
    assert str(raised.value) == (
        "ALTAPROFILES_SHARED: expected 1, 0 or the absolute path of a folder, got 'yes'"
    )


# ------------------------------------------------------------------------------ a prefix in front


def test_a_prefix_stands_before_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CLEVERTAP_ACCOUNT_ID": "OTHER",
        "CLEVERTAP_PASSCODE": "other",
        "CLEVERTAP_REGION": "sg1",
        "ALTA_TOKEN": "other",
        "ALTAPROFILES_SHARED": "1",
        "SHOP_CLEVERTAP_ACCOUNT_ID": "W9R",
        "SHOP_CLEVERTAP_PASSCODE": PASSCODE,
        "SHOP_CLEVERTAP_TIMEZONE": "Asia/Kolkata",
        "SHOP_CLEVERTAP_MAX_IN_FLIGHT": "2",
        "SHOP_ALTA_TOKEN": TOKEN,
        "SHOP_ALTA_MAX_IN_FLIGHT": "auto",
        "SHOP_ALTA_REQUESTS_PER_MINUTE": "90",
        "ALTA_NAME": "other",
        "SHOP_ALTA_NAME": "shop",
    }.items():
        monkeypatch.setenv(name, value)
    project = CleverTap("W9R", PASSCODE, timezone="Asia/Kolkata", max_in_flight=2)
    agent = Alta(TOKEN, max_in_flight="auto", requests_per_minute=90, name="shop")
    assert CleverTap.from_env("SHOP_") == CleverTap.from_env(prefix="SHOP_") == project
    assert Alta.from_env(prefix="SHOP_") == agent
    session = Session.from_env(prefix="SHOP_", retry=Retry(attempts=2))
    retry = Retry(attempts=2)
    assert repr(session) == f"Session(clevertap={project!r}, alta={agent!r}, retry={retry!r})"
    monkeypatch.setenv("SHOP_ALTAPROFILES_SHARED", "/srv/slots")
    assert CleverTap.from_env("SHOP_").shared == Alta.from_env("SHOP_").shared == "/srv/slots"
    assert CleverTap.from_env().shared is True


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SHOP_CLEVERTAP_PASSCODE", "", "variable SHOP_CLEVERTAP_PASSCODE is not set"),
        ("SHOP_CLEVERTAP_PASSCODE", "a b", "SHOP_CLEVERTAP_PASSCODE: holds a space"),
        ("SHOP_CLEVERTAP_PASSCODE", "a b", "; set the bare value that the dashboard shows"),
        ("SHOP_CLEVERTAP_PASSCODE", f"{PASSCODE}\n", "; set it without those at its start and end"),
        ("SHOP_CLEVERTAP_ACCOUNT_ID", "W9R\r", "; set it without those at its start and end"),
        ("SHOP_ALTA_TOKEN", " a", "SHOP_ALTA_TOKEN: holds a space"),
        ("SHOP_CLEVERTAP_REGION", "mars", "SHOP_CLEVERTAP_REGION: unknown region 'mars'"),
        ("SHOP_CLEVERTAP_MAX_IN_FLIGHT", "many", "SHOP_CLEVERTAP_MAX_IN_FLIGHT: expected a whole"),
        ("SHOP_CLEVERTAP_TIMEZONE", "IST", "SHOP_CLEVERTAP_TIMEZONE: there is no time zone"),
        ("SHOP_ALTA_REQUESTS_PER_MINUTE", "0", "SHOP_ALTA_REQUESTS_PER_MINUTE: expected a whole"),
        ("SHOP_ALTA_REQUESTS_PER_MINUTE", "1.5", "of at least 1, got '1.5'"),
        ("SHOP_ALTA_MAX_IN_FLIGHT", "-1", "SHOP_ALTA_MAX_IN_FLIGHT: expected a whole"),
        ("SHOP_ALTA_ENDPOINT", "mars", "SHOP_ALTA_ENDPOINT: unknown platform"),
        ("SHOP_ALTA_NAME", " ", "characters, not only blanks, got ' '; "),
        ("SHOP_ALTA_NAME", "a\tb", "SHOP_ALTA_NAME: expected 1 to 100 printable characters"),
        ("SHOP_ALTA_NAME", " ", "SHOP_ALTA_NAME: expected 1 to 100 printable characters, not only"),
        ("SHOP_ALTAPROFILES_SHARED", "yes", "SHOP_ALTAPROFILES_SHARED: expected 1, 0 or the"),
    ],
)
def test_an_error_names_the_whole_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv("SHOP_CLEVERTAP_ACCOUNT_ID", "W9R")
    monkeypatch.setenv("SHOP_CLEVERTAP_PASSCODE", PASSCODE)
    monkeypatch.setenv("SHOP_ALTA_TOKEN", TOKEN)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        Session.from_env("SHOP_")
    assert words in str(caught.value)
    assert PASSCODE not in str(caught.value)


async def an_async_function() -> str:
    return PASSCODE


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "got None; copy it from the dashboard"),
        (b"bytes", "got bytes; pass text, as .decode() returns it"),
        (4711, "got an int; pass it in quotation marks"),
        (["x"], "got a list; copy it from the dashboard"),
        (f"{PASSCODE}\n", "pass it without those at its start and end, as .strip() returns it"),
        ("a b", "pass the bare value that the dashboard shows"),
    ],
)
def test_an_error_in_an_argument_names_the_next_step(value: Any, words: str) -> None:
    for make in (
        lambda: CleverTap("W9R", value),
        lambda: CleverTap(value, PASSCODE),
        lambda: Alta(value),
    ):
        with pytest.raises(InvalidArgument, match=r"^(passcode|account_id|token): ") as caught:
            make()
        assert words in str(caught.value)
        assert PASSCODE not in str(caught.value)


def test_a_coroutine_in_the_place_of_its_function_is_named() -> None:
    coroutine: Any = an_async_function()
    for make in (lambda: CleverTap("W9R", coroutine), lambda: Alta(coroutine, name="a")):
        with pytest.raises(InvalidArgument, match=r"pass the function itself, without \(\)$"):
            make()
    with pytest.raises(InvalidArgument, match=r"^account_id: .* a coroutine; await it$"):
        CleverTap(coroutine, PASSCODE)
    coroutine.close()


def test_what_is_missing_or_without_effect_is_named_with_its_prefix(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", PASSCODE)
    monkeypatch.setenv("SHOP_ALTA_REQUESTS_PER_MINUTE", "90")
    idle = "SHOP_ALTA_REQUESTS_PER_MINUTE has no effect, because SHOP_ALTA_TOKEN is not set"
    with pytest.raises(MissingCredentials) as caught:
        Session.from_env("SHOP_")
    assert str(caught.value) == (
        f"no credentials in the environment; {idle}; set SHOP_CLEVERTAP_ACCOUNT_ID and "
        f"SHOP_CLEVERTAP_PASSCODE (and SHOP_CLEVERTAP_REGION), or SHOP_ALTA_TOKEN, or both, "
        "before Session.from_env(), or use Session.from_account() after `altaprofiles login`"
    )
    for kind, name in ((CleverTap, "CLEVERTAP_ACCOUNT_ID"), (Alta, "ALTA_TOKEN")):
        with pytest.raises(MissingCredentials, match=f"variable SHOP_{name} is not set"):
            kind.from_env("SHOP_")
    monkeypatch.setenv("SHOP_CLEVERTAP_ACCOUNT_ID", "W9R")
    monkeypatch.setenv("SHOP_CLEVERTAP_PASSCODE", PASSCODE)
    Session.from_env("SHOP_")
    assert caplog.messages == [idle]


@pytest.mark.parametrize(
    ("variables", "is_ignored"),
    [
        ({"ALTAPROFILES_SHARED": "1"}, True),
        ({"ALTAPROFILES_SHARED": "/srv/slots"}, True),
        ({"ALTAPROFILES_SHARED": "0"}, False),
        ({"ALTAPROFILES_SHARED": "1", "EU_ALTAPROFILES_SHARED": "0"}, False),
        ({"ALTAPROFILES_SHARED": "1", "EU_ALTAPROFILES_SHARED": "1"}, False),
        ({}, False),
    ],
)
def test_a_shared_that_the_prefix_leaves_unread_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
    is_ignored: bool,
) -> None:
    for name, value in {"EU_ALTA_TOKEN": TOKEN, "ALTA_TOKEN": TOKEN, **variables}.items():
        monkeypatch.setenv(name, value)
    Session.from_env()
    assert caplog.messages == []
    Session.from_env(prefix="EU_")
    sentence = (
        "ALTAPROFILES_SHARED has no effect on credentials with the prefix EU_; set "
        "EU_ALTAPROFILES_SHARED to 1 or a path to share their limits, or to 0 to keep them apart"
    )
    assert caplog.messages == ([sentence] if is_ignored else [])


@pytest.mark.parametrize(
    "prefix",
    ["SHOP-", "SHOP ", "A=", "a.b", "é", "1_", "A\0", "A\n", " ", 7, None],
)
def test_a_prefix_that_no_variable_can_have_is_refused(prefix: Any) -> None:
    for make in (CleverTap.from_env, Alta.from_env, Session.from_env):
        with pytest.raises(InvalidArgument, match=r"^prefix: expected letters, digits and _") as e:
            make(prefix)
        assert repr(prefix) in str(e.value)


# ------------------------------------------------------------------------ a secret of the caller


def test_a_secret_of_the_caller_takes_the_place_of_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "SHOP_CLEVERTAP_ACCOUNT_ID": "W9R",
        "SHOP_CLEVERTAP_REGION": "in1",
        "SHOP_CLEVERTAP_TIMEZONE": "Asia/Kolkata",
        "SHOP_ALTA_ENDPOINT": "sg",
        "SHOP_ALTA_REQUESTS_PER_MINUTE": "90",
        "SHOP_ALTAPROFILES_SHARED": "1",
    }.items():
        monkeypatch.setenv(name, value)

    def vault() -> str:
        return PASSCODE

    agent = Alta(vault, endpoint="sg", requests_per_minute=90, name="bot", shared=True)
    for variable in ("SHOP_ALTA_TOKEN", "SHOP_CLEVERTAP_PASSCODE"):
        for secret in (vault, PASSCODE):
            project = CleverTap("W9R", secret, "in1", timezone="Asia/Kolkata", shared=True)
            assert CleverTap.from_env("SHOP_", passcode=secret) == project
        assert Alta.from_env("SHOP_", token=vault, name="bot") == agent
        assert Alta.from_env("SHOP_", token=TOKEN).token == TOKEN
        monkeypatch.setenv(variable, "not valid")


def test_a_token_of_a_function_needs_a_name_in_the_environment_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InvalidArgument, match=r"^name: a token that a function returns .* name='"):
        Alta.from_env(token=lambda: TOKEN)
    with pytest.raises(InvalidArgument, match=r"^name: expected 1 to 100 printable characters"):
        Alta.from_env(token=lambda: TOKEN, name="")
    monkeypatch.setenv("ALTA_TOKEN", TOKEN)
    assert Alta.from_env(name="bot") == Alta(TOKEN, name="bot")


def test_an_agent_of_the_environment_keeps_its_name_when_its_key_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALTA_NAME", "shop")
    for token in (TOKEN, "rotated"):
        monkeypatch.setenv("ALTA_TOKEN", token)
        assert Alta.from_env().account == Alta(token, name="shop").account == "shop"
        assert Alta.from_env(name="bot").account == "bot"
    assert Alta.from_env(token=lambda: TOKEN).account == "shop"
    monkeypatch.setenv("ALTA_NAME", "")
    assert Alta.from_env().account == Alta("rotated").account


@pytest.mark.anyio
async def test_a_session_of_one_service_says_where_the_other_s_credentials_come_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    export: dict[str, Any] = {"start": 20260101, "end": 20260131, "to": tmp_path / "people.csv"}
    monkeypatch.setenv("SHOP_ALTA_TOKEN", TOKEN)
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", PASSCODE)
    variables = (
        "set SHOP_CLEVERTAP_ACCOUNT_ID and SHOP_CLEVERTAP_PASSCODE (and SHOP_CLEVERTAP_REGION) "
        "before Session.from_env()"
    )
    async with Session.from_env("SHOP_") as session:
        for view in (session, session.with_options(deadline=1.0)):
            with pytest.raises(MissingCredentials, match=f"{re.escape(variables)}$"):
                await view.profiles.get(identity="7")
        with pytest.raises(MissingCredentials, match=f"{re.escape(variables)}$"):
            await session.export("Charged", **export)
    async with Session.from_env() as session:
        with pytest.raises(
            MissingCredentials, match=r"; set ALTA_TOKEN before Session.from_env\(\)$"
        ):
            await session.cdp.get(user_id="7")
    file = tmp_path / "accounts.toml"
    file.write_text(f'[accounts."my shop"]\naccount_id = "W9R"\npasscode = "{PASSCODE}"\n')
    file.chmod(0o600)
    monkeypatch.setenv("ALTAPROFILES_CONFIG", str(file))
    async with Session.from_account() as session:
        with pytest.raises(MissingCredentials, match=r"; run: altaprofiles login 'my shop'$"):
            await session.cdp.get(user_id="7")
    async with Session(alta=Alta(TOKEN)) as session:
        with pytest.raises(MissingCredentials, match=r"; pass clevertap=CleverTap\(…\)$"):
            await session.profiles.get(identity="7")
