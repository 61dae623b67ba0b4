"""Runs the command line on a terminal or in pipes, with an emulator."""

from __future__ import annotations

import os
import pty
import re
import selectors
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from anyio.from_thread import start_blocking_portal

from altaprofiles.emulator import Emulator

__all__ = ["COMMAND", "Done", "Terminal", "emulated", "environment", "longest", "run", "serving"]

COMMAND = [sys.executable, "-m", "altaprofiles"]

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


class Done(NamedTuple):
    """The result of a command: its exit code and output."""

    code: int
    stdout: bytes
    stderr: str


def longest(text: str) -> int:
    """Return the width of a text, in columns, on a terminal that is wide enough."""
    return max(len(line.rpartition("\r")[2]) for line in text.split("\n"))


def run(
    env: Mapping[str, str], *arguments: str, stdin: bytes = b"", cwd: Path | None = None
) -> Done:
    """Run a command with all streams piped."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        env=env,
        cwd=cwd,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


class Terminal:
    """A command on a pseudo-terminal.

    Args:
        env: the environment.
        arguments: the arguments after `altaprofiles`.
        columns: the width of the terminal.
        piped: the output streams that go into pipes instead.

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
    ) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, columns))
        streams = {
            name: subprocess.PIPE if name in piped else slave for name in ("stdout", "stderr")
        }
        # A session leader's first terminal becomes its own, which a password prompt needs.
        opening = ["sh", "-c", 'exec 3<>"$0" 3>&-; exec "$@"', os.ttyname(slave)]
        self.process = subprocess.Popen(
            [*opening, *command, *arguments],
            stdin=slave,
            stdout=streams["stdout"],
            stderr=streams["stderr"],
            env=env,
            start_new_session=True,
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

    def expect(self, words: str) -> None:
        """Wait until `words` appear after those expected before."""
        end = time.monotonic() + 30
        while (place := self.text.find(words, self._taken)) < 0:
            assert time.monotonic() < end, f"{words!r} did not appear in {self.text[-2000:]!r}"
            assert self._pump(), f"{words!r} is missing in {self.text[-2000:]!r}"
        self._taken = place + len(words)

    def type(self, line: str) -> None:
        """Type a line, and press Enter."""
        self.press(line + "\n")

    def press_ctrl_c(self) -> None:
        self.press("\x03")

    def press(self, keys: str) -> None:
        """Send the bytes of keys."""
        os.write(self._master, keys.encode(errors="surrogateescape"))

    @property
    def echoes(self) -> bool:
        """Whether typed text is echoed."""
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def ended(self) -> Done:
        """Wait for the end; return the exit code and the output of the pipes."""
        end = time.monotonic() + 60
        while self._pump():
            assert time.monotonic() < end, self.text[-2000:]
        code = self.process.wait(timeout=30)
        stdout, stderr = (
            b"" if pipe is None else self._outputs[pipe.fileno()]
            for pipe in (self.process.stdout, self.process.stderr)
        )
        return Done(code, stdout, stderr.decode())

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
    with subprocess.Popen(
        [*COMMAND, "emulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stderr.readline()
            lines = [process.stdout.readline() for _ in range(5)]
            yield process, dict(re.fullmatch(r"export (\w+)=(.*)\n", x).groups() for x in lines)  # type: ignore[union-attr, misc]
        finally:
            process.kill()
