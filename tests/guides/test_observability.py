"""The recipes for metrics run with several accounts and under several workers."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from altaprofiles.emulator import Emulator

from ..support.guides import function_of, write_programs
from ..support.services import served
from ..support.terminals import emulated, environment
from ..support.waiting import wait_until

GUIDE = "observability.md"

LOOK_UP = """
import asyncio

from measured import app


@app.get("/cut-off")
async def cut_off() -> None:
    session = app.state.session
    before = session.stats.requests
    call = asyncio.ensure_future(session.profiles.get(identity="nobody"))
    while session.stats.requests == before:
        await asyncio.sleep(0)
    call.cancel()


@app.get("/people/{identity}")
async def person(identity: str) -> bool:
    return await app.state.session.profiles.get(identity=identity) is not None
"""


@pytest.mark.anyio
async def test_metrics_are_told_apart_by_account() -> None:
    measured = function_of(GUIDE, "measured")
    counts, instances = {}, set()
    async with Emulator(people=5) as emulator:
        for account, requests in (("shop", 1), ("outlet", 2)):
            reader = InMemoryMetricReader()
            async with measured(account, emulator.clevertap, reader) as session:
                for _ in range(requests):
                    await session.profiles.get(identity="nobody")
                data = reader.get_metrics_data()
            assert data is not None
            (resource,) = data.resource_metrics
            (durations,) = (
                metric
                for metric in resource.scope_metrics[0].metrics
                if metric.name == "http.client.request.duration"
            )
            counts[resource.resource.attributes["account"]] = [
                getattr(point, "count", None) for point in durations.data.data_points
            ]
            instances.add(resource.resource.attributes["service.instance.id"])
    assert counts == {"shop": [1], "outlet": [2]}
    assert len(instances) == 2


def test_two_workers_serve_the_sums_of_both(tmp_path: Path) -> None:
    write_programs(GUIDE, tmp_path)
    (tmp_path / "looking.py").write_text(LOOK_UP)
    counters = tmp_path / "counters"
    counters.mkdir()
    command = ["-m", "uvicorn", "looking:app", "--port", "0", "--workers", "2"]
    with emulated(people=5) as emulator:
        env = environment(tmp_path, emulator.environment, PROMETHEUS_MULTIPROC_DIR=str(counters))
        with served(command, tmp_path, env, starts=2) as service:

            def both_have_asked() -> bool:
                service.ask("/people/nobody")
                return len([*counters.glob("counter_*.db")]) == 2

            wait_until(both_have_asked)
            asked = emulator.stats.requests["profile"]
            service.ask("/cut-off")
            for _ in range(8):
                with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/metrics") as answer:
                    text = answer.read().decode()
                (total,) = re.findall(
                    r'^altaprofiles_requests_total\{account="shop",result="success",'
                    r'service="CleverTap"\} (\S+)$',
                    text,
                    re.MULTILINE,
                )
                assert float(total) == asked
                (sent,) = re.findall(
                    r'^altaprofiles_sent_total\{account="shop"\} (\S+)$', text, re.MULTILINE
                )
                assert float(sent) == asked + 1
