"""One account on one API, as the engine uses it."""

from __future__ import annotations

from collections.abc import Mapping

from .limits import Cap, Pace
from .transport import Peer

__all__ = ["Service"]


class Service:
    """One account on one API: where it is, what proves who asks, and the slots it allows.

    Args:
        api: "CleverTap" or "Alta".
        url: its base URL.
        headers: sent with every request.
        secret: what must not appear in an error.
        cap: its requests in flight.
        pace: how fast they may start, or None.
        account: its ID; empty where only the secret tells whose it is.

    Attributes:
        pausing: calls that wait to be tried again, and hold no slot.
    """

    def __init__(
        self,
        *,
        api: str,
        url: str,
        headers: Mapping[str, str],
        secret: str,
        cap: Cap,
        pace: Pace | None = None,
        account: str = "",
    ) -> None:
        self.api = api
        self.account = account
        self.url = url
        self.peer = Peer(url, headers)
        self.secret = secret
        self.cap = cap
        self.pace = pace
        self.pausing = 0
