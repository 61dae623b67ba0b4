"""The number of requests that a service takes at once, found from its answers. Pure.

Clock readings are passed in. Nothing here waits or sends.
"""

from __future__ import annotations

from statistics import median

from msgspec import Struct

__all__ = ["MOST", "Extent", "Size"]

MOST = 256
"""Largest size of a search. One event loop serves no more requests per second with a larger one."""


class Extent(Struct, array_like=True, frozen=True):
    """All that a `Size` knows, as plain values: what several processes share of it."""

    most: int
    allowed: int
    changes: int
    has_succeeded: bool
    shrunk: int
    signs: float
    proven: int
    refused: int | None
    run: int
    durations: list[float]
    smaller: tuple[int, float] | None
    rounds: int
    patience: int


class Size:
    """The size of a cap: it shrinks when the service refuses, and grows while that pays.

    The rules, and the reason for each:

    1. *Two refusals close together shrink the size; one alone does not.* Above the limit of a
       service, every request too many is refused, so a second refusal follows at once. A refusal
       with another reason comes alone: one in a hundred would otherwise keep 16 slots at 1.
    2. *Requests that were in flight together are refused together*, which is one reason to shrink.
    3. *It shrinks to the largest size that has worked before, or else by half.* A trial that fails
       then costs a slot, and a service that another program uses as well gets room at once.
    4. *After a refusal it grows by one*, in a search by half of the way to the refused size. Sizes
       below that one need a run of `RUN` successes. The refused size itself needs a run that
       doubles with each further refusal, up to `LONGEST_RUN`, so that trials become rare; one
       refusal ends a trial. When the size succeeds after all, the service has room again.
    5. *Before any refusal it grows by a quarter*, or by two, so that it finds 60 within some 400
       requests, and overshoots by a quarter.
    6. *Growth that does not pay is taken back.* A service may queue requests in place of refusing
       them: then they take longer, and a larger size answers no more of them per second. The
       median duration is compared, because a pause of this machine moves only the slowest.
    7. *A service that refuses everything shows no limit.* A refusal at size 1, and one of a smaller
       size that has not worked yet, leave the run as it is. So three slots are back twenty
       successes after an outage, however long it was, or forty if it came before three had worked
       since the last one.
    8. *Only successes that needed the size count for growth*: those that started with every slot
       in use.

    Refusals decide first (additive increase, multiplicative decrease), and durations second (as in
    TCP Vegas), because a service that refuses shows its limit exactly, while durations vary.

    Args:
        start: the first size.
        most: the largest size.

    Attributes:
        allowed: the size at present, from 1 to `most`.
        searches: whether it can grow beyond its first size.
        changes: number of times that it has changed.
        has_succeeded: whether a request that started since it last shrank has succeeded.
    """

    RUN = 10
    """Successes in a row before the size grows by one."""

    LONGEST_RUN = 250
    """Most successes in a row before a size that was refused repeatedly is tried again."""

    _SIGNS = 2.0
    _FADING = 0.1  # of a sign, for each success
    _WORTH = 0.4  # least share of the growth in size that must show as growth in throughput
    _ROUNDS = 2  # runs in which a larger size may show that it pays

    def __init__(self, start: int, most: int) -> None:
        self.most = most
        self.allowed = start
        self.changes = 0
        self.has_succeeded = False
        self.searches = start < most
        self._shrunk = 0
        self._signs = 0.0
        self._proven = 0
        self._refused: int | None = None
        self._run = self.RUN
        self._durations: list[float] = []
        self._smaller: tuple[int, float] | None = None
        self._rounds = 0
        self._patience = 0

    @property
    def extent(self) -> Extent:
        """All that is known. A `Size` with the same extent decides the same from here on."""
        return Extent(
            most=self.most,
            allowed=self.allowed,
            changes=self.changes,
            has_succeeded=self.has_succeeded,
            shrunk=self._shrunk,
            signs=self._signs,
            proven=self._proven,
            refused=self._refused,
            run=self._run,
            durations=list(self._durations),
            smaller=self._smaller,
            rounds=self._rounds,
            patience=self._patience,
        )

    @extent.setter
    def extent(self, extent: Extent) -> None:
        self.most = max(1, extent.most)
        self.allowed = min(max(1, extent.allowed), self.most)
        self.changes = extent.changes
        self.has_succeeded = extent.has_succeeded
        self._shrunk = extent.shrunk
        self._signs = extent.signs
        self._proven = extent.proven
        self._refused = extent.refused
        self._run = extent.run
        self._durations = list(extent.durations)
        self._smaller = extent.smaller
        self._rounds = extent.rounds
        self._patience = extent.patience

    @property
    def can_grow(self) -> bool:
        """True if successes may change the size."""
        return self._refused is not None or self.allowed != self.most

    @property
    def is_settled(self) -> bool:
        """True if a success would change nothing at all."""
        return self.has_succeeded and not self._signs and not self.can_grow

    @property
    def reach(self) -> int:
        """The largest number of requests that may be in flight, those of before included."""
        return max(self.allowed, self._refused or 0)

    def bound(self, most: int) -> None:
        """Change the largest size. A fixed size that was never refused follows it up as well."""
        follows = not self.searches and self._refused is None and self.allowed == self.most
        allowed = most if follows else min(self.allowed, most)
        self.most = most
        if allowed != self.allowed:
            self._proven = min(self._proven, allowed)
            self._resize(allowed)

    def refused(self, began: int) -> None:
        """Count a refusal of one request as too many at once.

        Args:
            began: the value of `changes` when the request started.
        """
        if began < self._shrunk:
            return
        self._durations.clear()
        if self.allowed == 1:
            return
        self._signs += 1
        is_trial = self._refused is not None and self.allowed >= self._refused
        if self._signs < self._SIGNS and not is_trial:
            return
        if self._refused is not None and self.has_succeeded:
            self._run = min(2 * self._run, self.LONGEST_RUN)
        self.has_succeeded = False
        self._refused = self.allowed
        works = self._proven if self.allowed // 2 <= self._proven < self.allowed else 0
        self._resize(works or max(1, self.allowed // 2))
        self._proven = works
        self._shrunk = self.changes

    def succeeded(self, began: int, *, was_full: bool, seconds: float) -> bool:
        """Count a success; return whether the size has changed.

        Args:
            began: as for `refused`.
            was_full: whether every slot was in use when the request started.
            seconds: its duration.
        """
        self._signs = max(0.0, self._signs - self._FADING)
        self.has_succeeded = self.has_succeeded or began >= self._shrunk
        if not was_full or not self.can_grow:
            return False
        if began < self.changes:
            return False
        self._durations.append(seconds)
        if len(self._durations) < self._needed():
            return False
        before = self.allowed
        self._complete_run(median(self._durations))
        return self.allowed != before

    def _needed(self) -> int:
        if self._refused is None:
            return max(self.RUN, self.allowed // 2, self._patience)
        return self.RUN if self.allowed + 1 < self._refused else self._run

    def _complete_run(self, duration: float) -> None:
        if self._smaller is not None and not self._pays(*self._smaller, duration):
            self._durations.clear()
            self._rounds += 1
            if self._rounds == self._ROUNDS:
                self._patience = min(max(2 * self._patience, 4 * self.RUN), self.LONGEST_RUN)
                self._resize(self._smaller[0])
            return
        if self._smaller is not None:
            self._patience = 0
        if self._refused is not None and self.allowed >= self._refused:
            # The refused size has succeeded for a whole run: the service has room again.
            self._refused, self._run = None, self.RUN
        self._proven = self.allowed
        if self._refused is not None:
            gap = self._refused - self.allowed if self.searches else 1
            self._resize(min(self.allowed + max(1, gap // 2), self.most))
            return
        smaller = (self.allowed, duration)
        self._resize(min(self.allowed + max(2, self.allowed // 4), self.most))
        if self.searches and self.allowed > smaller[0]:
            self._smaller = smaller

    def _pays(self, size: int, duration: float, now: float) -> bool:
        growth = self.allowed / size - 1
        # By Little's law, requests per second are the size over the duration.
        return self.allowed * duration >= size * now * (1 + self._WORTH * growth)

    def _resize(self, size: int) -> None:
        self.allowed = size
        self.changes += 1
        self._signs = 0.0
        self._durations.clear()
        self._smaller = None
        self._rounds = 0
