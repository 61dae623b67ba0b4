"""Who is the same person. Keeps what it has seen in memory, or where it is told to."""

from __future__ import annotations

from typing import Protocol

from ..errors import DecodeError
from ..flow.slices import ITEMS, Slices
from .page import Page
from .profile import Profile

__all__ = ["Distinct", "Seen"]


class Seen(Protocol):
    """Remembers texts."""

    def add(self, text: str) -> bool:
        """Remember `text`, and return whether it is new."""
        ...


class _InMemory:
    def __init__(self) -> None:
        self._texts: set[str] = set()

    def add(self, text: str) -> bool:
        known = len(self._texts)
        self._texts.add(text)
        return len(self._texts) > known


class Distinct:
    """Tells people apart: one is an `identity`, and without one any shared `objectId`.

    Remembers one text per person with an identity, and one per device of the others.

    Args:
        identities, devices: what remembers them; in memory by default.
    """

    def __init__(self, identities: Seen | None = None, devices: Seen | None = None) -> None:
        self._identities = identities or _InMemory()
        self._devices = devices or _InMemory()

    def is_new(self, profile: Profile) -> bool:
        """Whether this person has not been seen here; from now on it has.

        A profile with neither identity nor device is always new: nothing shows that it is not.
        """
        if identity := profile.identity:
            return self._identities.add(identity)
        try:
            devices = profile.object_ids
        except DecodeError:
            # One odd record must not end the walk. It is delivered, and fails when it is looked at.
            return True
        # All of them are remembered, so that the next record is known by any.
        new = [self._devices.add(device) for device in devices]
        return all(new)

    def filtered(self, page: Page) -> Slices[Page]:
        """Return `page` with its new people only."""
        new: list[Profile] = []
        for number, profile in enumerate(page.profiles, 1):
            if self.is_new(profile):
                new.append(profile)
            if number % ITEMS == 0:
                yield
        if len(new) == len(page.profiles):
            return page
        return Page.of(new, page.raw, page.cursor, page.next_cursor, page.window)
