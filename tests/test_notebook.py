"""Progress in a notebook, in a real kernel and outside of one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import altaprofiles.emulator
from altaprofiles import Incomplete
from altaprofiles.notebook import Progress

from .support.notebooks import executed, shown_as, text_of
from .support.records import AT, LOOKING_UP
from .support.servers import always, http, scripted
from .support.sessions import session_at

CONNECT = """
from altaprofiles import Session
from altaprofiles.emulator import Emulator
from altaprofiles.notebook import Progress

emulator = await Emulator(people=6000, seed=7, faults={"not_ready": 0.2}).__aenter__()


def connect() -> Session:
    return Session(clevertap=emulator.clevertap, alta=emulator.alta)
"""

STOPPED = """
import os, signal
bar = Progress()

def stop(progress):
    bar(progress)
    if progress.records and os.environ.pop("STOP", None):
        os.kill(os.getpid(), signal.SIGINT)

async with connect() as session:
    await session.export(
        "App Launched", start=20260101, end=20260131, to="p.ndjson", count=True, on_progress=stop
    )
"""


def test_a_bar_does_not_stand_still_after_an_interruption(tmp_path: Path) -> None:
    setting = "import os; os.environ['STOP'] = 'yes'"
    cells = [CONNECT, setting, STOPPED, STOPPED]
    *_, stopped, resumed = executed(tmp_path, cells, raising={2})
    (error,) = (one for one in stopped if one["output_type"] == "error")
    assert error["ename"] == "CancelledError"
    # Its traceback does not fill the cell with what the library was waiting in.
    assert files_of(error) == ["calls.py", "session.py"]
    (html,) = shown_as(stopped, "text/html")
    assert html.startswith("<div>stopped; run it again to resume. At the end it was reading: ")
    assert "<progress" not in html
    (html,) = shown_as(resumed, "text/html")
    assert html.startswith('<progress value="1.000" style="width: 100%"></progress><div>done: ')
    assert "stopped" not in html


def files_of(error: dict[str, Any]) -> list[str]:
    """Return the names of the files whose lines a cell shows for an error."""
    shown = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))
    return [Path(file).name for file in re.findall(r"^File (\S+?):[0-9]+", shown, re.MULTILINE)]


FAILED = """
async with connect() as session:
    await session.export(
        "App Launched", start=20260101, end=20260131, to="p.duckdb", deadline={deadline}
    )
"""

OPENED = """
import duckdb
opened = duckdb.connect("p.duckdb")
"""


def test_an_export_that_cannot_go_on_does_not_fill_the_cell(tmp_path: Path) -> None:
    late, done = FAILED.format(deadline=1e-9), FAILED.format(deadline=None)
    _, *outputs = executed(tmp_path, [CONNECT, late, done, OPENED, done], raising={1, 4})
    errors = [one for cell in outputs for one in cell if one["output_type"] == "error"]
    assert [one["ename"] for one in errors] == ["Incomplete", "ExportError"]
    for error in errors:
        assert files_of(error) == ["calls.py", "session.py"]


REFUSED = """
bar = Progress()

def refuse(progress):
    bar(progress)
    if progress.records:
        raise PermissionError("no")

async with connect() as session:
    await session.export(
        "App Launched", start=20260101, end=20260131, to="p.ndjson", on_progress=refuse
    )
"""


def test_a_bar_after_an_error_names_it_and_promises_nothing(tmp_path: Path) -> None:
    *_, failed = executed(tmp_path, [CONNECT, REFUSED], raising={1})
    (html,) = shown_as(failed, "text/html")
    assert html.startswith("<div>failed with PermissionError. At the end it was reading: ")
    assert "again" not in html


GATED = r"""
import asyncio
from altaprofiles import AltaProfilesError, CleverTap, Retry, Session
from altaprofiles.notebook import Progress

status, answered = "200 OK", asyncio.Event()
BODY = '{"status":"success","record":null}'


async def answer(reader, writer):
    while await reader.readline():
        await reader.readuntil(b"\r\n\r\n")
        await answered.wait()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}"
        writer.write(f"{head}\r\n\r\n{BODY}".encode())
    writer.close()


