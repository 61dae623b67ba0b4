"""A small account on both services, as bytes: who is in it, and the answer to each request.

Written from the vendors' pages alone. Nothing here comes from the package or from its emulator.
"""

from __future__ import annotations

import json
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = [
    "BIG",
    "BIG_PAGES",
    "COUNT",
    "EVENT",
    "NOBODY",
    "PAGES",
    "PEOPLE",
    "POLLED",
    "SHARED",
    "STRANGER",
    "Person",
    "Reply",
    "answer",
    "forged",
]

EVENT = "App Launched"
BIG = "Big Pages"
"""An event whose pages are over a mebibyte each."""
POLLED = "Polled"
"""An event whose count has to be asked for again."""
COUNT = 7
NOBODY = "nobody"
SHARED = "anon/shared ü"
"""An anonymous ID that is bound to two users."""
STRANGER = "mallory"
"""Someone that no request asks for. Whoever delivers this person has mixed answers up."""


class Person(NamedTuple):
    """One person: the identifiers, and the bytes of the record."""

    identity: str | None
    email: str
    object_id: str
    record: bytes

    @property
    def users(self) -> bytes:
        """The members of `data` in Alta's answer for this person."""
        if self.identity is None:
            return b""
        bound = {
            "anonymous_id": f"anon-{self.identity}",
            "conversation_type": "WEB",
            "source_id": None,
        }
        user = {"user_id": self.identity, "anonymous_ids": [bound]}
        return f"{json.dumps(self.identity)}:{json.dumps(user)}".encode()


class Reply(NamedTuple):
    """An answer before anything happens to it."""

    body: bytes
    status: str = "200 OK"

    def head(self, *headers: str, length: bool = True) -> bytes:
        """Return the status line and the headers, the empty line included."""
        lines = [f"HTTP/1.1 {self.status}", "Content-Type: application/json", *headers]
        if length:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode()

    @property
    def whole(self) -> bytes:
        return self.head() + self.body


def _person(number: int, *, identity: str | None, filler: str = "") -> Person:
    email, device = f"p{number}+é@example.com", f"__g{number}"
    record = {
        **({} if identity is None else {"identity": identity}),
        "email": email,
        "name": f"Zoë {number} \U0001f600",
        "phone": 49151000 + number,
        "profileData": {"plan": "gold", "note": 'a "b", {c}: [d]\\', "filler": filler},
        "events": {"Charged": {"count": number, "first_seen": 1, "last_seen": 2}},
        "platformInfo": [{"platform": "Web", "objectId": device}],
    }
    text = json.dumps(record, ensure_ascii=number % 2 == 0, separators=(",", ":"))
    return Person(identity, email, device, text.encode())


PEOPLE = [_person(number, identity=None if number == 5 else f"id-{number}") for number in range(7)]
PAGES = [PEOPLE[:3], PEOPLE[3:6], PEOPLE[6:]]
BIG_PAGES = [
    [
        _person(number, identity=f"big-{number}", filler="é" * 14_000)
        for number in range(start, start + 45)
    ]
    for start in (100, 200)
]
_STRANGER = _person(666, identity=STRANGER)
_CHAINS = {EVENT: ("a%2F", PAGES), BIG: ("b%2F", BIG_PAGES)}


def _page(people: list[Person], following: str | None) -> bytes:
    cursor = f'"next_cursor":"{following}",' if following else ""
    return b"".join(
        (
            b'{"status":"success",',
            cursor.encode(),
            b'"records":[',
            b",".join(person.record for person in people),
            b"]}",
        )
    )


_BODIES = {
    f"{name}{number}": _page(page, f"{name}{number + 1}" if number + 1 < len(pages) else None)
    for name, pages in _CHAINS.values()
    for number, page in enumerate(pages)
}


def answer(method: str, target: str, body: bytes) -> Reply:
    """Return the answer to one request of either API."""
    path, query = urlsplit(target)[2:4]
    parameters = {name: values[0] for name, values in parse_qs(query).items()}
    if path == "/1/profiles.json" and method == "POST":
        name = _CHAINS[json.loads(body)["event_name"]][0]
        return Reply(b'{"cursor":"%b0","status":"success"}' % name.encode())
    if path == "/1/profiles.json":
        # As received: a cursor that was decoded or encoded on the way is another one.
        page = _BODIES.get(query.removeprefix("cursor="))
        refused = b'{"status":"fail","error":"Incorrect Usage","code":3}'
        return Reply(refused, "400 Bad Request") if page is None else Reply(page)
    if path == "/1/counts/profiles.json":
        if method == "POST" and json.loads(body)["event_name"] == POLLED:
            return Reply(b'{"status":"partial","req_id":"r1"}')
        return Reply(b'{"status":"success","count":%d}' % COUNT)
    if path == "/1/profile.json":
        return Reply(_profile(parameters))
    if path == "/v1/user/get-user-cdp":
        return Reply(b'{"code":0,"message":"OK","data":{%b}}' % _users(parameters))
    return Reply(b"<html>not here</html>", "404 Not Found")


def _profile(parameters: dict[str, str]) -> bytes:
    for person in PEOPLE:
        if (
            parameters.get("identity", NOBODY) == person.identity
            or parameters.get("email") == person.email
            or parameters.get("objectId") == person.object_id
        ):
            return b'{"status":"success","record":%b}' % person.record
    return b'{"status":"success","record":null}'


def _users(parameters: dict[str, str]) -> bytes:
    if parameters.get("anonymous_id") == SHARED:
        return PEOPLE[0].users + b"," + PEOPLE[1].users
    for person in PEOPLE:
        if person.identity is not None and parameters.get("user_id") == person.identity:
            return person.users
    return b""


def forged(target: str) -> bytes:
    """Return a complete answer that fits `target`, but is about `STRANGER`."""
    if "get-user-cdp" in target:
        body = b'{"code":0,"message":"OK","data":{%b}}' % _STRANGER.users
    elif "counts" in target:
        body = b'{"status":"success","count":666}'
    elif "cursor=" in unquote(target):
        body = _page([_STRANGER], None)
    elif "profiles.json" in target:
        body = b'{"cursor":"forged","status":"success"}'
    else:
        body = b'{"status":"success","record":%b}' % _STRANGER.record
    return Reply(body).whole
