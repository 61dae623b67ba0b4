"""`altaprofiles doctor`: its findings and its advice."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from anyio import to_thread

from altaprofiles import (
    Alta,
    CleverTap,
    ConnectError,
    Forbidden,
    RateLimit,
    Session,
    Unauthorized,
)
from altaprofiles.base.wording import duration
from altaprofiles.cli.app import App
from altaprofiles.cli.doctor.examine import examine
from altaprofiles.cli.doctor.findings import Finding
from altaprofiles.cli.doctor.forecast import forecast_export, forecast_lookups
from altaprofiles.cli.doctor.probe import try_platforms, try_regions
from altaprofiles.cli.exits import Exit
from altaprofiles.credentials import ENDPOINTS, REGIONS
from altaprofiles.emulator import Emulator

from ..support.hosts import hosted
from ..support.servers import (
    Answer,
    Scripted,
    always,
    http,
    join,
    listening,
    scripted,
    tunnel,
)
from ..support.terminals import Terminal, emulated, environment, longest, run

pytestmark = [pytest.mark.anyio, pytest.mark.each_value]

NEXT = 'Nothing is wrong. Next: altaprofiles count "App Launched" --from -7d --to yesterday\n'


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulated(people=50) as running:
        yield running


@pytest.fixture
def env(tmp_path: Path, emulator: Emulator) -> dict[str, str]:
    return environment(tmp_path, emulator.environment)


def lines(stdout: bytes) -> list[str]:
    return [line for line in stdout.decode().splitlines() if not line.startswith(" ")]


def test_a_passcode_in_the_place_of_the_account_id_is_not_shown(
    env: dict[str, str], emulator: Emulator
) -> None:
    swapped = {
        "CLEVERTAP_ACCOUNT_ID": env["CLEVERTAP_PASSCODE"],
        "CLEVERTAP_PASSCODE": env["CLEVERTAP_ACCOUNT_ID"],
    }
    for arguments in (("doctor",), ("count", "Charged", "--from", "-7d", "--to", "-1d")):
        done = run(env | swapped, *arguments)
        assert done.code == 3
        told = done.stdout.decode() + done.stderr
        assert "swap CLEVERTAP_ACCOUNT_ID and CLEVERTAP_PASSCODE" in told
        assert emulator.passcode not in told


def test_all_is_well(env: dict[str, str]) -> None:
    done = run(env, "doctor")
    assert (done.code, done.stderr) == (0, NEXT)
    assert {line.split()[0] for line in lines(done.stdout)} == {"ok"}
    told = done.stdout.decode()
    assert "CleverTap: the credentials are accepted" in told
    assert "Alta: the API key is accepted" in told
    assert "from the environment" in told
    assert "this machine's clock is right" in told
    assert "extras installed: parquet" in told
    for secret in ("CLEVERTAP_PASSCODE", "ALTA_TOKEN"):
        assert env[secret] not in told


async def test_processes_that_share_the_limits_are_counted(
    env: dict[str, str], tmp_path: Path, emulator: Emulator
) -> None:
    assert (
        "ok     Alta: each process keeps the limits by itself" in run(env, "doctor").stdout.decode()
    )
    place = tmp_path / "slots"
    env |= {"ALTAPROFILES_SHARED": str(place)}
    together = rf"Alta: the processes of this machine keep the limits together, in {place}/\w+; "
    done = await to_thread.run_sync(run, env, "doctor")
    unused = "shared by no process now, with 0 slots in use"
    assert re.search(together + unused, done.stdout.decode())
    key = Alta(emulator.alta.token, base_url=emulator.url, shared=place)
    async with Session(alta=key) as session:
        cap = session._alta_service().cap("get_user_cdp")  # noqa: SLF001
        turns = [await cap.acquire() for _ in range(2)]
        done = await to_thread.run_sync(run, env, "doctor")
        for turn in turns:
            cap.release(turn)
    expected = (
        rf"shared by 1 process now \({os.getpid()}\), "
        rf"with 2 slots in use by the process {os.getpid()}"
    )
    assert re.search(together + expected, done.stdout.decode())
    assert done.code == 0


async def test_processes_that_know_the_key_by_its_name_only_are_told_apart(
    env: dict[str, str], tmp_path: Path, emulator: Emulator
) -> None:
    place = tmp_path / "slots"
    env |= {"ALTAPROFILES_SHARED": str(place), "ALTA_NAME": "agent"}
    text = emulator.alta.token
    for token, is_apart in ((lambda: text, True), (text, False)):
        key = Alta(token, base_url=emulator.url, name="agent", shared=place)
        async with Session(alta=key):
            done = await to_thread.run_sync(run, env, "doctor")
        told = " ".join(done.stdout.decode().split())
        users = "no process now" if is_apart else f"1 process now ({os.getpid()})"
        assert f"Alta: the processes of this machine keep the limits together, in {place}" in told
        assert f"; shared by {users}, with 0 slots in use" in told
        apart = f"; the process {os.getpid()} takes the key from a function, and keeps limits apart"
        assert (apart in told) == is_apart
        assert done.code == 0


def test_a_folder_that_cannot_be_shared_is_a_wrong_setting(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = run(env | {"ALTAPROFILES_SHARED": str(tmp_path / "file")}, "doctor")
    assert done.code == 2
    assert "wrong  CleverTap: ALTAPROFILES_SHARED: " in done.stdout.decode()
    done = run(env | {"ALTAPROFILES_SHARED": "yes"}, "doctor")
    assert done.code == 2
    assert "expected 1, 0 or the absolute path of a folder, got 'yes'" in done.stdout.decode()


def test_an_export_is_forecast_in_a_line(env: dict[str, str]) -> None:
    told = run(env, "doctor").stdout.decode()
    [counted, export, lookup] = [
        line for line in told.splitlines() if " people" in line or "1,000,000" in line
    ]
    assert re.fullmatch(r"ok     CleverTap: [0-9,]+ people did App Launched on [0-9-]{10}", counted)
    assert re.fullmatch(
        r"ok     CleverTap: an export of 1,000,000 people takes about 204 requests, 3 at a time: "
        r"[0-9]+ [a-z]+ if each takes [0-9.e-]+ s as this check did, 34 min if each takes 30 s, "
        r"the longest before the service gives up",
        export,
    )
    assert re.fullmatch(
        r"ok     Alta: a lookup of 1,000,000 users takes 1,000,000 requests, 16 at a time: "
        r"[0-9,]+ [a-z]+ if each takes [0-9.e-]+ s as this check did",
        lookup,
    )


def test_a_forecast_heeds_the_limits_of_the_account() -> None:
    account = CleverTap("A", "p", max_in_flight=1)
    assert forecast_export(account, None) == (
        "an export of 1,000,000 people takes about 202 requests, 1 at a time: 101 min if each "
        "takes 30 s, the longest before the service gives up"
    )
    assert "202 requests, 1 at a time: 41 s if each takes 0.2 s as" in forecast_export(account, 0.2)
    auto = CleverTap("A", "p", max_in_flight="auto")
    assert "takes about 204 requests, 3 at a time: " in forecast_export(auto, 0.2)


def test_a_forecast_of_lookups_takes_the_slowest_of_all_limits() -> None:
    def forecast(seconds: float | None, limit: int | None = None, **options: Any) -> str:
        return forecast_lookups(Alta("t", **options), seconds, RateLimit(limit=limit))

    text = "a lookup of 1,000,000 users takes 1,000,000 requests, 4 at a time"
    measured = ": 14 h if each takes 0.2 s as this check did"
    assert forecast(None, max_in_flight=4) == text
    assert forecast(0.2, max_in_flight=4) == text + measured
    assert forecast(0.2, max_in_flight=4, requests_per_minute=6000) == text + measured
    for seconds in (0.2, None):
        assert forecast(seconds, max_in_flight=4, requests_per_minute=90) == (
            f"{text}: 8 days at 90 a minute"
        )
    assert forecast(None, 300, max_in_flight=4) == (
        f"{text}; the service states a limit of 300 requests, and not for how long: at that many a "
        f"day it takes 3,334 days"
    )
    assert forecast(0.2, 2_000_000, max_in_flight=4) == text + measured
    assert forecast(0.2, 0, max_in_flight=4) == text + measured
    assert forecast(0.2, max_in_flight="auto").endswith("as the service turns out to take")


@pytest.mark.parametrize(
    ("limit", "wait", "words"),
    [
        (100, 1, ": 7 days at 100 a minute, the service's limit"),
        (100, 60.9, ": 7 days at 100 a minute, the service's limit"),
        (1000, 3600, ": 42 days at 1,000 an hour, the service's limit"),
        (1000, 61.5, ": 42 days at 1,000 an hour, the service's limit"),
        (100, 9000, ": 10,000 days at 100 a day, the service's limit"),
        (100, 86_401, ": 10,000 days at 100 a day, the service's limit"),
        (500_000, 86_400 * 30, ": 62 days at 500,000 a month, the service's limit"),
        (500_000, 86_400 * 200, ": 732 days at 500,000 a year, the service's limit"),
        (1_000_000, 9000, ": 7 h if each takes 0.1 s as this check did"),
    ],
)
def test_a_forecast_knows_how_long_a_stated_limit_makes_it(
    limit: int, wait: float, words: str
) -> None:
    key, stated = Alta("t", max_in_flight=4), RateLimit(limit=limit)
    assert forecast_lookups(key, 0.1, stated, wait).endswith(f"4 at a time{words}")


def test_a_forecast_of_an_export_heeds_a_stated_limit_too() -> None:
    account = CleverTap("A", "p")
    stated = forecast_export(account, 0.2, RateLimit(limit=2), 9000)
    assert stated == (f"{forecast_export(account, 0.2)}; 102 days at 2 a day, the service's limit")
    assert forecast_export(account, 0.2, RateLimit(limit=204), 9000) == forecast_export(
        account, 0.2
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0001, "1 s"),
        (59.2, "60 s"),
        (120, "120 s"),
        (121, "3 min"),
        (7200, "120 min"),
        (7201, "3 h"),
        (2 * 86_400, "48 h"),
        (100 * 86_400, "100 days"),
        (10_000 * 86_400, "10,000 days"),
    ],
)
def test_a_duration_is_in_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_refused_credentials_come_with_what_to_do(env: dict[str, str]) -> None:
    done = run(env | {"CLEVERTAP_PASSCODE": "wr0ng"}, "doctor")
    told = done.stdout.decode()
    assert (done.code, done.stderr) == (3, "")
    assert "wrong  CleverTap answered HTTP 401" in told
    assert "Correct the environment" in told
    assert "doctor --try-regions" in told
    assert "ok     Alta: the API key is accepted" in told
    assert "wr0ng" not in told
    done = run(env | {"ALTA_TOKEN": "wr0ng"}, "doctor")
    assert done.code == 3
    assert "wrong  Alta answered" in done.stdout.decode()


def test_no_credentials_at_all(tmp_path: Path) -> None:
    done = run(environment(tmp_path), "doctor")
    assert done.code == 3
    assert "Run: altaprofiles login" in done.stdout.decode()
    done = run(environment(tmp_path), "doctor", "--account", "shop")
    assert done.code == 3
    assert "no account 'shop'" in done.stdout.decode()


def test_a_file_that_others_can_read(env: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    path.write_text('[accounts.a]\naccount_id = "A"\npasscode = "s3cret"\n')
    path.chmod(0o640)
    done = run(env | {"ALTAPROFILES_CONFIG": str(path)}, "doctor", "--account", "a")
    assert done.code == 3
    assert f"run: chmod 600 {path}" in done.stdout.decode()
    assert "s3cret" not in done.stdout.decode()


def test_nobody_listens(env: dict[str, str]) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        done = run(env | {"CLEVERTAP_BASE_URL": url}, "doctor")
    assert done.code == 1
    assert "wrong  CleverTap: no connection to 127.0.0.1" in done.stdout.decode()
    # No finding may claim that the credentials were checked.
    assert "CleverTap answered" not in done.stdout.decode()
    assert "ok     Alta: the API key is accepted" in done.stdout.decode()


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_nobody_listens_where_a_proxy_should_be(env: dict[str, str], variable: str) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        proxy = f"http://ann:s3cret@127.0.0.1:{unheard.getsockname()[1]}"
        url = "https://in1.api.clevertap.com"
        done = run(env | {"CLEVERTAP_BASE_URL": url, variable: proxy}, "doctor")
    assert done.code == 1
    text = done.stdout.decode()
    assert f"Check the proxy that {variable} names, or unset it" in text
    assert "s3cret" not in text


def test_a_name_that_does_not_resolve(env: dict[str, str]) -> None:
    done = run(env | {"CLEVERTAP_BASE_URL": "https://nowhere.invalid"}, "doctor")
    assert done.code == 1
    assert "wrong  CleverTap: the name nowhere.invalid does not resolve" in done.stdout.decode()


def test_a_proxy_is_told_of_without_its_password(env: dict[str, str]) -> None:
    done = run(env | {"HTTPS_PROXY": "http://ann:s3cret@proxy.example:3128"}, "doctor")
    assert done.code == 0
    assert "ok     a proxy is set (https: proxy.example:3128)" in done.stdout.decode()
    assert "s3cret" not in done.stdout.decode()


@pytest.mark.skipif(not Path("/proc").exists(), reason="no folder that nobody may write to")
def test_a_folder_that_cannot_be_written(env: dict[str, str]) -> None:
    done = run(env, "doctor", cwd=Path("/proc"))
    assert done.code == 1
    assert "wrong  cannot write to the current folder" in done.stdout.decode()


def test_it_is_coloured_for_people_only(env: dict[str, str]) -> None:
    with Terminal(env, "doctor", columns=40) as terminal:
        assert terminal.ended().code == 0
    assert "\x1b[32mok" in terminal.screen
    with Terminal(env | {"NO_COLOR": "1"}, "doctor") as terminal:
        assert terminal.ended().code == 0
    assert "\x1b[3" not in terminal.screen


async def found(app: App, regions: dict[str, str] | None = None) -> list[Finding]:
    return [finding async for finding in examine(app, regions or {})]


@pytest.fixture
def app(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> App:
    for name, value in environment(tmp_path, emulator.environment).items():
        monkeypatch.setenv(name, value)
    return App()


async def test_the_right_region_is_named(
    app: App, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with emulated(people=1, seed=8) as other, socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        regions = {
            "eu1": other.url,
            "in1": emulator.url,
            "us1": f"http://127.0.0.1:{unheard.getsockname()[1]}",
        }
        account = emulator.clevertap
        results = await try_regions(account.account_id, account.passcode, regions)
        assert isinstance(results["eu1"], Unauthorized)
        assert results["in1"] is None
        assert results["us1"] is not None
        assert not isinstance(results["us1"], Unauthorized | Forbidden)

        monkeypatch.setenv("CLEVERTAP_BASE_URL", other.url)
        told = [x for x in await found(app, regions) if "accepted in region in1" in x.text]
        assert len(told) == 1
        assert told[0].advice is not None
        assert "CLEVERTAP_REGION=in1" in told[0].advice
        # A region that works is reported, but the configuration still fails.
        assert Exit.CREDENTIALS in [x.code for x in await found(app, regions)]


def test_lines_are_wrapped_at_words_and_commands_are_not(tmp_path: Path) -> None:
    env = environment(tmp_path)
    piped = run(env, "doctor").stdout.decode()
    with Terminal(env, "doctor", columns=50) as terminal:
        assert terminal.ended().code == 3
    assert " ".join(terminal.text.split()) == " ".join(piped.split())
    lines = terminal.text.splitlines()
    assert len(lines) > len(piped.splitlines())
    assert any(line == "       Run: altaprofiles login; or set" for line in lines)
    assert all(line[:1] != " " or line.startswith(" " * 7) for line in lines)
    # A path is a word.
    assert longest(terminal.text) <= max(50, 7 + max(map(len, piped.split())))


REFUSED = http(b'{"status":"fail","error":"Invalid Credentials","code":401}', "401 No")


def test_regions_are_tried_when_asked(env: dict[str, str], tmp_path: Path) -> None:
    del env["CLEVERTAP_BASE_URL"]
    every = {urlsplit(url).netloc for url in REGIONS.values()}
    with hosted(tmp_path, lambda *_: REFUSED) as hosts:
        without = run(env | hosts.env, "doctor")
        assert hosts.got_credentials == ["eu1.api.clevertap.com"]
        assert "altaprofiles doctor --try-regions\n" in without.stdout.decode()
        done = run(env | hosts.env, "doctor", "--try-regions")
        assert set(hosts.got_credentials) == every
    assert "which is every region" in done.stdout.decode()
    assert done.code == 3


@pytest.mark.parametrize("place", ["environment", "file"])
@pytest.mark.parametrize("service", ["CleverTap", "Alta"])
async def test_credentials_of_a_gateway_are_not_sent_to_the_vendors_hosts(
    env: dict[str, str], tmp_path: Path, service: str, place: str
) -> None:
    """They may be meant for the gateway only, and valid nowhere else."""
    env = {name: value for name, value in env.items() if service.upper() in name or "_" not in name}
    variable, key = "CLEVERTAP_BASE_URL", "base_url"
    if service == "Alta":
        variable, key = "ALTA_BASE_URL", "alta_base_url"
    refused = http(b'{"code":40127,"message":"no"}', "401 No") if service == "Alta" else REFUSED
    async with scripted(always(refused)) as gateway:
        env[variable] = gateway.url
        fix = f"unset {variable}"
        path = tmp_path / "accounts.toml"
        if place == "file":
            names = {
                variable: key,
                "CLEVERTAP_ACCOUNT_ID": "account_id",
                "ALTA_TOKEN": "alta_token",
            }
            names["CLEVERTAP_PASSCODE"] = "passcode"
            held = [f'{names[name]} = "{env.pop(name)}"' for name in [*env] if name in names]
            path.write_text("\n".join(["[accounts.main]", *held]))
            path.chmod(0o600)
            env["ALTAPROFILES_CONFIG"] = str(path)
            fix = f"remove {key} from {path}"
        with hosted(tmp_path, lambda *_: REFUSED) as hosts:
            env |= hosts.env
            done = await to_thread.run_sync(run, env, "doctor", "--try-regions")
            plain = await to_thread.run_sync(run, env, "doctor")
            question = ("get", "--identity") if service == "CleverTap" else ("cdp", "--user-id")
            asked = await to_thread.run_sync(run, env, *question, "1")
        assert hosts.connected == []
    told = done.stdout.decode()
    assert done.code == 3
    assert f"note   {service}: --try-regions is skipped, because " in told
    assert f"may be meant for {gateway.url} only\n" in told
    assert fix in told
    without = f": {fix}, then run: altaprofiles doctor --try-regions\n"
    assert without in plain.stdout.decode()
    assert without in asked.stderr


def test_a_base_url_of_the_vendor_is_a_place_like_any_other(
    env: dict[str, str], tmp_path: Path
) -> None:
    with hosted(tmp_path, lambda *_: REFUSED) as hosts:
        for url in ("https://in1.api.clevertap.com/", "HTTPS://SG1.api.clevertap.com"):
            env |= {"CLEVERTAP_BASE_URL": url, **hosts.env}
            assert "which is every region" in run(env, "doctor", "--try-regions").stdout.decode()


async def test_a_wrong_passcode_is_wrong_in_every_region(
    app: App, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "wr0ng")
    told = [x for x in await found(app, {"eu1": emulator.url}) if "every region" in x.text]
    assert [x.code for x in told] == [Exit.CREDENTIALS]
    assert told[0].advice is not None
    assert "not the region" in told[0].advice


async def test_regions_that_do_not_answer_leave_it_open(
    app: App, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "wr0ng")
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        regions = {"eu1": emulator.url, "sg1": url}
        told = [x for x in await found(app, regions) if "no answer from sg1" in x.text]
    assert [x.code for x in told] == [Exit.FAILED]


# ---------------------------------------------------------------------------- the small requests


def with_targets(answers: Mapping[str, bytes]) -> Answer:
    """Return an answer that depends on the path, and is empty for HEAD."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        method, target, _ = head.split(b"\r\n")[0].decode().split()
        path = target.partition("?")[0]
        writer.write(http(b"") if method == "HEAD" else answers[path])

    return answer


