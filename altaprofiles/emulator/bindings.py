"""Users and anonymous IDs of the emulated Alta agent, and their bindings to each other.

A triple of anonymous ID, conversation type and source is bound to one user at a time, an ID can be
bound under several types, and a user has at most 100 bindings, as Alta's documentation has it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .shape import MOST_BINDINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .people import Population
    from .person import Person

__all__ = ["Bindings"]

_TYPES = (
    *("WEB", "C", "CHAT", "C_WORKFLOW", "C_APPS", "EMBED", "WIDGET", "AI_SEARCH", "SHARE"),
    *("WHATSAPP_META", "WHATSAPP_ENGAGELAB", "DINGTALK", "DISCORD", "SLACK", "ZAPIER", "WXKF"),
    *("TELEGRAM", "LIVECHAT", "LINE", "INSTAGRAM", "FACEBOOK", "SO_BOT", "ZOHO_SALES_IQ"),
    *("INTERCOM", "HOLOGRAM"),  # the last is made up, because the set is open
)


def _binding(anonymous_id: str, conversation_type: str, source_id: str | None) -> dict[str, Any]:
    return {
        "anonymous_id": anonymous_id,
        "conversation_type": conversation_type,
        "source_id": source_id,
    }


# The sample answer on the vendor's page "Query User CDP", and the user of its sample requests.
_SAMPLES = {
    "user1": [_binding("aId3", "WEB", None)],
    "67b58121035e5b152b0419ee": [_binding("aId3", "C", None)],
    "BC123": [_binding("22ses32dsafdabd1w2sad", "WEB", None)],
}


class Bindings:
    """All bindings of the agent.

    A person of the seed has 0 to 4 anonymous IDs, and a few have 100. Some have one under two
    types, and some have a second user. The users of the vendor's samples are there if anyone of the
    seed is. Bindings that were added have the type WEB and no source.

    Each method returns users as the `data` of an answer holds them: a mapping from user ID to
    `user_id` and `anonymous_ids`. It is empty if nothing is bound.
    """

    def __init__(self, population: Population) -> None:
        self._population = population
        self._samples = _SAMPLES if population.drawn else {}
        self._added: dict[str, list[dict[str, Any]]] = {}
        self._users_of: dict[str, list[str]] = {}

    def __repr__(self) -> str:
        return f"<Bindings of {self._population!r}, {len(self._added)} users added>"

    def add(self, bindings: Mapping[str, Sequence[str]]) -> None:
        """Add bindings, which have been checked: anonymous IDs by user ID.

        An ID can be added to several users, and is then an ID of each.

        Raises:
            ValueError: a user would have more than 100 anonymous IDs.
        """
        added = dict(self._added)
        users_of = dict(self._users_of)
        for number, (user_id, anonymous_ids) in enumerate(bindings.items()):
            earlier = {binding["anonymous_id"]: binding for binding in added.get(user_id, ())}
            later = {one: _binding(one, "WEB", None) for one in anonymous_ids}
            added[user_id] = list((earlier | later).values())
            if len(added[user_id]) > MOST_BINDINGS:
                raise ValueError(
                    f"bindings: user ID {number + 1}: would have more than {MOST_BINDINGS} "
                    f"anonymous IDs, Alta's most"
                )
            for one in anonymous_ids:
                users_of[one] = list(dict.fromkeys((*users_of.get(one, ()), user_id)))
        # Replaced, not changed: another thread may be reading them.
        self._added, self._users_of = added, users_of

    def by_user(self, user_id: str) -> dict[str, Any]:
        """Return one user with all of its anonymous IDs."""
        bindings = self._samples.get(user_id)
        if bindings is None:
            bindings = self._owned(user_id)
        return _data({user_id: [*bindings, *self._added.get(user_id, ())]})

    def by_anonymous(self, anonymous_id: str) -> dict[str, Any]:
        """Return every user bound to an anonymous ID, each with all of its anonymous IDs."""
        found = {
            user_id: bindings
            for users in (self._samples, self._users_near(anonymous_id))
            for user_id, bindings in users.items()
            if any(binding["anonymous_id"] == anonymous_id for binding in bindings)
        }
        data = _data(found)
        for user_id in (*found, *self._users_of.get(anonymous_id, ())):
            data |= self.by_user(user_id) if user_id in self._added else {}
        return data

    def by_pair(self, user_id: str, anonymous_id: str) -> dict[str, Any]:
        """Return one user with this anonymous ID only."""
        return _data(
            {
                name: [one for one in user["anonymous_ids"] if one["anonymous_id"] == anonymous_id]
                for name, user in self.by_user(user_id).items()
            }
        )

    def _owned(self, user_id: str) -> list[dict[str, Any]]:
        population = self._population
        hidden = re.fullmatch(r"67([0-9a-f]{8})[0-9a-f]{14}", user_id)
        for index in (
            population.reveal(hidden[1]) if hidden else None,
            population.find("identity", user_id),
        ):
            if index is not None and index < population.drawn:
                owned = self._users(population.person(index)).get(user_id)
                if owned is not None:
                    return owned
        return []

    def _users_near(self, anonymous_id: str) -> dict[str, list[dict[str, Any]]]:
        hidden = re.fullmatch(r"([0-9a-f]{8})[0-9a-f]{13}", anonymous_id)
        index = self._population.reveal(hidden[1]) if hidden else self._population.drawn
        if index >= self._population.drawn:
            return {}
        return self._users(self._population.person(index))

    def _users(self, person: Person) -> dict[str, list[dict[str, Any]]]:
        """Return the bindings of a person by user ID: a person can be two users."""
        draw = person.draw
        count = 0 if draw[11] < 38 else 1 + draw[12] % 4
        if draw[16] == 0 and count:
            count = MOST_BINDINGS
        bindings = [self._bind(person, slot) for slot in range(count)]
        if 1 < count < MOST_BINDINGS and draw[17] < 60:
            # The same ID, under the next type.
            again = _TYPES[(draw[50] + 1) % len(_TYPES)]
            bindings.append(bindings[0] | {"conversation_type": again})
        generated = f"67{self._population.hide(person.number, 6)}{draw[52:59].hex()}"
        if person.identity is None:
            return {generated: bindings}
        users = {str(person.identity): bindings}
        if bindings and draw[13] < 51:
            # The same ID, under a type that the first user does not have it under.
            other = _TYPES[(draw[50] + 2) % len(_TYPES)]
            users[generated] = [bindings[0] | {"conversation_type": other, "source_id": None}]
        return users

    def _bind(self, person: Person, slot: int) -> dict[str, Any]:
        draw = person.draw
        start = 40 + slot % 12
        digits = draw[start : start + 6].hex()[:11] + f"{slot:02x}"
        binding = _binding(
            self._population.hide(person.number, slot % 6) + digits,
            _TYPES[(draw[50] + 7 * slot) % len(_TYPES)],
            f"src-{draw[51] + slot}" if (draw[51] + 97 * slot) % 256 < 100 else None,
        )
        if (draw[51] + 97 * slot) % 256 >= 200:
            del binding["source_id"]
        return binding


def _data(users: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        user_id: {"user_id": user_id, "anonymous_ids": bindings}
        for user_id, bindings in users.items()
        if bindings
    }
