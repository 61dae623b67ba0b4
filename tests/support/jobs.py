"""The kinds of jobs, and two services to run each of them at: for tests of their contract."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import ANY
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from msgspec import Struct
from msgspec.structs import replace

from altaprofiles import Alta, CleverTap, Profile, Session
from altaprofiles.emulator import Emulator
from altaprofiles.emulator.bindings import Bindings
from altaprofiles.emulator.people import Population
from altaprofiles.export.report import ExportProgress, LookupProgress, Progress

from .servers import http, scripted
from .sessions import QUICK
from .thorough import rotating


class Halt(Exception):
    """Ends an export from outside."""


class Sample(Struct, frozen=True, kw_only=True):
    """One job, and its outcome.

    Attributes:
        arguments: those of the method that starts it, without the output.
        people: everyone in the output, in order.
        items: the number of items that it receives.
    """

    arguments: dict[str, Any]
    people: list[str]
    items: int


class Kind(Struct, frozen=True, kw_only=True):
    """One kind of job.

    Attributes:
        name: the name, for the names of tests.
        method: the method of `Session` that starts it.
        tag: its name in plans.
        unit: the items that a later run can resume with.
        result: the first field of its report that the other kinds do not have.
        stages: the stages, in order.
        endings: the files beside output and manifest, in the scripted sample.
        flattens: whether its records are people, whose properties can be columns.
        options: its own options in the manifest.
        account, secret: the variables of the environment with its account and its credential.
        slots: requests that can be in flight at once.
        ahead: requests that can be in flight, or answered and not on disk, at an interruption.
        emulated: the sample for an emulator, by its population.
        scripted: the sample for a scripted server.
        answer: the scripted server's answer to a request line and body, with that much padding in
            each record.
        brief: changes of the scripted sample that make it short.
        other_plans: changes of the scripted sample that make it another export, each with the
            differences that `PlanMismatch` names.
    """

    name: str
    method: str
    tag: str
    unit: str
    result: str
    stages: tuple[str, ...]
    endings: tuple[str, ...]
    flattens: bool = True
    options: dict[str, Any]
    account: str
    secret: str
    slots: int = 3
    ahead: int
    emulated: Callable[[Population], Sample]
    scripted: Sample
    answer: Callable[[str, bytes, str], bytes]
    brief: dict[str, Any]
    other_plans: list[tuple[dict[str, Any], dict[str, tuple[Any, Any]]]]

    def __str__(self) -> str:
        return self.name

    @property
    def noun(self) -> str:
        """Its name in messages."""
        return "lookup" if self.unit == "answers" else "export"

    def account_of(self, value: str) -> str:
        """Return the account in plans, from the value of its variable."""
        return Alta(value).account if self.account == "ALTA_TOKEN" else value

    def files(self, name: str) -> list[str]:
        """Return the names of all files that the scripted sample leaves for the output `name`."""
        return sorted([name, *(f"{name}{ending}" for ending in (".manifest.json", *self.endings))])


# ----------------------------------------------------------------------------------------- services


class Case:
    """One kind of job at one service."""

    def __init__(self, kind: Kind, sample: Sample, environment: Mapping[str, str]) -> None:
        self.kind = kind
        self.arguments = sample.arguments
        self.people = sample.people
        self.items = sample.items
        # With the first item, some are on disk and some are missing. A higher number might come
        # together with the last item, because the machine's speed decides on what is committed
        # together.
        self.midway = 1
        self.environment = environment

    @property
    def requests(self) -> int:
        """Number of requests that the service has received."""
        raise NotImplementedError

    def session(self, **changes: str) -> Session:
        """Return a session with the credentials of `environment`, some of them changed."""
        values = {**self.environment, **changes}
        return Session(
            clevertap=CleverTap(
                account_id=values["CLEVERTAP_ACCOUNT_ID"],
                passcode=values["CLEVERTAP_PASSCODE"],
                base_url=values["CLEVERTAP_BASE_URL"],
            ),
            alta=Alta(token=values["ALTA_TOKEN"], base_url=values["ALTA_BASE_URL"]),
            retry=QUICK,
        )

    def start(self, session: Session, to: Path | str, **changes: Any) -> Coroutine[Any, Any, Any]:
        """Call the method that starts the job, with some of its arguments changed."""
        result: Coroutine[Any, Any, Any] = getattr(session, self.kind.method)(
            **{**self.arguments, "to": to, **changes}
        )
        return result

    async def run(self, to: Path | str, **changes: Any) -> Any:
        """Run the job to its end in a session of its own, and return the report."""
        async with self.session() as session:
            return await self.start(session, to, **changes)

    async def uninterrupted(self, to: Path, **changes: Any) -> bytes:
        """Run the job to its end in a folder beside `to`, and return the output."""
        elsewhere = to.parent / "uninterrupted" / to.name
        elsewhere.parent.mkdir()
        await self.run(elsewhere, **changes)
        return elsewhere.read_bytes()


class Emulated(Case):
    """One kind of job at an emulator."""

    def __init__(self, kind: Kind, emulator: Emulator) -> None:
        super().__init__(kind, kind.emulated(emulator.population), emulator.environment)
        self.emulator = emulator

    @property
    def requests(self) -> int:
        return sum(self.emulator.stats.requests.values())


@asynccontextmanager
async def at_emulator(kind: Kind, *, people: int = 400, **options: Any) -> AsyncIterator[Emulated]:
    """Serve `kind` by an emulator with these options."""
    async with Emulator(people=people, seed=2, **options) as emulator:
        yield Emulated(kind, emulator)


class Scripted(Case):
    """One kind of job at a server that can be held, and can refuse.

    Attributes:
        received: how often each request came: its first line and its body.
        released: while it is clear, no request is answered.
        refusal: the answer to every request, or None for good ones.
    """

    def __init__(self, kind: Kind, url: str) -> None:
        super().__init__(
            kind,
            kind.scripted,
            {
                "CLEVERTAP_ACCOUNT_ID": "TEST",
                "CLEVERTAP_PASSCODE": "PASS",
                "CLEVERTAP_BASE_URL": url,
                "ALTA_TOKEN": "app-TOKEN",
                "ALTA_BASE_URL": url,
            },
        )
        self.received: Counter[tuple[str, bytes]] = Counter()
        self.released = asyncio.Event()
        self.released.set()
        self.refusal: bytes | None = None

    @property
    def requests(self) -> int:
        return self.received.total()

    @property
    def repeated(self) -> list[str]:
        """The first line of each request that came more than once."""
        return [line for (line, _), times in self.received.items() if times > 1]

    async def interrupt(self, to: Path | str, **changes: Any) -> None:
        """Run the job until it is midway."""

        def on_progress(progress: Progress) -> None:
            if received(progress) >= self.midway:
                # Answers that arrive before it has ended would still be kept.
                self.released.clear()
                raise Halt

        with pytest.raises(Halt):
            await self.run(to, on_progress=on_progress, **changes)
        self.released.set()

    async def hold_midway(self, session: Session, to: Path) -> asyncio.Task[Any]:
        """Start the job, and return it when it is midway. There it stays until it is released."""
        reached = asyncio.Event()

        def on_progress(progress: Progress) -> None:
            # Once: the reports go on while it is held.
            if received(progress) >= self.midway and not reached.is_set():
                self.released.clear()
                reached.set()

        job = asyncio.ensure_future(self.start(session, to, on_progress=on_progress))
        with anyio.fail_after(60):
            await reached.wait()
        return job


@asynccontextmanager
async def at_script(kind: Kind, *, padding: int = 0) -> AsyncIterator[Scripted]:
    """Serve `kind` by a scripted server, with so many more bytes in each record."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        line, body = head.split(b"\r\n", 1)[0].decode(), server.bodies[-1]
        case.received[line, body] += 1
        await case.released.wait()
        writer.write(case.refusal or kind.answer(line, body, "x" * padding))

    async with scripted(answer) as server:
        case = Scripted(kind, server.url)
        yield case


