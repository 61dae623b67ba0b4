"""Counts, times, shares and advice as text for a person. Pure."""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

__all__ = [
    "DOCTOR",
    "GARBLED",
    "after_failure",
    "clock",
    "duration",
    "failed_alone",
    "login_step",
    "looks_like_another",
    "meant",
    "moment",
    "nearest",
    "next_step",
    "numbered",
    "one_of",
    "past",
    "percent",
    "processes",
    "share",
    "sized",
]


DOCTOR = (
    "Check region or endpoint, base URL, network and proxy; `altaprofiles doctor` shows which of "
    "them it is."
)
"""The next step after an error of a connection."""

GARBLED = (
    "Try again later. If it stays so, a proxy or a gateway on the way may change answers: at level "
    "DEBUG (on the command line -v) the log has the beginning of each."
)
"""The next step after answers that are not the JSON of the service."""


def failed_alone(account: str | None) -> str:
    """Return the warning of a failed account, while others go on."""
    return f"{account} has failed, which does not stop the other accounts"


def numbered(count: int, noun: str) -> str:
    """Return a count with its noun, such as `1 key` or `1,234 keys`."""
    return f"{count:,} {noun if count == 1 else _PLURALS.get(noun, f'{noun}s')}"


_PLURALS = {"people": "people", "process": "processes", "retry": "retries"}


def after_failure(text: str, failure: Exception | None) -> str:
    """Return the text of a late end, with the last failure before it, if there is one."""
    return text if failure is None else f"{text}; the last failure: {failure}"


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds, such as `0:02:10`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def duration(seconds: float) -> str:
    """Return a duration in one unit, rounded up, such as `17 s`, `34 min`, `20 h` or `8 days`."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        # Up to two of a unit, the smaller one says more: 90 min are not 2 h.
        if seconds > 2 * size:
            return f"{math.ceil(seconds / size):,} {unit}"
    return f"{max(math.ceil(seconds), 1)} s"


def past(seconds: float) -> str:
    """Return a time that is over in one unit, rounded down, such as `34 min` or `2 days`."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds / size):,} {unit}"
    return f"{int(seconds)} s"


def moment(at: float, now: float) -> str:
    """Return a Unix time, rounded up, such as `12:00:05 UTC`; with its date if it is far away."""
    form = "%H:%M:%S UTC" if at - now < 43_200 else "%Y-%m-%d %H:%M UTC"
    try:
        return datetime.fromtimestamp(math.ceil(at), UTC).strftime(form)
    except (OverflowError, ValueError, OSError):
        return "a time that no calendar has"


def share(done: int, goal: int | None) -> float | None:
    """Return the share of `goal` that is done, from 0 to 1, or None if `goal` is None."""
    if goal is None:
        return None
    # The service's count can be less than its chains deliver.
    return min(done / goal, 1.0) if goal else 1.0


def percent(part: float) -> int:
    """Return a share in percent, rounded down, so that 100 means complete."""
    # As a float, 0.29 is a little less than 29 / 100.
    return int(100 * part + 1e-9)


def processes(pids: Sequence[int], apart: Sequence[int] = (), *, own: bool = False) -> str:
    """Return processes in words, such as `this process and the process 31790`.

    Args:
        pids: their IDs.
        apart: the IDs of those in other containers.
        own: whether this process is one of them.
    """
    names = ["this process"] if own else []
    if pids:
        plural = "es" if len(pids) > 1 else ""
        names.append(f"the process{plural} {_listed(pids)}")
    if len(apart) == 1:
        names.append(f"a process in another container (its number {apart[0]})")
    elif apart:
        names.append(f"processes in other containers (their numbers {_listed(apart)})")
    return " and ".join(names)


def _listed(pids: Sequence[int]) -> str:
    *first, last = map(str, pids)
    return f"{', '.join(first)} and {last}" if first else last


def login_step(account: str) -> str:
    """Return the next step for an account of the credentials file that lacks something."""
    return f"run: altaprofiles login {shlex.quote(account)}"


