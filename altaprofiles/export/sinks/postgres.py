"""A table on a PostgreSQL server, one row for each person.

Records are copied into a temporary table; only in the end, and in one transaction, they become rows
of the table itself. People who are there already are updated, others stay as they are.

A person with an identity is that identity's row. One without is whoever shares an `objectId` with
them: the service turns the order of a nameless person's devices from query to query, so that no
first one can name the person. Who has neither is known by the hash of the record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from msgspec import Struct

from ...errors import ExportError
from ...models.people import person_key
from ...redaction import Secret
from ...tables.columns import Columns
from ...tables.kinds import Kinds
from ...tables.layout import CORE, JSON_TEXTS, check_flatten, column_names
from .postgres_json import fit_json
from .postgres_url import check_name, hide, parse, table_of
from .target import Target

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresTarget"]

T = TypeVar("T")

_PERSON = "person"
_NAMES = (_PERSON, *CORE)
_STAGE = "pg_temp.altaprofiles_stage"

_PATIENCE = 30
"""Seconds to wait for a connection, and for whoever has the table locked."""

_MAX_INDEXED = 1000
"""Bytes of a text in an index, which takes about 2,700 ("B-Tree Indexes", "GIN Limitations")."""


class PostgresTarget(Target, frozen=True, kw_only=True):
    """One table of a PostgreSQL database. Does not pickle when its URL holds a password.

    Attributes:
        schema: where the table is; None for the server's search path.
        table: its name.
        conninfo: the database's URL.
        secrets: what must never be shown.
    """

    format: ClassVar[str] = "postgres"

    schema: str | None
    table: str
    conninfo: str
    secrets: tuple[Secret, ...]

    @classmethod
    def of(cls, url: str, table: str | None, flatten: Sequence[str]) -> PostgresTarget:
        """Return the target that a URL names.

        Raises:
            ConfigurationError: a value that cannot work, or psycopg is not installed.
        """
        keys = check_flatten(flatten, reserved=_NAMES)
        for name in column_names(keys, reserved=_NAMES):
            check_name("flatten", name)
        found = parse(url)
        schema, name = table_of(table, found.table)
        return cls(
            name=f"{found.shown}/{name if schema is None else f'{schema}.{name}'}",
            flatten=keys,
            schema=schema,
            table=name,
            conninfo=found.conninfo,
            secrets=found.secrets,
        )

    @property
    def quoted(self) -> str:
        """The table's name in SQL."""
        parts = [self.table] if self.schema is None else [self.schema, self.table]
        return ".".join(map(_quoted, parts))

    @property
    def columns(self) -> dict[str, str]:
        """The type of each column, by name."""
        types = dict.fromkeys(column_names(self.flatten, reserved=_NAMES), "text")
        types |= dict.fromkeys(JSON_TEXTS, "jsonb")
        types["object_ids"] = "text[]"
        return types

    def check(self) -> None:
        connection = self.connect()
        try:
            self.guard(lambda: _check_rights(connection, self))
        finally:
            connection.close()

    def open(self, kinds: Kinds) -> PostgresSink:
        return PostgresSink(self)

    def connect(self) -> psycopg.Connection[Any]:
        """Return a connection to the database.

        Raises:
            ExportError: there is none to be had.
        """
        import psycopg

        url = str.__str__(self.conninfo)
        # libpq itself waits for minutes, and nobody could stop it.
        patience: dict[str, Any] = (
            {} if "connect_timeout=" in url else {"connect_timeout": _PATIENCE}
        )
        return self.guard(lambda: psycopg.connect(url, client_encoding="utf8", **patience))

    def guard(self, call: Callable[[], T]) -> T:
        """Return what `call` returns; the driver's errors become ours, without any password."""
        import psycopg

        try:
            return call()
        except psycopg.Error as error:
            failure = ExportError(f"{self.name}: {str(error).strip()}")
        # Outside of the block, so that the driver's own error is not kept as the context.
        hide(failure, self.secrets)
        raise failure


