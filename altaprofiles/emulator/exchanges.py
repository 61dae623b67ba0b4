"""Requests and answers as the lines of a replay, scrubbed. No I/O.

A replay is NDJSON. Its first line is `HEADER`, and each other line one exchange:

    {"request": {"operation": "profile", "identity": "…"}, "status": 200, "body": {…}}

`request` names the call and whatever tells it from others: the `query` and the flags of an opening,
the `cursor` of a page, the key of a lookup. `body` is the answer. An answer that is not JSON has
`text` in its place: an empty text, or a web page that stands for any.

Sources:
    [profiles] "Get User Profiles", https://developer.clevertap.com/docs/get-user-profiles-api
    [cql] "CleverTap Query Language",
        https://developer.clevertap.com/docs/clevertap-query-language
    [counts] "Get User Profile Counts"
    [cdp] "Query User CDP"
    [seen] public clients and captures
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote_to_bytes

import msgspec

from .reply import Reply, parameters

if TYPE_CHECKING:
    from .scrubber import Scrubber

__all__ = ["HEADER", "read_line", "recognize", "request_key", "scrub"]

HEADER = {"format": "altaprofiles replay", "version": 1}

_PAGE = "<html><head><title>A page that is not JSON</title></head><body></body></html>"

_CURSOR = re.compile(r"[?&]cursor=([^&]*)")

_FLAGS = {"app": "false", "events": "true", "profile": "true"}
_KEYS = {
    "/1/profile.json": ("profile", ("email", "identity", "objectId")),
    "/v1/user/get-user-cdp": ("cdp", ("user_id", "anonymous_id")),
    "/v1/api-key/verify": ("verify", ()),
}
"""Calls that find a value by keys, with the names of the keys ([profiles], [cdp])."""

_KEPT_IN_QUERIES = frozenset({"event_name", "from", "to", "name", "operator"})
"""Members of a query that tell nothing of a person ([profiles], [cql])."""

_COUNTS = frozenset({"count", "nQCount", "tcount", "userDeviceCount"})
"""Numbers of people in an answer ([counts])."""

_NAMED = 2
"""Levels of a record whose members have names of the API or the account, and not of people.

They are the record's own, and those of properties, events and devices ([profiles]).
"""

_SUMMARY = frozenset({"count", "first_seen", "last_seen"})
"""The members of an event's summary, one level below ([profiles])."""

_VOCABULARY = frozenset(
    """
    a access account active after again agent allowed an and anonymous any api are authentication
    available bad batch_size be been body boolean cannot client code common_profile_properties
    concurrent contact content conversation count credentials credits cursor customer date dates day
    days deleted denied developer disabled does email empty error event event_name event_properties
    exactly exceeded exist exists expired export fail failed false feature field fields filter
    filters for forbidden found from function gateway given has have id identity in include
    incorrect increase integer integers internal internal_error invalid invalid_parameter
    invalidated is it json key later limit list many match matches matching message method minutes
    missing more multiples must names need needs no not notification number object objectid occurred
    of ok on one only operator operators or out page parameter parameters partial pass path
    permission person plan plan's please profile profile_fields profiles progress properties
    property provider query rate rate_limit_exceeded ready record records req_id request requests
    required retry rpm seconds server service status still string success such support supported
    system temporarily than the this throttled time timeout to together token too too_many_requests
    true try type unauthorized unavailable unknown unsupported up upgrading usage used user users
    valid value values was were when with without wrong your
    """.split()  # noqa: SIM905
)
"""Words of the vendors' failures. Any other word of one may be a key, or the name of a person."""


def recognize(method: str, target: str, body: bytes) -> dict[str, Any] | None:
    """Return a request as a replay has it, with its values as they are.

    Args:
        method: the HTTP method.
        target: the raw request target.
        body: the body of the request.

    Returns:
        None if it is not a call of these APIs, or not readable as one.
    """
    path = target.partition("?")[0]
    if path == "/1/profiles.json" and (cursor := _CURSOR.search(target)):
        # As it was sent: a plus sign that is not encoded belongs to the cursor.
        return {"operation": "page", "cursor": cursor[1]}
    sent = parameters(target)
    if sent is None:
        return None
    values = {name: given[0] for name, given in sent.items()}
    if path in _KEYS:
        operation, names = _KEYS[path]
        return {"operation": operation} | {name: values[name] for name in names if name in values}
    if path == "/1/counts/profiles.json":
        if "req_id" in values:
            return {"operation": "poll", "req_id": values["req_id"]}
        return _asking({"operation": "count"}, body)
    if path != "/1/profiles.json" or "cursor" in values:
        return None
    flags = {name: values.get(name, default) for name, default in _FLAGS.items()}
    opening = {"operation": "open_chain", **flags}
    return _asking(
        opening, values["query"].encode() if method == "GET" and "query" in values else body
    )


def _asking(request: dict[str, Any], body: bytes) -> dict[str, Any] | None:
    query = _decoded(body)
    return request | {"query": query} if isinstance(query, dict) else None


