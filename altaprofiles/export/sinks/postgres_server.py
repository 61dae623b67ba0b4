"""Connections to a PostgreSQL server, whose errors hold no passwords and no values of records."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from ...errors import ExportError
from ...redaction import Secret, masked
from ..tables import REFUSED_AGAIN

if TYPE_CHECKING:
    import psycopg

__all__ = ["LOCK_TIMEOUT", "PostgresServer"]

T = TypeVar("T")

LOCK_TIMEOUT = 30
"""Longest wait, in seconds, for a lock that another transaction has on the table."""

_IDLE_SESSION_TIMEOUT = 14_00_00
"""The first version of the server that ends idle sessions."""


_REMEDIES = {
    "does not exist": "create it, or correct its name in the URL",
    "refused": "correct host and port in the URL, or start the server",
    "timeout expired": "correct host and port in the URL, or check the network",
    "resolve host": "correct the host in the URL, or check the network",
}
"""Advice on a connection that cannot be made, by words of the reason. Other languages have none."""


_URL = "the URL"


class PostgresServer(Struct, frozen=True):
    """One database of a server. Does not pickle if its URL holds a password.

    Attributes:
        label: the table in messages.
        conninfo: the database's URL.
        secrets: passwords and keys, to mask in messages.
    """

    label: str
    conninfo: str
    secrets: tuple[Secret, ...]

    def connect_idle(self, timeout: int) -> psycopg.Connection[Any]:
        """Return a new connection that is in no transaction.

        Args:
            timeout: longest wait, in seconds, for a host of the server.

        Raises:
            ExportError: the server cannot be reached, or refuses.
        """
        return self._connect(connect_timeout=timeout)

    def begin(self, connection: psycopg.Connection[Any], patience: int | None = None) -> None:
        """Begin a transaction like that of `connect`.

        Args:
            connection: a connection that is in no transaction.
            patience: longest wait, in seconds, for a lock or else a statement; None for that of an
                export, whose statements may take any time.

        Raises:
            ExportError: the connection is lost, or the server refuses.
        """
        self.guard(partial(_begin, connection, patience))

    def connect(self) -> psycopg.Connection[Any]:
        """Return a new connection, in a transaction that the user's own time limits do not end.

        Raises:
            ExportError: the server cannot be reached, or refuses.
        """
        connection = self._connect()
        given, version = connection.info.options, connection.info.server_version
        try:
            return self._begun(connection)
        except ExportError:
            if version < _IDLE_SESSION_TIMEOUT:
                raise
        # An idle session may have been ended before that. Not at once, as poolers refuse options.
        return self._begun(self._connect(options=f"{given} -c idle_session_timeout=0"))

    def _begun(self, connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
        try:
            self.begin(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, **options: Any) -> psycopg.Connection[Any]:
        import psycopg

        # No local holds the plain text, which a traceback with locals would show.
        return self.guard(
            lambda: psycopg.connect(
                str.__str__(self.conninfo),
                # `_begin` begins the transaction.
                autocommit=True,
                client_encoding="utf8",
                prepare_threshold=None,
                **self._quiet(),
                **options,
            ),
            remedies=lambda: {"password": self._on_passwords()} | _REMEDIES,
        )

    def _on_passwords(self) -> str:
        """Return the advice on a password that is missing or refused, where libpq looks first."""
        is_set, place = self._setting("password")
        file = self._setting("passfile")[0] or "~/.pgpass"
        if not is_set and place != "PGPASSWORD":
            return f"remove the empty password in {place}, or write the password there"
        if not is_set:
            return self._unread_passfile() or f"set PGPASSWORD, or write the password into {file}"
        advice = f"correct the password in {place}"
        if place == _URL:
            advice += f", or leave it out there, and set PGPASSWORD or write it into {file}"
        return advice

    def _quiet(self) -> dict[str, Any]:
        """Return options with which libpq does not write its own warning to standard error.

        It stands there about a password file that libpq leaves alone, and would be a line of plain
        text among those of a log.
        """
        return {"passfile": f"{os.devnull}/none"} if self._unread_passfile() else {}

    def _unread_passfile(self) -> str | None:
        """Return advice on a password file that libpq leaves alone with a warning, or else None."""
        if os.name == "nt":
            return None
        named, place = self._setting("passfile")
        try:
            file = Path(named) if named else Path.home() / ".pgpass"
            mode = file.stat().st_mode
        except (OSError, RuntimeError, ValueError):
            # There is none, or no home either.
            return None
        if not stat.S_ISREG(mode):
            return (
                f"{file} is not read, because it is not a plain file; name another one in {place}, "
                f"or set PGPASSWORD"
            )
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            return (
                f"{file} is not read, because others than you may read it or write to it; run: "
                f"chmod 600 {quote(str(file))}"
            )
        return None

    def _setting(self, keyword: str) -> tuple[Secret, str]:
        """Return the value of an option that libpq would use, and where it is or else can be set.

        The URL comes before a service, and that before the environment.
        """
        import psycopg

        given = psycopg.conninfo.conninfo_to_dict(str.__str__(self.conninfo)).get
        # libpq shows the options of a service only as those of a connection. With two addresses of
        # one host, it is refused before libpq reads a password file or asks the network.
        connection = psycopg.pq.PGconn.connect_start(
            psycopg.conninfo.make_conninfo(
                str.__str__(self.conninfo), host="none", hostaddr="none,none"
            ).encode()
        )
        value, variable = next(
            (Secret(os.fsdecode(one.val or b"")), os.fsdecode(one.envvar or b""))
            for one in connection.info
            if one.keyword == keyword.encode()
        )
        if given(keyword) is not None:
            place = _URL
        elif value == os.environ.get(variable, ""):
            place = variable
        else:
            place = f"the service {given('service') or os.environ.get('PGSERVICE')}"
        return value, place

    def guard(
        self, call: Callable[[], T], *, remedies: Callable[[], Mapping[str, str]] = dict
    ) -> T:
        """Return the result of `call`.

        Args:
            call: asks the server.
            remedies: returns advice, by words of the reason.

        Raises:
            ExportError: in place of an error of the driver, with the server's reason, but without
                passwords and without values of records.
        """
        import psycopg

        try:
            return call()
        except psycopg.Error as error:
            reason = masked(_reason(error), self.secrets) + _advice(error)
            schema = _forbidden_schema(error)
        # Outside of the block, so that the driver's error does not stay as the context.
        if schema is not None:
            reason += f"; {self._grant_of(schema)}"
        words = next((advice for words, advice in remedies().items() if words in reason), None)
        raise ExportError(f"{self.label}: {reason}{'' if words is None else f'; {words}'}")

    def _grant_of(self, schema: str) -> str:
        """Return the advice to grant this user the use of a schema.

        Asked on another connection, as the transaction of an error answers nothing more.
        """
        import psycopg

        grant = "SELECT format('GRANT USAGE ON SCHEMA %%I TO %%I', %s::text, current_user)"
        try:
            with self._connect() as connection:
                row = connection.execute(grant, [schema]).fetchone()
        except (ExportError, psycopg.Error):
            row = None
        if row is None:
            return "let the owner of the schema grant this user its USAGE"
        return f"let the owner of the schema run: {row[0]}"


def _begin(connection: psycopg.Connection[Any], patience: int | None) -> None:
    """Begin a transaction that the user's own settings neither end nor change.

    Ours end with the transaction, so that a pooler that gives each transaction another session,
    such as PgBouncer, does not carry them to other users.
    """
    # One message, as a server that waits for the next one in a transaction may end it. A stricter
    # isolation would refuse rows that others have changed since. A server of an earlier version
    # does not know all settings.
    # A statement that waits for a lock ends by the limit of locks, whose error says so.
    lock, statement = (LOCK_TIMEOUT, 0) if patience is None else (patience, patience + 1)
    connection.execute(
        "BEGIN ISOLATION LEVEL READ COMMITTED;"
        f" SET LOCAL statement_timeout = '{statement}s';"
        " SELECT set_config(name, value, true)"
        " FROM pg_settings JOIN (VALUES ('idle_in_transaction_session_timeout', '0'),"
        " ('idle_session_timeout', '0'), ('transaction_timeout', '0'),"
        f" ('lock_timeout', '{lock}s'),"
        # An index would return any few of the rows that it finds.
        " ('gin_fuzzy_search_limit', '0'),"
        # Types are compared by name.
        " ('quote_all_identifiers', 'off'),"
        # Rows that a policy hides are an error then, instead of people who are missing.
        " ('row_security', 'off')) AS ours (name, value) USING (name)"
    )


def _reason(error: psycopg.Error) -> str:
    """Return the reason for an error of the driver or the server, without values of records.

    The server's details and context quote rows, and some of its messages quote values ("PostgreSQL
    Error Codes"). Only the classes whose messages name nothing but objects are shown.
    """
    state = error.sqlstate
    if state is None:
        # The driver's own, in several lines: there is no connection, or it broke.
        return " ".join(str(error).split())
    name = type(error).__name__
    message = error.diag.message_primary
    # A trigger may raise any class with any message.
    if _is_raised(error):
        return (
            f"a trigger or function of the database raised {name} (SQLSTATE {state}); its message "
            f"is in the server's log, as it may hold values of the record"
        )
    if message and state[:2] in _WITHOUT_VALUES:
        return f"{message} (SQLSTATE {state})"
    parts = (("column", error.diag.column_name), ("constraint", error.diag.constraint_name))
    where = "".join(f", {kind} {text}" for kind, text in parts if text)
    return (
        f"the server refuses this: {name} (SQLSTATE {state}{where}); its message is in the "
        f"server's log, as it may hold values of the record"
    )


def _advice(error: psycopg.Error) -> str:
    """Return what to do about an error that a statement has met, as the end of its text."""
    state = error.sqlstate or ""
    if state == _LOCKED:
        return (
            "; another session holds a lock on the table: wait until it is done, or find it in "
            "pg_locks"
        )
    if _is_raised(error):
        return (
            "; the same run is refused again until that trigger or function allows these rows: "
            "alter it, or correct the values where they come from"
        )
    # Whoever creates the same table at the same time breaks a constraint of the server's own.
    if state[:2] in _OF_ROWS and error.diag.schema_name != "pg_catalog":
        return REFUSED_AGAIN
    return ""


def _forbidden_schema(error: psycopg.Error) -> str | None:
    """Return the schema that this user may not use, or None for any other error."""
    message = error.diag.message_primary or ""
    if error.sqlstate != _FORBIDDEN or not message.startswith(_OF_SCHEMA):
        return None
    return message.removeprefix(_OF_SCHEMA)


def _is_raised(error: psycopg.Error) -> bool:
    """Return whether a function of the database, such as a trigger, has raised an error."""
    return error.diag.source_function == "exec_stmt_raise" or error.sqlstate == _RAISED


_LOCKED = "55P03"
_FORBIDDEN = "42501"
_OF_SCHEMA = "permission denied for schema "

_RAISED = "P0001"
"""The class of what a function raises without naming another one."""

_OF_ROWS = ("23", "44")
"""Classes of errors of a row that a constraint of the table, or of a view, does not allow."""

_WITHOUT_VALUES = frozenset(
    (
        "08",
        "0A",
        "23",
        "25",
        "26",
        "28",
        "2B",
        "3D",
        "3F",
        "40",
        "42",
        "44",
        "53",
        "54",
        "55",
        "57",
        "58",
    )
)
