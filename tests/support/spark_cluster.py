"""A standalone cluster of Spark on this machine, each of whose workers has an address of its own.

Spark takes them for two machines. It never runs a speculative copy of a task on the same one.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from .tasks import PATIENCE

__all__ = ["cluster"]

_HOSTS = ("127.0.0.2", "127.0.0.3")


@asynccontextmanager
async def cluster(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[str]:
    """Run a master and two workers of two cores, and yield the master's URL.

    Args:
        folder: for the files of the workers.
        environment: that of the workers, which executors inherit.
    """
    async with AsyncExitStack() as stack:

        async def start(kind: str, *arguments: str, until: str) -> re.Match[str]:
            running = _daemon(kind, *arguments, environment=environment, until=until)
            return await stack.enter_async_context(running)

        found = await start(
            "master.Master", "--host", "127.0.0.1", until=r"spark://127\.0\.0\.1:\d+"
        )
        for host in _HOSTS:
            size = ("--cores", "2", "--memory", "512m", "--work-dir", str(folder / host))
            await start("worker.Worker", "--host", host, *size, found[0], until="registered with")
        yield found[0]


@asynccontextmanager
async def _daemon(
    kind: str, *arguments: str, environment: Mapping[str, str], until: str
) -> AsyncIterator[re.Match[str]]:
    """Run a daemon of Spark, and yield what it logs when it is ready."""
    import pyspark

    home = Path(pyspark.__file__).parent
    process = await asyncio.create_subprocess_exec(
        str(home / "bin" / "spark-class"),
        f"org.apache.spark.deploy.{kind}",
        *("--port", "0", "--webui-port", "0", *arguments),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment, "SPARK_HOME": str(home), "SPARK_DAEMON_MEMORY": "256m"},
    )
    assert process.stderr is not None
    log = process.stderr
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := re.search(until, line := (await log.readline()).decode())):
                assert line, f"{kind} has ended"
        # What nobody reads would fill the pipe, and hold the daemon up.
        reading = asyncio.create_task(log.read())
        yield found
    finally:
        process.terminate()
        await process.wait()
    await reading
