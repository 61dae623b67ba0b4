"""The parts of a PostgreSQL URL with a table after the database. Contacts no server.

No error shows the URL. The label in messages is put together from parts that were recognised,
because a password with a character that should be percent-encoded could end up in any other part.
"""

from __future__ import annotations

import os
import re
from typing import NoReturn
from urllib.parse import unquote

from msgspec import Struct

from ...base.checks import shown
from ...errors import InvalidArgument
from ...redaction import Secret, masked

__all__ = [
    "SCHEMES",
    "PostgresUrl",
    "check_conninfo",
    "check_name",
    "parse",
    "table_of",
    "without_password",
]

SCHEMES = ("postgresql", "postgres")

_FORM = "postgresql://user:password@host:port/database/table"
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^\[\]:,@/\s]*)(?::[0-9]*)?"
_HOSTS = re.compile(rf"{_HOST}(?:,{_HOST})*")
_PLAIN_OPTIONS = frozenset(
    {
        "application_name",
        "channel_binding",
        "client_encoding",
        "connect_timeout",
        "fallback_application_name",
        "gssdelegation",
        "gssencmode",
        "gsslib",
        "host",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "oauth_client_id",
        "oauth_issuer",
        "oauth_scope",
        "options",
        "passfile",
        "port",
        "replication",
        "require_auth",
        "requirepeer",
        "service",
        "ssl",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcertmode",
        "sslcompression",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslkeylogfile",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "sslsni",
        "target_session_attrs",
        "tcp_user_timeout",
        "user",
    }
)
"""Options of a URL whose values are shown and stored, of libpq 18 and before. Any other may hold a
secret, as password, sslpassword, scram_client_key and oauth_client_secret do: a later libpq must
not bring one that is shown."""

_MAX_NAME = 63
"""Longest name in bytes. The server truncates longer ones, so that two could become one
("Identifiers and Key Words")."""


class PostgresUrl(Struct, frozen=True):
    """The parts of a URL.

    Attributes:
        label: the database's URL without user, password and options, for messages.
        conninfo: the database's URL for the driver; a `Secret` if it holds one.
        table: the name after the database, or None.
        secrets: passwords and keys, as written and decoded, to mask in messages.
        spellings: hosts and database as they can be spelled as well: first without what a URL may
            leave out, then with the port.
        elsewhere: the options by which the same hosts and names lead to another table.
    """

    label: str
    conninfo: str
    table: str | None
    secrets: tuple[Secret, ...]
    spellings: tuple[str, ...]
    elsewhere: str


def parse(url: str) -> PostgresUrl:
    """Return the parts of `url`, which begins with `postgres://` or `postgresql://`.

    Raises:
        ConfigurationError: `url` is invalid.
    """
    rest = url.partition("://")[2]
    if "#" in rest or rest.count("@") > 1:
        _refuse("a # or a second @ must be percent-encoded, as %23 or %40")
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    if "@" in path or "@" in query:
        _refuse("a / or ? in user and password must be percent-encoded, as %2F or %3F")
    user, at, hosts = authority.rpartition("@")
    if not _HOSTS.fullmatch(hosts):
        _refuse("host and port are missing or invalid")
    database, slash, table = path.partition("/")
    if not database or "/" in table or (slash and not table):
        _refuse("the host must be followed by a database and, if named, a table")
    values = [user.partition(":")[2]]
    options = [option.partition("=") for option in query.split("&")] if query else []
    values += [value for name, _, value in options if unquote(name) not in _PLAIN_OPTIONS]
    secrets = [Secret(form) for value in values if value for form in {value, unquote(value)}]
    names = {unquote(name) for name, _, _ in options}
    if "dbname" in names:
        _refuse("dbname names another database than the one behind the host; write that one there")
    places = (one for one in options if unquote(one[0]) in _PLACES)
    elsewhere = "&".join(sorted(f"{unquote(name)}={unquote(value)}" for name, _, value in places))
    # Without a timeout, a host that does not answer blocks the caller for two minutes.
    more = [] if "connect_timeout" in names else ["connect_timeout=10"]
    if "application_name" not in names:
        more.append("application_name=altaprofiles")
    query = "&".join([query, *more] if query else more)
    conninfo = f"postgresql://{user}{at}{hosts}/{database}?{query}"
    return PostgresUrl(
        f"postgresql://{hosts}/{database}",
        Secret(conninfo) if secrets else conninfo,
        unquote(table) if table else None,
        tuple(secrets),
        tuple(f"{one}/{unquote(database)}" for one in _spellings(hosts)),
        elsewhere,
    )