def received(progress: Progress) -> int:
    """Return the number of items received from the service, by earlier runs as well."""
    if isinstance(progress, ExportProgress):
        return progress.records
    assert isinstance(progress, LookupProgress)
    return progress.answered


def resumed(reports: Sequence[Progress]) -> int:
    """Return the number of items that earlier runs had received, by the first report that knows."""
    return next(progress.resumed for progress in reports if progress.fetching)


# ----------------------------------------------------------------------------------------- the disk


def folder_of(to: Path) -> Path:
    """Return the folder of an output, which has a workspace for each plan."""
    return to.with_name(f"{to.name}.export")


def workspaces_of(to: Path) -> list[Path]:
    """Return the workspaces of plans of an output, by name."""
    found = folder_of(to).iterdir() if folder_of(to).is_dir() else ()
    return sorted(path for path in found if path.is_dir() and path.name != "reading")


def workspace_of(to: Path) -> Path:
    """Return the only workspace of an output, or its folder if there is none."""
    if not (found := workspaces_of(to)):
        return folder_of(to)
    (workspace,) = found
    return workspace


def spools_of(to: Path) -> list[Path]:
    return sorted(folder_of(to).glob("*/*.spool.ndjson"))


def journal(workspace: Path, query: str) -> list[tuple[Any, ...]]:
    """Return rows of a journal, without touching what a resumed export finds.

    Not of an export in this process, which would lose its lock.
    """
    if not (workspace / "journal.sqlite").exists():
        return []
    with TemporaryDirectory() as folder:
        for path in workspace.glob("journal.sqlite*"):
            with suppress(FileNotFoundError):
                shutil.copy(path, folder)
        with closing(sqlite3.connect(f"{folder}/journal.sqlite")) as db:
            try:
                return db.execute(query).fetchall()
            except sqlite3.DatabaseError:
                return []  # before there are any tables, or copied while it was written


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def person(identity: str | None, devices: list[str]) -> str:
    return identity if identity is not None else " ".join(sorted(devices))


