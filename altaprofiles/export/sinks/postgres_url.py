"""The parts of a PostgreSQL URL with a table after the database. Contacts no server.

No error shows the URL. The label in messages is put together from parts that were recognised,
because a password with a character that should be percent-encoded could end up in any other part.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
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
        "requiressl",
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
        spellings: the hosts that the driver connects to, and the database: first without what a
            URL may leave out; then as files of earlier versions may have them.
        elsewhere: what makes the same hosts and names lead to another table: options, and the
            name of a service, which is not looked up.
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
    given = {unquote(name): unquote(value) for name, _, value in options}
    values += [value for name, _, value in options if unquote(name) not in _PLAIN_OPTIONS]
    secrets = [Secret(form) for value in values if value for form in {value, unquote(value)}]
    if "dbname" in given:
        _refuse("dbname names another database than the one behind the host; write that one there")
    # Without a timeout, a host that does not answer blocks the caller for two minutes.
    more = [] if "connect_timeout" in given else ["connect_timeout=10"]
    if "application_name" not in given:
        more.append("application_name=altaprofiles")
    query = "&".join([query, *more] if query else more)
    conninfo = f"postgresql://{user}{at}{hosts}/{database}?{query}"
    return PostgresUrl(
        f"postgresql://{hosts}/{database}",
        Secret(conninfo) if secrets else conninfo,
        _name_of(table) if table else None,
        tuple(secrets),
        tuple(f"{one}/{name}" for one, name in _spellings(hosts, database, given)),
        _elsewhere(given),
    )


def _name_of(table: str) -> str:
    # By default all wrong bytes become one and the same character, and two tables one.
    try:
        name = unquote(table, errors="strict")
    except UnicodeDecodeError:
        name = None
    if name is None:
        _refuse(_NOT_UTF_8)
    return name


_NOT_UTF_8 = "it has a character that is not UTF-8; é is %C3%A9 there"
_PORT = "5432"


def _spellings(hosts: str, database: str, given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the hosts and the database in each of the spellings of a URL.

    Args:
        hosts, database: the parts of the URL, as written.
        given: its options.
    """
    name = unquote(database)
    places = _places(hosts, given)
    short = ",".join(host if port == _PORT else f"{host}:{port}" for host, port in places)
    yield short, name
    if not {*_OF_PLACE} & {*given} and places == _places(hosts, {}, {}):
        yield hosts, database
    yield short, name
    yield ",".join(f"{host}:{port}" for host, port in places), name


_OF_PLACE = {"host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT"}
"""The options of a place, and the variables that stand for them if a URL leaves them out."""


def _places(
    hosts: str, given: Mapping[str, str], environment: Mapping[str, str] = os.environ
) -> list[tuple[str, str]]:
    """Return each host and port that the driver connects to, as it chooses them.

    An option of the URL replaces what stands before the database, and a variable is for what the
    URL leaves out (libpq, "Connection Strings" and "Environment Variables").
    """
    names, ports = [], []
    for one in hosts.split(","):
        host, _, port = one.rpartition(":") if _HAS_PORT.search(one) else (one, "", "")
        names.append(unquote(host))
        ports.append(port)
    written = {"host": ",".join(names), "port": ",".join(ports)}
    chosen = {
        option: given.get(option, written.get(option) or environment.get(variable, ""))
        for option, variable in _OF_PLACE.items()
    }
    names, addresses, ports = (chosen[option].split(",") for option in _OF_PLACE)
    number = max(len(names), len(addresses))
    if len(ports) == 1:
        ports *= number
    return [
        # The address is where it connects to. The name is for the certificate then.
        (_host(address or host), port or _PORT)
        for host, address, port in zip_longest(names, addresses, ports[:number], fillvalue="")
    ]


def _host(name: str) -> str:
    if name.startswith(("/", "@")):
        # A folder of sockets is a path.
        return name
    return f"[{name.lower()}]" if ":" in name and not name.startswith("[") else name.lower()


def _elsewhere(given: Mapping[str, str]) -> str:
    """Return the value of `PostgresUrl.elsewhere`."""
    options = os.environ.get("PGOPTIONS", "")
    if not _NAMES_SCHEMAS.search(options):
        # Most of them lead to the same table, and its files must not get other names with each.
        options = ""
    chosen = {
        "options": given.get("options", options),
        "service": given.get("service", os.environ.get("PGSERVICE", "")),
    }
    return "&".join(f"{name}={value}" for name, value in chosen.items() if value)


_NAMES_SCHEMAS = re.compile("search[_-]path", re.IGNORECASE)
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
    except UnicodeError:
        reason = _NOT_UTF_8
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
