"""Runs that are recorded and replayed: nothing of a person is left, and everything fits."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
import ssl
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import anyio
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from altaprofiles import (
    Alta,
    AltaProfilesError,
    BadRequest,
    CleverTap,
    Filter,
    InvalidArgument,
    Lookup,
    Profile,
    Retry,
    ServerError,
    Session,
    Unauthorized,
)
from altaprofiles.emulator import Emulator, Recorder
from altaprofiles.emulator.permutation import Permutation
from altaprofiles.emulator.scrubber import Scrubber
from altaprofiles.emulator.settings import ALTA_ERRORS

from ..support.raw import ask
from ..support.servers import (
    Scripted,
    always,
    closed,
    http,
    in_turn,
    listening,
    read_request,
    scripted,
    tunnel,
)
from ..support.sessions import EVENT, QUICK, RANGE, session_for
from ..support.tasks import PATIENCE, nothing_left_behind

pytestmark = pytest.mark.anyio

TROUBLE = {
    **dict.fromkeys(("not_ready", "opening_not_ready", "gzip"), 0.2),
    **dict.fromkeys(("throttled", "server_error", "html", "empty", "garbled"), 0.1),
    **dict.fromkeys(("reset", "disconnect"), 0.1),
    **dict.fromkeys(("text_codes", "empty_page", "other_cursor"), 0.3),
}
PATIENT = Retry(attempts=20, base_delay=0.001, max_delay=0.01)
"""The failures of a replay come on top of those that were recorded."""


def at(proxy: Recorder, **options: Any) -> Session:
    return Session(clevertap=proxy.clevertap, alta=proxy.alta, **{"retry": PATIENT, **options})


class Run:
    """The results of one run: chains, counts, lookups by every key, and users."""

    def __init__(self) -> None:
        self.people: list[Profile] = []
        self.gold: list[Profile] = []
        self.counted: list[int] = []
        self.found: list[Lookup[Profile]] = []
        self.users: list[Lookup[Any]] = []

    @classmethod
    async def of(cls, session: Session) -> Run:
        run = cls()
        query = session.profiles.by_event(EVENT, **RANGE, batch_size=46)
        run.people = [person async for person in query]
        gold = [Filter("Customer Type", "equals", "Gold")]
        run.gold = [one async for one in session.profiles.everyone(profile_fields=gold)]
        # Some are ready at once, and others are polled.
        days = range(20260101, 20260111)
        run.counted = [await session.profiles.count(EVENT, start=one, end=one) for one in days]
        run.counted.append(await session.profiles.count(EVENT, **RANGE))
        keys = {
            "identity": [one.identity for one in run.people if one.identity is not None],
            "email": [one.email for one in run.people if one.email is not None],
            "object_id": [key for one in run.people for key in one.object_ids],
        }
        for by in ("identity", "email", "object_id"):
            looked_up = session.profiles.get_many(keys[by], by=by, ordered=True)
            run.found += [one async for one in looked_up]
        users = session.cdp.get_many(keys["identity"], by="user_id", ordered=True)
        run.users = [one async for one in users]
        anonymous = [
            binding.anonymous_id
            for one in run.users
            for user in (one.value or {}).values()
            for binding in user.anonymous_ids
        ]
        back = session.cdp.get_many(anonymous[:20], by="anonymous_id", ordered=True)
        run.users += [one async for one in back]
        return run


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from leaves(member)
    else:
        yield value


def pairs(one: Any, other: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the values at the same places, after checking that all is of the same form."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert len(one) == len(other)
        for name, replaced in zip(one, other, strict=True):
            yield from pairs(one[name], other[replaced])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for item, replaced in zip(one, other, strict=True):
            yield from pairs(item, replaced)
    else:
        yield one, other


@pytest.mark.parametrize("envelope", ["classic", "v1.5"])
async def test_a_replay_fits_together_and_holds_nothing_of_a_person(
    tmp_path: Path, envelope: Any
) -> None:
    file = tmp_path / "run.ndjson"
    options: dict[str, Any] = {"people": 75, "seed": 3, "faults": TROUBLE}
    async with (
        Emulator(**options, alta_envelope=envelope) as service,
        Recorder(file, clevertap=service.clevertap, alta=service.alta) as recorder,
        at(recorder) as session,
    ):
        real = await Run.of(session)
        assert not any(one.error for one in (*real.found, *real.users))
        secrets = set(service.environment.values()) - {service.url}
    replayed = Run()
    for faults in (None, TROUBLE):
        async with Emulator(replay=file, faults=faults) as emulator:
            assert len(emulator.population) == 0
            async with session_for(emulator, retry=PATIENT) as session:
                replayed = await Run.of(session)
        assert len(replayed.people) == len(real.people) == real.counted[-1]
        assert replayed.counted == real.counted
        assert len(replayed.gold) == len(real.gold)
        for one, other in zip(
            (*real.found, *real.users), (*replayed.found, *replayed.users), strict=True
        ):
            assert other.error is None
            assert bool(one.value) == bool(other.value)
        for lookup in replayed.found:
            person = lookup.value
            assert person is not None
            assert lookup.key in (person.identity, person.email, *person.object_ids)
        assert [one.identity for one in replayed.people if one.identity] == [
            one.key for one in replayed.users[: sum(bool(x.identity) for x in replayed.people)]
        ]

    # People come as they complete, in any order.
    by_shape = [
        list(pairs(json.loads(one.value.raw), json.loads(other.value.raw)))
        for one, other in zip(real.found, replayed.found, strict=True)
        if one.value is not None and other.value is not None
    ]
    replacements: dict[str, str] = {}
    values: set[str] = set()
    for value, other in (pair for record in by_shape for pair in record):
        if value is None or value == "":
            assert other == value
            continue
        if not isinstance(value, bool):
            assert other != value
        if not isinstance(value, float | bool):
            assert replacements.setdefault(str(value), str(other)) == str(other)
            values.add(str(value))
    assert len(set(replacements.values())) == len(replacements)

    text = file.read_text("utf-8")
    written = set(map(str, leaves([json.loads(line) for line in text.splitlines()])))
    users = [value for one in real.users for value in leaves(json.loads(json.dumps(plain(one))))]
    for value in values | secrets | set(map(str, filter(None, users))):
        # Some numbers, such as times, may occur by chance, and a note reads like part of an answer.
        is_common = re.fullmatch(r"-?[0-9.]{1,9}|1[0-9]{9}", value.removeprefix("$D_")) is not None
        if len(value) > 7 and not is_common and value != "next_cursor":
            assert value not in written
            assert value not in text, value
            assert json.dumps(value)[1:-1] not in text


def plain(lookup: Lookup[Any]) -> Any:
    """Return the users of a lookup as plain values, without the types of conversations."""
    return [
        [user, [[one.anonymous_id, one.source_id] for one in found.anonymous_ids]]
        for user, found in (lookup.value or {}).items()
    ]


async def test_joins_fit(tmp_path: Path) -> None:
    file = tmp_path / "run.ndjson"
    people: list[dict[str, Any]] = [
        {"identity": 7000000001},
        {"identity": "ann/ö"},
        {"identity": "42"},
        {"email": "a@b.c"},
    ]
    bindings = {"7000000001": ["anon-1"], "ann/ö": ["anon-1", "anon-2"]}

    async def joined(session: Session) -> list[int]:
        everyone = session.profiles.by_event("Mine", start=20260101, end=20260102, windows=2)
        customers = [one async for one in session.with_cdp(everyone)]
        for one in customers:
            assert one.profile is not None
            assert set(one.cdp) <= {one.profile.identity}
        return sorted(
            sum(len(user.anonymous_ids) for user in one.cdp.values()) for one in customers
        )

    async with Emulator(records=people, bindings=bindings) as service:
        async with Recorder(file, clevertap=service.clevertap, alta=service.alta) as recorder:
            async with at(recorder) as session:
                real = await joined(session)
    async with Emulator(replay=file) as emulator, session_for(emulator) as session:
        assert await joined(session) == real == [0, 0, 1, 2]


async def test_other_ways_to_ask_are_the_same_request(tmp_path: Path) -> None:
    """Older clients open with a GET, and some ask for pages with a POST."""
    file = tmp_path / "run.ndjson"
    query = {"event_name": "Mine", "from": 20260101, "to": 20260102}
    form = urlencode({"query": json.dumps(query), "batch_size": 23})
    people = [{"identity": f"Person {number}"} for number in range(30)]

    async def walk(url: str, keys: Emulator, *, is_old: bool) -> list[int]:
        headers = {
            "X-CleverTap-Account-Id": keys.environment["CLEVERTAP_ACCOUNT_ID"],
            "X-CleverTap-Passcode": keys.environment["CLEVERTAP_PASSCODE"],
        }
        sizes = []
        async with aiohttp.ClientSession(headers=headers) as client:
            if is_old:
                opening = client.get(URL(f"{url}/1/profiles.json?{form}", encoded=True))
            else:
                opening = client.post(f"{url}/1/profiles.json", json=dict(reversed(query.items())))
            async with opening as answer:
                cursor = (await answer.json())["cursor"]
            while cursor is not None:
                target = URL(f"{url}/1/profiles.json?cursor={cursor}", encoded=True)
                async with client.request("POST" if is_old else "GET", target) as answer:
                    body = await answer.json()
                assert body["status"] == "success"
                sizes.append(len(body.get("records", [])))
                cursor = body.get("next_cursor")
        return sizes

    async with Emulator(records=people) as service:
        async with Recorder(file, clevertap=service.clevertap) as recorder:
            sizes = await walk(recorder.url, service, is_old=True)
    async with Emulator(replay=file) as emulator:
        for is_old in (True, False):
            assert await walk(emulator.url, emulator, is_old=is_old) == sizes


async def test_pages_of_cursors_that_are_no_text_stay_in_order(tmp_path: Path) -> None:
    """A real cursor is text, but nothing says so, and the client passes on what it gets."""
    cursors = ["%FF", "%FE%2B", "%EF%BF%BD", "%FD", None]
    file = tmp_path / "run.ndjson"
    opening = {"status": "success", "cursor": cursors[0]}
    pages = {
        cursor: {"status": "success", "records": [{"identity": str(number)}]}
        | ({"next_cursor": following} if following else {})
        for number, (cursor, following) in enumerate(itertools.pairwise(cursors))
    }

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        target = head.split(b" ")[1].decode()
        _, _, cursor = target.partition("cursor=")
        body = opening if head.startswith(b"POST") else pages[cursor]
        writer.write(http(json.dumps(body).encode()))

    async def sizes(account: CleverTap) -> list[int]:
        async with Session(clevertap=account, retry=QUICK) as session:
            people = session.profiles.by_event(EVENT, **RANGE, prefetch=0)
            return [len(page.profiles) async for page in people.pages()]

    async with scripted(answer) as server:
        account = CleverTap("id", "passcode", base_url=server.url)
        async with Recorder(file, clevertap=account) as recorder:
            assert await sizes(recorder.clevertap) == [1, 1, 1, 1]
            assert recorder.recorded == 5
    async with Emulator(replay=file) as emulator:
        assert await sizes(emulator.clevertap) == [1, 1, 1, 1]


async def test_requests_and_answers_pass_byte_for_byte(tmp_path: Path) -> None:
    body = b'{"status" : "success", "records" : [ { "identity":"Ann" } ]}\n'
    headers = ("Content-Type: application/json", "X-RateLimit-Limit: 7", "Set-Cookie: secret=1")
    async with scripted(always(http(body, "200 OK", *headers))) as server:
        account = CleverTap("id-secret", "passcode-secret", base_url=server.url)
        agent = Alta("token-secret", base_url=server.url, name="agent")
        async with Recorder(tmp_path / "run", clevertap=account, alta=agent) as recorder:
            assert recorder.clevertap.max_in_flight == account.max_in_flight
            assert recorder.alta.name == "agent"
            assert recorder.environment == {
                "CLEVERTAP_BASE_URL": recorder.url,
                "ALTA_BASE_URL": recorder.url,
                "ALTA_ENDPOINT": "",
            }
            target = "/1/profiles.json?cursor=a%2Fb%2fc/+%3D%25"
            assert "secret" not in repr(recorder)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", int(recorder.url.rpartition(":")[2])
            )
            writer.write(
                f"POST {target} HTTP/1.1\r\nHost: x\r\nX-CleverTap-Passcode: passcode-secret\r\n"
                f"Content-Length: 3\r\nConnection: close\r\n\r\n{{ }}".encode()
            )
            head, _, passed = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert passed == body
            assert b"X-RateLimit-Limit: 7" in head
            assert b"secret" not in head
            assert recorder.recorded == 1
    assert server.request_lines == [f"POST {target} HTTP/1.1"]
    assert server.bodies == [b"{ }"]
    assert b"passcode-secret" in server.heads[0]
    written = (tmp_path / "run").read_text()
    assert "secret" not in written
    assert "Ann" not in written
    header, exchange = map(json.loads, written.splitlines())
    assert header == {"format": "altaprofiles replay", "version": 1}
    assert exchange["request"].keys() == {"operation", "cursor"}
    assert re.fullmatch(r"(?:[\w.-]|%[0-9A-F]{2})+", exchange["request"]["cursor"])


FAILURES = {
    b'{"status":"fail","error":"No profile found for Jane_Doe-77","code":400}': (
        "No profile found for x"
    ),
    b'{"status":"fail","error":"[\\"Invalid event : Jane\\"]","code":"400"}': (
        '["Invalid event : x"]'
    ),
    '{"status":"fail","error":"Jane Döé 5555 🙂 is unknown","code":400}'.encode(): (
        "x x x x is unknown"
    ),
    b'{"status":"fail","error":["Jane"],"code":400}': ["x"],
}


@pytest.mark.parametrize("body", FAILURES, ids=range(len(FAILURES)))
async def test_failures_keep_their_code_and_the_words_of_the_vendors(
    tmp_path: Path, body: bytes
) -> None:
    async with scripted(always(http(body, "400 Bad Request"))) as server:
        account = CleverTap("id", "passcode", base_url=server.url)
        async with Recorder(tmp_path / "run", clevertap=account) as recorder:
            async with Session(clevertap=recorder.clevertap) as session:
                with suppress(BadRequest):
                    await session.profiles.get(identity="Jane")
    line = json.loads((tmp_path / "run").read_text().splitlines()[1])
    assert line["status"] == 400
    assert line["body"]["error"] == FAILURES[body]
    assert str(line["body"]["code"]) == "400"
    assert "Jane" not in (tmp_path / "run").read_text()


async def test_the_documented_errors_of_alta_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "run"
    async with Emulator(people=1) as service, Recorder(file, alta=service.alta) as recorder:
        async with Session(alta=recorder.alta, retry=Retry(attempts=1)) as session:
            for service.alta_error in ALTA_ERRORS:
                with suppress(AltaProfilesError):
                    await session.cdp.get(user_id="Jane")
    _, *lines = map(json.loads, file.read_text().splitlines())
    assert [(line["body"]["code"], line["body"]["message"]) for line in lines] == [
        *ALTA_ERRORS.items()
    ]


ODD = [
    b'{"status":"success","record":{"identity":"JANE","n":1e999,"m":%d}}' % 10**60,
    b'{"status":"success","record":{"identity":"JANE","t":"\\ud800JANE","d":{"a":1,"a":2}}}',
    b'{"status":"success","record":["JANE"],"JANE":{"cursor":"JANE"},"next_cursor":["JANE"]}',
    b'["JANE", 8901]',
    b'"JANE"',
    b"JANE, not JSON",
    b"\xff\xfe JANE",
    b"[" * 100_000,
    b"null",
    b"",
]


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
async def test_odd_answers_are_recorded(tmp_path: Path, body: bytes) -> None:
    file = tmp_path / "run"
    async with scripted(always(http(body))) as server:
        account = CleverTap("id", "passcode", base_url=server.url)
        async with Recorder(file, clevertap=account) as recorder:
            async with Session(clevertap=recorder.clevertap, retry=Retry(attempts=1)) as session:
                with suppress(AltaProfilesError):
                    await session.profiles.get(identity="JANE")
            assert recorder.recorded == 1
    text = file.read_text()
    assert re.findall("JANE|8901", text.replace('"JANE":', "")) == []
    key = json.loads(text.splitlines()[1])["request"]["identity"]
    async with Emulator(replay=file) as emulator:
        answer = await ask(emulator, "GET", f"/1/profile.json?identity={key}")
        assert answer.status == 200


async def test_what_ends_without_an_answer_is_not_recorded(tmp_path: Path) -> None:
    cut = http(b'{"status":"success","record":{"identity":"a"}}')[:-4]
    whole = http(b'{"status":"success"}')

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        await in_turn_answer(head, writer)
        if len(server.heads) == 1:
            writer.close()

    in_turn_answer = in_turn(cut, whole)
    async with scripted(answer) as server:
        account = CleverTap("id", "passcode", base_url=server.url)
        async with Recorder(tmp_path / "run", clevertap=account) as recorder:
            async with Session(clevertap=recorder.clevertap, retry=QUICK) as session:
                assert await session.profiles.get(identity="a") is None
            assert recorder.recorded == 1


async def test_a_service_out_of_reach_is_named(tmp_path: Path) -> None:
    async with closed() as port, nothing_left_behind():
        account = CleverTap("id", "passcode", base_url=port.url)
        agent = Alta("token", base_url=port.url)
        async with Recorder(tmp_path / "run", clevertap=account, alta=agent) as recorder:
            async with at(recorder, retry=Retry(attempts=2, base_delay=0.001)) as session:
                for call in (session.profiles.get(identity="ann"), session.cdp.get(user_id="ann")):
                    with pytest.raises(ServerError) as caught:
                        await call
                    place = port.url.removeprefix("http://")
                    assert (
                        f"the recorder got no answer of the service: no connection to {place}"
                        in str(caught.value)
                    )
                    assert "Connection refused" in str(caught.value)
                assert session.stats.requests == 4
            assert recorder.recorded == 0


@pytest.mark.parametrize("through", ["argument", "environment", "nothing"])
async def test_a_recorder_takes_proxies_and_authorities_as_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: str
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    authority = trustme.CA()
    server, context = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(),
    )
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(context)
    person = http(b'{"status":"success","record":{"identity":"7"}}')
    async with listening(Scripted(always(person)), server) as port, tunnel() as (proxy, heads):
        account = CleverTap("id", "passcode-secret", base_url=f"https://127.0.0.1:{port}")
        url = f"http://ann:s3cret@{proxy}"
        monkeypatch.setenv("HTTPS_PROXY", url)
        ways: dict[str, dict[str, Any]] = {
            "argument": {"proxy": url},
            "environment": {"trust_env": True},
            "nothing": {},
        }
        options = ways[through]
        async with (
            Recorder(tmp_path / "run", clevertap=account, ssl=context, **options) as recorder,
            at_clevertap(recorder) as session,
        ):
            assert await session.profiles.get(identity="7") is not None
            assert recorder.recorded == 1
            assert "s3cret" not in repr(recorder)
        assert [head.split()[:2] for head in heads] == (
            [] if through == "nothing" else [["CONNECT", f"127.0.0.1:{port}"]]
        )
        assert all("Proxy-Authorization: Basic" in head for head in heads)
        assert not any("passcode-secret" in head for head in heads)
        # Without the authority, the reason is named.
        async with (
            Recorder(tmp_path / "run", clevertap=account, **options) as recorder,
            at_clevertap(recorder) as session,
        ):
            with pytest.raises(
                ServerError, match=r"no TLS connection to .* verify failed"
            ) as caught:
                await session.profiles.get(identity="7")
            assert "s3cret" not in str(caught.value)


def at_clevertap(recorder: Recorder) -> Session:
    return Session(clevertap=recorder.clevertap, retry=Retry(attempts=1))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"proxy": "socks5://ann:s3cret@h"}, "proxy: not an http or https proxy"),
        ({"proxy": 7}, "proxy: expected the URL of a proxy as text"),
        ({"ssl": True}, "ssl: expected an ssl.SSLContext"),
        ({"trust_env": "yes"}, "trust_env: expected True or False"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_as_by_a_session(
    tmp_path: Path, option: dict[str, Any], message: str
) -> None:
    errors = []
    makers: list[Any] = [Session, partial(Recorder, tmp_path / "run")]
    for make in makers:
        with pytest.raises(InvalidArgument) as caught:
            make(alta=Alta("token"), **option)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert errors[0].startswith(message)
    assert "s3cret" not in errors[0]


async def test_a_client_that_leaves_ends_its_request(tmp_path: Path) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        assert await reader.read() == b""
        gone.set()

    async with listening(serve) as port, nothing_left_behind():
        account = CleverTap("id", "passcode", base_url=f"http://127.0.0.1:{port}")
        async with Recorder(tmp_path / "run", clevertap=account) as recorder:
            async with Session(clevertap=recorder.clevertap) as session:
                task = asyncio.ensure_future(session.profiles.get(identity="a"))
                await arrived.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            with anyio.fail_after(PATIENCE):
                await gone.wait()
        assert recorder.recorded == 0


async def test_calls_that_the_emulator_does_not_know_pass_and_leave_nothing(
    tmp_path: Path,
) -> None:
    async with scripted(always(http(b"{}"))) as server:
        account = CleverTap("id", "passcode", base_url=f"{server.url}/gateway")
        async with Recorder(tmp_path / "run", clevertap=account) as recorder:
            with pytest.raises(RuntimeError, match="pass alta"):
                _ = recorder.alta
            async with aiohttp.ClientSession(recorder.url) as client:
                for method, target in (
                    ("PUT", "/1/upload"),
                    ("POST", "/1/profiles.json?batch=%ff"),
                ):
                    url = URL(recorder.url + target, encoded=True)
                    async with client.request(method, url, data=b"secret") as answer:
                        assert (answer.status, await answer.read()) == (200, b"{}")
                async with client.get("/v1/user/get-user-cdp?user_id=a") as answer:
                    assert answer.status == 404
            assert recorder.recorded == 0
    assert server.bodies == [b"secret", b"secret"]
    assert server.request_lines == [
        "PUT /gateway/1/upload HTTP/1.1",
        "POST /gateway/1/profiles.json?batch=%ff HTTP/1.1",
    ]


async def test_the_endpoint_of_a_platform_gives_way_to_the_recorder(tmp_path: Path) -> None:
    async with Recorder(tmp_path / "run", alta=Alta("token", endpoint="sg", name="a")) as recorder:
        assert recorder.alta.url == recorder.url
        assert recorder.alta.name == "a"


def test_a_recorder_needs_a_service(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^clevertap or alta: give"):
        Recorder(tmp_path / "run")
    recorder = Recorder(tmp_path / "run", alta=Alta("token"))
    with pytest.raises(RuntimeError, match="only while it runs"):
        _ = recorder.url
    assert not (tmp_path / "run").exists()


async def test_a_folder_that_is_missing_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with Recorder(tmp_path / "no" / "run", alta=Alta("token")):
            pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is full")
async def test_a_full_disk_is_an_error_at_the_end() -> None:
    async with Emulator(people=3) as service:
        with pytest.raises(OSError, match="No space left"):
            async with Recorder("/dev/full", clevertap=service.clevertap) as recorder:
                async with Session(clevertap=recorder.clevertap) as session:
                    assert await session.profiles.get(identity="5555555555")


# Replays


async def replay_of(tmp_path: Path) -> Path:
    file = tmp_path / "run.ndjson"
    ann = {"identity": "ann", "profileData": {"Plan": "gold"}}
    async with Emulator(records=[ann]) as service:
        async with Recorder(file, clevertap=service.clevertap, alta=service.alta) as recorder:
            async with at(recorder) as session:
                for plan in ("gold", "silver"):
                    filters = [Filter("Plan", "equals", plan)]
                    query = session.profiles.by_event("Mine", **RANGE, profile_fields=filters)
                    assert len([one async for one in query]) == (plan == "gold")
                await session.cdp.get(user_id="ann")
    assert "silver" not in file.read_text()
    return file


async def test_filters_are_answered_in_the_order_of_the_recording(tmp_path: Path) -> None:
    async with Emulator(replay=await replay_of(tmp_path)) as emulator:
        async with session_for(emulator) as session:
            found = []
            for plan in ("gold", "silver", "other"):
                filters = [Filter("Plan", "equals", plan)]
                query = session.profiles.by_event(
                    "Mine", **RANGE, profile_fields=filters, batch_size=23
                )
                found.append(len([one async for one in query]))
            assert found == [1, 0, 0]


async def test_keys_of_a_program_are_found_by_their_replacements(tmp_path: Path) -> None:
    file = tmp_path / "run.ndjson"
    device = "-h0ab+c/%2F="
    ann = {"identity": 7000000001, "email": "Ann@Example.com", "objectId": device}
    sent: list[dict[str, Any]] = [
        {"identity": 7000000001},
        {"email": "Ann@Example.com"},
        {"object_id": device},
    ]
    async with (
        Emulator(records=[ann], bindings={"ann ö": ["a1"]}) as service,
        Recorder(file, clevertap=service.clevertap, alta=service.alta) as recorder,
        at(recorder) as session,
    ):
        for key in sent:
            assert await session.profiles.get(**key) is not None
        before = recorder.replaced("ann ö")
        assert await session.cdp.get(user_id="ann ö")
    assert recorder.replaced("ann ö") == before
    async with Emulator(replay=file) as emulator, session_for(emulator) as session:
        for key in sent:
            [(by, value)] = key.items()
            other: dict[str, Any] = {by: recorder.replaced(value)}
            person = await session.profiles.get(**other)
            assert person is not None
            assert person.identity == recorder.replaced("7000000001")
        assert [*await session.cdp.get(user_id=before)] == [before]
    text = file.read_text()
    for value in ("7000000001", "Ann@Example.com", device, "ann ö"):
        assert value not in text
    # Another recorder has other ones.
    assert Recorder(file, alta=Alta("token")).replaced("ann ö") != before


@pytest.mark.parametrize("key", [None, True, b"ann-4711", 1.5])
def test_what_is_no_key_is_refused_without_it(tmp_path: Path, key: Any) -> None:
    recorder = Recorder(tmp_path / "run", alta=Alta("token"))
    with pytest.raises(ValueError, match=r"^key: expected text or an int, got a \w+$"):
        recorder.replaced(key)


async def test_other_requests_are_refused_by_name(tmp_path: Path) -> None:
    words = "this request is not in the replay"
    async with Emulator(replay=await replay_of(tmp_path)) as emulator:
        async with session_for(emulator) as session:
            other_key = rf"{words}; its keys are replaced: ask for Recorder\.replaced\(KEY\)"
            with pytest.raises(BadRequest, match=other_key):
                await session.profiles.get(identity="ann")
            with pytest.raises(BadRequest, match=other_key):
                await session.cdp.get(user_id="ann")
            with pytest.raises(BadRequest, match=words):
                await session.profiles.count("Mine", start=20260101, end=20260101)
            with pytest.raises(BadRequest, match=words):
                async for _ in session.profiles.by_event("Mine", start=20260101, end=20260101):
                    pass
        async with Session(clevertap=CleverTap("a", "b", base_url=emulator.url)) as session:
            with pytest.raises(Unauthorized):
                await session.profiles.get(identity="ann")
        for target in ("/1/profiles.json?cursor=%2F", "/1/profile.json?identity=%ff", "/1/profile"):
            assert (await ask(emulator, "GET", target)).status in (400, 404)
        assert (await ask(emulator, "POST", "/1/profiles.json", b"{")).status == 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "replay: line 1 is not the beginning of a replay; make one with"),
        ('{"identity": "secret"}\n', "replay: line 1 is not the beginning of a replay"),
        ('HEADER\n{"request": {"secret', "replay: line 2 is not an exchange; remove it"),
        ('HEADER\n{"request": {}, "status": 7}\n', "replay: line 2 is not an exchange"),
        (
            'HEADER\n{"request": {"operation": "verify"}, "status": 200}\n\n',
            "replay: line 3 is not",
        ),
    ],
)
def test_a_file_that_is_no_replay(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run"
    file.write_text(text.replace("HEADER", '{"format":"altaprofiles replay","version":1}'))
    with pytest.raises(ValueError, match=r"^replay: line \d") as caught:
        Emulator(replay=file)
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)


async def test_a_replay_stands_alone(tmp_path: Path) -> None:
    file = await replay_of(tmp_path)
    several: list[dict[str, Any]] = [{"people": 3}, {"records": []}, {"bindings": {}}]
    for others in several:
        with pytest.raises(ValueError, match=r"^replay: has its own people"):
            Emulator(replay=file, **others)
    with pytest.raises(ValueError, match=r"^replay: has its own people"):
        Emulator(replay=file).add({"identity": "bo"})
    with pytest.raises(FileNotFoundError):
        Emulator(replay=tmp_path / "none")


# Values


@given(st.integers(2, 300), st.binary(min_size=1, max_size=64))
def test_a_permutation_leaves_nothing_where_it_was(size: int, key: bytes) -> None:
    images = list(map(Permutation(key, size).image, range(size)))
    assert sorted(images) == list(range(size))
    assert all(image != number for number, image in enumerate(images))


@given(st.sets(st.integers(0, 2**64 - 1), min_size=2, max_size=20))
def test_large_numbers_stay_different(numbers: set[int]) -> None:
    permutation = Permutation(b"key", 2**64)
    images = {permutation.image(number) for number in numbers}
    assert len(images) == len(numbers)
    assert max(images) < 2**64
    assert {permutation.image(number) for number in numbers} == images


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_any_value_keeps_its_form(value: Any) -> None:
    scrubber = Scrubber()
    replaced = scrubber.value(value)
    for one, other in pairs(value, replaced):
        if one is None or one == "":
            assert other == one
        elif isinstance(one, float):
            assert math.isfinite(other)
        elif not isinstance(one, bool):
            assert one != other
        if isinstance(one, int) and not isinstance(one, bool):
            assert scrubber.text(str(one)) == str(other)
            assert -(2**63) <= other < 2**64
    assert scrubber.value(value) == replaced


def test_small_numbers_stay_different() -> None:
    scrubber = Scrubber()
    numbers = range(-1200, 1200)
    replaced = [scrubber.value(number) for number in numbers]
    assert sorted(replaced) == sorted(set(replaced))
    assert not any(one == other for one, other in zip(numbers, replaced, strict=True))
    assert [scrubber.text(str(number)) for number in numbers] == list(map(str, replaced))


def test_texts_keep_their_kind() -> None:
    scrubber = Scrubber()
    email = scrubber.text("jack+test@example.org")
    assert re.fullmatch(r"[a-z2-7]{16}@example\.com", email)
    assert re.fullmatch(r"\$D_1\d{9}", scrubber.text("$D_1457271567"))
    assert scrubber.text("$D_1457271567").endswith(str(scrubber.value(1457271567)))
    assert re.fullmatch(r"\+\d{11}", scrubber.text("+12025550003"))
    assert scrubber.text("+12025550003") == f"+{scrubber.value(12025550003)}"
    assert re.fullmatch(r"0\d\d", scrubber.text("007"))
    assert re.fullmatch(r"\d\d\.\d\d", scrubber.text("12.25"))
    assert re.fullmatch(r"[a-z2-7]{16}", scrubber.text("Zoë"))
    assert scrubber.cursor("a%2Fb%3D") == scrubber.cursor("a%2fb=") != scrubber.cursor("a%2Fb")
    assert (
        len({scrubber.cursor(text) for text in ("%FF", "%ff", "%FE", "%EF%BF%BD", "\ud800")}) == 4
    )
    assert Scrubber().text("Zoë") != scrubber.text("Zoë")
    # One of them for each name of a member, and nobody knows which.
    flags = {f"flag {number}": True for number in range(64)}
    assert set(scrubber.value(flags, 1).values()) == {True, False}


async def test_a_name_below_a_property_may_be_a_persons(tmp_path: Path) -> None:
    """Only the account's own words stay: properties, events, and members of the API."""
    ann = {
        "identity": "ann",
        "profileData": {"Plan": "pro", "By Mail": {"ann@example.org": {"0815": [{"Anna": 1}]}}},
        "events": {"Charged": {"count": 1, "first_seen": 1767225600, "last_seen": 1767225600}},
    }
    file = tmp_path / "run.ndjson"
    query = {"name": "Plan", "operator": "equals", "value": {"name": "Anna", "from": "Bonn"}}
    async with (
        Emulator(records=[ann], bindings={"ann": ["a1"]}) as service,
        Recorder(file, clevertap=service.clevertap, alta=service.alta) as recorder,
        at(recorder) as session,
    ):
        assert await session.profiles.get(identity="ann") is not None
        assert await session.cdp.get(user_id="ann")
        # This library refuses such a value; other clients may send it.
        body = {"event_name": EVENT, "from": 20260101, "to": 20260131, "event_properties": [query]}
        known = recorder.clevertap
        headers = {
            "X-CleverTap-Account-Id": known.account_id,
            "X-CleverTap-Passcode": str(known.passcode),
        }
        url = f"{known.url}/1/counts/profiles.json"
        async with aiohttp.ClientSession(headers=headers) as other:
            async with other.post(url, json=body):
                pass
    text = file.read_text()
    for word in ("ann@example.org", "0815", "Anna", "Bonn", '"pro"'):
        assert word not in text
    for word in ("Plan", "By Mail", "Charged", "first_seen", "anonymous_ids", "equals"):
        assert word in text
