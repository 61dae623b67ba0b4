"""No error shows a secret, in any spelling, or the key that was asked for; and what is theirs."""

from __future__ import annotations

import asyncio
import base64
import html
import html.entities
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from altaprofiles import (
    Alta,
    AltaProfilesError,
    Attempt,
    CleverTap,
    ConfigurationError,
    ConnectError,
    DecodeError,
    Incomplete,
    Retry,
    Session,
    StatusError,
    parse_date,
)
from altaprofiles.redaction import masked

from .support.servers import always, http, scripted

NAMES = {text: f"&{name}" for name, text in html.entities.html5.items() if name.endswith(";")}
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper": str.upper,
    "json": lambda text: json.dumps(text)[1:-1],
    "json, slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "json of json": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "\\u": lambda text: "".join(f"\\u{ord(character):04x}" for character in text),
    "\\U": lambda text: "".join(f"\\u{ord(character):04X}" for character in text),
    "repr": lambda text: repr(text)[1:-1],
    "repr of json": lambda text: repr(json.dumps(text))[2:-2],
    "repr of bytes": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
    "percent": lambda text: quote(text, safe=""),
    "percent, lower": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "percent, twice": lambda text: quote(quote(text, safe=""), safe=""),
    "form": quote_plus,
    "html": html.escape,
    "html, twice": lambda text: html.escape(html.escape(text)),
    "html, decimal": lambda text: "".join(f"&#{ord(character)};" for character in text),
    "html, hexadecimal": lambda text: "".join(f"&#x{ord(character):X};" for character in text),
    "html, no semicolons": lambda text: "".join(f"&#{ord(character)}" for character in text),
    "html, names": lambda text: "".join(NAMES.get(character, character) for character in text),
    "JavaScript": lambda text: "".join(f"\\u{{{ord(character):x}}}" for character in text),
    "JavaScript's escape": lambda text: "".join(f"%u{ord(character):04X}" for character in text),
    "ascii": lambda text: "".join(f"\\U{ord(character):08x}" for character in text),
    "octal": lambda text: "".join(f"\\{byte:03o}" for byte in text.encode()),
    "url in json": lambda text: quote(json.dumps(text)[1:-1], safe=""),
    "two lines": lambda text: f"{text[: len(text) // 2]}\r\n  {text[len(text) // 2 :]}",
}
every_spelling = pytest.mark.parametrize("spelling", SPELLINGS)

# Every character that a credential can have, without those that only escapes are made of.
SECRETS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\%&+"),
    min_size=6,
    max_size=40,
)
# No character of it is in a secret.
WORDS = "«日本語»", "«語本日»"


@every_spelling
@settings(max_examples=40)
@given(secret=SECRETS)
@example(secret="s3/cr@t+x\"y'z&\\q")
@example(secret="s3cr3t-t0k3n")
@example(secret="%25%s{x}%41")
@example(secret="R&D&amp;R&D")
@example(secret="n\\n\\u0041b")
@example(secret="(a+b)*[c]+")
def test_a_secret_is_masked_in_every_spelling(spelling: str, secret: str) -> None:
    echo = SPELLINGS[spelling](secret)
    text = echo.join(WORDS)
    result = masked(text, [secret])
    assert result.startswith(WORDS[0])
    assert result.endswith(WORDS[1])
    # Nothing but the backslashes of an escape around it may be left.
    assert result[len(WORDS[0]) : -len(WORDS[1])].replace("\\", "") == "***"


