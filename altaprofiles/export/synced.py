"""The settings that a synced table is bound to, and the days that a sync brings. No I/O."""

from __future__ import annotations

from datetime import date, datetime, timedelta, tzinfo
from typing import Any, Self

import msgspec
from msgspec import Struct

from ..base.checks import check_whole
from ..base.jsontext import failure_text
from ..base.zones import today, zone_of
from ..errors import ConfigurationError, ExportError, InvalidArgument, PlanMismatch
from ..wire.days import Day, check_day, is_day
from ..wire.language import Filters
from .plan import EventsPlan, in_words
from .state import SyncState

__all__ = ["Days", "Settings", "check_order", "days_of"]

_DAY = timedelta(days=1)


_BOUND = ("app", "event_summaries", "profile", "with_cdp", "cdp_key", "cdp_by")
"""Fields of a plan that decide what its rows are, beside events and filters."""


class Settings(Struct, frozen=True):
    """The arguments of a sync that decide what its rows are. Others would bring other rows.

    Values of filters may be people's data, so that there is an outline and a digest of them.

    Attributes:
        since: the first day.
        values: the arguments by name, as JSON values.
    """

    since: date
    values: dict[str, Any]

    @classmethod
    def of(cls, plan: EventsPlan, since: date, timezone: str) -> Self:
        """Return the settings of a plan for any days.

        Args:
            plan: the plan.
            since: the first day.
            timezone: the name of the time zone, to which rows are not bound.
        """
        return cls(
            since,
            {
                "events": sorted(plan.events or ()),
                "since": str(since),
                **{name: getattr(plan, name) for name in _BOUND},
                "filters": plan.filters.outline,
                "filters_sha256": plan.filters.digest if plan.filters else None,
                "timezone": timezone,
            },
        )

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Return the settings that `encode` has encoded.

        Raises:
            ExportError: they cannot be read.
        """
        try:
            values = msgspec.json.decode(text, type=dict[str, Any])
            return cls(date.fromisoformat(values["since"]), values)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise ExportError(
                f"the state of {where} cannot be read: a newer version of this library has "
                f"written it, or it is damaged ({failure_text(error)})"
            ) from None

    def encode(self) -> str:
        """Return the settings as JSON."""
        return msgspec.json.encode(self.values).decode()

    def is_in(self, text: object) -> bool:
        """Return whether `text` has these settings, as an unfinished export may have them."""
        try:
            return isinstance(text, str) and not self.differences(self.parse(text, ""))
        except ExportError:
            return False

    @staticmethod
    def timezone_of(state: SyncState) -> str | None:
        """Return the time zone of the sync that has left a state; None for an earlier version."""
        name = Settings.parse(state.settings, state.account).values.get("timezone")
        return name if isinstance(name, str) else None

    def check(self, state: SyncState | None, where: str) -> None:
        """Raise `PlanMismatch` unless the rows with this state are of these settings.

        Args:
            state: the state, or None for a new table.
            where: the table in messages.
        """
        if state is None or state.settings == self.encode():
            return
        begun = self.parse(state.settings, where)
        differences = begun.differences(self)
        if not differences:
            return
        sentences = "; ".join(in_words(name, *values) for name, values in differences.items())
        if "filters" in differences:
            sentences = sentences.replace(
                in_words("filters", *differences["filters"]), "the filters have other values"
            )
        raise PlanMismatch(
            f"another sync keeps {where}: {sentences}. Pass the arguments that it was begun with "
            f"(where accounts differ in them, each by itself), or choose another `table` or `to`",
            differences=differences,
        )

    def differences(self, other: Settings) -> dict[str, tuple[Any, Any]]:
        """Return each argument that differs, by name, with its value here and in `other`."""
        differences = {
            name: (_plain(name, self.values.get(name)), _plain(name, value))
            for name, value in other.values.items()
            if not name.startswith(("filters", "timezone")) and self.values.get(name) != value
        }
        if "with_cdp" in differences:
            # They say no more than that.
            for name in ("cdp_key", "cdp_by"):
                differences.pop(name, None)
        digests = self.values.get("filters_sha256"), other.values["filters_sha256"]
        if digests[0] != digests[1]:
            outlines = self._outline().differences(other._outline())
            differences |= outlines or {"filters": digests}
        return differences

    def _outline(self) -> Filters:
        return Filters(msgspec.json.encode(self.values.get("filters", {})).decode())

    def follows(self, before: SyncState | None, plan: EventsPlan) -> bool:
        """Return whether no day is missing between the rows with a state and those of a plan."""
        through = self.since - _DAY if before is None else before.through
        return days_of(plan)[0] <= through + _DAY

    def are_in(self, plan: EventsPlan, state: SyncState) -> bool:
        """Return whether a plan brings all that rows of these settings have in `matched`.

        Args:
            plan: that of any export of the same account.
            state: the state of the rows.
        """
        events, digest = self.values.get("events", ()), self.values.get("filters_sha256")
        if not {*events} <= {*(plan.events or ())}:
            return False
        if digest != (plan.filters.digest if plan.filters else None):
            return False
        # In seconds, it may not be whole days.
        if plan.start is None or not is_day(plan.start):
            return False
        first, last = days_of(plan)
        return first <= self.since and state.through <= last

    def moved(self, before: SyncState | None, plan: EventsPlan, began: datetime) -> SyncState:
        """Return the state of the rows once those of `plan` are among them.

        It never moves over a day that nobody has brought, and back only from days that are to come.

        Args:
            before: the present state, or None for a new table.
            plan: days of this sync.
            began: the time at which fetching them was begun.
        """
        through = days_of(plan)[1] if self.follows(before, plan) else self.since - _DAY
        state = SyncState(
            account=plan.account, settings=self.encode(), through=through, synced_at=began
        )
        return state.beyond(before)


class Days(Struct, frozen=True, kw_only=True):
    """The days that a sync is asked for.

    Attributes:
        since: the first day of the table.
        until: the last day to bring, or None.
        late_days: the number of days before the next one that are brought again.
        zone: the time zone in which days end.
    """

    since: date
    until: date | None
    late_days: int
    zone: tzinfo

    @classmethod
    def of(cls, since: Day, until: Day | None, late_days: int, timezone: str | None) -> Self:
        """Return the days of these arguments of `Session.sync`.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        first = _check_date("since", since)
        zone = zone_of("timezone", "UTC" if timezone is None else timezone)
        if first > (now := today(zone)):
            raise InvalidArgument(
                f"since: {first} is in the future, as it is {now} in {zone}; pass the first day "
                f"that the table should have"
            )
        last = None if until is None else _check_date("until", until)
        if last is not None:
            check_order(first, last)
        return cls(
            since=first,
            until=last,
            late_days=check_whole("late_days", late_days, least=0),
            zone=zone,
        )

    @property
    def last(self) -> date:
        """The last day to bring: `until`, or the last day that is over, whichever is earlier."""
        over = today(self.zone) - _DAY
        return over if self.until is None else min(self.until, over)

    def are_over(self, plan: EventsPlan, at: float | None = None) -> bool:
        """Return whether the days of a plan are over now, or at a time in epoch seconds."""
        return days_of(plan)[1] < today(self.zone, at)

    def after(self, state: SyncState | None) -> tuple[date, date] | None:
        """Return the first and the last day to bring; None if there are none."""
        first = self.since
        if state is not None:
            # Their number may be larger than that of the days in a calendar.
            late = min(self.late_days, max((state.through - first).days + 1, 0))
            # Another time zone may have decided that a day was over.
            open_day = today(self.zone, state.synced_at.timestamp())
            first = max(first, min(state.through + (1 - late) * _DAY, open_day))
        last = self.last
        return None if last < first else (first, last)

    def shifted(self, timezone: str, through: date, *, are_kept: bool) -> date | None:
        """Return the first day through `through` whose hours are others in another time zone.

        Args:
            timezone: the name of that zone.
            through: the last day to look at.
            are_kept: whether rows of the hours that another day has stay, so that only days matter
                that end later than in that zone.
        """
        try:
            other = zone_of("timezone", timezone)
        except ConfigurationError:
            # Other data of time zones have had it.
            return self.since
        for number in range((through - self.since).days + 1):
            end = datetime.combine(self.since + (number + 1) * _DAY, datetime.min.time())
            own, others = (end.replace(tzinfo=zone).timestamp() for zone in (self.zone, other))
            if own > others or (own < others and not are_kept):
                return self.since + number * _DAY
        return None


def _plain(name: str, value: Any) -> Any:
    # As messages have events.
    return tuple(value or ()) if name == "events" else value


def check_order(since: date, until: date) -> None:
    """Raise `InvalidArgument` if the last day is before the first one."""
    if until < since:
        raise InvalidArgument(f"until: {until} is before `since`, {since}; swap them")


def days_of(plan: EventsPlan) -> tuple[date, date]:
    """Return the first and the last day of a plan of days."""
    return date.fromisoformat(str(plan.start)), date.fromisoformat(str(plan.end))


def _check_date(name: str, value: object) -> date:
    """Return a day.

    Raises:
        ConfigurationError: it is not a day.
    """
    fix = "pass a date, '2026-01-31', or a whole number YYYYMMDD"
    day = check_day(name, value, fix)
    if not is_day(day):
        raise InvalidArgument(f"{name}: {day} is a time, and a sync brings whole days; {fix}")
    return date.fromisoformat(str(day))
