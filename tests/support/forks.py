"""Python processes that start in milliseconds: forks of one that has done the imports before.

As a script, this module is that process. `start` asks it for a fork, which runs a module or a
program as a new interpreter would, and ends as one.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import marshal
import os
import pkgutil
import re
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

__all__ = ["start", "wait_until_stopped", "write_program"]

_LOCALE = "C.UTF-8"
"""The locale of all forks: an interpreter chooses the encoding of its streams when it starts."""

_HARMLESS = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
"""Variables of many containers, which change nothing that a test looks at."""

_READ = re.compile("LANG|LC_|SSL_CERT_")
"""Variables that an interpreter, or its imports, read when they start."""

_HANDING = Path(__file__).with_name("handing.py")

_LENGTH = 16
"""Bytes of each message about a fork: its id, then a signal that stops it, then its exit code."""

_STOPPED = "stopped"

_USED = (
    "aiohttp",
    "anyio._backends._asyncio",
    "click.shell_completion",
    "duckdb",
    "isal.isal_zlib",
    "psycopg",
    "pyarrow.compute",
    "pyarrow.parquet",
    "rich.console",
    "rich.live",
    "rich.progress",
    "rich.table",
    "uvloop",
)
"""Modules that commands import when they need them."""


# --------------------------------------------------------------------------- in the test's process


def start(
    command: list[str], *, env: Mapping[str, str], terminal: int | None = None, **options: Any
) -> subprocess.Popen[Any]:
    """Start Python: as a fork, unless the environment is for another kind of interpreter.

    Args:
        command: the interpreter, then `-m` or `-c`, and the rest.
        env: the environment.
        terminal: a terminal that becomes the command's own, as a password prompt needs it.
        options: more of `Popen`.
    """
    options |= {"env": env, "start_new_session": terminal is not None}
    if sys.platform != "win32" and not _is_read_at_start(env):
        return _Forked(command, **options)
    if terminal is not None:
        # A session leader's first terminal becomes its own.
        opening = ["sh", "-c", 'exec 3<>"$0" 3>&-; exec "$@"', os.ttyname(terminal)]
        return subprocess.Popen([*opening, *command], **options)
    return subprocess.Popen(command, **options)


def _is_read_at_start(env: Mapping[str, str]) -> bool:
    """Return whether an environment changes what an interpreter and its imports begin with."""
    return (
        env.get("LC_ALL") != _LOCALE
        or any(name.startswith("PYTHON") for name in {*env} - _HARMLESS)
        # aiohttp reads certificates when it is imported.
        or any(env.get(name) != os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    )


def write_program(path: Path, *arguments: str, env: Mapping[str, str]) -> None:
    """Write a program for shells, which runs Python as a fork.

    Signals reach the fork, but none that cannot be caught.

    Args:
        path: its file.
        arguments: those of Python that stand before the program's own: `-m` or `-c`, and the rest.
        env: the environment of whoever runs it.
    """
    assert not any(name.startswith("PYTHON") for name in {*env} - _HARMLESS)
    read = frozenset((name, value) for name, value in env.items() if _READ.match(name))
    words = [sys.executable, "-ISE", str(_HANDING), _server(read).place, *arguments]
    path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    path.chmod(0o755)


def wait_until_stopped(process: subprocess.Popen[Any], timeout: float | None = None) -> bool:
    """Wait until a process that `start` has started stops itself; return False if it takes longer.

    Args:
        process: the process.
        timeout: seconds.
    """
    assert isinstance(process, _Forked)
    return process.stops(timeout)


_REQUESTING = threading.Lock()


class _Forked(subprocess.Popen[Any]):
    """A fork, with all that a `Popen` can do."""

    def _execute_child(self, args: list[str], *others: Any) -> None:
        cwd, env = others[4:6]
        pipes = others[9:15]
        ends = (pipes[0], pipes[3], pipes[5])
        streams = [number if end == -1 else end for number, end in enumerate(ends)]
        self._stopped = False
        self._status, theirs = socket.socketpair()
        request = _Request(args[1:], dict(env), str(cwd or Path.cwd()), others[-2])
        body = marshal.dumps(tuple(request))
        # Requests of several threads must not be mixed.
        with theirs, _REQUESTING:
            server = _server(_usual()).requests
            socket.send_fds(server, [b"%8d" % len(body)], [*streams, theirs.fileno()])
            server.sendall(body)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
        self._child_created = True
        self.pid = int(self._hear(None) or 0)

    def _hear(self, timeout: float | None) -> str | None:
        """Return the next message about the fork, or None if there is none in so many seconds."""
        self._status.settimeout(timeout)
        try:
            heard = self._status.recv(_LENGTH)
        except (TimeoutError, BlockingIOError):
            return None
        assert heard, "the process that forks is gone"
        return heard.decode().strip()

    def _heed(self, timeout: float | None) -> bool:
        """Take in the next message about the fork; return False if there is none in time."""
        heard = self._hear(timeout)
        if heard == _STOPPED:
            self._stopped = True
        elif heard is not None:
            self.returncode = int(heard)
            # The server reaps it now, and its id can be another's.
            self._status.close()
        return heard is not None

    def poll(self) -> int | None:
        while self.returncode is None and self._heed(0):
            pass
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            if not self._heed(None if end is None else max(0, end - time.monotonic())):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def stops(self, timeout: float | None) -> bool:
        if not self._stopped and self.returncode is None:
            self._heed(timeout)
        assert self.returncode is None, "it has ended"
        return self._stopped

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        return self.returncode


class _Started(NamedTuple):
    """A server of this process, which ends when the first socket is closed.

    Attributes:
        requests: a socket for requests.
        place: the address of its socket for programs.
    """

    requests: socket.socket
    place: str


def _usual() -> frozenset[tuple[str, str]]:
    read = {name: value for name, value in os.environ.items() if _READ.match(name)}
    return frozenset((read | {"LC_ALL": _LOCALE}).items())


@cache
def _server(read: frozenset[tuple[str, str]]) -> _Started:
    """Return this process's server whose interpreter has read these variables."""
    ours, theirs = socket.socketpair()
    folder = tempfile.mkdtemp(prefix="altaprofiles-")
    place = f"{folder}/socket"
    left_out = re.compile(f"PYTHON|{_READ.pattern}")
    kept = {name: value for name, value in os.environ.items() if not left_out.match(name)}
    with theirs, socket.socket(socket.AF_UNIX) as programs:
        programs.bind(place)
        programs.listen(64)
        files = [theirs.fileno(), programs.fileno()]
        server = subprocess.Popen(
            [sys.executable, __file__, *map(str, files)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=kept | dict(read),
            cwd=Path(__file__).parent,
            pass_fds=files,
        )

    @atexit.register
    def end() -> None:
        ours.close()
        server.wait()
        shutil.rmtree(folder)

    return _Started(ours, place)


# ------------------------------------------------------------------------ in the process that forks


class _Request(NamedTuple):
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    owning: bool


class _Server:
    """Forks for each request, until the socket is closed.

    A fork that has ended is reaped when the other end of its socket is closed, so that its id is
    not another's while a test may send signals.
    """

    def __init__(self, requests: socket.socket, programs: socket.socket) -> None:
        self._requests = requests
        self._programs = programs
        self._selector = selectors.DefaultSelector()
        self._told: dict[int, socket.socket] = {}
        self._woken, self._waking = socket.socketpair()
        self._waking.setblocking(False)
        signal.set_wakeup_fd(self._waking.fileno())
        # Not ignored, or else nothing would be written.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Ctrl-C is for the tests, and for forks.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._selector.register(requests, selectors.EVENT_READ)
        self._selector.register(programs, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def next(self) -> _Request | None:
        """Return in a fork, with the request for it; or at the end, with None."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._reap(key.data)
                elif key.fileobj is self._woken:
                    self._woken.recv(4096)
                    self._tell()
                elif (request := self._asked(key.fileobj is self._programs)) is not None:
                    return request
                elif self._requests.fileno() == -1:
                    return None

    def _asked(self, by_program: bool) -> _Request | None:
        """Fork for a request, and return it in the fork."""
        if not by_program:
            head, files, _, _ = socket.recv_fds(self._requests, 8, 4)
            if not head:
                self._requests.close()
                return None
            *streams, status = files
            return self._fork(int(head), self._requests, streams, status)
        program, _ = self._programs.accept()
        head, streams, _, _ = socket.recv_fds(program, 8, 3)
        with program:
            return self._fork(int(head), program, streams, os.dup(program.fileno()))

    def _fork(
        self, length: int, source: socket.socket, streams: list[int], status: int
    ) -> _Request | None:
        body = bytearray()
        while len(body) < length:
            body += source.recv(length - len(body))
        pid = os.fork()
        if pid == 0:
            self._leave()
            os.close(status)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return _Request(*marshal.loads(body))  # noqa: S302
        for stream in streams:
            os.close(stream)
        self._told[pid] = told = socket.socket(fileno=status)
        self._selector.register(told, selectors.EVENT_READ, pid)
        _send(told, pid)
        return None

    def _leave(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._selector.close()
        ends = (self._requests, self._programs, self._woken, self._waking)
        for end in (*ends, *self._told.values()):
            end.close()

    def _tell(self) -> None:
        """Tell of each fork that has stopped or ended."""
        options = os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        for pid, told in self._told.items():
            if (seen := os.waitid(os.P_PID, pid, options)) is None:
                continue
            if seen.si_code == os.CLD_STOPPED:
                os.waitid(os.P_PID, pid, os.WSTOPPED)
                _send(told, _STOPPED)
            else:
                killed = seen.si_code != os.CLD_EXITED
                _send(told, -seen.si_status if killed else seen.si_status)

    def _reap(self, pid: int) -> None:
        told = self._told.pop(pid)
        self._selector.unregister(told)
        told.close()
        # A fork that nobody waits for any more goes on by itself.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def _send(told: socket.socket, message: object) -> None:
    # The test has gone on without it.
    with suppress(BrokenPipeError):
        told.send(str(message).encode().ljust(_LENGTH))


def _become(request: _Request) -> None:
    """Make this process what an interpreter with these arguments is when it has started."""
    if request.owning:
        os.setsid()
        # A session leader's first terminal becomes its own.
        os.close(os.open(os.ttyname(0), os.O_RDWR))
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    time.tzset()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, f"__{name}__")
        stream = open(  # noqa: SIM115
            number,
            "w" if number else "r",
            buffering=1 if number == 2 or os.isatty(number) else -1,
            encoding=before.encoding,
            errors=before.errors,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = request.arguments
    sys.path[0] = "" if request.arguments[0] == "-c" else request.folder


def _main(requests: int, programs: int) -> None:
    import altaprofiles

    for found in pkgutil.walk_packages(altaprofiles.__path__, "altaprofiles."):
        if found.name.rpartition(".")[2] not in ("__main__", "pytest_plugin"):
            importlib.import_module(found.name)
    for name in _USED:
        importlib.import_module(name)
    # The first array imports pandas, where it is installed, which takes longer than most commands.
    importlib.import_module("pyarrow").array([])
    gc.collect()
    # So that garbage collection does not make forks copy memory.
    gc.freeze()
    request = _Server(socket.socket(fileno=requests), socket.socket(fileno=programs)).next()
    if request is None:
        return
    _become(request)
    code = _run()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            code = _UNFLUSHED
            with suppress(OSError):
                sys.stderr.write(f"{error}\n")
    # The interpreter would take itself apart in ten times the time of most commands.
    os._exit(code)


def _run() -> int:
    """Run what the arguments name, and return the exit code."""
    kind, what, *_ = sys.argv
    try:
        if kind == "-m":
            del sys.argv[0]
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            del sys.argv[1]
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), main.__dict__)  # noqa: S102
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        sys.stderr.write(f"{error.code}\n")
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


_UNFLUSHED = 120
"""The exit code of an interpreter that cannot write what is left."""


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
