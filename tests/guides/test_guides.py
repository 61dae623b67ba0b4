"""Each block of the README and the guides runs as it stands, and prints what stands there."""

from __future__ import annotations

import asyncio
import builtins
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pandas as pd  # type: ignore[import-untyped]
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from altaprofiles import Alta, CleverTap, Lookup, Session
from altaprofiles.accounts import Accounts
from altaprofiles.cli import cli
from altaprofiles.emulator import Emulator

from ..support.forks import write_program
from ..support.guides import GUIDES, program_name
from ..support.tasks import PATIENCE
from ..support.terminals import CONSOLE_SCRIPT, emulated, environment
from .references import REFERENCES

README = Path(__file__).parents[2] / "README.md"
WITH_TESTS_OF_THEIR_OWN = {"gallery.md", "in-a-lake.md", "in-a-web-service.md"}
DOCUMENTS = [README] + [
    path
    for path in sorted(GUIDES.glob("*.md"))
    if path.name not in WITH_TESTS_OF_THEIR_OWN | REFERENCES.keys()
]

READ_SECRETS = {"passcode", "token"}
"""Functions of documents that read files which this machine does not have."""

OF_ODD_RECORDS = ["coming-from", "dataframes", "into-databases", "observability"]
"""The documents whose recipes read records on their own."""

PRINTED = {
    "start-here": ["{'favoriteFood': 'pizza'} 6 ", "nobody None None", "'user1'"],
    "export-and-resume": [
        "reading: ",
        "finishing: ",
        "SHA-256 ",
        " Gold",
        " has an iOS device",
        "the next page is None",
    ],
    "look-ups": [
        "None\n",
        "\n0 to ask for again\n",
        "1 1 0",
        "line 3 {'identity': 'nobody'}",
        "'MISAKI69@example.com', '7000000069', 'found in lower case')",
        "', 'found without blanks')",
        "'Eve', 'nobody@example.com', 'nobody@example.com', None, 'not found')",
        "'Max', None, None, None, 'no address'), ",
        "'found in another spelling', 'Chris.Lee146@example.com')",
        "'nobody@example.com', None, 'not found', None)",
        "[('Ann', 'found'), ('Bob', 'found, repaired'), ('Cat', 'found, repaired')",
        "('Dan', 'digits are lost'), ('Eve', 'not found'), ('Fay', 'no ID')]",
    ],
    "into-databases": [
        "│ Customer Type ",
        "│ platform_info ",
        "with_email",
        "│  Plan   │ Bronze │ ",
    ],
    "dataframes": [
        "Int64 Customer Type",
        "int64[pyarrow]\n3 of 9 scores are of another type\n",
        "5555555555   12.5      found        pizza\n",
        "None    3.0     no key         <NA>\n33      nobody    1.0  not found         <NA>",
        "[(7, 1.0, None), (5555555555, 12.5, 'pizza'), (None, 3.0, None)]",
        "user1   user1         aId3               WEB",
        "['5550000000', '000001', '000012', '7000000455', '7000000732']",
        "{'complete': [True], 'mended': [0]}",
        "\nAndroid ",
        "cohort, month, people: [('TEST-69B-C90-69AZ', '202601', '202601', ",
        "\nCharged ",
        "\ndatetime64[ns, Asia/Kolkata]\n",
        "week, launched, charged since: [",
        "['person', 'platform', 'objectId']\n[(",
    ],
    "many-accounts": ["shop: ", "outlet: CleverTap answered HTTP 401"],
    "every-night": ["[]"],
    "errors": ["True\nTrue"],
    "testing": ["GET /1/profile.json {'identity': '5555555555'}"],
    "observability": [
        "req-7 get_profile\nreq-7 get_user_cdp\n",
        "['GET /1/profile.json']",
        "'http.client.request.duration'",
    ],
}
"""Words that the Python blocks of a document print."""


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[Emulator, Emulator]]:
    with (
        emulated(people=300, faults={"not_ready": 0.05}) as shop,
        emulated(people=60, seed=8) as outlet,
    ):
        yield shop, outlet