COUNT, PERSON = "/1/counts/profiles.json", "/1/profile.json"
NOBODY = http(b'{"status":"success"}')


def asked(served: Scripted) -> list[str]:
    """Return the paths of the requests, without that of the connection."""
    lines = [line.split() for line in served.request_lines]
    return [target.partition("?")[0] for method, target, _ in lines if method != "HEAD"]


@pytest.mark.parametrize(
    ("response", "finding"),
    [
        (http(b'{"status":"success","count":1234567,"nQCount":0}'), "1,234,567 people did App L"),
        # It counts for longer than a person waits.
        (http(b'{"status":"partial","req_id":7}', "200 OK", "Retry-After: 9999"), None),
    ],
)
async def test_the_count_of_a_day_is_enough(
    app: App, monkeypatch: pytest.MonkeyPatch, response: bytes, finding: str | None
) -> None:
    async with scripted(with_targets({COUNT: response})) as server:
        monkeypatch.setenv("CLEVERTAP_BASE_URL", server.url)
        findings = await found(app)
    texts = [x.text for x in findings if x.text.startswith("CleverTap: ")]
    assert "CleverTap: the credentials are accepted" in texts
    assert any(text.startswith(f"CleverTap: {finding}") for text in texts) == (finding is not None)
    assert any("an export of 1,000,000 people" in text for text in texts)
    assert [x for x in findings if x.code is not None] == []
    assert set(asked(server)) == {COUNT}
    sent = json.loads(server.bodies[1])
    assert sent["event_name"] == "App Launched"
    assert sent["from"] == sent["to"]


