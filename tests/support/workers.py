"""Worker processes that share an account: started by fork, so that many can come and go.

Run as a module, it reads a worker's options from each line of its input and forks one.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import anyio

from altaprofiles import Alta, CleverTap, Retry, Session
from altaprofiles.emulator import Emulator

from .tasks import PATIENCE

__all__ = ["Workers", "work", "workers"]

_ROOT = Path(__file__).parents[2]


class Workers:
    """The workers of one account at an emulator.

    Args:
        process: the process that forks them.
        options: those of every worker.
    """

    def __init__(self, process: subprocess.Popen[bytes], options: dict[str, Any]) -> None:
        self._process = process
        self._options = options
        self.pids: list[int] = []

    def start(self, **options: Any) -> int:
        """Start a worker; return its process ID once its session is open."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**self._options, **options}).encode() + b"\n")
        pid: int = self._line()["open"]
        self.pids.append(pid)
        return pid

    def forked(self) -> int:
        """Return the process ID of the child of a worker that `forks`, once its session is open."""
        pid: int = self._line()["open"]
        self.pids.append(pid)
        return pid

    def kill(self, pid: int) -> None:
        """Kill a worker by SIGKILL."""
        self.pids.remove(pid)
        os.kill(pid, signal.SIGKILL)

    def stop(self, pid: int) -> dict[str, Any]:
        """Let a worker end; return its counts."""
        self.pids.remove(pid)
        os.kill(pid, signal.SIGTERM)
        return self._line()

    def stop_all(self) -> list[dict[str, Any]]:
        """Let all workers end at once; return their counts."""
        pids, self.pids = self.pids, []
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        counts = {one["pid"]: one for one in (self._line() for _ in pids)}
        return [counts[pid] for pid in pids]

    def _line(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        # A line is written in one piece, and each is awaited by itself.
        assert select.select([stdout], [], [], PATIENCE)[0], "the worker hangs"
        line = stdout.readline()
        assert line, "the worker has ended"
        found: dict[str, Any] = json.loads(line)
        assert "error" not in found, found
        return found


@contextmanager
def workers(emulator: Emulator, shared: Path, **options: Any) -> Iterator[Workers]:
    """Yield the workers of the emulator's account, none at first.

    Args:
        emulator: the emulator.
        shared: the folder that they share.
        options: those of `work`.
    """
    credentials = {
        "url": emulator.url,
        "account_id": emulator.clevertap.account_id,
        "passcode": emulator.clevertap.passcode,
        "token": emulator.alta.token,
        "shared": str(shared),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        cwd=_ROOT,
        start_new_session=True,
    )
    try:
        with process:
            try:
                yield Workers(process, {**credentials, **options})
            finally:
                os.killpg(process.pid, signal.SIGKILL)
    finally:
        process.wait()


async def work(
    *,
    url: str,
    account_id: str,
    passcode: str,
    token: str,
    shared: str,
    most: Any = 3,
    api: str = "profiles",
    callers: int = 4,
    bulk: bool = False,
    keys: int = 0,
    per_minute: int | None = None,
    user: int | None = None,
    group: int = 0,
    forks: bool = False,
) -> None:
    """Look people up until SIGTERM, and print how many.

    Args:
        url, account_id, passcode, token: the account.
        shared: the folder.
        most: `max_in_flight`.
        api: "profiles" or "cdp".
        callers: single calls at once.
        bulk: whether there is one bulk lookup in place of single calls.
        keys: lookups that it makes even after SIGTERM; 0 for any number until then.
        per_minute: `requests_per_minute`.
        user, group: the user and the group that it runs as.
        forks: whether it forks a child, which does the same, with its own requests in flight.
    """
    options = {**locals(), "forks": False}
    session = Session(
        clevertap=CleverTap(account_id, passcode, base_url=url, max_in_flight=most, shared=shared),
        alta=Alta(token, url, max_in_flight=most, requests_per_minute=per_minute, shared=shared),
        retry=Retry(base_delay=0.001, max_delay=0.05),
    )
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    done = 0
    numbers = count()

    async def call() -> None:
        nonlocal done
        for number in numbers:
            if keys and number >= keys:
                return
            key = f"user_{number % 90}"
            if api == "cdp":
                await session.cdp.get(user_id=key)
            else:
                await session.profiles.get(identity=key)
            done += 1

    async def look_up() -> None:
        nonlocal done
        names = (f"user_{number % 90}" for number in (range(keys) if keys else numbers))
        lookups: Any = (
            session.cdp.get_many(names, by="user_id")
            if api == "cdp"
            else session.profiles.get_many(names, by="identity")
        )
        async for lookup in lookups:
            done += lookup.error is None

    if user is not None:
        # Imports its modules, which that user may not be able to read.
        await anyio.to_thread.run_sync(int)
        async with anyio.create_task_group():
            pass
        os.setgroups([group])
        os.setgid(user)
        os.setuid(user)
    async with session:
        _print({"open": os.getpid()})
        tasks = [
            asyncio.create_task(look_up() if bulk else call())
            for _ in range(1 if bulk else callers)
        ]
        while forks and done < 10:
            await asyncio.sleep(0.001)
        if forks and os.fork() == 0:
            _run(options)
        await _until(stopped)
        for task in tasks:
            if not keys:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    counts = {"pid": os.getpid(), "done": done, "throttles": session.stats.throttles}
    errors = [repr(one) for one in results if isinstance(one, Exception)]
    _print({"error": errors[0]} if errors else counts)


async def _until(stopped: asyncio.Event) -> None:
    """Wait for the event, or end the process if that of the test has ended without a word."""
    poll = select.poll()
    # Without events, it tells of the end of the input alone, whose lines are for another process.
    poll.register(0, 0)
    while not stopped.is_set():
        if poll.poll(0):
            os._exit(1)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), 1)


def _run(options: dict[str, Any]) -> NoReturn:
    """Work as a forked process, and end it."""
    try:
        asyncio.run(work(**options))
    except BaseException as error:
        _print({"error": repr(error)})
    finally:
        os._exit(0)


def _print(line: dict[str, Any]) -> None:
    # In one piece, because several workers share the pipe.
    os.write(1, json.dumps(line).encode() + b"\n")


def main() -> None:
    # Children are reaped by the system.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:
            _run(json.loads(line))


if __name__ == "__main__":
    main()