class _Shape(Struct):
    """What is there under the table's name.

    Attributes:
        oid: None when nothing is.
        missing: columns to add.
        owned: whether this user may add columns and indexes.
        indexed: whether `object_ids` has its index.
    """

    oid: int | None
    missing: dict[str, str]
    owned: bool
    indexed: bool


def _shape_of(connection: psycopg.Connection[Any], target: PostgresTarget) -> _Shape:
    """Return what is there.

    Raises:
        ExportError: it is not a table that an export can go into.
    """
    wanted = target.columns
    found = connection.execute(
        "SELECT oid, relkind::text, pg_has_role(relowner, 'USAGE') FROM pg_class"
        " WHERE oid = to_regclass(%s)",
        [target.quoted],
    ).fetchone()
    if found is None:
        return _Shape(None, wanted, owned=True, indexed=False)
    oid, kind, owned = found
    fix = "name another table, or drop or rename this one"
    if kind not in ("r", "p"):
        raise ExportError(f"{target.name} is there, and no table; {fix}")
    columns = {
        name: (type_, needed)
        for name, type_, needed in connection.execute(
            "SELECT attname::text, format_type(atttypid, atttypmod),"
            " attnotnull AND NOT atthasdef AND attidentity = '' FROM pg_attribute"
            " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped",
            [oid],
        )
    }
    for name, type_ in wanted.items():
        if name in columns and columns[name][0] != type_:
            raise ExportError(
                f"{target.name}: the column {name!r} is {columns[name][0]} there, and must be "
                f"{type_}; {fix}"
            )
    for name, (_, needed) in columns.items():
        if needed and name not in wanted:
            raise ExportError(
                f"{target.name}: the column {name!r} must not be null there, and an export has no "
                f"value for it; {fix}"
            )
    indexes = {
        (name, method)
        for name, method in connection.execute(
            "SELECT a.attname::text, CASE WHEN i.indisunique AND i.indimmediate THEN 'unique'"
            " ELSE m.amname::text END FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " JOIN pg_am m ON m.oid = c.relam JOIN pg_attribute a ON a.attrelid = i.indrelid"
            " AND a.attnum = i.indkey[0] WHERE i.indrelid = %s AND i.indnkeyatts = 1"
            " AND i.indpred IS NULL AND i.indisvalid",
            [oid],
        )
    }
    if (_PERSON, "unique") not in indexes:
        raise ExportError(
            f"{target.name} is there without a primary key {_PERSON!r}, and was made by something "
            f"else; {fix}"
        )
    missing = {name: type_ for name, type_ in wanted.items() if name not in columns}
    if missing and not owned:
        raise ExportError(
            f"{target.name} lacks the columns {', '.join(missing)}, and only its owner can add them"
        )
    return _Shape(oid, missing, owned, ("object_ids", "gin") in indexes)


def _check_rights(connection: psycopg.Connection[Any], target: PostgresTarget) -> None:
    encoding, standby, temporary, schema, creatable = _row(
        connection,
        "SELECT current_setting('server_encoding'), pg_is_in_recovery(),"
        " has_database_privilege(current_database(), 'TEMP'), to_regnamespace(s)::text,"
        " has_schema_privilege(to_regnamespace(s), 'CREATE')"
        " FROM coalesce(%s::text, quote_ident(current_schema())) AS s",
        [None if target.schema is None else _quoted(target.schema)],
    )
    if encoding != "UTF8":
        raise ExportError(f"{target.name}: the database is in {encoding}, and must be in UTF8")
    if standby:
        raise ExportError(f"{target.name}: the server is a standby; name the one it follows")
    if not temporary:
        raise ExportError(f"{target.name}: this user may not create temporary tables")
    if schema is None:
        raise ExportError(f"{target.name}: the schema is not there, or not for this user to use")
    shape = _shape_of(connection, target)
    if shape.oid is None:
        if not creatable:
            raise ExportError(f"{target.name}: this user may not create tables in {schema}")
        return
    for right in ("SELECT", "INSERT", "UPDATE", "DELETE"):
        (granted,) = _row(connection, "SELECT has_table_privilege(%s::oid, %s)", [shape.oid, right])
        if not granted:
            raise ExportError(f"{target.name}: this user lacks the right to {right}")


