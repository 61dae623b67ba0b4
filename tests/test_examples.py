"""The examples of the README and the docstrings run unchanged."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import altaprofiles
from altaprofiles import Alta, CleverTap, Session
from altaprofiles.accounts import Accounts
from altaprofiles.emulator import Emulator

from .support.guides import document_at, program_name
from .support.terminals import serving

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with serving("--people", "300", "--fault", "not_ready=0.1") as (_, variables):
        yield variables


def test_the_readme_runs(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    document = document_at(README)
    examples = list(document.examples())
    assert len(examples) >= 4
    # Some examples are files, of which one imports the other.
    monkeypatch.syspath_prepend(tmp_path)
    for example in examples:
        if file := program_name(example.parsed):
            Path(file).write_text(example.parsed)
        example.evaluate()
    printed = capsys.readouterr().out
    assert "5555555555 None ['5555555555']" in printed
    questions = document.namespace["questions"]
    asyncio.run(questions(CleverTap.from_env(), Alta.from_env(), ["5555555555", "nobody"]))
    printed = capsys.readouterr().out
    assert "{'favoriteFood': 'pizza'} 6 " in printed
    assert "nobody None None" in printed
    assert "['user1', '67b58121035e5b152b0419ee']" in printed
    people = [json.loads(line) for line in Path("people.ndjson").read_bytes().splitlines()]
    assert len(people) > 250

    async def resume() -> str | None:
        async with Session.from_env() as session:
            cursor: str | None = await document.namespace["go_on"](session, None)
            return cursor

    asyncio.run(document.namespace["export"]())
    printed = capsys.readouterr().out
    assert re.search(r"reading: .*\nfinishing: [\s\S]*\n[\d,]+ people, [\d,]+ records", printed)
    assert Path("people.parquet").exists()

    async def exports() -> None:
        Path("ids.csv").write_text("identity\n5555555555\nnobody\n")
        async with Session.from_env() as session:
            await document.namespace["filtered"](session)
            await document.namespace["look_up"](session)
            await document.namespace["in_a_notebook"](session)
            await document.namespace["in_a_job"](session)
            await document.namespace["in_a_web_service"](session)

    asyncio.run(exports())
    *buyers, gold, first, people_of_the_notebook, found, exported_beside = (
        capsys.readouterr().out.splitlines()
    )
    assert (found, exported_beside) == ("True", "True")
    assert buyers
    assert all(line.endswith(" Gold") for line in buyers)
    exported, counted = gold.split()
    assert exported == counted == str(Path("gold.ndjson").read_bytes().count(b"\n"))
    assert first == "1 1 0"
    assert Path("charged.ndjson").read_bytes().count(b"\n") == int(people_of_the_notebook)

    right = CleverTap.from_env()
    wrong = CleverTap("X", "wrong", base_url=right.url)
    asyncio.run(document.namespace["every_account"]({"shop": right, "outlet": wrong}))
    shop, outlet = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"shop: \d{2,3}", shop)
    assert outlet.startswith("outlet: CleverTap answered HTTP 401")
    assert Path("charged-shop.csv").exists()

    real, agent = CleverTap.from_env(), Alta.from_env()
    asyncio.run(document.namespace["record"](real, agent))
    assert len(asyncio.run(document.namespace["replay"]())) > 10
    document.namespace["without_asyncio"]()
    counted, *users = capsys.readouterr().out.splitlines()
    assert 0 < len(users) <= int(counted)

    # 300 people are one page.
    assert asyncio.run(resume()) is None
    assert "people written; the next page is None" in capsys.readouterr().out


def test_a_test_of_a_program_takes_ten_lines() -> None:
    programs = {program_name(one.parsed): one.parsed for one in document_at(README).examples()}
    lines = [line for line in programs["test_app.py"].splitlines()[1:] if line]
    assert len(lines) == 10


def modules() -> Iterator[Any]:
    yield altaprofiles
    for found in pkgutil.walk_packages(altaprofiles.__path__, "altaprofiles."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def docstring_examples() -> dict[str, doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    return {
        test.name: test
        for module in modules()
        for test in finder.find(module, module.__name__, module)
        if test.examples
    }


EXAMPLES = docstring_examples()


def test_there_are_examples_for_what_users_call() -> None:
    for name in ("get", "get_many", "by_event", "everyone"):
        assert f"altaprofiles.profiles.Profiles.{name}" in EXAMPLES
    for name in ("with_cdp", "export", "export_lookups"):
        assert f"altaprofiles.session.Session.{name}" in EXAMPLES


@pytest.mark.anyio
@pytest.mark.parametrize("name", EXAMPLES)
async def test_a_docstring_example_runs(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ids.csv").write_text("identity\n5555555555\nnobody\n")
    checker = doctest.OutputChecker()
    async with Emulator(people=60) as emulator:
        for variable, value in emulator.environment.items():
            monkeypatch.setenv(variable, value)
            monkeypatch.setenv(f"SHOP_{variable}", value)
        shop = {
            "account_id": str(emulator.clevertap.account_id),
            "passcode": str(emulator.clevertap.passcode),
            "base_url": emulator.url,
            "alta_token": str(emulator.alta.token),
            "alta_base_url": emulator.url,
        }
        accounts = Accounts(tmp_path / "accounts.toml", "shop", {"shop": shop})
        await asyncio.to_thread(accounts.write)
        monkeypatch.setenv("ALTAPROFILES_CONFIG", str(accounts.path))
        async with Session(clevertap=emulator.clevertap, alta=emulator.alta) as session:
            names = {"altaprofiles": altaprofiles, "session": session, "date": date}
            names |= {public: getattr(altaprofiles, public) for public in altaprofiles.__all__}
            for example in EXAMPLES[name].examples:
                # `await` at the top level, as in a notebook or `python -m asyncio`.
                code = compile(example.source, name, "single", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                capsys.readouterr()
                if code.co_flags & inspect.CO_COROUTINE:
                    await eval(code, names)  # noqa: S307
                else:
                    # As where no event loop runs.
                    await asyncio.to_thread(eval, code, names)
                printed = capsys.readouterr().out
                if example.want:
                    assert checker.check_output(example.want, printed, 0), printed
