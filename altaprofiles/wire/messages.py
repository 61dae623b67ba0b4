"""HTTP requests and responses as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from msgspec import Struct

__all__ = ["Request", "Response", "parameter"]


class Request(Struct, frozen=True, gc=False):
    """One HTTP request, without host and credentials.

    Attributes:
        operation: what it is for, as `Attempt.operation` shows it.
        method: "GET" or "POST".
        target: path and query exactly as they go on the request line.
        body: the bytes to send, empty for none.
    """

    operation: str
    method: str
    target: str
    body: bytes = b""


class Response(Struct, frozen=True):
    """One complete HTTP response; `body` is decompressed, `headers` ignore case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"


def parameter(name: str, value: str) -> str:
    """Return `name=value` with the value percent-encoded, `+` and `@` included."""
    plain = value.isascii() and value.isalnum()
    return f"{name}={value if plain else quote(value, safe='')}"