@pytest.mark.parametrize(
    "response",
    [
        http(b'{"status":"fail","error":"Invalid event : App Launched","code":400}'),
        http(b'{"status":"fail","error":"Incorrect Usage"}', "400 Bad Request"),
        http(b'{"status":"fail","error":"not in your plan","code":403}', "403 Forbidden"),
    ],
)
async def test_a_service_that_does_not_count_is_asked_for_a_person(
    app: App, monkeypatch: pytest.MonkeyPatch, response: bytes
) -> None:
    async with scripted(with_targets({COUNT: response, PERSON: NOBODY})) as server:
        monkeypatch.setenv("CLEVERTAP_BASE_URL", server.url)
        findings = await found(app)
    assert "CleverTap: the credentials are accepted" in {x.text for x in findings}
    assert [x for x in findings if x.code is not None] == []
    assert asked(server)[-1] == PERSON


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (http(b"404 page not found", "404 Not Found"), "The host knows no such call: check region"),
        (http(b"", "404 Not Found"), "The host knows no such call: check region"),
        (http(b"<html>404</html>", "404 Not Found"), "The host knows no such call: check region"),
        (http(b'{"error":"Not Found"}', "404 Not Found"), "The host knows no such call"),
        (http(b'{"status":"error","error":"Not Found"}', "404 No"), "The host knows no such call"),
        (http(b"", "405 Method Not Allowed"), "The host knows no such call: check region"),
        (http(b"", "302 Found", "Location: https://x.example/"), "check region, endpoint and base"),
        (http(b'{"error":"not found"}', "400 Bad Request"), "answered HTTP 400"),
        (http(b"<html>400</html>", "400 Bad Request"), "answered HTTP 400"),
    ],
)
async def test_a_host_without_the_calls_accepts_no_credentials(
    app: App, monkeypatch: pytest.MonkeyPatch, response: bytes, words: str
) -> None:
    async with scripted(always(response)) as server:
        monkeypatch.setenv("CLEVERTAP_BASE_URL", server.url)
        monkeypatch.setenv("ALTA_BASE_URL", server.url)
        findings = await found(app)
        account = CleverTap("A", "p")
        regions = await try_regions(account.account_id, account.passcode, {"eu1": server.url})
        platforms = await try_platforms("t", {"jp": server.url})
    assert [x for x in findings if "accepted" in x.text] == []
    wrong = [x for x in findings if x.code is not None]
    assert [(x.code, x.advice) for x in wrong] == [(Exit.FAILED, None)] * 2
    for x in wrong:
        assert words in x.text
    assert regions["eu1"] is not None
    assert platforms["jp"] is not None


