"""A PostgreSQL server for the tests, on loopback."""

from __future__ import annotations

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

PASSWORD = "s3/cr@t:%Wörd"
"""Contains characters that must be percent-encoded in a URL."""


class Server:
    """A running server with one user, `owner`, whose password is `PASSWORD`."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, table: str = "", *, user: str = "owner", password: str = PASSWORD) -> str:
        end = f"/{table}" if table else ""
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/postgres{end}"

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url(), autocommit=True)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(query.encode()).fetchall()

    def run(self, *statements: str) -> None:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())


def binaries() -> Path | None:
    """Return the folder of the server's programs, or None if they are not installed."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).parent
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return packaged[-1].parent if packaged else None


@contextmanager
def serving(programs: Path, folder: Path) -> Iterator[Server]:
    """Run a server with all of its files in `folder`, which must be empty."""
    # The server refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    password = folder / "password"
    password.write_text(PASSWORD)
    if user is not None:
        owner = pwd.getpwnam(user)
        for path in (folder, password):
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def run(program: str, *arguments: str) -> None:
        # A file, because the server would keep a pipe open.
        with (folder / "said").open("w+") as said:
            done = subprocess.run(
                [programs / program, "-D", str(folder / "data"), *arguments],
                user=user,
                group=None if user is None else owner.pw_gid,
                extra_groups=None if user is None else [],
                stdout=said,
                stderr=said,
                cwd="/",
                check=False,
            )
            said.seek(0)
            assert done.returncode == 0, said.read()

    run(
        *("initdb", "--username=owner", "--auth=scram-sha-256", f"--pwfile={password}"),
        *("--encoding=UTF8", "--no-locale", "--no-sync"),
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "''",
        "fsync": "off",
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    run("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", options)
    try:
        yield Server(port)
    finally:
        run("pg_ctl", "stop", "-w", "-m", "immediate")