_PLACES = ("host", "hostaddr", "options", "port", "service")
_PORT = "5432"


def _spellings(hosts: str) -> list[str]:
    """Return the same hosts without the usual port, and with it."""
    # As the driver chooses it (libpq, "Environment Variables").
    default = os.environ.get("PGPORT") or _PORT
    full = []
    for one in hosts.split(","):
        name, _, port = one.rpartition(":") if _HAS_PORT.search(one) else (one, "", "")
        decoded = unquote(name)
        # A folder of sockets is a path.
        decoded = decoded if decoded.startswith(("/", "@")) else decoded.lower()
        full.append((decoded, port or default))
    short = ",".join(name if port == _PORT else f"{name}:{port}" for name, port in full)
    return [short, ",".join(f"{name}:{port}" for name, port in full)]


_HAS_PORT = re.compile(r":[0-9]*$")


def without_password(url: str) -> str:
    """Return `url` without its password, and without options that may hold a secret.

    Any other text is returned unchanged.
    """
    scheme, slashes, rest = url.partition("://")
    if scheme.lower() not in SCHEMES or not slashes:
        return url
    # Split at the last @, because in a URL that `parse` refuses the password may hold @ and ?.
    user, at, rest = rest.rpartition("@")
    place, _, query = rest.partition("?")
    options = [
        option for option in query.split("&") if unquote(option.partition("=")[0]) in _PLAIN_OPTIONS
    ]
    query = "&".join(options)
    return f"{scheme}://{user.partition(':')[0]}{at}{place}{'?' if query else ''}{query}"


def check_conninfo(url: PostgresUrl) -> None:
    """Raise `ConfigurationError` if the driver, which must be installed, cannot read `url`."""
    import psycopg

    try:
        psycopg.conninfo.conninfo_to_dict(str.__str__(url.conninfo))
    except psycopg.Error as error:
        reason = masked(str(error).strip(), url.secrets)
    else:
        return
    # Outside of the handler, so that the driver's error does not stay as the context.
    raise InvalidArgument(f"to: {reason}; write {_FORM}")


def _refuse(reason: str) -> NoReturn:
    raise InvalidArgument(f"to: not a URL of the form {_FORM}: {reason}")


def table_of(given: str | None, in_url: str | None, default: str) -> tuple[str | None, str]:
    """Return the table's schema (or None) and name, from the option or from the URL.

    Raises:
        ConfigurationError: both name a table, or the name is invalid.
    """
    if given is not None and in_url is not None:
        raise InvalidArgument(
            f"table: the URL already names the table {in_url!r}, got {shown(given)}; leave one out"
        )
    name = in_url or given
    if name is None:
        return None, default
    where = "to" if given is None else "table"
    if not isinstance(name, str) or name.count(".") > 1:
        raise InvalidArgument(f"{where}: expected table or schema.table, got {shown(name)}")
    schema, dot, table = name.rpartition(".")
    for part in (schema, table) if dot else (table,):
        check_name(where, part)
    return (schema if dot else None), table


def check_name(where: str, name: str) -> None:
    """Raise `ConfigurationError` unless `name` is valid for a table or a column.

    Args:
        where: the argument in the message.
        name: the name.
    """
    if not name.strip() or not name.isprintable() or len(name.encode()) > _MAX_NAME:
        raise InvalidArgument(
            f"{where}: {shown(name)} is not a valid name in PostgreSQL; use 1 to {_MAX_NAME} "
            "bytes of "
            f"text"
        )
