"""Sinks: how fast does each database or file take rows, and in how much memory?

Rows go straight into the sinks of an export, so that neither network nor spool is measured. Each
one stands beside its physical limit: `COPY` alone of the same bytes into a table without an index,
DuckDB's `read_ndjson` alone of the same records, and pyarrow's writer alone of the same table.
PostgreSQL runs on loopback, in a cluster of its own with `fsync` off, as do the tests.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from altaprofiles.export.output import Output
from altaprofiles.export.sinks import resolve
from altaprofiles.export.tables import Content, Origin
from altaprofiles.tables.kinds import Kinds
from altaprofiles.tables.rows import Row

from .bodies import PLACE, place, record
from .export import RECORD_BYTES, RECORDS
from .measure import Contender, Run, Watch, left_out, median, note, once, paired, present
from .report import Cell, Ratio, Report, Table

if TYPE_CHECKING:
    from tests.support.postgres import Server

__all__ = [
    "copy_alone",
    "file_filled",
    "filled",
    "measure",
    "pyarrow_alone",
    "read_ndjson_alone",
    "server",
]

_CONTENT = Content(has_events=True)
_BEGUN = datetime(2026, 2, 1, tzinfo=UTC)
_SLICE = 1000

_FIRST = "PostgreSQL, first load"
_UPSERT = "PostgreSQL, upsert, all changed"
_SAME = "PostgreSQL, upsert, none changed"
_COPY = "COPY alone"
_DUCKDB = "DuckDB"
_NDJSON = "read_ndjson alone"
_PARQUET = "Parquet"
_WRITER = "pyarrow's writer alone"
_LIBRARIES = "the libraries alone"
_WITH_PANDAS = "the libraries alone, and pandas"

_FLOOR = "Of the peaks of DuckDB and Parquet, Python and both libraries take {:.0f} MB."
_PANDAS = "Where pandas is installed, pyarrow imports it, and each of them takes {:.0f} MB more."


def _rows(people: int, event: str = "App Launched") -> Iterator[list[Row]]:
    """Return the rows of people, a slice at a time. All else is made before the first one."""
    bodies = [record(number, RECORD_BYTES) for number in range(min(people, RECORDS))]

    def rows(numbers: range) -> list[Row]:
        return [
            Row(
                bodies[number % len(bodies)].replace(PLACE, place(0, number // len(bodies))),
                "ACCOUNT",
                matched=(event,),
            )
            for number in numbers
        ]

    starts = range(0, people, _SLICE)
    return (rows(range(start, min(start + _SLICE, people))) for start in starts)


def _origin(day: int) -> Origin:
    return Origin(f"run {day}", ("ACCOUNT",), _BEGUN + timedelta(day))


def filled(to: str, people: int, day: int = 0, event: str = "App Launched") -> Run:
    """Put people into a sink, and the sink's output into its place.

    Args:
        to: the output.
        people: number of people, the same ones each time.
        day: the day of the export. A later one updates what an earlier one has written.
        event: the event that brought them. Rows with another one have changed.
    """
    options: dict[str, Any] = {"write": "upsert"} if "://" in to else {}
    target = resolve(Output(to=to, **options), _CONTENT)
    origin = _origin(day)
    table = _CONTENT.table({}, Kinds({}) if target.has_types else None, origin)
    slices = _rows(people, event)
    with Watch() as watch:
        sink = target.open(table, origin)
        try:
            for rows in slices:
                sink.write(rows)
            if (file := sink.close()) is not None:
                file.close()
        except BaseException:
            sink.abort()
            raise
    # The peak is that of the sink, not of the count.
    run = watch.run()
    return structs.replace(run, figures={"people": _count(to)})


def file_filled(to: str, people: int) -> Run:
    """Do what `filled` does, without pandas, which no extra for files installs."""
    _hide_pandas()
    return filled(to, people)


class _Absent(MetaPathFinder):
    """Lets a package look as if it were not installed."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def _hide_pandas() -> None:
    """Let pandas look as if it were not installed, for the whole process."""
    # None in `sys.modules` is not enough: to pyarrow's compiled import it is the module.
    sys.meta_path.insert(0, _Absent("pandas"))


def _count(to: str) -> int:
    """Return the number of rows of an output."""
    count: int
    if "://" in to:
        import psycopg

        place, _, table = to.rpartition("/")
        with psycopg.connect(place) as connection:
            ((count,),) = connection.execute(f"SELECT count(*) FROM {table}".encode())  # noqa: S608
    else:
        import duckdb

        table = "profiles" if to.endswith(".duckdb") else f"read_parquet('{to}')"
        with duckdb.connect(to if to.endswith(".duckdb") else ":memory:") as connection:
            ((count,),) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608
    return count