@pytest.fixture
def folder(
    services: tuple[Emulator, Emulator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder of a reader whose environment has the first service, and whose file has both."""
    shop, outlet = services
    tables = {
        name: {
            "account_id": str(one.clevertap.account_id),
            "passcode": str(one.clevertap.passcode),
            "base_url": one.url,
            "alta_token": str(one.alta.token),
            "alta_base_url": one.url,
        }
        for name, one in {"shop": shop, "outlet": outlet}.items()
    }
    accounts = Accounts(tmp_path / "accounts.toml", "shop", tables)
    accounts.write()
    work = tmp_path / "work"
    work.mkdir()
    for name, value in (shop.environment | {"ALTAPROFILES_CONFIG": str(accounts.path)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(work)
    return work


def commands(example: Example) -> None:
    """Run the commands of a block, and compare what they print with what stands below each."""
    programs = Path.cwd().with_name("bin")
    path = f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin"
    ours = ("CLEVERTAP_", "ALTA_", "ALTAPROFILES_")
    settings = {name: value for name, value in os.environ.items() if name.startswith(ours)}
    env = environment(Path.cwd(), settings, PATH=path)
    if not programs.exists():
        programs.mkdir()
        write_program(programs / "altaprofiles", "-c", CONSOLE_SCRIPT, env=env)
    for part in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        done = subprocess.run(
            ["/bin/bash", "-c", command],
            env=env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        lines = [re.escape(line).replace("…", ".*") for line in expected.strip().splitlines()]
        pattern = "\n".join(lines)
        assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), f"{command}\n{done.stdout}"


def values() -> dict[str, Any]:
    """Return what functions of the documents are called with, by the names of their parameters."""
    right = CleverTap.from_env()
    return {
        "alta": Alta.from_env(),
        "ids": ["5555555555", "nobody"],
        "identity": "5555555555",
        "cursor": None,
        "accounts": {"shop": right, "outlet": CleverTap("X", "wrong", base_url=right.url)},
        "start": 20260101,
        "cut_off": date(2026, 1, 3),
        "label_days": 7,
        "since": datetime.now(UTC).date() - timedelta(days=2),
        "end": 20260131,
        "to": "given.ndjson",
        "hook": print,
        "key": "Ann",
        "cell": "7.0",
        "by": "identity",
        "mine": pd.DataFrame({"my_id": ["7"]}),
        "column": "my_id",
        "path": "given.sqlite",
        "folder": "crm",
        "days": 90,
        "account": "TEST-123-456-789Z",
        "pattern": "crm/*/*.parquet",
        "keys": ["7"],
        "lookup": Lookup("7"),
        "results": [],
        "clevertap": right,
        "name": "shop",
        "texts": pd.Series(["[]"]),
        "kind": list,
        "value": "7",
        "reader": InMemoryMetricReader(),
        "source": "buyers.csv",
        "target": "for-excel.csv",
        "delimiter": ";",
    }


def call(function: Callable[..., Any]) -> None:
    """Call a function of a document, with a session if it takes one."""
    # Sybil takes them away, and pickle looks for them.
    function.__globals__["__builtins__"] = builtins
    named = inspect.signature(function).parameters.values()
    names = [one.name for one in named if one.kind is not one.VAR_KEYWORD]

    async def main() -> None:
        async with Session.from_env() as session:
            given = values() | {"session": session}
            result = function(**{name: given[name] for name in names})
            if inspect.isasyncgen(result):
                assert [item async for item in result]
            else:
                await result

    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        asyncio.run(main())
    else:
        given = values()
        function(**{name: given[name] for name in names})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_a_document_runs(
    path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some examples are files, of which one imports the other.
    monkeypatch.syspath_prepend(folder)
    run(path)
    printed = capsys.readouterr().out
    for words in PRINTED.get(path.stem, []):
        assert words in printed


@pytest.mark.parametrize("name", OF_ODD_RECORDS)
def test_a_recipe_survives_odd_records(
    name: str,
    services: tuple[Emulator, Emulator],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(folder)
    shop, _ = services
    monkeypatch.setattr(shop, "faults", {"odd_record": 0.5})
    run(GUIDES / f"{name}.md")
    assert shop.stats.faults["odd_record"] > 0


def run(path: Path) -> None:
    """Run the blocks of a document, and call the functions that they make."""
    parsers: list[Any] = [PythonCodeBlockParser(), CodeBlockParser("console", commands)]
    for example in Sybil(parsers=parsers).parse(path).examples():
        if example.region.parsed.startswith("python3 -m venv"):
            continue
        code = str(example.parsed)
        if file := program_name(code):
            Path(file).write_text(code)
            continue
        before = dict(example.namespace)
        example.evaluate()
        for name, value in [*example.namespace.items()]:
            is_new = before.get(name) is not value and inspect.isfunction(value)
            is_made_here = re.search(rf"^(async )?def {name}\(", code, re.MULTILINE)
            is_called_there = f"\nasyncio.run({name}())" in code or name in READ_SECRETS
            if is_new and is_made_here and not is_called_there:
                call(value)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_that_of_the_code(name: str) -> None:
    written = (GUIDES / name).read_text("utf-8")
    assert written == REFERENCES[name](), "run: python -m tests.guides.references"


def test_every_argument_attribute_and_error_is_an_item_of_a_list() -> None:
    text = (GUIDES / "python.md").read_text("utf-8")
    sections = re.findall(
        r"^\*\*(?:Args|Attributes|Class Variables|Raises):\*\*\n\n((?:(?!\*\*|#|```).*\n)*)",
        text,
        re.MULTILINE,
    )
    lines = [line for section in sections for line in section.splitlines() if line]
    names = r"`\*{0,2}[\w.]+`"
    item = re.compile(rf"- {names}(, {names})*: |  \S")
    assert "\n".join(line for line in lines if not item.match(line)) == ""
    assert len(lines) > 500


def test_every_command_and_option_stands_in_the_reference() -> None:
    text = (GUIDES / "command-line.md").read_text("utf-8")
    for name, command in cli.commands.items():
        section = text.partition(f"\n## `altaprofiles {name}")[2].partition("\n## ")[0]
        rows = " ".join(re.findall(r"^\| `(.*?)` \|", section, re.MULTILINE))
        shared = {param.name for param in cli.params}
        for param in command.params:
            if isinstance(param, click.Option) and param.name not in shared:
                assert {*param.opts, *param.secondary_opts} <= {*re.findall(r"--?[\w-]+", rows)}


def links(path: Path) -> list[str]:
    return re.findall(r"\]\((?!https?://)([^)#]+)\)", path.read_text("utf-8"))


def test_every_guide_is_one_click_from_the_readme() -> None:
    linked = {Path(link).name for link in links(README) if "/guides/" in link}
    assert linked == {path.name for path in GUIDES.glob("*.md")}


@pytest.mark.parametrize("path", [README, *sorted(GUIDES.glob("*.md"))], ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    assert [link for link in links(path) if not (path.parent / link).exists()] == []


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub makes them."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("path", [README, *sorted(GUIDES.glob("*.md"))], ids=lambda path: path.stem)
def test_links_lead_to_a_heading(path: Path) -> None:
    found = re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", path.read_text("utf-8"))
    pages = {(path.parent / name if name else path, anchor) for name, anchor in found}
    missing = [f"{page.name}#{anchor}" for page, anchor in pages if anchor not in anchors(page)]
    assert missing == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 250
