"""Jobs that finish an unfinished export, with the arguments it was started with. Sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..base.zones import is_to_come, latest_day
from ..errors import ConfigurationError, MissingCredentials
from ..http.engine import Engine
from ..http.service import Service
from ..sources.chains import Chains
from ..sources.lookups import CDP, Lookups, endpoint_of
from .gather.chains import EventsGathering
from .gather.joined import with_joins
from .gather.joins import Join, Joins
from .gather.lookups import KeysGathering
from .job import Job
from .output import Output
from .part import Part
from .plan import EventsPlan, KeysPlan, Plan
from .reporting import Reporting
from .sinks.postgres_url import SCHEMES, parse
from .synced import days_of
from .tables import Content
from .unfinished import Unfinished, is_confirmed

__all__ = ["check_finishable", "finishing_job", "is_joined", "is_of_alta"]

_OF_OUTPUTS = ("format", "table", "bom", "flatten", "write", "sync")
_OF_EVENTS = {"distinct": True, "count": False, "on_shortfall": "error"}
"""The arguments of an export of events, with their defaults, for one of an earlier version."""


def is_of_alta(unfinished: Unfinished) -> bool:
    """Return whether Alta is the service of an unfinished export."""
    plan = unfinished.plan
    return isinstance(plan, KeysPlan) and endpoint_of(plan.by).operation == CDP.operation


def is_joined(unfinished: Unfinished) -> bool:
    """Return whether Alta is asked as well, for the CDP users of people."""
    return unfinished.plan is not None and unfinished.plan.with_cdp


def check_finishable(unfinished: Unfinished) -> Plan:
    """Return the plan of an unfinished export that can be finished by itself.

    Raises:
        ConfigurationError: it is one of an earlier version or a part of another one, or cannot be
            read.
    """
    if unfinished.plan is None:
        raise ConfigurationError(f"{unfinished.path} cannot be finished: {unfinished.fault}")
    if (obstacle := unfinished.obstacle) is not None:
        command = "" if unfinished.command is None else f": {unfinished.command}"
        raise ConfigurationError(f"{unfinished.path} {obstacle}{command}")
    return unfinished.plan


def finishing_job(
    engine: Engine,
    service: Service,
    alta: Callable[[], Service],
    unfinished: Unfinished,
    output: Output,
    on_progress: Callable[[Any], object] | None,
) -> Job[Any, Any]:
    """Return the job that finishes an unfinished export.

    Args:
        engine: sends the requests.
        service: the service that it asks.
        alta: returns Alta, for an export that is joined.
        unfinished: the export.
        output: the place of its output, and of its folder. No journal holds a password.
        on_progress: as for `Session.export`.

    Raises:
        ConfigurationError: it is one of another account or of an earlier version, cannot be read,
            or is joined and there are no credentials for Alta.
    """
    plan, arguments = check_finishable(unfinished), unfinished.arguments
    _check_account(unfinished, service, plan.account, plan.host)
    if "sync" in arguments and isinstance(plan, EventsPlan):
        _check_over(unfinished, plan)
    join = _join_of(unfinished, plan, alta)
    given = {name: arguments[name] for name in _OF_OUTPUTS if name in arguments}
    output = msgspec.structs.replace(output, **given | {"table": _table_of(output, arguments)})
    operation = "get_page" if isinstance(plan, EventsPlan) else endpoint_of(plan.by).operation
    calls = [(service, operation), *(() if join is None else (join.call,))]
    reporting: Reporting[Any] = Reporting(calls, on_progress)
    engine = reporting.counting(engine)
    joins = None if join is None else Joins(join, engine)
    on_records = None if joins is None else joins.queue
    if isinstance(plan, EventsPlan):
        events = EventsGathering(
            plan,
            Chains(engine, service),
            adopt=False,
            on_records=on_records,
            **{name: arguments.get(name, default) for name, default in _OF_EVENTS.items()},
        )
        people = Part(with_joins(events, joins), reporting, before=arguments)
        return Job([people], output, unfinished)
    endpoint = endpoint_of(plan.by)
    keys = KeysGathering(
        plan,
        Lookups(engine, service, endpoint),
        None,
        content=Content(of="bindings") if is_of_alta(unfinished) else Content(has_key=True),
        encode=endpoint.encode,
        on_records=on_records,
    )
    found = Part(with_joins(keys, joins), reporting, before=arguments)
    return Job([found], output, unfinished)


def _table_of(output: Output, arguments: Mapping[str, Any]) -> str | None:
    """Return the table of an unfinished export, or None if the URL of the output names one.

    The URL that the export was given may have named it, whatever this one does.
    """
    table: str | None = arguments.get("table")
    if (to := str(output.to)).partition("://")[0].lower() not in SCHEMES:
        return table
    if parse(to).table is not None:
        return None
    return table or parse(arguments.get("to", to)).table


def _check_over(unfinished: Unfinished, plan: EventsPlan) -> None:
    """Raise `ConfigurationError` if a sync's days may not have been over when it was begun."""
    is_begun = unfinished.began is None or not is_to_come(unfinished.began)
    # Wherever the project is.
    if (is_begun or is_confirmed(unfinished)) and days_of(plan)[1] < latest_day():
        return
    raise ConfigurationError(
        f"{unfinished.path} was begun by a clock that was ahead, or the clock of this machine is "
        f"behind; set the clock, and run the sync, which begins it anew"
    )


def _join_of(unfinished: Unfinished, plan: Plan, alta: Callable[[], Service]) -> Join | None:
    if not plan.with_cdp:
        return None
    try:
        service = alta()
    except MissingCredentials as error:
        raise MissingCredentials(
            f"{unfinished.path} is an export joined with CDP users, and {error}"
        ) from None
    _check_account(unfinished, service, plan.cdp_account, plan.cdp_host)
    return Join(plan.cdp_key, plan.cdp_by, service)


def _check_account(
    unfinished: Unfinished, service: Service, account: str | None, host: str | None
) -> None:
    if (service.account, service.url) != (account, host):
        raise ConfigurationError(
            f"{unfinished.path} is an export of the account {account!r} at {host}, and "
            f"these credentials are of {service.account!r} at {service.url}; use those of the "
            f"other account"
        )
