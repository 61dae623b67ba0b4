"""The slots that single calls need at once, next to bulk work with longer requests. Pure.

Clock readings are passed in.
"""

from __future__ import annotations

from msgspec import Struct, msgpack

__all__ = ["Needs"]


class _Shared(Struct, array_like=True, frozen=True):
    until: list[float]
    single: float | None


_SHARED = msgpack.Decoder(_Shared)


class Needs:
    """The slots that bulk work leaves free for single calls that are to come.

    A page takes longer than a lookup. If pages take every slot between two lookups, the next lookup
    waits for the end of one. So bulk work leaves free what single calls have needed at once in the
    last seconds, but for a quarter of the time of all slots. Bulk work whose requests are as short
    as single calls leaves nothing free, because waiting for one of them costs little.
    """

    LATELY = 5.0
    """Seconds for which a slot is left free after single calls have needed it."""

    _MOST = 256
    _RENEWAL = 0.5  # seconds between two changes for a need that stays
    _SLOWER = 1.25  # duration of bulk requests, over that of single calls, from which it matters
    _WEIGHT = 0.125  # of a new duration in the average
    _SHARE = 4  # bulk work gets one slot for one part of so many of the time of all slots

    def __init__(self) -> None:
        self._until: list[float] = []
        self._single: float | None = None
        self._bulk: float | None = None

    def took(self, seconds: float, *, bulk: bool) -> None:
        """Count the duration of a successful request."""
        if bulk:
            self._bulk = self._mean(self._bulk, seconds)
        else:
            self._single = self._mean(self._single, seconds)

    def _mean(self, mean: float | None, seconds: float) -> float:
        return seconds if mean is None else mean + self._WEIGHT * (seconds - mean)

    @property
    def matter(self) -> bool:
        """True if requests of bulk work take longer than single calls."""
        single, bulk = self._single, self._bulk
        return single is not None and bulk is not None and bulk > self._SLOWER * single

    def is_new(self, slots: int, now: float) -> bool:
        """Return whether `note` would change anything."""
        slots = min(slots, self._MOST)
        until = now + self.LATELY - self._RENEWAL
        return len(self._until) < slots or self._until[slots - 1] < until

    def note(self, slots: int, now: float) -> None:
        """Count single calls that need so many slots at once."""
        slots = min(slots, self._MOST)
        self._until[:slots] = [now + self.LATELY] * slots

    def slots(self, now: float) -> int:
        """Return the number of slots that single calls have needed lately."""
        while self._until and self._until[-1] <= now:
            self._until.pop()
        return len(self._until)

    def pause(self, slots: int) -> float:
        """Return the seconds between two requests of bulk work that keeps its share of `slots`."""
        return (self._bulk or 0.0) * max(0.0, self._SHARE / slots - 1)

    def dump(self) -> bytes:
        """Return what other processes need to know, for `Record`."""
        return msgpack.encode(_Shared(self._until, self._single))

    def load(self, data: bytes, now: float) -> None:
        """Take over what other processes know, from `Record`."""
        shared = _SHARED.decode(data)
        latest = now + self.LATELY
        self._until = [min(until, latest) for until in shared.until[: self._MOST]]
        if shared.single is not None:
            self._single = shared.single
