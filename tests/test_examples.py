"""The examples of the docstrings run unchanged."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import altaprofiles
from altaprofiles import Session
from altaprofiles.accounts import Accounts
from altaprofiles.emulator import Emulator


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