@given(secret=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_a_secret_of_any_length_is_masked_where_it_is_echoed_as_it_is(secret: str) -> None:
    assert secret not in masked(secret.join(WORDS), [secret]).replace("***", "")


@given(
    secrets=st.lists(SECRETS, min_size=1, max_size=3),
    data=st.data(),
)
def test_the_order_of_secrets_makes_no_difference(secrets: list[str], data: st.DataObject) -> None:
    parts = [secret[data.draw(st.integers(0, 3)) :][:8] for secret in secrets]
    text = " ".join([*secrets, *parts])
    result = masked(text, [*secrets, *parts])
    assert masked(text, [*parts[::-1], *secrets[::-1]]) == result
    assert not any(secret in result for secret in secrets)


@given(secret=SECRETS, before=st.integers(0, 2), more=st.text("abc:", max_size=3))
def test_a_secret_is_masked_in_a_login(secret: str, before: int, more: str) -> None:
    login = base64.b64encode(f"{'u' * before}:{secret}{more}".encode()).decode()
    result = masked(f"Basic {login}", [secret])
    left = result.replace("***", "").removeprefix("Basic ").rstrip("=")
    # The characters that stand for the user and for a few bits of the secret.
    assert len(left) <= 4 + 2 + 4


@pytest.mark.parametrize("length", range(3, 19))
def test_a_secret_cut_short_at_an_end_is_masked(length: int) -> None:
    secret = "pa55-c0de-of-nobody"
    rests = ("", "%", "%2", "%252", "\\", "\\u00", "\\U0000002", "\\u{2", "\\05", "&", "&#3", "&am")
    for rest in (*rests, "%c3", "\\xe2\\x98", "\\303", "\\ud83d", "\\ud83d\\ud"):
        for dots in ("", "…", "..."):
            text = f"it is {secret[:length]}{rest}{dots}"
            assert masked(text, [secret]) == f"it is ***{dots}"
    assert masked(f"{secret[-length:]} it is", [secret]) == "*** it is"
    if length >= 6:
        assert masked(f"it is {secret[:length]}, no", [secret]) == "it is ***, no"


@every_spelling
def test_a_secret_cut_short_within_an_escape_is_masked(spelling: str) -> None:
    """All but the two characters that an edge may show, and what is broken beside them."""
    secret = "P4/ss+w0rd=Zz19"
    spell = SPELLINGS[spelling]
    echo = spell(secret).replace("\r\n  ", "")
    shown = len(spell(secret[-3:]))
    for dots in ("", "…", "..."):
        for cut in range(1, len(echo) - shown):
            assert masked(f"{dots}{echo[cut:]} is it", [secret]) == f"{dots}*** is it"
    shown = len(spell(secret[:3]))
    for cut in range(shown, len(echo)):
        assert masked(f"it is {echo[:cut]}…", [secret]) == "it is ***…"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("x64\\x3d\\x5a\\x7a\\x31\\x39", "P4/ss+w0rd=Zz19"),
        ("27%3D%25%3A", "pass'=%:"),
        ("252Fss%252Bw0rd%253DZz19", "P4/ss+w0rd=Zz19"),
        ("9;=%:", "pass'=%:"),
        ("amp;#39;=%:", "pass'=%:"),
        ("83\\xacuro", "100 €uro"),
        ("303\\251cole", "école"),
        ("d83d\\ude00abc", "k😀abc"),
    ],
)
def test_the_rest_of_an_escape_is_masked_with_the_end_of_a_secret(text: str, secret: str) -> None:
    assert masked(f"{text} is it", [secret]) == "*** is it"


def test_words_at_the_start_that_look_like_the_rest_of_an_escape_stay() -> None:
    for text in ("bad face; 25 users", "u0041 is 12", "feed", "404; x", "12345678"):
        assert masked(text, ["P4/ss+w0rd=Zz19"], ["jane@example.com", "77"]) == text
    # A short key is masked as a word of its own only, at the start as well.
    assert masked("x12345 and 112345", [], ["12345"]) == "x12345 and 112345"


