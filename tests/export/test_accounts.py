"""Outputs of several accounts: what is in them, and what is left of them after a kill."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from altaprofiles import Session
from altaprofiles.emulator import Emulator

from ..support.exporting import Exporter, Job, Outcome, exporter
from ..support.thorough import THOROUGH, of_each_kind

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills with signals"),
]

NIGHT: dict[str, Any] = {
    "events": ["App Launched", "Charged"],
    "start": 20260101,
    "end": 20260110,
    "windows": 1,
    "batch_size": 46,
}

OUTPUTS = [
    ("people.csv", "replace"),
    ("people.parquet", "replace"),
    ("people.duckdb", "replace"),
    ("people.duckdb", "upsert"),
    ("people.duckdb", "append"),
    ("people/", "replace"),
    ("people/", "append"),
]


class Together:
    """Two accounts with one output, and the result of an export that nothing interrupts."""

    def __init__(self, processes: Exporter, job: Job, emulators: dict[str, Emulator]) -> None:
        self.processes = processes
        self.emulators = emulators
        self.job = job
        self.to = Path(job.arguments["to"])

    def content(self) -> Any:
        """Return the bytes of the output, or its rows if it is a database."""
        if self.to.suffix == ".duckdb":
            with duckdb.connect(str(self.to), read_only=True) as connection:
                query = "select * from profiles order by all"
                return connection.execute(query).fetchall()
        if self.to.is_dir():
            files = sorted(self.to.glob("*.parquet"))
            # The name of a file that is added is that of its run.
            return sorted(file.read_bytes() for file in files)
        return self.to.read_bytes()

    def forget(self) -> None:
        for path in sorted(self.to.parent.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    def requests(self) -> dict[str, Any]:
        return {name: emulator.stats.requests for name, emulator in self.emulators.items()}


@asynccontextmanager
async def together(folder: Path, name: str, **arguments: Any) -> AsyncIterator[Together]:
    target = folder / "out"
    target.mkdir()
    to = str(target / name) + ("/" if name.endswith("/") else "")
    async with AsyncExitStack() as stack:
        emulators = {
            account: await stack.enter_async_context(Emulator(people=60, seed=seed))
            for account, seed in (("shop", 3), ("outlet", 4))
        }
        processes = await stack.enter_async_context(exporter(folder / "processes"))
        accounts = {account: one.environment for account, one in emulators.items()}
        job = Job(arguments={**NIGHT, **arguments, "to": to}, environment={}, accounts=accounts)
        yield Together(processes, job, emulators)


def complete(outcome: Outcome) -> dict[str, Any]:
    assert outcome.error is None, outcome
    assert outcome.report is not None, outcome
    assert outcome.report["complete"] is True
    return outcome.report


@pytest.mark.slow
@pytest.mark.parametrize(("name", "write"), OUTPUTS)
async def test_killed_and_run_again_it_is_as_if_nothing_had_happened(
    tmp_path: Path, name: str, write: str
) -> None:
    async with together(tmp_path, name, write=write) as export:
        outcome = await export.processes.run(export.job.but(listed=True))
        report = complete(outcome)
        expected = export.content()
        export.forget()
        steps = outcome.steps
        kinds = Counter(step.partition(" (")[0] for step in steps)
        # Pages of both accounts, and what begins and ends each of them.
        assert kinds["os.fdatasync"] >= 4
        # Behind this, the export is over, and the same one would be another.
        over = max(n for n, step in enumerate(steps) if step == "os.replace")
        number, died = 3, 0
        while number < over:
            outcome = await export.processes.run(export.job.but(die=(number, "after")))
            died += outcome.signal == signal.SIGKILL
            try:
                again = complete(await export.processes.run(export.job))
                assert export.content() == expected
            except AssertionError as error:
                error.add_note(f"killed after step {number}: {steps[number]}")
                raise
            assert again["people"] == report["people"]
            export.forget()
            # Steps of two accounts come in any order, so that no choice of them is better.
            number += 1 + len(steps) // (12 if THOROUGH else 5)
        assert died >= (6 if THOROUGH else 3)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["sqlite3 commit", "os.replace", "duckdb COMMIT"])
async def test_killed_while_an_output_is_written_nothing_is_asked_again(
    tmp_path: Path, moment: str
) -> None:
    name, write = ("people.duckdb", "append") if "duckdb" in moment else ("people.csv", "replace")
    async with together(tmp_path, name, write=write) as export:
        outcome = await export.processes.run(export.job.but(listed=True))
        complete(outcome)
        expected = export.content()
        export.forget()
        died_at = max(n for n, step in enumerate(outcome.steps) if step == "os.fdatasync")
        number = next(n for n, step in enumerate(outcome.steps) if n > died_at and moment in step)
        outcome = await export.processes.run(export.job.but(die=(number, "after")))
        assert outcome.signal == signal.SIGKILL
        asked = export.requests()
        complete(await export.processes.run(export.job))
        assert export.content() == expected
        if moment != "sqlite3 commit":
            assert export.requests() == asked


@pytest.mark.slow
async def test_killed_while_it_cleans_up_it_is_over_for_all_accounts_or_for_none(
    tmp_path: Path,
) -> None:
    async with together(tmp_path, "people.duckdb", write="append") as export:
        outcome = await export.processes.run(export.job.but(listed=True))
        people = complete(outcome)["accounts"]
        export.forget()
        steps = outcome.steps
        over = max(n for n, step in enumerate(steps) if step == "os.replace")
        # The last files are the note that it is over, and the lock.
        forgotten = [n for n, step in enumerate(steps) if step == "os.unlink"][-2]
        for number in of_each_kind(range(over - 1, len(steps)), steps, half=0):
            outcome = await export.processes.run(export.job.but(die=(number, "after")))
            assert outcome.signal == signal.SIGKILL
            asked = export.requests()
            again = complete(await export.processes.run(export.job))
            if number < forgotten:
                assert export.requests() == asked
            shares = again["accounts"]
            assert {name: shares[name]["people"] for name in shares} == {
                name: people[name]["people"] for name in people
            }
            query = "select account, count(*) from profiles group by account"
            with duckdb.connect(str(export.to), read_only=True) as connection:
                rows = dict(connection.execute(query).fetchall())
            once = {
                emulator.clevertap.account_id: people[name]["people"]
                for name, emulator in export.emulators.items()
            }
            twice = {account: 2 * count for account, count in once.items()}
            assert rows == (once if number < forgotten else twice), steps[number]
            assert not export.to.with_name(f"{export.to.name}.export").exists()
            export.forget()


async def test_each_account_has_its_own_people_and_a_share_of_the_report(tmp_path: Path) -> None:
    async with together(tmp_path, "people.csv") as export:
        report = complete(await export.processes.run(export.job))
        alone = {}
        for name in ("shop", "outlet"):
            to = str(export.to.with_name(f"{name}.csv"))
            job = export.job.but(
                arguments={**export.job.arguments, "to": to},
                environment=export.job.accounts[name],
                accounts={},
            )
            alone[name] = complete(await export.processes.run(job))
        rows = export.content().splitlines(keepends=True)
        of_one = [
            export.to.with_name(f"{name}.csv").read_bytes().splitlines(keepends=True)
            for name in ("shop", "outlet")
        ]
        assert rows == [*of_one[0], *of_one[1][1:]]
    assert report["people"] == len(rows) - 1
    for figure in ("people", "records", "pages"):
        shares = {name: share[figure] for name, share in report["accounts"].items()}
        assert list(shares) == ["shop", "outlet"]
        assert report[figure] == sum(shares.values())
        if figure != "pages":
            assert shares == {name: one[figure] for name, one in alone.items()}
    assert report["requests"] == sum(one["requests"] for one in report["accounts"].values())
    assert len(report["chains"]) == 4


async def test_the_store_of_one_is_damaged(tmp_path: Path) -> None:
    async with together(tmp_path, "people.duckdb", write="upsert") as export:
        outcome = await export.processes.run(export.job.but(listed=True))
        expected = (complete(outcome), export.content())[1]
        export.forget()
        number = max(n for n, step in enumerate(outcome.steps) if step == "os.fdatasync")
        outcome = await export.processes.run(export.job.but(die=(number, "after")))
        assert outcome.signal == signal.SIGKILL
        shop = export.emulators["shop"].clevertap.account_id
        [journal] = [
            path
            for path in export.to.with_name("people.duckdb.export").glob("*/journal.sqlite")
            if shop.encode() in path.read_bytes() + path.with_name(f"{path.name}-wal").read_bytes()
        ]
        journal.with_name(f"{journal.name}-wal").unlink()
        journal.write_bytes(b"no database" * 1000)
        outcome = await export.processes.run(export.job)
        assert outcome.error == "AccountsFailed"
        assert outcome.report is not None
        assert [*outcome.report["accounts"]] == ["outlet"]
        assert outcome.report["accounts"]["outlet"]["complete"] is True
        assert {row[0] for row in export.content()} == {
            export.emulators["outlet"].clevertap.account_id
        }
        fresh = {**export.job.arguments, "resume": False}
        complete(await export.processes.run(export.job.but(arguments=fresh)))
        assert export.content() == expected


@pytest.mark.parametrize(("name", "write"), OUTPUTS)
async def test_the_failure_of_one_does_not_stop_the_other(
    tmp_path: Path, name: str, write: str
) -> None:
    async with together(tmp_path, name, write=write) as export:
        accounts = dict(export.job.accounts)
        wrong = {**accounts["outlet"], "CLEVERTAP_PASSCODE": "wrong"}
        complete(await export.processes.run(export.job))
        expected = export.content()
        export.forget()
        job = export.job.but(accounts={**accounts, "outlet": wrong})
        outcome = await export.processes.run(job)
        assert outcome.error == "AccountsFailed"
        assert outcome.report is not None
        assert outcome.report["complete"] is False
        shares = outcome.report["accounts"]
        assert shares["outlet"]["complete"] is False
        if write == "replace":
            assert not export.to.exists()
            assert "once all accounts are complete, and outlet has failed" in outcome.message
            assert "rows of shop stay in" in outcome.message
        else:
            assert "has the rows of shop; outlet has failed" in outcome.message
            assert shares["shop"]["complete"] is True
            assert export.content()
        asked = export.requests()
        report = complete(await export.processes.run(export.job))
        assert export.requests()["shop"] == asked["shop"]
        assert report["accounts"]["outlet"]["people"]
        assert export.content() == expected
        assert not export.to.with_name(f"{export.to.name}.export").exists()


@pytest.mark.parametrize("with_cdp", [False, True])
@pytest.mark.parametrize(("name", "write"), OUTPUTS)
async def test_two_names_of_one_account_are_refused_before_any_request(
    tmp_path: Path, name: str, write: str, with_cdp: bool
) -> None:
    async with together(tmp_path, name, write=write, with_cdp=with_cdp) as export:
        accounts = {**export.job.accounts, "twin": export.job.accounts["shop"]}
        asked = export.requests()
        outcome = await export.processes.run(export.job.but(accounts=accounts))
        assert (outcome.error, outcome.message) == (
            "InvalidArgument",
            "account: 'shop' and 'twin' are names of the same account; leave one of them out",
        )
        assert export.requests() == asked
        assert not [*export.to.parent.iterdir()]


async def test_two_names_of_one_account_one_after_the_other_write_each_person_once(
    tmp_path: Path,
) -> None:
    to = tmp_path / "people.duckdb"
    async with Emulator(people=60, seed=3) as emulator:
        counts = []
        for _ in range(2):
            async with Session(clevertap=emulator.clevertap, alta=emulator.alta) as session:
                report = await session.export(**NIGHT, to=to, write="upsert", with_cdp=True)
                counts.append(report.people)
    with duckdb.connect(str(to), read_only=True) as connection:
        query = "select count(*), count(distinct (account, person)) from profiles"
        assert connection.execute(query).fetchone() == (counts[0], counts[0])
    assert counts[0] == counts[1] > 0