server = await asyncio.start_server(answer, "127.0.0.1", 0)
host, port = server.sockets[0].getsockname()
clevertap = CleverTap("id", "passcode", base_url=f"http://{host}:{port}")
session = await Session(clevertap=clevertap, retry=Retry(attempts=1)).__aenter__()
bars = {}


async def begun(to):
    def note(progress):
        bars[to](progress)
        shown.set()

    shown, bars[to] = asyncio.Event(), Progress()
    work = session.export_lookups(["7"], by="identity", to=to, on_progress=note)
    task = asyncio.create_task(work)
    await asyncio.wait_for(shown.wait(), 60)
    return task
"""

BEGUN = """
task = await begun("going-on.ndjson")
"""

CAUGHT = """
cancelled = await begun("cancelled.ndjson")
cancelled.cancel()
await asyncio.wait([cancelled])
answered.set()
for status in ("503 Service Unavailable", "401 Unauthorized"):
    try:
        await (await begun(f"{status[:3]}.ndjson"))
    except AltaProfilesError as error:
        print(type(error).__name__)
status = "200 OK"
"""

PRINTED = """
for bar in bars.values():
    print(bar)
"""

ENDED = """
answered.set()
await task
answered.clear()
"""


def test_a_bar_follows_its_own_export_and_nothing_else(tmp_path: Path) -> None:
    cells = [GATED, BEGUN, "typo_here", PRINTED, ENDED, CAUGHT, "1 / 0", PRINTED]
    _, _, _, beside, _, caught, _, after = executed(tmp_path, cells, raising={2, 6})
    assert text_of(beside).startswith(("reading: ", "asking: "))
    done = "done: 1 key, 0 found, 1 not found, 0 failed, "
    assert text_of(caught).split() == ["Incomplete", "Unauthorized"]
    ends = [
        "stopped; run it again to resume. At the end it was ",
        "incomplete; nothing of it has been kept. At the end it was ",
        "failed with Unauthorized. At the end it was ",
    ]
    for line, end in zip(text_of(after).splitlines(), [done, *ends], strict=True):
        assert line.startswith(end)
    for html, end in zip(shown_as(caught, "text/html"), ends, strict=True):
        assert html.startswith(f"<div>{end}")


DATABASE = """
import duckdb

async def export():
    async with connect() as session:
        days = {"start": 20260101, "end": 20260131}
        print((await session.export("Charged", **days, to="p.duckdb")).complete)

await export()
"""

MISTAKEN = 'duckdb.connect("p.duckdb").sql("select nonsense from profiles").df()'

IN_A_FUNCTION = """
def ask():
    connection = duckdb.connect("p.duckdb")
    return connection.sql("select nonsense from profiles")

ask()
"""


@pytest.mark.parametrize("mistaken", [MISTAKEN, IN_A_FUNCTION])
def test_a_cell_that_failed_keeps_a_database_open_until_another_one_fails(
    tmp_path: Path, mistaken: str
) -> None:
    export = "await export()"
    cells = [CONNECT, DATABASE, mistaken, export, export, mistaken, "1 / 0", export]
    *_, refused, again, _, _, after = executed(tmp_path, cells, raising={2, 3, 5, 6})
    (error,) = (one for one in refused if one["output_type"] == "error")
    assert error["ename"] == "ExportError"
    assert "The traceback of a cell that failed does so until another one fails" in error["evalue"]
    assert [text_of(one) for one in (again, after)] == ["True\n"] * 2


COMPLETED = """
from IPython.core.completer import provisionalcompleter
import altaprofiles.emulator, altaprofiles.notebook, altaprofiles.otel, altaprofiles.progress
with provisionalcompleter():
    for module in (altaprofiles.notebook, altaprofiles.progress, altaprofiles.otel):
        text = f"{module.__name__}."
        print(*[one.text for one in get_ipython().Completer.completions(text, len(text))])
