"""HTTP requests and responses as plain values.

Sources:
    [uri] RFC 3986, "Uniform Resource Identifier"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct

__all__ = ["Request", "Response", "parameter"]

_BY_KEY = frozenset({"get_profile", "get_user_cdp"})
"""Operations whose parameters are identifiers of people."""

_FLAGS = frozenset({"True", "False"})


class Request(Struct, frozen=True, gc=False):
    """One HTTP request, without host and credentials.

    Attributes:
        operation: its purpose, as in `Attempt.operation`.
        method: "GET" or "POST".
        target: path and query, byte for byte as on the request line.
        body: the bytes to send, or empty.
        query: the body of the request that this one continues, whose filters are masked as well.
    """

    operation: str
    method: str
    target: str
    body: bytes = b""
    query: bytes = b""

    @property
    def keys(self) -> list[str]:
        """People's identifiers in `target`, and values of filters in `body`: masked in errors."""
        # Read from the request, because storing them costs as much as all else of it.
        if self.operation in _BY_KEY:
            members = self.target.partition("?")[2].split("&")
            return [unquote(member.partition("=")[2]) for member in members]
        body = self.body or self.query
        if b'"value":' in body:
            return [text for text in _values(msgspec.json.decode(body)) if text not in _FLAGS]
        return []

    def __repr__(self) -> str:
        # Tracebacks with locals show it, and the target may hold a person's identifier.
        return f"Request({self.operation})"


class Response(Struct, frozen=True):
    """One complete HTTP response. `body` is decompressed, and names in `headers` ignore case.

    Attributes:
        is_garbled: the body is not UTF-8, so that nothing in it can be believed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_garbled: bool = False

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"


def _values(body: Any, *, in_value: bool = False) -> Iterator[str]:
    """Yield every text and number within a member `value`."""
    match body:
        case dict():
            for key, item in body.items():
                yield from _values(item, in_value=in_value or key == "value")
        case list():
            for item in body:
                yield from _values(item, in_value=in_value)
        case str() | int() | float() if in_value and not isinstance(body, bool):
            yield str(body)


def parameter(name: str, value: str) -> str:
    """Return `name=value` with the value percent-encoded, even `+` and `@` ([uri], 2.1)."""
    plain = value.isascii() and value.isalnum()
    return f"{name}={value if plain else quote(value, safe='')}"
