"""Runs the command line on a terminal or in pipes, with an emulator."""

from __future__ import annotations

import json
import os
import pty
import re
import selectors
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from anyio.from_thread import start_blocking_portal

from altaprofiles.emulator import Emulator

from .forks import start, wait_until_stopped
from .servers import always, gated, http, scripted
from .tasks import PATIENCE

__all__ = [
    "COMMAND",
    "CONSOLE_SCRIPT",
    "LAST_STEP",
    "PAGES",
    "Done",
    "Terminal",
    "emulated",
    "environment",
    "held",
    "longest",
    "resuming_words",
    "run",
    "serving",
    "stopping",
    "unread",
]

COMMAND = [sys.executable, "-m", "altaprofiles"]

CONSOLE_SCRIPT = """
import shutil, sys
from altaprofiles.__main__ import main
sys.argv[0] = shutil.which("altaprofiles")
sys.exit(main())
"""
"""A program that does what `altaprofiles` does on the PATH, as pip installs it."""

PAGES = b"GET /1/profiles.json"
"""How requests for pages begin."""

_STOPPING = """
import runpy, signal, sys, threading

stopped = False

def hook(event, args):
    global stopped
    if stopped or event != {event!r} or {path!r} not in str(args[0]):
        return
    if all(other in args for other in {others!r}):
        stopped = True
        # To this thread, which could run on if another one took the signal.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

sys.addaudithook(hook)
runpy.run_module("altaprofiles", run_name="__main__", alter_sys=True)
"""

_OURS = re.compile(
    "CLEVERTAP_|ALTA_|ALTAPROFILES_|LC_|LANG|XDG_|PYTHON|NO_COLOR|COLUMNS|.*_proxy", re.IGNORECASE
)