@pytest.mark.parametrize("body", [b"404 page not found", b"", b'"none"', b'{"error":"not found"}'])
@pytest.mark.parametrize("status", ["404 Not Found", "400 Bad Request"])
async def test_nobody_found_by_a_host_without_the_call_is_no_acceptance(
    app: App, monkeypatch: pytest.MonkeyPatch, body: bytes, status: str
) -> None:
    refusal = http(b'{"status":"fail","error":"Invalid event","code":400}', "400 Bad Request")
    answers = {COUNT: refusal, PERSON: http(body, status)}
    async with scripted(with_targets(answers)) as server:
        monkeypatch.setenv("CLEVERTAP_BASE_URL", server.url)
        findings = await found(app)
    assert [x.code for x in findings if x.code is not None] == [Exit.FAILED]
    assert "CleverTap: the credentials are accepted" not in {x.text for x in findings}


async def test_nobody_found_by_the_service_itself_is_an_acceptance(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = http(b'{"status":"fail","error":"Invalid event","code":400}', "400 Bad Request")
    nobody = http(b'{"status":"fail","error":"Profile not found","code":404}', "404 Not Found")
    async with scripted(with_targets({COUNT: refusal, PERSON: nobody})) as server:
        monkeypatch.setenv("CLEVERTAP_BASE_URL", server.url)
        assert "CleverTap: the credentials are accepted" in {x.text for x in await found(app)}


async def test_a_garbled_count_can_be_tried_later(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbled = http(b'{"status":"success","count":"many"}')
    async with scripted(with_targets({COUNT: garbled, PERSON: NOBODY})) as server:
        monkeypatch.setenv("CLEVERTAP_BASE_URL", server.url)
        [wrong] = [x for x in await found(app) if x.code is not None]
    assert (wrong.code, wrong.advice) == (Exit.FAILED, "Try again later")


@pytest.mark.parametrize("code", [b"", b',"code":403'])
async def test_the_regions_are_tried_if_clevertap_forbids(
    app: App, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, code: bytes
) -> None:
    refusal = http(b'{"status":"fail","error":"no"' + code + b"}", "403 Forbidden")
    async with scripted(with_targets({COUNT: refusal, PERSON: refusal})) as server:
        monkeypatch.setenv("CLEVERTAP_BASE_URL", server.url)
        [wrong] = [x for x in await found(app) if x.code is not None]
        assert wrong.code is Exit.CREDENTIALS
        assert "for the region: unset CLEVERTAP_BASE_URL, then run: altaprofiles doctor" in str(
            wrong.advice
        )
        told = {x.text for x in await found(app, {"eu1": server.url, "in1": emulator.url})}
        assert "CleverTap: the credentials are accepted in region in1" in told
        told = {x.text for x in await found(app, {"eu1": server.url})}
        assert "CleverTap: refused in eu1, which is every region" in told


async def test_a_count_that_refuses_the_credentials_is_enough(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = http(b'{"status":"fail","error":"Invalid Credentials","code":401}', "401 No")
    async with scripted(with_targets({COUNT: refusal})) as server:
        monkeypatch.setenv("CLEVERTAP_BASE_URL", server.url)
        findings = await found(app)
    assert [x.code for x in findings if x.code is not None] == [Exit.CREDENTIALS]
    assert asked(server) == [COUNT]


VERIFY, USERS = "/v1/api-key/verify", "/v1/user/get-user-cdp"
NO_USERS = http(b'{"code":0,"message":"OK","data":{}}')


@pytest.mark.parametrize(
    "response",
    [
        http(b'{"code":0,"message":"OK","data":{"agent":"x"}}'),
        http(b'{"data":{"agent":"x"},"meta":{}}'),
    ],
)
async def test_a_platform_that_verifies_keys_does_so_first(
    app: App, monkeypatch: pytest.MonkeyPatch, response: bytes
) -> None:
    async with scripted(with_targets({VERIFY: response, USERS: NO_USERS})) as server:
        monkeypatch.setenv("ALTA_BASE_URL", server.url)
        findings = await found(app)
    assert "Alta: the API key is accepted" in {x.text for x in findings}
    assert asked(server) == [VERIFY, USERS]


@pytest.mark.parametrize(
    "body", [b'{"data":{"valid":false}}', b'{"code":0,"message":"OK","data":{"valid":false}}']
)
async def test_a_key_that_is_verified_as_invalid_is_refused(
    app: App, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    async with scripted(with_targets({VERIFY: http(body), USERS: NO_USERS})) as server:
        monkeypatch.setenv("ALTA_BASE_URL", server.url)
        [wrong] = [x for x in await found(app) if x.code is not None]
    assert wrong.code is Exit.CREDENTIALS
    assert "Check the API key; if another platform issued the key" in wrong.text
    assert asked(server) == [VERIFY]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"code":20059,"message":"no"}', "The agent was deleted"),
        (b'{"code":20055,"message":"no"}', "The API is switched off"),
        (b'{"code":403131,"message":"no"}', "lacks this permission"),
    ],
)
async def test_a_valid_key_of_an_agent_that_cannot_be_used_is_wrong(
    app: App, monkeypatch: pytest.MonkeyPatch, body: bytes, words: str
) -> None:
    answers = {VERIFY: http(b'{"data":{"agent":"x"},"meta":{}}'), USERS: http(body)}
    async with scripted(with_targets(answers)) as server:
        monkeypatch.setenv("ALTA_BASE_URL", server.url)
        findings = await found(app)
    wrong = [x for x in findings if x.code is not None]
    assert [x.code for x in wrong] == [Exit.CREDENTIALS]
    assert words in wrong[0].text


@pytest.mark.parametrize(
    ("headers", "finding", "is_note"),
    [
        (
            ["X-RateLimit-Limit: 100", "X-RateLimit-Remaining: 97", "X-RateLimit-Reset: 9000"],
            "97 of 100 requests are left, and all again in 3 h",
            False,
        ),
        (
            ["X-RateLimit-Limit: 1000", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 9000"],
            "0 of 1,000 requests are left, and all again in 3 h",
            True,
        ),
        (["X-RateLimit-Remaining: 5"], "5 requests are left", False),
        (["X-RateLimit-Limit: 5000"], "allows 5,000 requests", False),
        (["X-RateLimit-Remaining: 5", "X-RateLimit-Reset: 1e300"], "5 requests are left", False),
        (["X-RateLimit-Remaining: 5", "X-RateLimit-Reset: 1e9"], "5 requests are left", False),
        (["X-RateLimit-Remaining: many"], None, False),
    ],
)
@pytest.mark.parametrize("verifies", [True, False])
async def test_a_stated_limit_is_shown_with_what_is_left(
    app: App,
    monkeypatch: pytest.MonkeyPatch,
    headers: list[str],
    finding: str | None,
    is_note: bool,
    verifies: bool,
) -> None:
    accepted = http(b'{"code":0,"message":"OK","data":{}}', "200 OK", *headers)
    answers = {VERIFY: accepted if verifies else http(b"", "404 Not Found"), USERS: accepted}
    async with scripted(with_targets(answers)) as server:
        monkeypatch.setenv("ALTA_BASE_URL", server.url)
        findings = [x for x in await found(app) if x.text.startswith("Alta: ")]
    shown = [x for x in findings if re.search("requests are left|allows [0-9]", x.text)]
    assert [(x.text, x.is_note) for x in shown] == (
        [] if finding is None else [(f"Alta: {finding}", is_note)]
    )
    assert [x for x in findings if x.code is not None] == []
    limit = re.search("Limit: ([0-9]+)", "".join(headers))
    is_timed = "Reset: 9000" in "".join(headers)
    assert findings[-1].text.endswith(
        "s as this check did"
        if limit is None
        else f"{1_000_000 // int(limit[1]):,} days at {int(limit[1]):,} a day, the service's limit"
        if is_timed
        else f"at that many a day it takes {1_000_000 // int(limit[1]):,} days"
    )


@pytest.mark.parametrize(
    "response",
    [
        http(b"", "404 Not Found"),
        http(b'{"status":404,"error":"Not Found"}', "404 Not Found"),
        http(b"<html>405</html>", "405 Method Not Allowed"),
        http(b"<html>Welcome</html>"),
        http(b"", "401 Unauthorized"),
        http(b'{"message":"no route"}', "403 Forbidden"),
        http(b'{"code":50000,"message":"oops"}', "500 Oops"),
    ],
)
async def test_a_platform_that_does_not_verify_keys_is_asked_for_a_user(
    app: App, monkeypatch: pytest.MonkeyPatch, response: bytes
) -> None:
    async with scripted(with_targets({VERIFY: response, USERS: NO_USERS})) as server:
        monkeypatch.setenv("ALTA_BASE_URL", server.url)
        findings = await found(app)
    assert "Alta: the API key is accepted" in {x.text for x in findings}
    assert asked(server)[-1] == USERS
    assert [x for x in findings if x.code is not None] == []


@pytest.mark.parametrize(
    ("body", "words", "advice"),
    [
        (
            b'{"code":40127,"message":"no"}',
            "code 40127",
            "for the platform: unset ALTA_BASE_URL, then run: altaprofiles doctor",
        ),
        (b'{"code":40378,"message":"no"}', "The agent was deleted", None),
        (b'{"code":20022,"message":"no"}', "The credits are used up", None),
    ],
)
async def test_a_key_that_is_refused_comes_with_the_next_step(
    app: App, monkeypatch: pytest.MonkeyPatch, body: bytes, words: str, advice: str | None
) -> None:
    answers = {VERIFY: http(body), USERS: http(body)}
    async with scripted(with_targets(answers)) as server:
        monkeypatch.setenv("ALTA_BASE_URL", server.url)
        [wrong] = [x for x in await found(app) if x.code is not None]
    assert wrong.code is Exit.CREDENTIALS
    assert words in wrong.text
    assert (wrong.advice is None) == (advice is None)
    assert advice is None or advice in str(wrong.advice)


# ------------------------------------------------------------------------------- other platforms


def knowing(own: str, answer: bytes = NO_USERS) -> Callable[[str, str], bytes]:
    """Return an answer of platforms one of which knows the key."""

    def respond(host: str, head: str) -> bytes:
        if head.startswith(f"GET {VERIFY}"):
            return http(b"", "404 Not Found")
        return answer if host == own else http(b'{"code":40127,"message":"no"}', "401 No")

    return respond


HOSTS = [urlsplit(url).netloc for url in ENDPOINTS.values()]


def test_the_platform_of_a_key_is_found(env: dict[str, str], tmp_path: Path) -> None:
    del env["ALTA_BASE_URL"]
    with hosted(tmp_path, knowing("api-jp.gptbots.ai")) as hosts:
        env |= hosts.env
        done = run(env, "doctor", "--try-regions")
        told = done.stdout.decode()
        assert done.code == 3
        assert f"note   Alta: --try-regions sends the API key to {', '.join(HOSTS)}\n" in told
        assert "note   Alta: the API key is accepted on platform jp\n" in told
        assert "Set ALTA_ENDPOINT=jp, and unset ALTA_BASE_URL" in told
        assert env["ALTA_TOKEN"] not in told
        assert set(hosts.got_credentials) == set(HOSTS) == set(hosts.connected)
        # No platform but those of GPTBots has the call.
        verified = {host for host, head in hosts.heads if head.startswith(f"GET {VERIFY}")}
        assert verified == set(HOSTS) - {"altatech.ai"}
        for endpoint in ("jp", " JP "):
            done = run(env | {"ALTA_ENDPOINT": endpoint}, "doctor")
            assert done.code == 0
            assert "Alta: https://api-jp.gptbots.ai, from the environment" in done.stdout.decode()


def test_a_key_stays_at_home_unless_other_platforms_are_to_be_tried(
    env: dict[str, str], tmp_path: Path
) -> None:
    del env["ALTA_BASE_URL"]
    with hosted(tmp_path, knowing("api-jp.gptbots.ai")) as hosts:
        env |= hosts.env
        assert "for the platform: altaprofiles doctor --try-regions" in (
            run(env, "doctor").stdout.decode()
        )
        done = run(env, "cdp", "--user-id", "u")
        assert done.code == 3
        assert "ALTA_ENDPOINT ('altatech', 'gptbots.ai', 'sg', 'jp', 'th')" in done.stderr
        assert "altaprofiles doctor --try-regions" in done.stderr
        assert hosts.got_credentials == ["altatech.ai"]


def test_a_plan_that_ends_work_is_one_line(env: dict[str, str], tmp_path: Path) -> None:
    del env["ALTA_BASE_URL"]
    spent = http(b'{"error":{"code":"40379","message":"Credits used up","status":400}}', "400 No")
    with hosted(tmp_path, knowing("altatech.ai", spent)) as hosts:
        for arguments, stdin in (
            (["cdp", "--user-id", "u"], b""),
            (["cdp", "--file", "-", "--by", "user-id"], b"1\n2\n3\n" * 100),
        ):
            done = run(env | hosts.env, *arguments, stdin=stdin)
            assert (done.code, done.stdout) == (3, b"")
            error, source = done.stderr.splitlines()
            assert error == (
                "error: Alta answered HTTP 400 (code 40379): Credits used up. The credits are used "
                "up: buy more, or wait for the plan's next period"
            )
            assert source == "These credentials are from the environment."


async def test_the_hosts_are_named_before_the_key_is_sent_to_them(
    app: App, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = http(b'{"code":40127,"message":"no"}', "401 No")
    async with (
        scripted(with_targets({VERIFY: refusal, USERS: refusal})) as home,
        scripted(with_targets({VERIFY: refusal, USERS: refusal})) as other,
    ):
        monkeypatch.setenv("ALTA_BASE_URL", home.url)
        platforms = {"altatech": home.url, "sg": other.url, "jp": emulator.url}
        named = False
        findings = []
        async for finding in examine(app, {}, platforms):
            findings.append(finding)
            if "sends the API key to" in finding.text:
                named = True
                assert other.heads == []
                for url in platforms.values():
                    assert urlsplit(url).netloc in finding.text
        assert named
        assert other.heads
        assert findings[-1].text == "Alta: the API key is accepted on platform jp"


async def test_the_regions_are_named_before_the_credentials_are_sent_to_them(
    app: App, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = http(b'{"status":"fail","error":"Invalid Credentials","code":401}', "401 No")
    async with scripted(always(refusal)) as other:
        monkeypatch.setenv("CLEVERTAP_PASSCODE", "wr0ng")
        async for finding in examine(app, {"eu1": emulator.url, "sk1": other.url}):
            if "sends account ID and passcode to" in finding.text:
                assert other.heads == []
                assert finding.text.endswith(urlsplit(other.url).netloc)
        assert other.heads


@pytest.mark.parametrize("envelope", ["classic", "v1.5"])
@pytest.mark.parametrize("key_verification", [True, False])
def test_an_agent_with_a_plan_is_examined_in_both_forms(
    env: dict[str, str], envelope: str, key_verification: bool
) -> None:
    with emulated(
        people=5, alta_envelope=envelope, key_verification=key_verification, alta_per_day=100
    ) as agent:
        env |= {"ALTA_TOKEN": agent.environment["ALTA_TOKEN"], "ALTA_BASE_URL": agent.url}
        done = run(env, "doctor")
        told = done.stdout.decode()
        assert done.code == 0, told
        assert "ok     Alta: the API key is accepted\n" in told
        assert re.search(r"ok     Alta: 9[0-9] of 100 requests are left, and all again in ", told)
        assert ": 10,000 days at 100 a day, the service's limit\n" in told
        agent.alta_error = 20059
        done = run(env, "doctor")
        assert done.code == 3
        assert "wrong  Alta answered HTTP " in done.stdout.decode()
        assert "the API key is accepted" not in done.stdout.decode()
        done = run(env | {"ALTA_TOKEN": "wr0ng"}, "doctor")
        assert done.code == 3
        told = done.stdout.decode()
        assert "as ALTA_ENDPOINT ('altatech', 'gptbots.ai', 'sg', 'jp', 'th')" in told


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            b'{"error":{"code":"FORBIDDEN","message":"no","status":403}}',
            "platform sg knows the API key, and answers: Alta ans",
        ),
        (b'{"code":40378,"message":"no"}', "platform sg knows the API key, and answers: Alta ans"),
        (b'{"code":40008,"message":"no"}', "platform sg knows the API key, and answers: Alta ans"),
        (b'{"code":40127,"message":"no"}', "refused on altatech, sg, which is every platform"),
        (b'{"message":"no"}', "refused on altatech; no answer from sg ("),
    ],
)
async def test_a_platform_that_knows_the_key_is_found_even_if_it_refuses_to_answer(
    app: App, monkeypatch: pytest.MonkeyPatch, body: bytes, text: str
) -> None:
    refusal = http(b'{"code":40127,"message":"no"}')
    status = "200 OK" if b"code" in body else "404 Not Found"
    answers = {VERIFY: http(body, status), USERS: http(body, status)}
    async with (
        scripted(with_targets({VERIFY: refusal, USERS: refusal})) as home,
        scripted(with_targets(answers)) as other,
    ):
        monkeypatch.setenv("ALTA_BASE_URL", home.url)
        places = {"altatech": home.url, "sg": other.url}
        findings = [x async for x in examine(app, {}, places)]
    assert findings[-1].text.startswith(f"Alta: {text}")
    assert findings[-1].advice is not None


async def test_a_plan_is_no_reason_to_try_other_platforms(
    app: App, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = http(b'{"code":40378,"message":"no"}')
    async with (
        scripted(with_targets({VERIFY: deleted, USERS: deleted})) as home,
        scripted(with_targets({})) as other,
    ):
        monkeypatch.setenv("ALTA_BASE_URL", home.url)
        findings = [x async for x in examine(app, {}, {"sg": other.url})]
        assert [x.code for x in findings if x.code is not None] == [Exit.CREDENTIALS]
        assert other.heads == []


@pytest.mark.parametrize(("hours", "words"), [(2, "behind"), (-2, "ahead"), (None, "unchecked")])
async def test_a_clock_that_is_off(
    app: App, monkeypatch: pytest.MonkeyPatch, hours: int | None, words: str
) -> None:
    shown = []
    if hours is not None:
        now = dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)
        shown = [f"Date: {now:%a, %d %b %Y %H:%M:%S GMT}"]
    body = b'{"status": "success", "record": null}'
    async with scripted(always(http(body, "200 OK", *shown))) as server:
        monkeypatch.setenv("CLEVERTAP_BASE_URL", server.url)
        findings = await found(app)
    clock = [x for x in findings if "clock" in x.text and x.text.startswith("CleverTap")]
    assert len(clock) == 1
    assert words in clock[0].text
    assert clock[0].is_note == (hours is None)
    assert clock[0].code is (None if hours is None else Exit.FAILED)


AUTHORITY = trustme.CA()


@pytest.fixture
async def certified(emulator: Emulator) -> AsyncIterator[str]:
    """Yield the address of the emulator behind TLS, with a certificate that is not trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    port = urlsplit(emulator.url).port

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await join(reader, writer, "127.0.0.1", port)

    async with listening(relay, context) as own:
        yield f"https://127.0.0.1:{own}"


async def test_everything_goes_through_the_proxy(
    env: dict[str, str], tmp_path: Path, certified: str
) -> None:
    AUTHORITY.cert_pem.write_to_path(tmp_path / "authority.pem")
    env |= {"SSL_CERT_FILE": str(tmp_path / "authority.pem"), "CLEVERTAP_BASE_URL": certified}
    async with tunnel() as (proxy, heads):
        env |= {"HTTPS_PROXY": f"http://ann:s3cret@{proxy}"}
        done = await to_thread.run_sync(run, env, "doctor")
        # One connection to examine it, and one for the request.
        assert len(heads) == 2
        got = await to_thread.run_sync(run, env, "get", "--identity", "nobody")
        assert (
            got.stderr == "error: no such person: the service has no profile with this identity\n"
        )
        assert len(heads) == 3
        without = await to_thread.run_sync(run, env | {"NO_PROXY": "127.0.0.1"}, "doctor")
        assert len(heads) == 3
    told = done.stdout.decode()
    assert done.code == without.code == 0, told
    assert f"CleverTap: 127.0.0.1 through the proxy {proxy}" in told
    assert "TLSv1.3, certificate trusted" in told
    assert "CleverTap: this machine's clock is right" in told
    assert "CleverTap: the credentials are accepted" in told
    assert "s3cret" not in told
    for head in heads:
        assert head.startswith(f"CONNECT {certified.removeprefix('https://')} ")
        assert "Proxy-Authorization: Basic " in head
        assert "X-CleverTap" not in head


async def test_a_proxy_for_what_is_not_encrypted(
    app: App, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"status": "success", "count": 1}'
    async with scripted(always(http(body))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        findings = await found(app)
        assert "CleverTap: the credentials are accepted" in {x.text for x in findings}
        assert proxy.request_lines[0].startswith(f"HEAD {emulator.url}/ ")


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://eu1.api.clevertap.com", "407 Proxy Authentication Required"),
        ("https://eu1.api.clevertap.com", "403 Not Here"),
        ("http://127.0.0.1:9", "407 Proxy Authentication Required"),
    ],
)
async def test_a_proxy_that_refuses_is_reported_as_by_a_call(
    app: App, monkeypatch: pytest.MonkeyPatch, url: str, status: str
) -> None:
    monkeypatch.setenv("CLEVERTAP_BASE_URL", url)
    async with scripted(always(http(b"", status))) as server:
        monkeypatch.setenv("ALL_PROXY", server.url.replace("://", "://ann:s3cret@"))
        wrong = [x for x in await found(app) if x.text.startswith("CleverTap") and x.code]
        async with Session.from_env(trust_env=True) as session:
            with pytest.raises(ConnectError) as caught:
                await session.profiles.get(identity="1")
    assert [x.text for x in wrong] == [str(caught.value)]
    assert wrong[0].advice == "Check the proxy that ALL_PROXY names, or unset it"


async def test_a_proxy_of_another_kind(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEVERTAP_BASE_URL", "https://eu1.api.clevertap.com")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:9")
    wrong = [x for x in await found(app) if x.code is not None]
    assert len(wrong) == 1
    assert "HTTPS_PROXY: not an http or https proxy: 'socks5' proxies" in wrong[0].text


async def test_a_certificate_that_is_not_trusted(
    app: App, monkeypatch: pytest.MonkeyPatch, certified: str
) -> None:
    monkeypatch.setenv("CLEVERTAP_BASE_URL", certified)
    wrong = [x for x in await found(app) if x.code is not None]
    assert [x.code for x in wrong] == [Exit.FAILED]
    assert "certificate of 127.0.0.1 is refused" in wrong[0].text
    assert wrong[0].advice is not None
    assert "SSL_CERT_FILE" in wrong[0].advice


async def test_whoever_hangs_up_is_no_service(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    # Alta would have to answer within that time.
    monkeypatch.delenv("ALTA_TOKEN")
    async with scripted(always(b"")) as server:
        monkeypatch.setenv("CLEVERTAP_BASE_URL", server.url)
        wrong = [x async for x in examine(app, {}, patience=2) if x.code is not None]
    assert len(wrong) == 1
    assert "no connection to 127.0.0.1" in wrong[0].text


# ------------------------------------------------------------------------------------ used-up plans


@pytest.mark.parametrize("envelope", ["classic", "v1.5"])
def test_a_plan_that_is_used_up_comes_with_the_time_of_its_renewal(
    env: dict[str, str], envelope: str
) -> None:
    with emulated(
        people=5, alta_envelope=envelope, alta_per_day=1, key_verification=False
    ) as agent:
        env |= {"ALTA_TOKEN": agent.environment["ALTA_TOKEN"], "ALTA_BASE_URL": agent.url}
        assert run(env, "cdp", "--user-id", "nobody").code == 5
        done = run(env, "doctor")
        asked = run(env, "cdp", "--user-id", "nobody")
    told = done.stdout.decode()
    advice = r"Try again in 2[45] h, when the plan's limit renews, or enlarge the plan"
    assert done.code == 1
    assert "It accepts requests again at 20" in told
    assert re.search(f"\n       {advice}\n", told)
    assert ".." not in told.replace("...", "")
    assert asked.code == 1
    assert re.search(f"\n{advice}\\.\n", asked.stderr)


@pytest.mark.parametrize(
    ("service", "headers", "advice"),
    [
        ("ALTA", [], "Try again in some minutes. If it is refused again, the plan is used up: "),
        ("ALTA", ["Retry-After: 7200"], "Try again in 120 min, as the service asks, or enlarge "),
        ("CLEVERTAP", [], "Try again in some minutes"),
        ("CLEVERTAP", ["Retry-After: 7200"], "Try again in 120 min, as the service asks"),
    ],
)
async def test_a_rate_limit_without_a_time_comes_with_advice_as_well(
    app: App, monkeypatch: pytest.MonkeyPatch, service: str, headers: list[str], advice: str
) -> None:
    refusal = http(b'{"status":"fail","error":"throttled.","code":40008}', "429 No", *headers)
    async with scripted(always(refusal)) as server:
        monkeypatch.setenv(f"{service}_BASE_URL", server.url)
        [wrong] = [x for x in await found(app) if x.code is not None]
    assert wrong.code is Exit.FAILED
    assert str(wrong.advice).startswith(advice)
    assert ("plan" in str(wrong.advice)) == (service == "ALTA")


# ------------------------------------------------------------------------------- wrong environments


def test_a_wrong_setting_is_a_usage_error(env: dict[str, str]) -> None:
    done = run(env | {"CLEVERTAP_MAX_IN_FLIGHT": "many"}, "doctor")
    assert done.code == 2
    assert "wrong  CLEVERTAP_MAX_IN_FLIGHT: expected a whole number" in done.stdout.decode()


@pytest.mark.parametrize(
    ("variable", "other"),
    [
        ("CLEVERTAP_MAX_IN_FLIGHT", "ok     Alta: the API key is accepted"),
        ("ALTA_MAX_IN_FLIGHT", "ok     CleverTap: the credentials are accepted"),
    ],
)
def test_a_wrong_setting_of_one_service_leaves_the_other(
    env: dict[str, str], variable: str, other: str
) -> None:
    done = run(env | {variable: "many"}, "doctor")
    assert done.code == 2
    assert f"wrong  {variable}: expected a whole number" in done.stdout.decode()
    assert other in done.stdout.decode()
    both = run(env | {"CLEVERTAP_MAX_IN_FLIGHT": "many", "ALTA_MAX_IN_FLIGHT": "few"}, "doctor")
    assert both.code == 2
    assert both.stdout.count(b"wrong  ") == 2
    assert b"no credentials" not in both.stdout


def test_a_fault_of_the_whole_file_is_told_once(env: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("accounts = [")
    path.chmod(0o600)
    done = run(env | {"ALTAPROFILES_CONFIG": str(path)}, "doctor", "--account", "a")
    assert (done.code, done.stdout.count(b"wrong  ")) == (3, 1)


def test_variables_without_effect_are_noted(env: dict[str, str]) -> None:
    del env["ALTA_TOKEN"]
    done = run(env | {"ALTA_ENDPOINT": "sg"}, "doctor")
    assert (done.code, done.stderr) == (0, NEXT)
    assert (
        "note   ALTA_ENDPOINT and ALTA_BASE_URL have no effect, because ALTA_TOKEN is not set\n"
        in done.stdout.decode()
    )