def next_step(events: Sequence[str], *, has_filters: bool) -> str:
    """Return advice on a query that matches nobody.

    Args:
        events: the events whose people the query asks for; none for everyone.
        has_filters: whether it has filters.
    """
    parts = ["the name of the event, upper and lower case included, the days"] if events else []
    if has_filters:
        parts.append("names, operators and values of the filters")
    parts.append("and that the account is the right one" if parts else "that the account is right")
    return "; ".join([f"check {', '.join(parts)}", *looks_like_another(events)])


def looks_like_another(names: Iterable[str]) -> Iterator[str]:
    """Yield a clause on each name that may be another one than it seems to a reader."""
    for name in names:
        if (odd := _odd_character(name)) is not None:
            yield (
                f"{name!r} may be another name than it looks, because it has "
                f"{unicodedata.name(odd, 'a character')} (U+{ord(odd):04X}); compare it with the "
                f"name in the dashboard"
            )


_BLANKS = "\u00a0\u2000-\u200a\u202f\u205f"
_UNSEEN = f"{_BLANKS}\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3000\ufeff"

_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK")
"""Scripts with letters that look the same, as the names of their characters begin."""

_TWINS = frozenset(
    "ABCEHIJKMOPSTXYaceijopsxy"
    "АВСЕНІЈКМОРЅТХУасеіјорѕху"  # noqa: RUF001
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧον"  # noqa: RUF001
)
"""Letters of one of the scripts that look like one of another."""


def _odd_character(name: str) -> str | None:
    """Return a character that a reader takes for another one, or does not see; None if none is."""
    # Emoji, and scripts without upper case, are spelled with characters that are not seen.
    are_needed = any(unicodedata.category(one) in ("Lo", "So") for one in name)
    if match := re.search(f"[{_BLANKS if are_needed else _UNSEEN}]", name):
        return name[match.start()]
    composed = unicodedata.normalize("NFC", name)
    for number, (one, other) in enumerate(zip(name, composed, strict=False)):
        if one != other:
            # An e before its accent is as it should be.
            return name[number + 1] if unicodedata.is_normalized("NFC", one) else one
    for word in re.findall(r"[^\W\d_]+", name):
        parts: list[list[str]] = [
            [one for one in word if unicodedata.name(one, "").startswith(script)]
            for script in _SCRIPTS
        ]
        mixed = sorted(filter(None, parts), key=len)
        for letters in mixed if len(mixed) > 1 else ():
            # A letter without a twin shows of which script those beside it are.
            if _TWINS.issuperset(letters):
                return letters[0]
    return None


def nearest(given: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the one of `known` that `given` is likely to mean, case aside; None if there is none.

    Args:
        given: a name that is not known.
        known: the names.
        cutoff: the likeness that is asked for, from 0 to 1.
    """
    return next(iter(_near(given, known, cutoff)), None)


def meant(given: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return those of `known` that `given` is about equally likely to mean, as text; or None.

    Two letters that change places, and another letter in place of one, are equally likely.
    """
    return " or ".join(map(repr, _near(given, known, cutoff))) or None


def _near(given: str, known: Iterable[str], cutoff: float) -> list[str]:
    # Only errors need it, and its import takes time.
    from difflib import SequenceMatcher, get_close_matches

    by_fold = {name.strip().casefold(): name for name in known}
    text = given.strip().casefold()
    likeness = {
        one: SequenceMatcher(None, one, text).ratio()
        for one in get_close_matches(text, by_fold, n=max(len(by_fold), 1), cutoff=cutoff)
    }
    # A letter more or less is one step, too, although the likeness differs.
    least = max(likeness.values(), default=0.0) - 0.9 / max(len(text), 1)
    return [by_fold[one] for one, ratio in likeness.items() if ratio > least]


def one_of(known: Iterable[str], given: object) -> str:
    """Return the names of `known`, and of these the one that `given` is likely to mean."""
    # Only errors need it, and its import takes time.
    from difflib import get_close_matches

    names = list(known)
    text = given if isinstance(given, str) else ""
    close = get_close_matches(text.strip().lower(), names, n=1)
    return ", ".join(names) + (f" (did you mean {close[0]!r}?)" if close else "")


def sized(size: float) -> str:
    """Return a number of bytes in the largest unit that fits, such as `999 bytes` or `1.2 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
