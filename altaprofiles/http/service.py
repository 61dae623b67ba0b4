"""One account on one API, as the engine uses it."""

from __future__ import annotations

from collections.abc import Mapping

from .limits import Cap, Pace
from .transport import Peer

__all__ = ["Service"]


class Service:
    """One account on one API: base URL, credentials, and the cap on requests in flight.

    Args:
        api: "CleverTap" or "Alta".
        account: identifies the account, for work that is resumed.
        url: the base URL.
        headers: sent with every request.
        secret: masked in every error.
        cap: the cap on requests in flight.
        pace: the pace of their starts, or None.

    Attributes:
        pausing: calls that wait for their next attempt, without a slot.
    """

    def __init__(
        self,
        *,
        api: str,
        account: str,
        url: str,
        headers: Mapping[str, str],
        secret: str,
        cap: Cap,
        pace: Pace | None = None,
    ) -> None:
        self.api = api
        self.account = account
        self.url = url
        self.peer = Peer(url, headers)
        self.secret = secret
        self.cap = cap
        self.pace = pace
        self.pausing = 0
