"""Jobs that finish an unfinished export, with the arguments it was started with. Sends nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

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


def is_of_alta(unfinished: Unfinished) -> bool:
    """Return whether Alta is the service of an unfinished export."""
    plan = unfinished.plan
    return isinstance(plan, KeysPlan) and endpoint_of(plan.by).operation == CDP.operation


def finishing_job(
    engine: Engine,
    service: Service,
    unfinished: Unfinished,
    *,
    to: str | os.PathLike[str],
    spool: str | os.PathLike[str] | None,
    on_progress: Callable[[Any], object] | None,
) -> Job[Any, Any]:
    """Return the job that finishes an unfinished export.

    Args:
        engine: sends the requests.
        service: the service that it asks.
        unfinished: the export.
        to: its output. A URL needs its password again, because no journal holds one.
        spool: its folder, if it has been given one.
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
    output = Output(
        to=to,
        format=arguments.get("format"),
        table=arguments.get("table"),
        bom=arguments.get("bom", False),
        flatten=arguments.get("flatten", ()),
        write=arguments.get("write"),
        spool=spool,
    )
    if isinstance(plan, EventsPlan):
        reporting: Reporting[Any] = Reporting(service, "get_page", on_progress)
        events = EventsGathering(
            plan,
            Chains(engine.counting(reporting.tally), service),
            adopt=False,
            distinct=arguments.get("distinct", True),
            count=arguments.get("count", False),
            on_shortfall=arguments.get("on_shortfall", "error"),
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
