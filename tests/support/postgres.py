"""A PostgreSQL server for the tests, on loopback: one for all processes of a run."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

PASSWORD = "s3/cr@t:%Wörd"
"""Contains characters that must be percent-encoded in a URL."""

_CHEAP = {
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "full_page_writes": "off",
    "jit": "off",
    "max_wal_senders": 0,
    # A table that is dropped is looked for in all of them.
    "shared_buffers": "8MB",
    "synchronous_commit": "off",
    "wal_level": "minimal",
}
"""Settings of a server whose data nobody needs after a crash."""


class Server:
    """One database of a running server. Its user is `owner`, with `PASSWORD`.

    Processes that test side by side have a database each. They share the server, and its roles.
    """

    def __init__(self, port: int, database: str = "postgres") -> None:
        self.port = port
        self.database = database
        self._kept: psycopg.Connection[tuple[Any, ...]] | None = None

    def url(self, table: str = "", *, user: str = "owner", password: str = PASSWORD) -> str:
        place = f"127.0.0.1:{self.port}/{self.database}"
        end = f"/{table}" if table else ""
        return f"postgresql://{user}:{quote(password, safe='')}@{place}{end}"

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url(), autocommit=True)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self._connected() as connection:
            return connection.execute(query.encode()).fetchall()

    def run(self, *statements: str) -> None:
        with self._connected() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Give the kept connection, and leave it like a new one, which would take longer."""
        if self._kept is None or self._kept.closed:
            self._kept = self.connect()
            # The server's own are discarded, and psycopg would not know.
            self._kept.prepare_threshold = None
        try:
            yield self._kept
        finally:
            if not self._kept.closed:
                self._kept.execute("DISCARD ALL")

    def close(self) -> None:
        """Close the kept connection, if there is one."""
        if self._kept is not None:
            self._kept.close()

    def cut_exports(self) -> None:
        """Cut the connections of all exports to this database."""
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'altaprofiles' AND datname = current_database()"
        )


def binaries() -> Path | None:
    """Return the folder of the server's programs, or None if they are not installed."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).parent
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return packaged[-1].parent if packaged else None


def clients() -> Path:
    """Return the folder of pg_dump and psql, of the version of the server; skip without them."""
    servers = binaries()
    assert servers is not None
    folder = (servers / "initdb").resolve().parent
    if not (folder / "pg_dump").exists() or not (folder / "psql").exists():
        pytest.skip("pg_dump or psql is not beside the server")
    return folder


class Cluster:
    """A server whose files are in one folder, for all processes that know the folder.

    Args:
        programs: the folder of the server's programs.
        folder: an empty folder, in which the server's user may write.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        # The server refuses to be run by root.
        self._user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None

    def started(self) -> Server:
        """Return the server. The first process that asks for it starts it."""
        port = self._folder / "port"
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not port.exists():
                port.write_text(str(self._start()))
        return Server(int(port.read_text()))

    def stop(self) -> None:
        """Stop the server, if it has been started."""
        if (self._folder / "data" / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def _start(self) -> int:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._user is not None:
            for path in (self._folder, password):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        self._run(
            *("initdb", "--username=owner", "--auth=scram-sha-256", f"--pwfile={password}"),
            *("--encoding=UTF8", "--no-locale", "--no-sync"),
        )
        for attempt in range(10):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port: int = probe.getsockname()[1]
            settings = {
                "port": port,
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "''",
                "fsync": "off",
                **_CHEAP,
            }
            options = " ".join(f"-c {name}={value}" for name, value in settings.items())
            log = self._folder / f"log.{attempt}"
            try:
                self._run("pg_ctl", "start", "-w", "-t", "120", "-l", str(log), "-o", options)
            except AssertionError:
                # Another process can have taken the port since the probe.
                if "Address already in use" not in log.read_text():
                    raise
            else:
                return port
        raise AssertionError("ten ports in a row were taken between probe and start")

    def _run(self, program: str, *arguments: str) -> None:
        user = self._user
        # A file, as the server would keep a pipe open.
        with (self._folder / f"{program}.output").open("w+") as output:
            done = subprocess.run(
                [self._programs / program, "-D", str(self._folder / "data"), *arguments],
                user=None if user is None else user.pw_uid,
                group=None if user is None else user.pw_gid,
                extra_groups=None if user is None else [],
                stdout=output,
                stderr=output,
                cwd="/",
                check=False,
            )
            output.seek(0)
            assert done.returncode == 0, output.read()
