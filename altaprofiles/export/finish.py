"""Jobs that finish an unfinished export, with the arguments it was started with. Sends nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import ConfigurationError
from ..http.engine import Engine
from ..http.service import Service
from ..sources.chains import Chains
from ..sources.lookups import CDP, Lookups, endpoint_of
from .gather.chains import EventsGathering
from .gather.lookups import KeysGathering
from .job import Job
from .output import Output
from .plan import EventsPlan, KeysPlan
from .reporting import Reporting
from .tables import Content
from .unfinished import Unfinished

__all__ = ["finishing_job", "is_of_alta"]

_OF_OUTPUTS = ("format", "table", "bom", "flatten", "write")
_OF_EVENTS = {"distinct": True, "count": False, "on_shortfall": "error"}
"""The arguments of an export of events, with their defaults, for one of an earlier version."""


def is_of_alta(unfinished: Unfinished) -> bool:
    """Return whether Alta is the service of an unfinished export."""
    plan = unfinished.plan
    return isinstance(plan, KeysPlan) and endpoint_of(plan.by).operation == CDP.operation


def finishing_job(
    engine: Engine,
    service: Service,
    unfinished: Unfinished,
    output: Output,
    on_progress: Callable[[Any], object] | None,
) -> Job[Any, Any]:
    """Return the job that finishes an unfinished export.

    Args:
        engine: sends the requests.
        service: the service that it asks.
        unfinished: the export.
        output: the place of its output, and of its folder. No journal holds a password.
        on_progress: as for `Session.export`.

    Raises:
        ConfigurationError: it is one of another account, or cannot be read.
    """
    plan, arguments = unfinished.plan, unfinished.arguments
    if plan is None:
        raise ConfigurationError(f"{unfinished.path} cannot be finished: {unfinished.fault}")
    if (service.account, service.url) != (plan.account, plan.host):
        raise ConfigurationError(
            f"{unfinished.path} is an export of the account {plan.account!r} at {plan.host}, and "
            f"these credentials are of {service.account!r} at {service.url}; use those of the "
            f"other account"
        )
    given = {name: arguments[name] for name in _OF_OUTPUTS if name in arguments}
    output = msgspec.structs.replace(output, **given)
    if isinstance(plan, EventsPlan):
        reporting: Reporting[Any] = Reporting(service, "get_page", on_progress)
        events = EventsGathering(
            plan,
            Chains(engine.counting(reporting.tally), service),
            adopt=False,
            **{name: arguments.get(name, default) for name, default in _OF_EVENTS.items()},
        )
        return Job(events, output, reporting)
    endpoint = endpoint_of(plan.by)
    reporting = Reporting(service, endpoint.operation, on_progress)
    keys = KeysGathering(
        plan,
        Lookups(engine.counting(reporting.tally), service, endpoint),
        None,
        content=Content(of="bindings") if is_of_alta(unfinished) else Content(has_key=True),
        encode=endpoint.encode,
    )
    return Job(keys, output, reporting)
