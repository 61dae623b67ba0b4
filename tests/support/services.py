"""Servers of web services in processes of their own, and clients that leave."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

from .tasks import PATIENCE
from .waiting import wait_until

__all__ = ["Answer", "Served", "ask", "served"]


class Answer(NamedTuple):
    """An answer of a service."""

    status: int
    body: Any
    headers: Message


class Served:
    """A service that runs.

    Attributes:
        port: its port on 127.0.0.1.
        output: the lines that it has printed so far.
        process: its process.
    """

    def __init__(self, process: subprocess.Popen[str], output: list[str], port: int) -> None:
        self.process = process
        self.output = output
        self.port = port

    def ask(self, path: str, method: str = "GET") -> Answer:
        """Return the answer to a request."""
        return ask(f"http://127.0.0.1:{self.port}{path}", method)

    @contextmanager
    def asking(self, path: str) -> Iterator[socket.socket]:
        """Send a request, and leave at the end of the block without waiting for its answer."""
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            yield client

    def stop(self) -> int:
        """Send SIGTERM, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def ask(url: str, method: str = "GET") -> Answer:
    """Return the answer to a request, whatever its status."""
    request = urllib.request.Request(url, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310
            return Answer(response.status, json.load(response), response.headers)
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        body = json.loads(text) if text.startswith("{") else text
        return Answer(error.code, body, error.headers)


def _listens(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@contextmanager
def served(
    command: list[str], folder: Path, env: Mapping[str, str], starts: int = 1
) -> Iterator[Served]:
    """Run a service until the block ends.

    Args:
        command: its arguments to Python. It prints its URL.
        folder: its current folder.
        env: its environment.
        starts: number of lines with "startup complete" to wait for, or 0.
    """
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        # On a busy machine a worker may be silent for longer than the five seconds of uvicorn.
        env={**env, "UVICORN_TIMEOUT_WORKER_HEALTHCHECK": "600"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    output: list[str] = []
    ports: list[int] = []
    ready = threading.Event()

    def read(lines: Iterator[str]) -> None:
        for line in lines:
            output.append(line)
            ports.extend(int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", line))
            if ports and sum("startup complete" in line for line in output) >= starts:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, args=(process.stdout,))
    reader.start()
    try:
        assert ready.wait(PATIENCE)
        assert ports, "".join(output)
        # Workers say that they have started before they listen.
        wait_until(lambda: _listens(ports[0]))
        yield Served(process, output, ports[0])
    finally:
        # Its workers as well, should they outlive it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()
        process.stdout.close()