def people_in(to: Path) -> list[str]:
    return [_person_in(line) for line in to.read_bytes().splitlines()]


def _person_in(line: bytes) -> str:
    if line.startswith(b'{"key":'):
        key: str = json.loads(line)["key"]
        return key
    profile = Profile.decode(line)
    return person(profile.identity, profile.object_ids)


# ------------------------------------------------------------------------------------------- events

ARGUMENTS: dict[str, Any] = {
    "events": ["App Launched", "Charged"],
    "start": 20260101,
    "end": 20260131,
    "windows": 3,
    "batch_size": 46,
}
THIRDS = [(20260101, 20260110), (20260111, 20260120), (20260121, 20260131)]


def people_of(population: Population, event: str, start: int, end: int) -> list[str]:
    return [
        person(population.identity(n), population.object_ids(n))
        for n in population.active(event, start, end)
    ]


def chains_of(population: Population) -> list[list[str]]:
    """Return the people of each chain that `ARGUMENTS` make."""
    return [
        people_of(population, event, *window) for event in ARGUMENTS["events"] for window in THIRDS
    ]


def _emulated_events(population: Population) -> Sample:
    every = [who for chain in chains_of(population) for who in chain]
    return Sample(arguments=ARGUMENTS, people=list(dict.fromkeys(every)), items=len(every))


_PAGES = 12


def _people_on_page(event: str, start: str, page: int) -> list[str]:
    # The first did the other event as well.
    return [f"{start}-{page}", f"{event}-{start}-{page}"]


def _answer_events(line: str, body: bytes, padding: str) -> bytes:
    if line.startswith("POST"):
        query = json.loads(body)
        cursor = f"{query['event_name']}-{query['from']}-0"
        return http(json.dumps({"status": "success", "cursor": cursor}).encode())
    event, start, page = _query(line)["cursor"].split("-")
    answer: dict[str, Any] = {
        "status": "success",
        "records": [
            {"identity": who, "padding": padding}
            for who in _people_on_page(event, start, int(page))
        ],
    }
    if int(page) + 1 < _PAGES:
        answer["next_cursor"] = f"{event}-{start}-{int(page) + 1}"
    return http(json.dumps(answer).encode())