def copy_alone(to: str, people: int) -> Run:
    """Send the bytes that the sink sends for these people, encoded before, with `COPY`."""
    import psycopg

    from altaprofiles.export.sinks.postgres_load import staged_columns
    from altaprofiles.export.sinks.postgres_rows import RowEncoder, number_lines

    target: Any = resolve(Output(to=to, write="upsert"), _CONTENT)
    encoder = RowEncoder(_CONTENT.table({}, None, _origin(0)))
    with tempfile.TemporaryFile() as file:
        number = 0
        for rows in _rows(people):
            lines, _ = encoder.encode(rows)
            file.write(number_lines(lines, number))
            number += len(lines)
        file.seek(0)
        columns = zip(
            staged_columns(target.table).values(), target.table.columns.values(), strict=True
        )
        names = ", ".join(f"{name} {kind}" for name, kind in columns)
        with psycopg.connect(to.rpartition("/")[0]) as connection, Watch() as watch:
            cursor = connection.cursor()
            cursor.execute(f"CREATE TABLE copied (number bigint, nameless boolean, {names})")
            with cursor.copy("COPY copied FROM STDIN") as copy:
                while data := file.read(1 << 17):
                    copy.write(data)
            connection.commit()
            cursor.execute("DROP TABLE copied")
    return watch.run(people=people)


def read_ndjson_alone(people: int) -> Run:
    """Load a file of these records with DuckDB's `read_ndjson` into a file of its own."""
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "people.ndjson")
        with source.open("wb") as file:
            for rows in _rows(people):
                file.writelines(row.record + b"\n" for row in rows)
        connection = duckdb.connect(
            str(Path(folder, "people.duckdb")), config={"memory_limit": "500MB"}
        )
        with Watch() as watch:
            connection.execute(
                f"CREATE TABLE people AS SELECT * FROM read_ndjson('{source}', columns={_TYPES})"  # noqa: S608
            )
            connection.execute("CHECKPOINT")
        (count,) = connection.execute("SELECT count(*) FROM people").fetchall()[0]
        connection.close()
    return watch.run(people=count)


_TYPES = (
    "{identity: 'VARCHAR', email: 'VARCHAR', name: 'VARCHAR', phone: 'VARCHAR',"
    " profileData: 'JSON', events: 'JSON', platformInfo: 'JSON'}"
)


def pyarrow_alone(people: int) -> Run:
    """Write the table of the Parquet sink again, with pyarrow's writer and the same row groups."""
    from pyarrow import parquet

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "people.parquet")
        filled(str(made), people)
        wall = cpu = 0.0
        run = None
        with parquet.ParquetFile(made) as source:
            path = Path(folder, "copy.parquet")
            with parquet.ParquetWriter(path, source.schema_arrow, compression="zstd") as writer:
                for number in range(source.num_row_groups):
                    group = source.read_row_group(number)
                    with Watch() as watch:
                        writer.write_table(group, row_group_size=len(group))
                    wall, cpu = wall + watch.wall, cpu + watch.cpu
                    run = watch.run(people=people)
    assert run is not None
    return Run(wall, cpu, run.rss, run.figures)


def libraries_alone(*, has_pandas: bool = False) -> Run:
    """Import what DuckDB and Parquet need, and make one array."""
    if not has_pandas:
        _hide_pandas()
    import duckdb
    import pyarrow

    from altaprofiles.export.sinks.parquet import import_parquet

    with Watch() as watch:
        import_parquet()
        # With its first array pyarrow imports pandas, if it is installed.
        pyarrow.array(["a"])
        duckdb.connect(":memory:").close()
    return watch.run(people=0)


@contextmanager
def server() -> Iterator[Server | None]:
    """Run a PostgreSQL server of its own; None if none is installed."""
    with suppress(ImportError):
        from tests.support.postgres import Cluster, binaries

        if (programs := binaries()) is not None:
            # The server's user is another one.
            folder = tempfile.mkdtemp(prefix="altaprofiles-")
            cluster = Cluster(programs, Path(folder))
            try:
                yield cluster.started()
            finally:
                cluster.stop()
                shutil.rmtree(folder, ignore_errors=True)
            return
    yield None


