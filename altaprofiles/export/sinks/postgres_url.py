"""A PostgreSQL URL with a table behind the database, taken apart. Contacts nobody.

No error shows the URL, and what is shown of it is put together from parts that were understood: a
password with a character that ought to be percent-encoded would end up in any other part.
"""

from __future__ import annotations

import re
from typing import NoReturn
from urllib.parse import unquote

from msgspec import Struct

from ...base.extras import require
from ...errors import AltaProfilesError, ConfigurationError
from ...redaction import Secret

__all__ = ["PostgresUrl", "check_name", "parse", "table_of", "without_password"]

_FORM = "postgresql://user:password@host:port/database/table"
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^\[\]:,@/\s]*)(?::[0-9]*)?"
_HOSTS = re.compile(rf"{_HOST}(?:,{_HOST})*")
_SCHEME = re.compile(r"postgres(?:ql)?", re.IGNORECASE)
_SECRET_OPTIONS = ("password", "sslpassword")
_TABLE = "profiles"

_MAX_NAME = 63
"""Bytes; the server cuts longer names off, and two could become one ("Identifiers")."""


class PostgresUrl(Struct, frozen=True):
    """What a URL says.

    Attributes:
        shown: the database's URL without user, password and options.
        conninfo: the database's URL for the driver, a `Secret` when it holds a password.
        table: what stands behind the database, or None.
        secrets: what must never be shown, in every form it may have.
    """

    shown: str
    conninfo: str
    table: str | None
    secrets: tuple[Secret, ...]


def parse(url: str) -> PostgresUrl:
    """Return the parts of `url`, which begins with `postgres://` or `postgresql://`.

    Raises:
        ConfigurationError: it is not of that form, or psycopg is missing.
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
        _refuse("there is no host and port where they belong")
    database, slash, table = path.partition("/")
    if not database or "/" in table or (slash and not table):
        _refuse("behind the host come the database and the table")
    found = [user.partition(":")[2]]
    options = [option.partition("=") for option in query.split("&")] if query else []
    found += [value for name, _, value in options if unquote(name) in _SECRET_OPTIONS]
    secrets = [Secret(form) for value in found if value for form in {value, unquote(value)}]
    names = {unquote(name) for name, _, _ in options}
    # Without it, a host that does not answer holds the caller up for two minutes.
    more = [] if "connect_timeout" in names else ["connect_timeout=10"]
    if "application_name" not in names:
        more.append("application_name=altaprofiles")
    query = "&".join([query, *more] if query else more)
    conninfo = f"postgresql://{user}{at}{hosts}/{database}?{query}"
    parsed = PostgresUrl(
        f"postgresql://{hosts}/{database}",
        Secret(conninfo) if secrets else conninfo,
        unquote(table) if table else None,
        tuple(secrets),
    )
    _check_conninfo(parsed)
    return parsed


def without_password(url: str) -> str:
    """Return `url` without its password, or as it is if it has none. Any text will do."""
    scheme, slashes, rest = url.partition("://")
    if not _SCHEME.fullmatch(scheme) or not slashes:
        return url
    # The last @, as a password may hold others, and a ?, in a URL that `parse` refuses.
    user, at, rest = rest.rpartition("@")
    place, _, query = rest.partition("?")
    options = [
        option
        for option in query.split("&")
        if unquote(option.partition("=")[0]) not in _SECRET_OPTIONS
    ]
    query = "&".join(options)
    return f"{scheme}://{user.partition(':')[0]}{at}{place}{'?' if query else ''}{query}"


def _check_conninfo(url: PostgresUrl) -> None:
    psycopg = require("psycopg", extra="postgres", what=f"to: {url.shown!r}")
    try:
        psycopg.conninfo.conninfo_to_dict(str.__str__(url.conninfo))
    except psycopg.Error as error:
        failure = ConfigurationError(f"to: {str(error).strip()}; write {_FORM}")
    else:
        return
    hide(failure, url.secrets)
    raise failure


def hide(error: AltaProfilesError, secrets: tuple[Secret, ...]) -> None:
    """Replace `secrets` in the texts of `error`, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        error.redact(secret)


def _refuse(reason: str) -> NoReturn:
    raise ConfigurationError(f"to: not a URL of the form {_FORM}: {reason}")


def table_of(given: str | None, in_url: str | None) -> tuple[str | None, str]:
    """Return schema (or None) and name of the table that an argument or the URL names.

    Raises:
        ConfigurationError: both do, or it is no table's name.
    """
    if given is not None and in_url is not None:
        raise ConfigurationError(
            f"table: the URL names the table {in_url!r} already, got {given!r}; leave one out"
        )
    wanted = in_url or given
    if wanted is None:
        return None, _TABLE
    where = "to" if given is None else "table"
    if not isinstance(wanted, str) or wanted.count(".") > 1:
        raise ConfigurationError(f"{where}: expected table or schema.table, got {wanted!r}")
    schema, dot, name = wanted.rpartition(".")
    for part in (schema, name) if dot else (name,):
        check_name(where, part)
    return (schema if dot else None), name


def check_name(where: str, name: str) -> None:
    """Raise `ConfigurationError` unless `name` can be that of a table or a column."""
    if not name.strip() or not name.isprintable() or len(name.encode()) > _MAX_NAME:
        raise ConfigurationError(
            f"{where}: {name!r} cannot be a name in PostgreSQL; use 1 to {_MAX_NAME} bytes of text"
        )