def _decoded(body: bytes) -> Any:
    """Return the value of a body that is JSON, else None, which no answer is."""
    try:
        # Not msgspec, which refuses numbers that are too large: the real service may send them.
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def request_key(request: dict[str, Any]) -> bytes:
    """Return bytes that tell a request from others.

    The values of filters are left out: a replay has others in their place.
    """
    known = {**request}
    if isinstance(known.get("cursor"), str):
        # As characters, which JSON can hold: a cursor need not be UTF-8.
        sent = known["cursor"].encode("utf-8", "surrogatepass")
        known["cursor"] = unquote_to_bytes(sent).decode("latin-1")
    if "query" in known:
        known["query"] = _query(known["query"], lambda value: None)
    return json.dumps(known, sort_keys=True).encode()


def _query(value: Any, replace: Any, name: str = "") -> Any:
    """Return a query with each value replaced that may tell something of a person."""
    # The value of a filter can be anything, also an object with members of these names.
    if isinstance(value, dict) and name != "value":
        return {key: _query(member, replace, key) for key, member in value.items()}
    if isinstance(value, list) and name != "value":
        return [_query(item, replace, name) for item in value]
    return value if name in _KEPT_IN_QUERIES else replace(value)


def scrub(request: dict[str, Any], status: int, body: bytes, scrubber: Scrubber) -> bytes:
    """Return the line of an exchange, with its line break.

    Args:
        request: a request as `recognize` returns it.
        status: the HTTP status of the answer.
        body: the body of the answer, decompressed.
        scrubber: replaces the values.
    """
    value = _decoded(body)
    answer: dict[str, Any]
    if value is None:
        answer = {"text": _PAGE if body.strip() else ""}
    elif not isinstance(value, dict):
        answer = {"body": scrubber.value(value)}
    else:
        is_cdp = request["operation"] == "cdp"
        members = {
            name: _member(name, member, scrubber, has_keys=is_cdp) for name, member in value.items()
        }
        answer = {"body": members}
    line = {"request": _request(request, scrubber), "status": status, **answer}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _request(request: dict[str, Any], scrubber: Scrubber) -> dict[str, Any]:
    scrubbed = {}
    for name, value in request.items():
        if name == "operation" or (name in _FLAGS and value in ("true", "false")):
            scrubbed[name] = value
        elif name == "query":
            scrubbed[name] = _query(value, scrubber.value)
        else:
            scrubbed[name] = scrubber.cursor(value) if name == "cursor" else scrubber.text(value)
    return scrubbed


def _member(name: str, value: Any, scrubber: Scrubber, *, has_keys: bool) -> Any:
    """Return one of the outer members of an answer without the values of people.

    Args:
        name: the name of the member.
        value: its value.
        scrubber: replaces the values of people.
        has_keys: True if the members of `data` are named by users ([cdp]).
    """
    if "cursor" in name.casefold() and isinstance(value, str):
        return scrubber.cursor(value)
    if name in _COUNTS and isinstance(value, int):
        return value
    if name in ("status", "code", "error", "message"):
        return _failure(name, value)
    if name == "data" and has_keys and isinstance(value, dict):
        return {scrubber.text(key): scrubber.value(user, _NAMED) for key, user in value.items()}
    return scrubber.value(value, _NAMED, lasting=_SUMMARY)


def _failure(name: str, value: Any) -> Any:
    """Return a part of a failure: its code, and the words that failures are made of."""
    if isinstance(value, dict):
        return {key: _failure(key, member) for key, member in value.items()}
    if isinstance(value, list):
        return [_failure(name, item) for item in value]
    if name in ("code", "status") and re.fullmatch(r"[0-9]{1,6}|[A-Z]+(_[A-Z]+)+", str(value)):
        return value
    text = re.sub(r"[^\x00-\x7f]+", "x", str(value))
    return re.sub(r"[^\W_](?:\w|['@.+-](?=\w))*", _known_word, text)


def _known_word(found: re.Match[str]) -> str:
    return found[0] if found[0].casefold() in _VOCABULARY else "x"


def read_line(line: bytes) -> tuple[dict[str, Any], Reply]:
    """Return the request and the answer of a line.

    Raises:
        ValueError: it is not the line of an exchange.
    """
    try:
        exchange = msgspec.json.decode(line, type=_Exchange)
    except msgspec.MsgspecError:
        raise ValueError("is not an exchange") from None
    if exchange.text is not None:
        content_type = "text/html" if exchange.text else "application/json"
        reply = Reply(
            body=exchange.text.encode(), status=exchange.status, content_type=content_type
        )
    else:
        reply = Reply(body=bytes(exchange.body), status=exchange.status)
    return exchange.request, reply


class _Exchange(msgspec.Struct):
    request: dict[str, Any]
    status: Annotated[int, msgspec.Meta(ge=100, le=599)]
    body: msgspec.Raw = msgspec.Raw(b"null")
    text: str | None = None