def measure(*, people: int = 1_000_000, changed: int = 100_000, repeats: int = 3) -> Report:
    """Return time, memory, and share of its limit for each sink.

    Args:
        people: number of people in files, and in the table that is updated.
        changed: number of people in a first load, and in an upsert.
        repeats: number of rounds of PostgreSQL.
    """
    rows: list[list[Cell]] = []
    with ExitStack() as stack:
        started = stack.enter_context(server())
        shares = _databases(started, people, changed, repeats, rows) if started else {}
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        files = [
            Contender(_LIBRARIES, libraries_alone, {}, ("duckdb", "pyarrow")),
            Contender(
                _WITH_PANDAS,
                libraries_alone,
                {"has_pandas": True},
                ("duckdb", "pandas", "pyarrow"),
            ),
            Contender(_NDJSON, read_ndjson_alone, {"people": people}, ("duckdb",)),
            Contender(
                _DUCKDB,
                file_filled,
                {"to": str(Path(folder, "people.duckdb")), "people": people},
                ("duckdb", "pyarrow"),
            ),
            Contender(_WRITER, pyarrow_alone, {"people": people}, ("pyarrow",)),
            Contender(
                _PARQUET,
                file_filled,
                {"to": str(Path(folder, "people.parquet")), "people": people},
                ("pyarrow",),
            ),
        ]
        runs: dict[str, Run] = {}
        for one in present(files):
            note(f"  {one.label}")
            runs[one.label] = once(one)
    limits = {_DUCKDB: _NDJSON, _PARQUET: _WRITER}
    floor, with_pandas = runs.pop(_LIBRARIES, None), runs.pop(_WITH_PANDAS, None)
    for label, run in runs.items():
        limit = runs.get(limits.get(label, ""))
        share = None if limit is None else limit.wall / run.wall
        rows.append(_row(label, people, run.wall, run.rss, share))
    notes = [
        (
            f"Records of {RECORD_BYTES:,} bytes, made while the sink takes them. A share is the "
            "time of the limit by that of the sink, within a round."
        ),
        f"PostgreSQL: medians of {repeats} rounds, on loopback, `fsync` off; peaks of the client.",
        *([] if floor is None else [_FLOOR.format(floor.rss / 1e6)]),
        *(
            []
            if floor is None or with_pandas is None
            else [_PANDAS.format((with_pandas.rss - floor.rss) / 1e6)]
        ),
        *left_out(files),
        *([] if started else ["Left out: PostgreSQL (no server or driver is installed)."]),
    ]
    return Report(
        [
            Table(
                "Sinks",
                ["sink", "people", "seconds", "people a second", "share of its limit", "peak MB"],
                rows,
                notes,
            )
        ],
        [
            Ratio(14, "first load of PostgreSQL", shares.get(_FIRST), 25_000, True, "people/s"),
            Ratio(14, "upsert in PostgreSQL", shares.get(_UPSERT), 15_000, True, "people/s"),
            Ratio(14, "peak RSS of DuckDB", _peak(runs, _DUCKDB), 300, False, "MB"),
            Ratio(14, "peak RSS of Parquet", _peak(runs, _PARQUET), 200, False, "MB"),
        ],
    )


def _databases(
    started: Server, people: int, changed: int, repeats: int, rows: list[list[Cell]]
) -> dict[str, float]:
    """Add the rows of PostgreSQL; return the people a second of each way."""
    million, fresh = started.url("people"), started.url("fresh")
    note(f"  a table of {people:,} people")
    once(Contender("table", filled, {"to": million, "people": people}))
    runs: dict[str, list[Run]] = {}
    for number in range(repeats):
        event = f"Event {number}"
        ways = {
            _COPY: (copy_alone, {"to": fresh, "people": changed}),
            _FIRST: (filled, {"to": fresh, "people": changed}),
            _UPSERT: (
                filled,
                {"to": million, "people": changed, "day": 2 * number + 1, "event": event},
            ),
            _SAME: (
                filled,
                {"to": million, "people": changed, "day": 2 * number + 2, "event": event},
            ),
        }
        started.run("DROP TABLE IF EXISTS fresh")
        for label, (function, arguments) in ways.items():
            note(f"  round {number + 1} of {repeats}: {label}")
            runs.setdefault(label, []).append(once(Contender(label, function, arguments)))
    rates = {}
    for label, of in runs.items():
        wall = median(of, lambda run: run.wall)
        share = paired(runs, _COPY, label, lambda run: run.wall) if label != _COPY else None
        rows.append(_row(label, changed, wall, int(median(of, lambda run: run.rss)), share))
        rates[label] = changed / wall
    return rates


def _row(label: str, people: int, wall: float, rss: int, share: float | None) -> list[Cell]:
    return [label, people, wall, people / wall, share, rss / 1e6]


def _peak(runs: dict[str, Run], label: str) -> float | None:
    return runs[label].rss / 1e6 if label in runs else None