print(*dir(altaprofiles.emulator))
"""


def test_a_kernel_completes_public_names_only(tmp_path: Path) -> None:
    (completed,) = executed(tmp_path, [COMPLETED])
    assert text_of(completed).splitlines() == [
        "Progress",
        "Log log",
        "Hook hook",
        " ".join(sorted(altaprofiles.emulator.__all__)),
    ]


def test_without_a_notebook_it_is_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show = Progress()
    assert str(show) == "nothing yet"
    show(AT)
    show(msgspec.structs.replace(AT, records=60))
    show(msgspec.structs.replace(AT, records=200))
    show(msgspec.structs.replace(AT, records=200))
    ending = msgspec.structs.replace(AT, stage="finishing", records=200, finished=20)
    show(ending)
    for complete in (False, False, True):
        show(msgspec.structs.replace(ending, finished=200, people=150, complete=complete))
    out, err = capsys.readouterr()
    assert out == ""
    traffic = "2 of 3 slots, 1 retry, 0:00:02"
    assert err.splitlines() == [
        f"reading: 50 of 200 records (25 %), 25 a second, {traffic}, 0:00:06 left",
        f"reading: 200 of 200 records (100 %), 100 a second, {traffic}, 0:00:00 left",
        "finishing: 20 of 200 records (10 %), 0:00:02",
        "finishing: 200 of 200 records (100 %), 0:00:02",
        "done: 150 people of 200 records, 0:00:02",
    ]
    Progress()(msgspec.structs.replace(LOOKING_UP, stage="finishing", complete=True))
    done = "done: 10 keys, 1 found, 2 not found, 3 failed, 0:00:01"
    assert capsys.readouterr().err == f"{done}\n"


@pytest.mark.anyio
async def test_a_line_promises_what_the_error_does(tmp_path: Path) -> None:
    async with scripted(always(http(b'{"status":"fail","code":2}'))) as server:
        async with session_at(server) as session:
            show = Progress()
            # On a busy machine, a deadline may pass before anything is shown.
            for deadline in (0.3, 3, 30):
                with pytest.raises(Incomplete, match="nothing of it has been kept") as caught:
                    await session.export(
                        "Charged",
                        start=20260101,
                        end=20260101,
                        to=tmp_path / "people.ndjson",
                        deadline=deadline,
                        on_progress=show,
                    )
                assert "resume" not in str(caught.value)
                if str(show) != "nothing yet":
                    break
    assert str(show).startswith("incomplete; nothing of it has been kept. At the end it was ")


def test_the_reason_of_retries_is_shown_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    show = Progress()
    reason = "CleverTap: no connection to h: Connection refused"
    for trouble in ("", reason, reason):
        show(msgspec.structs.replace(AT, trouble=trouble))
    first, second = capsys.readouterr().err.splitlines()
    assert second == f"{first}, retried: {reason}"
    # A wait says more.
    waiting = msgspec.structs.replace(AT, trouble=reason, throttled=True)
    assert reason not in str(waiting)
    assert "waiting for the rate limit" in str(waiting)


def test_progress_is_a_line_for_a_person() -> None:
    assert str(LOOKING_UP) == (
        "asking: 6 of 10 keys (60 %), 1 found, 2 not found, 3 failed, 6 a second, "
        "1 of 1 slot, 2 retries, 0:00:01, 0:00:01 left"
    )
    assert str(msgspec.structs.replace(AT, total=None, records=0, seconds=3723.4)) == (
        "reading: 0 records, 0 a second, 2 of 3 slots, 1 retry, 1:02:03"
    )
    reading = msgspec.structs.replace(LOOKING_UP, stage="reading")
    assert str(reading) == "reading: 10 keys, 0:00:01"
    finishing = msgspec.structs.replace(LOOKING_UP, stage="finishing", found=3, finished=1)
    assert str(finishing) == "finishing: 1 of 3 people (33 %), 0:00:01"
    assert msgspec.structs.replace(AT, resumed=60).pace == 0
    # The service's count may differ from the records received.
    assert "300 of 200 records (100 %)" in str(msgspec.structs.replace(AT, records=300))
    assert "0 of 0 records (100 %)" in str(msgspec.structs.replace(AT, records=0, total=0))
