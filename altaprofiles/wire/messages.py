"""HTTP requests and responses as plain values.

Sources:
    [uri] RFC 3986, "Uniform Resource Identifier"
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct

from ..base.jsontext import excerpt
from .members import values_in

__all__ = ["Request", "Response", "parameter"]

_BY_KEY = frozenset({"get_profile", "get_user_cdp"})
"""Operations whose parameters are identifiers of people."""


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
        return list(values_in(msgspec.json.decode(body))) if body else []

    def __repr__(self) -> str:
        # Tracebacks with locals show it, and the target may hold a person's identifier.
        return f"Request({self.operation})"


class Response(Struct, frozen=True):
    """One complete HTTP response. `body` is decompressed, and names in `headers` ignore case.

    Attributes:
        is_garbled: the body is not UTF-8, so that nothing in it can be believed.
        taken: bytes of a body that was taken apart while it arrived. `body` is then the rest of it,
            if there is any.
        beginning: the first bytes of such a body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_garbled: bool = False
    taken: int = 0
    beginning: bytes = b""

    @property
    def size(self) -> int:
        """Length of the body as it was sent, decompressed."""
        return self.taken or len(self.body)

    @property
    def excerpt(self) -> str:
        """The first characters of the body as it was sent."""
        return excerpt(self.beginning or self.body)

    def __repr__(self) -> str:
        return f"Response({self.status}, {self.size} bytes)"


def parameter(name: str, value: str) -> str:
    """Return `name=value` with the value percent-encoded, even `+` and `@` ([uri], 2.1)."""
    plain = value.isascii() and value.isalnum()
    return f"{name}={value if plain else quote(value, safe='')}"