class PostgresSink:
    def __init__(self, target: PostgresTarget) -> None:
        self.mended = 0
        self._target = target
        self._names = [*map(_quoted, target.columns)]
        # Keys may have any name, also those of columns that only the temporary table has.
        self._staged = [*_NAMES, *(f"lifted_{number}" for number in range(len(target.flatten)))]
        self.repeated = 0
        self._rows = 0
        self._copying: AbstractContextManager[psycopg.Copy] | None = None
        self._connection = target.connect()
        try:
            self._copy = target.guard(self._begin)
        except BaseException:
            self.abort()
            raise

    def write(self, records: Sequence[bytes]) -> None:
        for start in range(0, len(records), _SLICE):
            data = self._encode(records[start : start + _SLICE])
            self._target.guard(partial(self._copy.write, data))

    def close(self) -> None:
        self._target.guard(self._finish)

    def abort(self) -> None:
        # The server undoes what was not committed, also in the middle of a copy.
        with suppress(Exception):
            self._connection.close()
        if self._copying is not None:
            # Left to the garbage collector, it would complain there.
            with suppress(Exception):
                self._copying.__exit__(None, None, None)

    def _begin(self) -> psycopg.Copy:
        columns = zip(self._staged, self._target.columns.values(), strict=True)
        cursor = self._connection.cursor()
        cursor.execute(
            "CREATE TEMP TABLE altaprofiles_stage (number bigint, nameless boolean, "
            f"{', '.join(f'{name} {type_}' for name, type_ in columns)}) ON COMMIT DROP"
        )
        self._copying = cursor.copy(f"COPY {_STAGE} FROM STDIN")
        return self._copying.__enter__()

    def _finish(self) -> None:
        if self._copying is not None:
            self._copying.__exit__(None, None, None)
        run = self._connection.execute
        run(f"SET LOCAL lock_timeout = '{_PATIENCE}s'")
        table = self._target.quoted
        # Only what rows are looked for by: documents take long.
        run(f"ANALYZE {_STAGE} (number, nameless, person, object_ids)")
        shape = self._prepare()
        if shape.oid is not None:
            run(
                f"DELETE FROM {table} AS old USING {_STAGE} AS new WHERE new.nameless"
                " AND coalesce(old.identity, '') = '' AND old.object_ids && new.object_ids"
            )
        # Of rows for one person the first one counts. What the later ones share with others still
        # does: they are told apart before any of them is gone.
        shared = run(
            f"DELETE FROM {_STAGE} AS later USING (SELECT number,"
            f" min(number) OVER (PARTITION BY id) AS first FROM {_STAGE},"
            " unnest(object_ids) AS id WHERE nameless) AS shared"
            " WHERE later.number = shared.number AND shared.first < shared.number"
        )
        known = run(
            f"DELETE FROM {_STAGE} AS later USING (SELECT person, min(number) AS first"
            f" FROM {_STAGE} GROUP BY person HAVING count(*) > 1) AS known"
            " WHERE later.person = known.person AND known.first < later.number"
        )
        self.repeated = shared.rowcount + known.rowcount
        values = ", ".join(f"{name} = excluded.{name}" for name in self._names[1:])
        run(
            f"INSERT INTO {table} ({', '.join(self._names)}) SELECT {', '.join(self._staged)}"
            f" FROM {_STAGE} ORDER BY number ON CONFLICT (person) DO UPDATE SET {values}"
        )
        if shape.oid is None:
            self._index()
            run(f"ANALYZE {table} (person, identity, object_ids)")
        self._connection.commit()
        self._connection.close()

    def _prepare(self) -> _Shape:
        """Make the table what the rows need, and return what was there."""
        run = self._connection.execute
        table = self._target.quoted
        shape = _shape_of(self._connection, self._target)
        if shape.oid is None:
            types = [f"{_quoted(name)} {type_}" for name, type_ in self._target.columns.items()]
            types[0] += " PRIMARY KEY"
            # Another export may create it at the same moment: this one then waits, and fails.
            run(f"CREATE TABLE {table} ({', '.join(types)})")
            return shape
        # Two exports at once would each miss the nameless people that the other one brings.
        run(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
        for name, type_ in shape.missing.items():
            run(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {_quoted(name)} {type_}")
        if shape.owned and not shape.indexed:
            self._index()
        return shape

    def _index(self) -> None:
        # Before rows are looked for, after a first load: many at once make a better index.
        self._connection.execute(f"CREATE INDEX ON {self._target.quoted} USING gin (object_ids)")

    def _encode(self, records: Sequence[bytes]) -> bytes:
        """Return `records` in the text format of COPY."""
        flatten = self._target.flatten
        columns = Columns(records, flatten, mend=True)
        self.mended += columns.mended
        identities, *texts = [self._fit_texts(values) for values in columns.texts]
        lifted = [columns.lifted(number, "text") for number in range(len(flatten))]
        object_ids = [self._fit_ids(ids) for ids in columns.object_ids]
        cells = [
            identities,
            *texts,
            [_array(ids) for ids in object_ids],
            *([self._fit_json(data) for data in column] for column in columns.json_texts),
            *map(self._fit_texts, lifted),
        ]
        people = map(_person, identities, object_ids, records)
        nameless = (
            b"f" if identity or not ids else b"t"
            for identity, ids in zip(identities, object_ids, strict=True)
        )
        numbers = (b"%d" % number for number in count(self._rows))
        self._rows += len(records)
        rows = zip(nameless, people, *cells, strict=True)
        lines = (
            b"\t".join((number, *map(_cell, row)))
            for number, row in zip(numbers, rows, strict=False)
        )
        return b"\n".join([*lines, b""])

    def _fit_texts(self, values: list[str | None]) -> list[bytes | None]:
        return [None if value is None else self._fit_text(value) for value in values]

    def _fit_text(self, value: str) -> bytes:
        if "\0" in value:
            value = value.replace("\0", "\ufffd")
            self.mended += 1
        return value.encode()

    def _fit_ids(self, ids: list[str]) -> list[bytes]:
        found = []
        for text in map(self._fit_text, ids):
            short = _shortened(text)
            self.mended += short != text
            found.append(short)
        return found

    def _fit_json(self, data: bytes | None) -> bytes | None:
        if data is None:
            return None
        fitted, mended = fit_json(data)
        self.mended += mended
        return fitted


_SLICE = 100


def _person(identity: bytes | None, ids: list[bytes], record: bytes) -> bytes:
    key = person_key(_shortened(identity or b"").decode(), map(bytes.decode, ids))
    return b"record:" + _digest(record) if key is None else key.encode()


def _shortened(text: bytes) -> bytes:
    return text if len(text) <= _MAX_INDEXED else b"sha256:" + _digest(text)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _array(texts: list[bytes]) -> bytes:
    quoted = (b'"%b"' % text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for text in texts)
    return b"{%b}" % b",".join(quoted)


def _cell(value: bytes | None) -> bytes:
    """Return a value in the text format of COPY ("COPY", File Formats)."""
    if value is None:
        return b"\\N"
    escaped = value.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return escaped.replace(b"\t", b"\\t").replace(b"\r", b"\\r")


def _row(connection: psycopg.Connection[Any], query: str, values: list[Any]) -> Any:
    return connection.execute(query, values).fetchone()


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))
