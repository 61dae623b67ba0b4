"""Time zones by name, and the day that it is in one. Reads zone data, and sends nothing."""

from __future__ import annotations

import re
import time
import zoneinfo
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo

from ..errors import ConfigurationError, InvalidArgument
from .checks import shown_setting

__all__ = ["FAR_AHEAD", "USUAL_SKEW", "is_to_come", "latest_day", "today", "zone_of"]

USUAL_SKEW = 300.0
"""Seconds by which clocks may differ without harm: events arrive as late as that."""

FAR_AHEAD = 3600.0
"""Seconds by which a clock may be ahead of another one, if the same days are over by both."""


def zone_of(argument: str, name: object) -> tzinfo:
    """Return the time zone with this name. `UTC` needs no zone data.

    Args:
        argument: the argument that holds the name.
        name: a name of the IANA database, such as "Asia/Kolkata".

    Raises:
        ConfigurationError: there is no such zone, or this machine has no zone data.
    """
    if not isinstance(name, str) or not name:
        raise InvalidArgument(
            f"{argument}: expected the name of a time zone, such as 'Asia/Kolkata', "
            f"got {shown_setting(name)}"
        )
    if name == "UTC":
        return UTC
    try:
        return zoneinfo.ZoneInfo(str.__str__(name))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
    if not known:
        # Outside of the handler, because the error would show a search in vain.
        raise ConfigurationError(
            f"{argument}: this machine has no data of time zones to find {shown_setting(name)} "
            "in; run: pip install tzdata"
        )
    raise InvalidArgument(
        f"{argument}: there is no time zone {_shown(name, known)}{_meant(name, known)}; use a "
        "name of the IANA database, such as 'Asia/Kolkata' or 'UTC'"
    )


def today(zone: tzinfo, at: float | None = None) -> date:
    """Return the current day in a time zone, or the day there at a time in epoch seconds."""
    return datetime.fromtimestamp(time.time() if at is None else at, zone).date()


def is_to_come(at: float) -> bool:
    """Return whether a time in epoch seconds, noted by some clock, is far to come by this one."""
    return at > time.time() + FAR_AHEAD


def latest_day() -> date:
    """Return the current day at UTC+14:00, where days begin first; a project's may be unknown."""
    return today(timezone(timedelta(hours=14)))


_PLACE = re.compile(r"(?:/[A-Za-z_-]{2,20}){1,2}|/GMT[+-][0-9]{1,2}")


def _shown(name: str, known: set[str]) -> str:
    """Return a name as text. That of a place in a known area, in any case, is not a secret."""
    area, separator, place = name.partition("/")
    areas = {one.partition("/")[0].lower() for one in known if "/" in one}
    is_place = area.lower() in areas and _PLACE.fullmatch(separator + place) is not None
    return repr(str.__str__(name)) if is_place else shown_setting(name)


_ABBREVIATED = 4
_ALIKE = 0.87  # a country, which is what people type, is like some place elsewhere by less


def _meant(name: str, known: set[str]) -> str:
    """Return the zone that a name is likely to mean, as advice; or nothing."""
    # Only errors need it, and its import takes time.
    from difflib import get_close_matches

    given = name.strip().lower().replace(" ", "_")
    for one in sorted(known):
        if given in (one.lower(), one.lower().rpartition("/")[2]):
            return f" (did you mean {one!r}?)"
    if len(given) <= _ABBREVIATED:
        # Another abbreviation is as likely another place as a misspelt name.
        return ""
    is_whole = "/" in given
    by_lower = {
        one.lower() if is_whole else one.lower().rpartition("/")[2]: one for one in sorted(known)
    }
    close = get_close_matches(given, by_lower, n=1, cutoff=_ALIKE)
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""
