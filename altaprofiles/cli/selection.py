"""The people that a command asks for: an event and its days, or everyone, and the filters."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict

import click

from .app import App
from .command import QUOTE_CONDITIONS
from .relative_days import RelativeDay, own_day
from .where import MOST_DIGITS, GrammarError, has_comma, is_operator, parse_filter

if TYPE_CHECKING:
    from ..wire.filters import Filter
    from .options import FilterOptions, QueryOptions

__all__ = [
    "Days",
    "FilterArguments",
    "check_each",
    "other_option",
    "own_days",
    "select",
    "select_filters",
]

_LARGEST_QUERY = 1 << 20
"""Largest size of the file of a query, in bytes."""


class FilterArguments(TypedDict):
    """Arguments of `Session.sync` that filter events."""

    event_properties: Sequence[Filter]
    profile_fields: Sequence[Filter]
    query: Mapping[str, Any] | None


class Days(TypedDict):
    """Arguments of `Session.export` and `Profiles.count` for the range."""

    start: date | int | None
    end: date | int | None


def own_days(options: QueryOptions, account: str | None) -> Days:
    """Return the library's arguments for --from and --to of an account; see `own_day`."""
    return {
        "start": own_day(options["start"], account),
        "end": own_day(options["end"], account),
    }


def select(events: Sequence[str], options: QueryOptions) -> FilterArguments:
    """Return the library's arguments for the values of the options of `query_options`.

    Those for the days depend on the account: see `own_days`.

    Raises:
        click.UsageError: options exclude each other, one is missing, or one cannot be read.
    """
    if options["everyone"]:
        _check_alone(events, options)
    elif not events:
        raise click.MissingParameter(
            "name an event, or pass --everyone", param_hint="'EVENT'", param_type="argument"
        )
    else:
        _check_unquoted(events, options)
        for hint, day in (("--from", options["start"]), ("--to", options["end"])):
            if day is None:
                raise click.MissingParameter(
                    "events need both days", param_hint=f"'{hint}'", param_type="option"
                )
        _check_each(options)
    filters = select_filters(events, options)
    content = filters["query"]
    if options["everyone"] and content is not None and not _has_condition(content):
        raise _no_query("it holds no condition, so that everybody would match; leave it out")
    return filters


def _check_each(options: QueryOptions) -> None:
    from ..wire.days import check_range

    days = options["start"], options["end"]
    check_each(days, lambda account: check_range(**own_days(options, account)))


def check_each(days: Iterable[object], check: Callable[[str], object]) -> None:
    """Raise `InvalidArgument` if the days of an account are not in order, before any is asked.

    Args:
        days: the values of options for days.
        check: raises it for the days of an account. It is called for each if they may differ.
    """
    from ..errors import InvalidArgument

    relative = (day for day in days if isinstance(day, RelativeDay))
    for account in next((day.days for day in relative), ()):
        try:
            check(account)
        except InvalidArgument as error:
            raise InvalidArgument(f"{error} (the days of {account})") from None


def select_filters(events: Sequence[str], options: FilterOptions | QueryOptions) -> FilterArguments:
    """Return the library's arguments for the values of the options of `filter_options`.

    Raises:
        click.UsageError: an option cannot be read.
    """
    _check_unquoted(events, options)
    content = None if options["query"] is None else _read_query(options["query"])
    return {
        "event_properties": _filters("--where", options["event_properties"]),
        "profile_fields": _filters("--profile-where", options["profile_fields"]),
        "query": content,
    }


def _has_condition(content: Mapping[str, Any]) -> bool:
    from ..errors import ConfigurationError
    from ..wire.language import Filters

    try:
        filters = Filters.of(query=content)
        filters.check_for_everyone()
    except ConfigurationError:
        # The library raises it again, with the place of the fault.
        return True
    return bool(filters)


def other_option(options: FilterOptions | QueryOptions) -> str | None:
    """Return advice on a query that matches nobody: the option for the other kind of property."""
    of_event, of_profile = bool(options["event_properties"]), bool(options["profile_fields"])
    if options.get("everyone") or of_event == of_profile:
        return None
    if of_event:
        return "--where is on properties of the event; those of the profile go to --profile-where"
    return "--profile-where is on the profile; properties of the event go to --where"


def _check_alone(events: Sequence[str], options: QueryOptions) -> None:
    excluded = {
        "EVENT": events,
        "--from": options["start"] is not None,
        "--to": options["end"] is not None,
    }
    if given := [name for name, value in excluded.items() if value]:
        raise click.UsageError(
            f"--everyone asks for people without an event: leave out {' and '.join(given)}, or "
            f"--everyone"
        )
    if options["event_properties"]:
        raise click.UsageError(
            "--where filters events, and --everyone has none: use --profile-where"
        )


def _check_unquoted(events: Sequence[str], options: FilterOptions | QueryOptions) -> None:
    """Raise `click.UsageError` if parts of a condition without quotation marks are events."""
    if (options["event_properties"] or options["profile_fields"]) and any(map(is_operator, events)):
        raise click.UsageError(QUOTE_CONDITIONS)


def _filters(option: str, texts: Sequence[str]) -> list[Filter]:
    filters: list[Filter] = []
    for number, text in enumerate(texts, 1):
        # The text may hold a person's data, such as an email address.
        place = f"number {number}: " if len(texts) > 1 else ""
        try:
            filters.append(parse_filter(text, of_events=option == "--where"))
            if has_comma(text):
                click.get_current_context().ensure_object(App).warn(
                    f"{option}: {place}the value is one text, with its commas; several values go "
                    f"into the file of --query, as a list; if one text is meant, write it as JSON "
                    f"text, in double quotation marks, and this warning stays away"
                )
        except GrammarError as error:
            raise click.BadParameter(f"{place}{error}", param_hint=option) from None
    return filters


def _read_query(name: str) -> dict[str, Any]:
    """Return the content of the file with this name, or of standard input ("-")."""
    label = "standard input" if name == "-" else name
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_LARGEST_QUERY + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_LARGEST_QUERY + 1)
    except OSError as error:
        raise _no_query(f"{label} cannot be read: {error.strerror}") from None
    if len(data) > _LARGEST_QUERY:
        raise _no_query(f"{label} has more than {_LARGEST_QUERY:,} bytes; is it the query?")
    try:
        content = json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=_object,
            parse_constant=_refuse_number,
            parse_int=_whole,
        )
    except UnicodeDecodeError as error:
        raise _no_query(
            f"{label} is not UTF-8, from byte {error.start + 1} on; save it as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _no_query(f"{label} is not JSON: {error.msg} in {place}") from None
    except RecursionError:
        raise _no_query(f"{label} is nested too deep") from None
    except ValueError as error:
        raise _no_query(f"{label} is not a query: {error}") from None
    if not isinstance(content, dict):
        raise _no_query(
            f"{label} holds no JSON object; write "
            '{"advanced_query": {"did_all": [{"event_name": "Charged"}]}}'
        )
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        # Only one of them would be sent.
        raise ValueError(f"it holds the member {repeated!r} twice in one object")
    return members


def _whole(digits: str) -> int:
    return int(digits) if len(digits) <= MOST_DIGITS else _refuse_number(f"{digits[:8]}…")


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"it holds the number {text}, which does not fit into a filter")


def _no_query(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="--query")
