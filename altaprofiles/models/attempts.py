"""Requests as they are reported: one attempt, and counts over a session. Pure."""

from __future__ import annotations

from msgspec import Struct

from ..errors import AltaProfilesError

__all__ = ["Attempt", "Stats"]


class Attempt(Struct, frozen=True, gc=False):
    """One HTTP request and how it ended, as `Session(on_event=…)` receives it.

    Attributes:
        api: "CleverTap" or "Alta".
        operation: "open_chain", "get_page", "get_profile", "count" or "get_user_cdp".
        number: 1 for the first try of a call.
        seconds: from the moment it was sent until it was read or had failed; waiting for a slot
            comes before.
        status: the HTTP status, or None when no answer arrived.
        bytes: size of the body, decompressed.
        error: what went wrong, or None.
        delay: seconds until the next try; None when there is none.
    """

    api: str
    operation: str
    number: int
    seconds: float
    status: int | None
    bytes: int
    error: AltaProfilesError | None
    delay: float | None


class Stats(Struct, gc=False):
    """Counts over a session's life.

    Attributes:
        requests: HTTP requests sent, retries included.
        retries: tries after a first one, polls of pages that were not ready included.
        throttles: answers that said "too many" (429 or throttled).
        not_ready: answers that said "still in progress".
        bytes: bytes of all bodies, decompressed.
    """

    requests: int = 0
    retries: int = 0
    throttles: int = 0
    not_ready: int = 0
    bytes: int = 0