def environment(home: Path, *others: Mapping[str, str], **more: str) -> dict[str, str]:
    """Return this process's environment without our command line's variables, plus `others`."""
    kept = {name: value for name, value in os.environ.items() if not _OURS.match(name)}
    kept |= {"HOME": str(home), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
    for other in others:
        kept |= other
    return kept | more


@contextmanager
def emulated(**options: Any) -> Iterator[Emulator]:
    """Run an emulator in its own thread."""
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(Emulator(**options)) as emulator:
            yield emulator


@contextmanager
def held(
    emulator: Emulator, target: bytes = PAGES, *, passing: int = 0, holding: int = 2
) -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """Hold requests on their way to an emulator, so that what waits for them cannot end too soon.

    Args:
        emulator: whom the requests are for.
        target: how the requests begin that are held.
        passing: how many of these pass before one is held.
        holding: how many are held; then all pass. Two leave one slot to other requests.

    Yields:
        The environment that leads to it, and what lets all requests pass from then on.
    """
    with start_blocking_portal() as portal:
        gate = gated(emulator.url, target, passing=passing, holding=holding)
        with portal.wrap_async_context_manager(gate) as (url, opened):
            urls = {"CLEVERTAP_BASE_URL": url, "ALTA_BASE_URL": url}
            yield emulator.environment | urls, partial(portal.call, opened.set)


@contextmanager
def refusing(words: str = "no") -> Iterator[str]:
    """Serve refusals of all requests, which are not retried; yield the base URL.

    Args:
        words: the service's own message.
    """
    body = json.dumps({"status": "fail", "error": words, "code": 3})
    refusal = http(body.encode(), "400 Bad Request")
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(scripted(always(refusal))) as server:
            yield server.url


def stopping(event: str, path: str, *others: object) -> list[str]:
    """Return a command that stops itself, by SIGSTOP, before it first does something with a file.

    Args:
        event: the audit event of Python that it stops at.
        path: a part of the path, the event's first argument.
        others: more of the event's arguments.
    """
    return [sys.executable, "-c", _STOPPING.format(event=event, path=path, others=others)]


LAST_STEP = stopping("os.remove", "ended-")
"""A command that stops itself as an append forgets that its rows are there."""


class Done(NamedTuple):
    """The result of a command: its exit code and output."""

    code: int
    stdout: bytes
    stderr: str


def longest(text: str) -> int:
    """Return the width of a text, in columns, on a terminal that is wide enough."""
    return max(len(line.rpartition("\r")[2]) for line in text.split("\n"))


def resuming_words(stderr: str) -> list[str]:
    """Return the words of the last command that is printed to resume, without its `cd`."""
    line = stderr.rpartition("To resume: ")[2].partition("\n")[0].strip()
    words = shlex.split(line)
    if "&&" not in words:
        return words
    *words, last = words[words.index("&&") + 1 :]
    return [*words, last.removesuffix(")")]


def run(
    env: Mapping[str, str], *arguments: str, stdin: bytes = b"", cwd: Path | None = None
) -> Done:
    """Run a command with all streams piped."""
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with start([*COMMAND, *arguments], env=env, cwd=cwd, **streams) as process:
        stdout, stderr = process.communicate(stdin, timeout=PATIENCE)
        return Done(process.wait(), stdout, stderr.decode(errors="replace"))


def unread(
    env: Mapping[str, str], *arguments: str, cwd: Path, streams: tuple[str, ...] = ("stdout",)
) -> tuple[int, str]:
    """Run a command whose output nobody reads any more; return its code and what stderr got.

    Args:
        streams: the streams whose reader has gone.
    """
    reading, writing = os.pipe()
    os.close(reading)
    pipes: dict[str, Any] = {"stderr": subprocess.PIPE, **dict.fromkeys(streams, writing)}
    with start([*COMMAND, *arguments], env=env, cwd=cwd, **pipes) as process:
        os.close(writing)
        _, stderr = process.communicate(timeout=PATIENCE)
        return process.returncode, (stderr or b"").decode()


class Terminal:
    """A command on a pseudo-terminal.

    Args:
        env: the environment.
        arguments: the arguments after `altaprofiles`.
        columns: the width of the terminal.
        piped: the output streams that go into pipes instead.
        cwd: the folder it starts in.

    Attributes:
        screen: everything written to the terminal, including colours and cursor movements.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        *arguments: str,
        columns: int = 80,
        piped: tuple[str, ...] = (),
        command: list[str] = COMMAND,
        cwd: Path | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, columns))
        streams = {
            name: subprocess.PIPE if name in piped else slave for name in ("stdout", "stderr")
        }
        self.process = start(
            [*command, *arguments], env=env, terminal=slave, cwd=cwd, stdin=slave, **streams
        )
        os.close(slave)
        self.screen = ""
        self._taken = 0
        self._outputs = {self._master: b""}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._master, selectors.EVENT_READ)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                self._outputs[pipe.fileno()] = b""
                self._selector.register(pipe.fileno(), selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._selector.close()
        os.close(self._master)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    @property
    def text(self) -> str:
        """`screen` without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.screen).replace("\r\n", "\n")

    def expect(self, words: str | re.Pattern[str]) -> None:
        """Wait until `words` appear, after those that were expected before."""
        pattern = re.compile(re.escape(words)) if isinstance(words, str) else words
        end = time.monotonic() + PATIENCE
        while (found := pattern.search(self.text, self._taken)) is None:
            assert time.monotonic() < end, f"{words!r} did not appear in {self.text[-2000:]!r}"
            assert self._pump(), f"{words!r} is missing in {self.text[-2000:]!r}"
        self._taken = found.end()

    def type(self, line: str) -> None:
        """Type a line, and press Enter."""
        self.press(line + "\n")

    def press_ctrl_c(self) -> None:
        """Press Ctrl-C. Where it is echoed, its signal has been sent when this returns.

        The system sends the signal some time after the key was written, and echoes the key after
        that. A command that is let go on in between would end first.
        """
        echoes, before = self.echoes, self.text.count("^C")
        self.press("\x03")
        end = time.monotonic() + PATIENCE
        while echoes and self.text.count("^C") == before:
            assert time.monotonic() < end, self.text[-2000:]
            assert self._pump(), self.text[-2000:]

    def press(self, keys: str) -> None:
        """Send the bytes of keys."""
        os.write(self._master, keys.encode(errors="surrogateescape"))

    @property
    def echoes(self) -> bool:
        """Whether typed text is echoed."""
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def ended(self) -> Done:
        """Wait for the end; return the exit code and what the pipes have got."""
        end = time.monotonic() + PATIENCE
        while self._pump():
            assert time.monotonic() < end, self.text[-2000:]
        code = self.process.wait(timeout=PATIENCE)
        stdout, stderr = (
            b"" if pipe is None else self._outputs[pipe.fileno()]
            for pipe in (self.process.stdout, self.process.stderr)
        )
        return Done(code, stdout, stderr.decode())

    def stopped(self) -> None:
        """Wait until a command that is `stopping` has stopped."""
        end = time.monotonic() + PATIENCE
        while not wait_until_stopped(self.process, 0):
            assert time.monotonic() < end, f"it did not stop: {self.text[-2000:]!r}"
            assert self._pump(), f"it did not stop: {self.text[-2000:]!r}"

    def close(self) -> int:
        """Close the terminal, and return the exit code of the command, which gets SIGHUP."""
        if self._master in self._selector.get_map():
            self._selector.unregister(self._master)
        os.close(self._master)
        self._master = os.open(os.devnull, os.O_RDONLY)
        return self.process.wait(timeout=PATIENCE)

    def interrupt(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def _pump(self) -> bool:
        """Read the available output; return whether more can follow."""
        for key, _ in self._selector.select(timeout=0.2):
            try:
                got = os.read(key.fd, 65536)
            except OSError:
                got = b""  # Linux raises this when no process has the terminal open
            if not got:
                self._selector.unregister(key.fd)
            self._outputs[key.fd] += got
        self.screen = self._outputs[self._master].decode(errors="replace")
        return bool(self._selector.get_map())


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run `altaprofiles emulator`; yield the process and the variables it printed."""
    streams = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    env = os.environ | {"LC_ALL": "C.UTF-8"}
    with start([*COMMAND, "emulator", *arguments], env=env, **streams, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stderr.readline()
            lines = [process.stdout.readline() for _ in range(5)]
            yield process, dict(re.fullmatch(r"export (\w+)=(.*)\n", x).groups() for x in lines)  # type: ignore[union-attr, misc]
        finally:
            process.kill()