def _query(line: str) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(urlsplit(line.split(" ")[1]).query).items()}


_EVENTS = ("Charged", "Viewed")
_ON_PAGES = [
    who
    for event in _EVENTS
    for start in ("20260101", "20260111", "20260121")
    for page in range(_PAGES)
    for who in _people_on_page(event, start, page)
]

EVENTS = Kind(
    name="events",
    method="export",
    tag="events",
    unit="records",
    result="people",
    stages=("reading", "finishing"),
    endings=(),
    options={"distinct": True},
    account="CLEVERTAP_ACCOUNT_ID",
    secret="CLEVERTAP_PASSCODE",
    # Three pages of each of six chains.
    ahead=18,
    emulated=_emulated_events,
    scripted=Sample(
        arguments={"events": list(_EVENTS), "start": 20260101, "end": 20260130, "windows": 3},
        people=list(dict.fromkeys(_ON_PAGES)),
        items=len(_ON_PAGES),
    ),
    answer=_answer_events,
    brief={"start": 20260130, "windows": 1},
    other_plans=[
        ({"events": "Charged"}, {"events": (_EVENTS, ("Charged",))}),
        ({"events": ["Viewed", "Charged"]}, {"events": (_EVENTS, ("Viewed", "Charged"))}),
        ({"start": 20260102}, {"start": (20260101, 20260102)}),
        ({"end": 20260131}, {"end": (20260130, 20260131)}),
        ({"windows": 2}, {"windows": (3, 2)}),
        ({"app": True}, {"app": (False, True)}),
        ({"event_summaries": False}, {"event_summaries": (True, False)}),
        ({"profile": False, "windows": 1}, {"profile": (True, False), "windows": (3, 1)}),
    ],
)


# --------------------------------------------------------------------------------------------- keys


def _emulated_keys(population: Population) -> Sample:
    known = [key for n in range(len(population)) if (key := population.identity(n)) is not None]
    keys = [*known, "nobody"]
    return Sample(arguments={"keys": keys, "by": "identity"}, people=known, items=len(keys))


_KEYS = [f"key {n}" for n in range(300)]
_UNKNOWN, _REFUSED = set(_KEYS[3::7]), set(_KEYS[5::49])


def _answer_keys(line: str, body: bytes, padding: str) -> bytes:
    query = _query(line)
    key = query["identity"] if "identity" in query else query["email"]
    if key in _REFUSED:
        return http(b'{"status":"fail","error":"no","code":400}', "400 Bad Request")
    record = None if key in _UNKNOWN else {"identity": key, "padding": padding}
    return http(json.dumps({"status": "success", "record": record}).encode())


KEYS = Kind(
    name="keys",
    method="export_lookups",
    tag="lookups",
    unit="answers",
    result="keys",
    stages=("reading", "asking", "finishing"),
    endings=(".failed.ndjson", ".not-found.txt"),
    options={},
    account="CLEVERTAP_ACCOUNT_ID",
    secret="CLEVERTAP_PASSCODE",
    # Four for each of as many workers as there are slots, and one more.
    ahead=16,
    emulated=_emulated_keys,
    scripted=Sample(
        arguments={"keys": _KEYS, "by": "identity"},
        people=[key for key in _KEYS if key not in _UNKNOWN | _REFUSED],
        items=len(_KEYS),
    ),
    answer=_answer_keys,
    brief={"keys": _KEYS[:5]},
    other_plans=[
        ({"keys": _KEYS[:-1]}, {"keys": (300, 299), "digest": ANY}),
        ({"keys": [*_KEYS, "one more"]}, {"keys": (300, 301), "digest": ANY}),
        ({"keys": _KEYS[::-1]}, {"digest": ANY}),
        ({"keys": [*_KEYS[:-1], "another"]}, {"digest": ANY}),
        ({"by": "email"}, {"by": ("identity", "email")}),
    ],
)

