"""Records of people as answers hold them, some with types that nobody expects. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .faults import Fault
from .reply import encode_value

if TYPE_CHECKING:
    from .dice import Dice
    from .faults import Plan
    from .people import Population
    from .reply import Style

__all__ = ["RecordWriter"]

_HUGE = 10**40 + 7

_NAMES: tuple[Any, ...] = (7, 1.5, True, ["Ann", "Lee"], {"first": "Ann"})
_PHONES: tuple[Any, ...] = (_HUGE, [12_025_550_000], False)
_TIMES: tuple[Any, ...] = (_HUGE, "yesterday")
_PROPERTIES: tuple[Any, ...] = ("Plan=pro", ["pro"], 7, True)
_SUMMARIES: tuple[Any, ...] = (
    ["Charged"],
    "Charged",
    {"Charged": 3},
    {"Charged": {"count": "many"}},
)
_DEVICES: tuple[Any, ...] = ("iOS", {"platform": "iOS"}, ["iOS"])


class RecordWriter:
    """Writes the records of one account."""

    def __init__(self, population: Population, dice: Dice, plan: Plan) -> None:
        self._population = population
        self._dice = dice
        self._plan = plan

    def write(
        self,
        index: int,
        style: Style,
        *,
        app: bool,
        events: bool = True,
        profile: bool = True,
        turn: int,
    ) -> tuple[bytes, tuple[Fault, ...]]:
        """Return a person's record as JSON, and the faults that changed it.

        Args:
            index: the person's number, which decides whether `Fault.ODD_RECORD` changes the record.
            style: the style of its JSON.
            app, events, profile, turn: as for `Population.record`.
        """
        record = self._population.record(index, app=app, events=events, profile=profile, turn=turn)
        if not self._plan.meets(Fault.ODD_RECORD, index):
            return encode_value(record, style), ()
        choices = {"name": _NAMES, "phone": _PHONES, "ls": _TIMES}
        if profile:
            choices["profileData"] = _PROPERTIES
        if events:
            choices["events"] = _SUMMARIES
        if record.get("identity") is not None:
            # Of anyone else, the devices tell who it is.
            choices["platformInfo"] = _DEVICES
        for name, values in choices.items():
            record[name] = values[self._dice.below(len(values), "odd", name, index)]
        # msgspec writes no integers of more than 64 bits.
        return encode_value(record, "spaced"), (Fault.ODD_RECORD,)
