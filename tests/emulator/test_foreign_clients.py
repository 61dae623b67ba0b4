"""Clients of other people's style, over urllib and http.client: they get everybody.

They compare codes with `==` and numbers, know `cursor` and `next_cursor`, and know nothing of this
library. Two open with a GET, as both of the vendor's older clients do; three ask for pages with a
POST.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from altaprofiles.emulator import Emulator

pytestmark = pytest.mark.anyio

QUERY = {"event_name": "App Launched", "from": 20260101, "to": 20260131}
TROUBLE = {"not_ready": 0.3, "opening_not_ready": 0.3, "throttled": 0.2}
Headers = dict[str, str]


def keys(e: Emulator, content_type: str) -> Headers:
    return {
        "X-CleverTap-Account-Id": e.environment["CLEVERTAP_ACCOUNT_ID"],
        "X-CleverTap-Passcode": e.environment["CLEVERTAP_PASSCODE"],
        "Content-Type": content_type,
    }


def fetch(url: str, headers: Headers, data: bytes | None = None, method: str = "GET") -> Any:
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        return json.load(error)


def patiently(ask: Callable[..., Any], *arguments: str) -> Any:
    """Ask until the answer is neither in progress nor throttled."""
    while True:
        body = ask(*arguments)
        if body.get("code") == 2 or body.get("code") == 1:
            continue
        assert body["status"] == "success", body
        return body


def opened_by_get(base: str, headers: Headers, batch: int, walk: Callable[[str], Any]) -> list[Any]:
    """Open with the query in the URL, as a form has it, and walk."""
    form = urllib.parse.urlencode({"query": json.dumps(QUERY), "batch_size": batch})
    assert "+" in form
    body = patiently(lambda: fetch(f"{base}/1/profiles.json?{form}", headers))
    people = []
    while cursor := body.get("cursor") or body.get("next_cursor"):
        body = patiently(walk, cursor)
        people += body.get("records", [])
    return people


def opened_by_post(base: str, headers: Headers, walk: Callable[[str], Any]) -> list[Any]:
    url = f"{base}/1/profiles.json?batch_size=50"
    body = patiently(lambda: fetch(url, headers, json.dumps(QUERY).encode(), "POST"))
    cursor, people = body["cursor"], []
    while cursor:
        body = patiently(walk, cursor)
        people += body.get("records", [])
        cursor = body.get("next_cursor")
    return people


def old_client(e: Emulator, batch: int) -> list[Any]:
    headers = keys(e, "application/json;charset=utf-8")
    base = e.url
    return opened_by_get(
        base,
        headers,
        batch,
        lambda cursor: fetch(f"{base}/1/profiles.json?cursor={cursor}", headers),
    )


def old_client_in_pages(e: Emulator) -> list[Any]:
    return old_client(e, 50)


def old_client_with_its_own_batch(e: Emulator) -> list[Any]:
    """A batch of 10, which is below 23 and therefore everyone."""
    return old_client(e, 10)


def posts_an_empty_object(e: Emulator) -> list[Any]:
    headers, base = keys(e, "application/json"), e.url
    return opened_by_post(
        base,
        headers,
        lambda cursor: fetch(f"{base}/1/profiles.json?cursor={cursor}", headers, b"{}", "POST"),
    )


def posts_without_a_body(e: Emulator) -> list[Any]:
    """One connection, kept alive, and no Content-Length at all."""
    headers, base = keys(e, "application/json"), e.url
    connection = http.client.HTTPConnection(base.removeprefix("http://"))

    def walk(cursor: str) -> Any:
        connection.putrequest("POST", f"/1/profiles.json?cursor={cursor}")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        return json.loads(connection.getresponse().read())

    try:
        return opened_by_post(base, headers, walk)
    finally:
        connection.close()


def posts_in_another_encoding(e: Emulator) -> list[Any]:
    """As `posts_an_empty_object`, from a library that decodes and encodes parameters by itself."""
    headers, base = keys(e, "application/json; charset=utf-8"), e.url

    def walk(cursor: str) -> Any:
        again = urllib.parse.quote(urllib.parse.unquote(cursor), safe="/=").replace("%2B", "%2b")
        assert again != cursor
        return fetch(f"{base}/1/profiles.json?cursor={again}", headers, b"{}", "POST")

    return opened_by_post(base, headers, walk)


@pytest.mark.parametrize("faults", [{}, TROUBLE], ids=["calm", "trouble"])
@pytest.mark.parametrize(
    "client",
    [
        old_client_in_pages,
        old_client_with_its_own_batch,
        posts_an_empty_object,
        posts_without_a_body,
        posts_in_another_encoding,
    ],
)
async def test_it_gets_everybody(
    client: Callable[[Emulator], list[Any]], faults: dict[str, float]
) -> None:
    async with Emulator(people=400, seed=6, faults=faults) as e:
        people = await anyio.to_thread.run_sync(client, e)
        expected = [
            e.population.record(n) for n in e.population.active("App Launched", 20260101, 20260131)
        ]
        assert [one.get("identity") for one in people] == [one.get("identity") for one in expected]
        assert [one["events"] for one in people] == [one["events"] for one in expected]
        assert e.stats.double_served == e.stats.too_many == 0


def counts(e: Emulator, method: str) -> tuple[int, int]:
    headers, url = keys(e, "application/json; charset=utf-8"), f"{e.url}/1/counts/profiles.json"
    polls = 0
    body = fetch(url, headers, json.dumps(QUERY).encode(), "POST")
    while body["status"] == "partial":
        polls += 1
        body = fetch(f"{url}?req_id={body['req_id']}", headers, None, method)
    return body["count"], polls


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_it_polls_for_a_count(method: str) -> None:
    polls = 0
    for seed in range(6):
        async with Emulator(people=100, seed=seed) as e:
            count, asked = await anyio.to_thread.run_sync(counts, e, method)
            assert count == len(e.population.active("App Launched", 20260101, 20260131))
            polls += asked
    assert polls


async def test_a_cursor_that_is_encoded_twice_is_refused() -> None:
    async with Emulator(people=100, seed=6) as e:
        headers, base = keys(e, "application/json"), e.url

        def walk(cursor: str) -> Any:
            twice = urllib.parse.urlencode({"cursor": cursor})
            return fetch(f"{base}/1/profiles.json?{twice}", headers)

        with pytest.raises(AssertionError, match="Incorrect Usage"):
            await anyio.to_thread.run_sync(opened_by_post, base, headers, walk)
