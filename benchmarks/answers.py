"""The benchmark server's answer to each request, all built beforehand. No I/O."""

from __future__ import annotations

import gzip
import re
import sys
from importlib import import_module
from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from .bodies import PLACE, cursor, page_ending, page_opening, place, record, records

__all__ = ["ZSTD", "Answer", "Answers", "Compression", "Form", "Shape"]

Compression: TypeAlias = Literal["identity", "gzip", "zstd"]

Form: TypeAlias = Literal["plain", "pretty", "surrogates"]

ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
"""The module for zstd: from Python 3.14 on, the standard library's."""


class Shape(Struct, frozen=True, kw_only=True):
    """The content and the speed of a server's answers.

    Attributes:
        think: time from a request to the first byte of its answer, in seconds.
        rate: bytes per second on each connection; None for no limit.
        chains: the number of pages of each chain. Chain i is opened with a `from` on the (i + 1)th
            of any month.
        records: the number of records on each page.
        record_bytes: the size of each record, and of the one found by ID.
        compression: the encoding of pages for clients that accept it.
        unique: whether each person is on one page only; if not, all pages hold the same people.
        form: how records are written: without blanks, indented, or with half a surrogate pair each.
        cursor_last: whether `next_cursor` comes after the records.
        resets: the share of lookups, drawn from a seed, whose answer ends in a reset of the
            connection.
    """

    think: float = 0.0
    rate: float | None = None
    chains: tuple[int, ...] = (1,)
    records: int = 23
    record_bytes: int = 1168
    compression: Compression = "identity"
    unique: bool = False
    form: Form = "plain"
    cursor_last: bool = False
    resets: float = 0.0


class Answer(NamedTuple):
    """An answer in three parts, so that all pages can share the megabytes in the middle.

    Attributes:
        operation: the operation in the ledger's counts.
        cursor: the cursor of the requested page, if it is one.
        head: the status line, the headers, and the start of the body.
        middle, end: the rest of the body.
        size: the size of the body, in bytes.
    """

    operation: str
    cursor: str | None
    head: bytes
    middle: bytes
    end: bytes
    size: int


class _Opening(Struct):
    start: int = msgspec.field(name="from")


class Answers:
    """Every answer of a server of `shape`."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._records = _formed(records(shape.records, shape.record_bytes), shape.form)
        self._shared = self._records.replace(PLACE, place(0, 0))
        found = record(0, min(shape.record_bytes, 1000)).replace(PLACE, place(0, 0))
        self._found = _answer("get_profile", b'{"status":"success","record":' + found + b"}")
        self._places = {
            cursor(chain, page): (chain, page)
            for chain, pages in enumerate(shape.chains)
            for page in range(pages)
        }
        self._packed: dict[str, Answer] = {}
        if shape.compression != "identity":
            self._packed = {name: self._pack(self._page(name)) for name in self._places}

    def answer(self, method: str, target: str, head: bytes, body: bytes) -> Answer:
        """Return the answer to a request; `head` is its request line and headers."""
        path, _, query = target.partition("?")
        name, _, value = query.partition("=")
        if method == "POST" and path == "/1/profiles.json":
            return self._opened(body)
        if path == "/1/profiles.json" and name == "cursor" and value in self._places:
            if self._packed and _accepts(head, self._shape.compression):
                return self._packed[value]
            return self._page(value)
        if path == "/1/profiles.json":
            refusal = b'{"status":"fail","error":"Incorrect Usage","code":3}'
            return _answer("get_page", refusal, cursor=value)
        if path == "/1/profile.json":
            return self._found
        if path == "/v1/user/get-user-cdp" and name == "user_id":
            return _user(unquote(value))
        return _answer("unknown", b'{"status":"fail","error":"no such path","code":404}')

    def _opened(self, body: bytes) -> Answer:
        chain = msgspec.json.decode(body, type=_Opening).start % 100 - 1
        if not 0 <= chain < len(self._shape.chains):
            return _answer("open_chain", b'{"status":"fail","error":"no such chain","code":400}')
        opened = f'{{"cursor":"{cursor(chain, 0)}","status":"success"}}'
        return _answer("open_chain", opened.encode())

    def _page(self, name: str) -> Answer:
        chain, page = self._places[name]
        following = cursor(chain, page + 1) if page + 1 < self._shape.chains[chain] else None
        last = self._shape.cursor_last
        opening = page_opening(following, cursor_last=last)
        middle = self._shared
        if self._shape.unique:
            middle = self._records.replace(PLACE, place(chain, page))
        ending = page_ending(following, cursor_last=last)
        size = len(opening) + len(middle) + len(ending)
        return Answer("get_page", name, _head(size) + opening, middle, ending, size)

    def _pack(self, plain: Answer) -> Answer:
        kind = self._shape.compression
        body = plain.head.partition(b"\r\n\r\n")[2] + plain.middle + plain.end
        if kind == "gzip":
            packed = gzip.compress(body, 6, mtime=0)
        else:
            packed = import_module(ZSTD).compress(body)
        head = _head(len(packed), f"Content-Encoding: {kind}\r\n")
        return Answer("get_page", plain.cursor, head, packed, b"", len(packed))


def _formed(listed: bytes, form: Form) -> bytes:
    """Return the records of a list in another form."""
    if form == "pretty":
        return msgspec.json.format(b"[" + listed + b"]", indent=2)[1:-1]
    if form == "surrogates":
        return listed.replace(b'"note":"', rb'"mood":"\ud83d","note":"')
    return listed


def _answer(operation: str, body: bytes, cursor: str | None = None) -> Answer:
    return Answer(operation, cursor, _head(len(body)) + body, b"", b"", len(body))


def _user(name: str) -> Answer:
    bound = [{"anonymous_id": f"a-{name}", "conversation_type": "WEB", "source_id": None}]
    data = {name: {"user_id": name, "anonymous_ids": bound}}
    body = msgspec.json.encode({"code": 0, "message": "OK", "data": data})
    return _answer("get_user_cdp", body)


def _head(size: int, more: str = "") -> bytes:
    kind = "Content-Type: application/json\r\n"
    return f"HTTP/1.1 200 OK\r\n{kind}Content-Length: {size}\r\n{more}\r\n".encode()


def _accepts(head: bytes, compression: str) -> bool:
    named = re.search(rb"(?i)\naccept-encoding:([^\r]*)", head)
    return named is not None and compression.encode() in named[1]