@pytest.mark.parametrize(
    ("start", "text"),
    [
        ("", "some words of a service "),
        ("", "\\"),
        ("", "z\\"),
        ("", "\\u{"),
        ("", "\\xc3"),
        ("\\", "x5c"),
        ("%", "25"),
        ("", "%c3"),
        ("&", "#38;"),
        ("&", "amp;"),
        ("", "\n"),
        ("", "0"),
    ],
)
def test_a_long_text_is_masked_in_time_in_proportion_to_it(start: str, text: str) -> None:
    """In seconds, where time in proportion to its square would take many minutes."""
    secret = "pa55-c0de-of-nobody"
    long = start + text * (25_000 // len(text))
    assert masked(f"{long} {secret}", [secret], ["00077777"]) == f"{long} ***"


def test_a_long_key_is_masked_in_time_in_proportion_to_the_text() -> None:
    key = "ab" * 2_000_000
    assert masked("no such identity", [], [key]) == "no such identity"
    assert masked(f"no such identity: {key[:400]}", [], [key]) == "no such identity: ***"
    assert masked(f"no such identity: {key[:400]}…", [], [key]) == "no such identity: ***…"
    assert masked("no such identity: " + r"\u0061\u0062" * 9, [], [key]) == "no such identity: ***"


def test_masking_is_the_same_under_every_hash_seed() -> None:
    program = """if True:
        from altaprofiles.redaction import masked
        secrets = {"s3/cr\\'et", "s3/cr\\'et/and/more", "/cr"}
        text = r"as s3\\/cr\\\\'et\\/and\\/more or s3/cr\\'et or %2Fcr"
        print(masked(text, secrets))
    """
    results = set()
    for seed in range(6):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        results.add(done.stdout)
    assert len(results) == 1
    assert "cr" not in results.pop().replace("or", "")


@pytest.mark.parametrize(
    ("key", "text", "shown"),
    [
        ("1", "no profile 1 in 11 pages, HTTP/2", "no profile *** in 11 pages, HTTP/2"),
        ("a@b.c", "no A@B.C, xa@b.cd", "no ***, xa@b.cd"),
        ("jack+t@example.com", "?email=jack%2Bt%40example.com", "?email=***"),
        ("jack+t@example.com", "no jack\\u002bt@example.com", "no ***"),
        ("jack+t@example.com", "no jack+t@exa…", "no ***…"),
        ("Zoë/7", "Zo\\u00eb\\/7 and Zo%C3%AB%2F7", "*** and ***"),
        ("5555555555", "id x5555555555y", "id x***y"),
        ("it's", "no 'it\\'s'", "no '***'"),
        ("jane@exämple.com", "no JANE@EXÄMPLE.COM", "no ***"),
        ("straße@x.de", "no STRASSE@X.DE, no straẞe@x.de", "no ***, no ***"),
        ("ΣΊΣΥΦΟΣ", "no σίσυφος", "no ***"),
        ("k😀yabc", "no 'k\\U0001f600yabc'", "no '***'"),
        ("k😀yabc", "no k\\u{1f600}yabc, K\\U0001F600YABC", "no ***, ***"),
        ("k😀yabc", "no k\\360\\237\\230\\200yabc", "no ***"),
        ("fjord@x.no", "no &fjlig;ord&commat;x.no", "no ***"),
        ("a_b^c@x.no", "no a&UnderBar;b&Hat;c@x.no", "no ***"),
        ("p|q", "no &#112&#124&#113", "no ***"),
        ("0012345", "no 12345, 12345.0, 123456, 0012345", "no ***, ***.0, 123456, ***"),
        ("12345", "no 0012345, 1, 123450", "no ***, 1, 123450"),
        ("+919876543210", "id=919876543210", "id=***"),
        ("00123", "no 123", "no 123"),
        ("4915112345678", "id 4.915112345678E12, 4.91511e+12", "id ***, ***"),
        ("4915112345678", "id 4,915,112,345,678 or 4.915.112.345.678", "id *** or ***"),
        ("100", "is 1E2, 11e1, 1e3, 200.5", "is ***, 11e1, 1e3, 200.5"),
        ("12.5", "is 12.50, 112.5, 12.51", "is ***, 112.5, 12.51"),
        ("1e+22", "is 10000000000000000000000", "is ***"),
    ],
)
def test_a_key_is_masked_and_not_every_one_of_its_digits(key: str, text: str, shown: str) -> None:
    assert masked(text, [], [key]) == shown


# --------------------------------------------------------------------------------- in real answers

PASSCODE = "s3/cr3t'of\\n0body"
TOKEN = "t0k3n/of=n0body"
KEY = "jack+test@example.com"


def locals_of_ours(error: BaseException) -> str:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [frame for frame in frames if "/altaprofiles/" in frame.f_code.co_filename]
    assert ours
    return "\n".join(repr(value) for frame in ours for value in frame.f_locals.values())


def everything(error: AltaProfilesError) -> str:
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301
    notes = getattr(error, "__notes__", ())
    return "\n".join(map(str, (error, repr(error), vars(error), twin, repr(twin), *notes)))


ECHOES: dict[str, Callable[[str], bytes]] = {
    "error": lambda echo: http(
        json.dumps({"status": "fail", "code": 9, "error": f"bad {echo}", "message": echo}).encode()
    ),
    "code": lambda echo: http(json.dumps({"status": "fail", "code": f"X{echo}"}).encode()),
    "list": lambda echo: http(json.dumps({"status": "fail", "error": [echo, echo]}).encode()),
    "no JSON": lambda echo: http(f"headers were {echo}".encode()),
    "no JSON, 502": lambda echo: http(f"<p>headers were {echo}".encode(), "502 Bad Gateway"),
    "odd": lambda echo: http(
        json.dumps({"status": "success", "record": [echo], "count": echo, "data": echo}).encode()
    ),
    "redirect": lambda echo: http(
        b"", "302 Found", f"Location: https://x:{quote(echo)}@h/{quote(echo)}?k={quote(echo)}"
    ),
    "401": lambda echo: http(
        json.dumps({"code": 40127, "message": echo}).encode(), "401 Unauthorized"
    ),
    "status line": lambda echo: f"HTTP/1.1 2{quote(echo)} {quote(echo)}\r\n\r\n".encode(),
    "not HTTP": lambda echo: f"{quote(echo)}\r\n\r\n".encode(),
    "coding": lambda echo: http(b"x", "200 OK", f"Content-Encoding: {quote(echo)}"),
    "expired": lambda echo: http(
        json.dumps({"status": "fail", "code": "CURSOR_X", "error": echo}).encode()
    ),
    "not ready": lambda echo: http(
        json.dumps({"status": "fail", "code": 2, "error": echo}).encode()
    ),
}


async def first_page(session: Session) -> None:
    async for _ in session.profiles.by_event("Charged", start=20260101, end=20260101):
        pass


CALLS: dict[str, Callable[[Session], Awaitable[object]]] = {
    "get": lambda session: session.profiles.get(email=KEY),
    "cdp": lambda session: session.cdp.get(user_id=KEY),
    "count": lambda session: session.profiles.count("Charged", start=20260101, end=20260101),
    "chain": first_page,
}


@pytest.mark.anyio
@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("spelling", ["plain", "json, slashes", "percent", "\\u", "html"])
async def test_no_echo_reaches_an_error_a_report_or_a_log(
    echo: str, spelling: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "altaprofiles")
    for name, call in CALLS.items():
        secret = TOKEN if name == "cdp" else PASSCODE
        sent = [secret, KEY] if name in ("get", "cdp") else [secret]
        attempts: list[Attempt] = []
        answer = ECHOES[echo](" ".join(map(SPELLINGS[spelling], sent)))
        async with scripted(always(answer)) as server:
            session = Session(
                clevertap=CleverTap("W9R", PASSCODE, base_url=server.url),
                alta=Alta(TOKEN, base_url=server.url),
                retry=Retry(attempts=1, ready_timeout=0),
                on_event=attempts.append,
            )
            async with session:
                try:
                    await call(session)
                except AltaProfilesError as error:
                    texts = [everything(error), locals_of_ours(error)]
                else:
                    # An array is no record and no count; a text is one of neither.
                    raise AssertionError(f"{name} believed it")
        texts += [*map(repr, attempts), caplog.text]
        for text in texts[2:] + texts[:1]:
            assert not {one for one in ("jack", "example.com") if one in text}
        for text in texts:
            assert not {one for one in ("s3/", "cr3t", "n0body", "t0k3n") if one in text}


@pytest.mark.anyio
async def test_a_proxy_s_password_is_masked_in_what_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    password = "pr0xy/p4ssword"
    login = base64.b64encode(f"me:{password}".encode()).decode()
    echo = http(f"Proxy-Authorization: Basic {login} ({password})".encode(), "502 Bad Gateway")
    async with scripted(always(echo)) as proxy:
        place = proxy.url.removeprefix("http://")
        monkeypatch.setenv("HTTP_PROXY", f"http://me:{quote(password, safe='')}@{place}")
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.delenv("no_proxy", raising=False)
        clevertap = CleverTap("W9R", PASSCODE, base_url="http://127.0.0.1:9")
        retry = Retry(attempts=1)
        async with Session(clevertap=clevertap, retry=retry, trust_env=True) as session:
            with pytest.raises(StatusError) as caught:
                await session.profiles.get(identity="7")
    assert proxy.heads
    assert caught.value.excerpt == "Proxy-Authorization: Basic *** (***)"
    for part in ("pr0xy", "p4ssword", login[6:12]):
        assert part not in everything(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize("secret", ["a", "an", "the", "HTTP", "Alta", "a1", "1234567"])
async def test_no_word_of_ours_is_masked_whatever_the_secret(secret: str) -> None:
    body = json.dumps({"code": 50000, "message": f"the {secret} is an Alta one"}).encode()
    async with scripted(always(http(body, "500 Internal Server Error"))) as server:
        alta = Alta(secret, base_url=server.url)
        async with Session(alta=alta, retry=Retry(attempts=1)) as session:
            with pytest.raises(StatusError) as caught:
                await session.cdp.get(user_id="7")
    assert str(caught.value).startswith("Alta answered HTTP 500 (code 50000): ")
    assert secret not in caught.value.message


@pytest.mark.anyio
async def test_no_record_reaches_the_text_of_an_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "altaprofiles")
    record = {"identity": "5555555555", "email": KEY, "name": "Jack Montana"}
    whole = json.dumps({"status": "success", "record": record}).encode()
    bodies = {
        "cut": http(whole[:-9]),
        "cut, 502": http(whole[:-9], "502 Bad Gateway"),
        "array": http(json.dumps([record]).encode()),
        "wrong": http(json.dumps({"status": "success", "record": [record]}).encode()),
        "text": http(str(record).encode(), "503 Service Unavailable"),
    }
    for name, body in bodies.items():
        async with scripted(always(body)) as server:
            clevertap = CleverTap("W9R", PASSCODE, base_url=server.url)
            async with Session(clevertap=clevertap, retry=Retry(attempts=1)) as session:
                with pytest.raises((DecodeError, StatusError)) as caught:
                    await session.profiles.get(identity="7")
        error: Any = caught.value
        assert "5555555555" in error.excerpt, name
        assert error.excerpt[:20] in caplog.text
        logged = [record.message for record in caplog.records if record.levelno > logging.DEBUG]
        for text in (str(error), repr(error), *getattr(error, "__notes__", ()), *logged):
            assert not {one for one in ("5555", "jack", "Jack", "Montana") if one in text}
        if isinstance(error, DecodeError):
            assert str(error).startswith("CleverTap, get_profile: ")
            assert error.path == "$" or error.path in str(error)


@pytest.mark.anyio
@pytest.mark.parametrize("status", ["400 Bad Request", "500 Internal Server Error"])
async def test_no_file_of_an_export_holds_a_secret(tmp_path: Path, status: str) -> None:
    said = f"bad {PASSCODE} for {KEY}"
    body = json.dumps({"status": "fail", "code": 4004, "error": said}).encode()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        is_found = b"=found" in head
        writer.write(http(b'{"status":"success","record":{}}') if is_found else http(body, status))

    async with scripted(answer) as server:
        clevertap = CleverTap("W9R", PASSCODE, base_url=server.url)
        async with Session(clevertap=clevertap, retry=Retry(attempts=1)) as session:
            with suppress(Incomplete):
                await session.export_lookups(
                    [KEY, "a\nb", "found"], by="email", to=tmp_path / "people.ndjson"
                )
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        data = path.read_bytes()
        for part in (b"s3/", b"s3\\/", b"cr3t", b"n0body"):
            assert part not in data, path
    failures = [
        json.loads(line)
        for path in files
        if path.name.endswith(".failed.ndjson")
        for line in path.read_bytes().splitlines()
    ]
    assert {failure["key"] for failure in failures} == {KEY, "a\nb"}
    for failure in failures:
        assert "jack" not in failure["message"]
        assert "a\nb" not in failure["message"]
    [refused] = [failure for failure in failures if failure["key"] == "a\nb"]
    assert refused["message"].startswith("keys[1]: holds the control character U+000A at index 1")


def test_a_property_that_is_no_date_is_kept_out_of_the_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_date("Jack Montana")
    assert caught.value.value == "Jack Montana"
    assert "Jack" not in str(caught.value)


@pytest.mark.anyio
async def test_a_request_in_a_frame_shows_no_key() -> None:
    """Tools that report errors show the variables of frames, of a callback's callers as well."""
    shown: list[str] = []

    def note(attempt: Attempt) -> None:
        shown.extend(
            repr(frame.f_locals)
            for frame, _ in traceback.walk_stack(None)
            if frame.f_code.co_filename.endswith("engine.py")
        )

    async with scripted(always(http(b"{"))) as server:
        clevertap = CleverTap("W9R", PASSCODE, base_url=server.url)
        options: dict[str, Any] = {"retry": Retry(attempts=1), "on_event": note}
        async with Session(clevertap=clevertap, **options) as session:
            with pytest.raises(DecodeError):
                await session.profiles.get(email=KEY)
    assert shown
    assert "jack" not in "".join(shown)


@pytest.mark.anyio
async def test_a_short_key_leaves_the_words_of_the_system_readable() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        clevertap = CleverTap("W9R", PASSCODE, base_url=f"http://127.0.0.1:{port}")
        async with Session(clevertap=clevertap, retry=Retry(attempts=1)) as session:
            with pytest.raises(ConnectError) as caught:
                await session.profiles.get(identity="1")
    assert str(caught.value) == (
        f"CleverTap: no connection to 127.0.0.1:{port}: Connection refused"
    )