# ----------------------------------------------------------------------------------------- bindings


def _emulated_bindings(population: Population) -> Sample:
    bindings = Bindings(population)
    keys = [key for n in range(len(population)) if (key := population.identity(n)) is not None]
    bound = [key for key in keys if bindings.by_user(key)]
    return Sample(arguments={"keys": keys, "by": "user_id"}, people=bound, items=len(keys))


def _answer_bindings(line: str, body: bytes, padding: str) -> bytes:
    query = _query(line)
    if "identity" in query:
        return _answer_keys(line, body, padding)
    if "anonymous_id" in query:
        return http(b'{"code":0,"data":{}}')
    key = query["user_id"]
    if key in _REFUSED:
        return http(b'{"code":40000,"message":"no"}', "400 Bad Request")
    bound = {"anonymous_id": f"a {key}", "conversation_type": "WEB", "source_id": padding}
    data = {} if key in _UNKNOWN else {key: {"user_id": key, "anonymous_ids": [bound]}}
    return http(json.dumps({"code": 0, "data": data}).encode())


BINDINGS = Kind(
    name="bindings",
    method="export_lookups",
    tag="lookups",
    unit="answers",
    result="keys",
    stages=("reading", "asking", "finishing"),
    endings=(".failed.ndjson", ".not-found.txt"),
    flattens=False,
    options={},
    account="ALTA_TOKEN",
    secret="ALTA_TOKEN",
    # Four for each of as many workers as there are slots, and one more.
    slots=16,
    ahead=81,
    emulated=_emulated_bindings,
    scripted=Sample(
        arguments={"keys": _KEYS, "by": "user_id"},
        people=[key for key in _KEYS if key not in _UNKNOWN | _REFUSED],
        items=len(_KEYS),
    ),
    answer=_answer_bindings,
    brief={"keys": _KEYS[:5]},
    other_plans=[
        ({"keys": _KEYS[:-1]}, {"keys": (300, 299), "digest": ANY}),
        ({"by": "anonymous_id"}, {"by": ("user_id", "anonymous_id")}),
        (
            {"by": "identity"},
            {"by": ("user_id", "identity"), "account": ANY},
        ),
    ],
)

# ------------------------------------------------------------------------------------------- joined


def _answer_joined(line: str, body: bytes, padding: str) -> bytes:
    is_of_alta = "get-user-cdp" in line
    return (_answer_bindings if is_of_alta else _answer_events)(line, body, padding)


def _joined(sample: Sample) -> Sample:
    return Sample(
        arguments={**sample.arguments, "with_cdp": True}, people=sample.people, items=sample.items
    )


JOINED = replace(
    EVENTS,
    name="joined",
    result="matched",
    stages=("reading", "joining", "finishing"),
    slots=EVENTS.slots + BINDINGS.slots,
    ahead=EVENTS.ahead + BINDINGS.ahead,
    emulated=lambda population: _joined(_emulated_events(population)),
    scripted=_joined(EVENTS.scripted),
    answer=_answer_joined,
    other_plans=[
        *EVENTS.other_plans,
        ({"with_cdp": False}, {"with_cdp": (True, False)}),
        ({"cdp_key": "phone"}, {"cdp_key": ("identity", "phone")}),
        ({"cdp_by": "anonymous_id"}, {"cdp_by": ("user_id", "anonymous_id")}),
    ],
)

KINDS = [EVENTS, KEYS, BINDINGS, JOINED]


def in_turn(name: str, values: Sequence[Any]) -> pytest.MarkDecorator:
    """Run a test with each value, and with one kind after the other."""
    cases = rotating([(value,) for value in values], KINDS)
    return pytest.mark.parametrize((name, "kind"), cases, ids=lambda one: str(one).split(" at ")[0])
