"""`altaprofiles guide`: the list, a guide in a pipe and on a terminal, and a search."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ..support.guides import GUIDES
from ..support.terminals import Terminal, environment, longest, run


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


def test_the_list_has_every_guide(env: dict[str, str]) -> None:
    done = run(env, "guide")
    listed = {line.split()[0] for line in done.stdout.decode().partition("\n\n")[0].splitlines()}
    assert (done.code, listed) == (0, {path.stem for path in GUIDES.glob("*.md")})


def test_a_guide_is_markdown_in_a_pipe(env: dict[str, str]) -> None:
    done = run(env, "guide", "every-night")
    assert (done.code, done.stdout) == (0, (GUIDES / "every-night.md").read_bytes())


def test_a_guide_is_rendered_on_a_terminal(env: dict[str, str]) -> None:
    with Terminal(env | {"PAGER": "cat"}, "guide", "glossary") as terminal:
        assert terminal.ended().code == 0
    assert "Glossary" in terminal.text
    assert "# Glossary" not in terminal.text
    assert "| --- |" not in terminal.text


def test_a_guide_is_readable_in_a_pager_that_has_no_options(
    env: dict[str, str], tmp_path: Path
) -> None:
    """The pager shows colours as their characters, as less does without -R."""
    folder = tmp_path / "bin"
    folder.mkdir()
    pager = folder / "less"
    pager.write_text('#!/bin/sh\n[ -t 0 ] && exit\necho "LESS is $LESS"\ncat\n')
    pager.chmod(0o755)
    env = {name: value for name, value in env.items() if name not in ("LESS", "PAGER")}
    env["PATH"] = f"{folder}{os.pathsep}{env['PATH']}"
    for given, seen in (({}, "-R"), ({"LESS": "-S"}, "-S"), ({"LESS": ""}, "")):
        with Terminal(env | given, "guide", "glossary") as terminal:
            assert terminal.ended().code == 0
        assert f"LESS is {seen}\n" in terminal.text
        # Colours only where it shows them as such.
        assert ("\x1b[1" in terminal.screen) == (seen == "-R")
        assert "Glossary" in terminal.text


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("untested", "start-here"),
        ("cancelled export", "export-and-resume"),
        ("GRANT", "into-databases"),
        ("privileges", "into-databases"),
        ("pivot", "into-databases"),
        ("chart week", "into-databases"),
        ("spreadsheet", "into-databases"),
        ("schema evolution", "every-night"),
        ("monthly", "every-night"),
        ("MAILTO", "every-night"),
        ("OnFailure", "every-night"),
        ("launchd", "every-night"),
        ("StartWhenAvailable", "every-night"),
        ("opt-out", "gallery"),
        ("opt-out", "export-and-resume"),
        ("unsubscribe", "gallery"),
        ("unsubscribe", "export-and-resume"),
        ("consent", "export-and-resume"),
        ("campaign", "export-and-resume"),
        ("opted out", "export-and-resume"),
        ("far fewer", "every-night"),
        ("renamed event", "every-night"),
        ("property renamed", "every-night"),
        ("renamed column", "every-night"),
        ("auditor", "glossary"),
        ("table checksum", "every-night"),
        ("Airflow", "in-a-lake"),
        ("AirflowFailException", "in-a-lake"),
        ("BashOperator", "in-a-lake"),
        ("airflow retries", "in-a-lake"),
        ("another worker", "in-a-lake"),
        ("node_exporter", "observability"),
        ("textfile", "observability"),
        ("pushgateway", "observability"),
        ("prometheus nightly", "observability"),
        ("audit", "every-night"),
        ("completeness", "glossary"),
        ("reconciliation", "glossary"),
        ("every hour", "in-a-web-service"),
        ("liveness", "in-a-web-service"),
        ("request ID", "in-a-web-service"),
        ("overload", "in-a-web-service"),
        ("load shedding", "in-a-web-service"),
        ("background job", "in-a-web-service"),
        ("after an outage", "in-a-web-service"),
        ("JSON lines", "observability"),
        ("Trying to read a database file with version number", "into-databases"),
        ("title line", "look-ups"),
        ("os.environ", "dataframes"),
        ("heaviest", "into-databases"),
        ("readr", "into-databases"),
        ("CSV UTF-8", "look-ups"),
        ("graceful", "in-a-web-service"),
        ("SIGTERM", "in-a-web-service"),
        ("deploy", "in-a-web-service"),
        ("grants", "into-databases"),
        ("read-only role", "into-databases"),
        ("gzip CSV", "into-databases"),
        ("delta lookup", "look-ups"),
        ("incremental lookup", "look-ups"),
        ("new IDs nightly", "look-ups"),
        ("migrate server", "many-accounts"),
        ("new machine PostgreSQL", "many-accounts"),
        ("pgbouncer", "into-databases"),
        ("fallback", "in-a-web-service"),
        ("private CA", "in-a-web-service"),
        ("SSL_CERT_FILE", "in-a-web-service"),
        ("status codes", "errors"),
        ("disk full", "When the disk is full"),
        ("No space left on device", "When the disk is full"),
    ],
)
def test_what_readers_ask_for_is_found(env: dict[str, str], words: str, name: str) -> None:
    done = run(env, "guide", "--search", words)
    assert (done.code, name in done.stdout.decode()) == (0, True)


def test_words_are_found_in_any_order_and_case(env: dict[str, str]) -> None:
    done = run(env, "guide", "--search", "EXPIRED cursor")
    assert done.code == 0
    lines = done.stdout.decode().splitlines()
    assert any(line.startswith("export-and-resume") for line in lines)
    assert all("cursor" in line.lower() for line in lines)
    in_one = run(env, "guide", "errors", "--search", "cursor").stdout.decode().splitlines()
    assert in_one
    assert all(line.startswith("errors") for line in in_one)


@pytest.mark.parametrize(
    ("words", "guide"),
    [
        ("rotate secret", "many-accounts"),
        ("workers share slots", "many-accounts"),
        ("Jupyter", "dataframes"),
        ("to_pandas", "dataframes"),
        ("passcode notebook", "dataframes"),
        ("IPython session cells", "dataframes"),
    ],
)
def test_words_of_one_section_are_found_in_other_forms(
    env: dict[str, str], words: str, guide: str
) -> None:
    done = run(env, "guide", "--search", words)
    assert done.code == 0
    assert guide in done.stdout.decode()


def test_all_guides_show_two_lines_of_a_section_and_one_guide_all(env: dict[str, str]) -> None:
    few, every = (
        run(env, "guide", *guide, "--search", "churn").stdout.decode().splitlines()
        for guide in ([], ["dataframes"])
    )
    section = "dataframes  Churn: features and a label: "
    text = (GUIDES / "dataframes.md").read_text("utf-8")
    body = text.partition("\n## Churn: features and a label\n")[2].partition("\n## ")[0]
    lines = [line.strip() for line in body.splitlines() if line and not line.startswith("```")]
    assert [line.removeprefix(section) for line in every if line.startswith(section)] == lines
    assert [line.removeprefix(section) for line in few if line.startswith(section)] == [
        lines[0],
        f"{lines[1]} (and {len(lines) - 2} more)",
    ]
    assert len(few) < 24


def test_a_short_word_is_found_as_a_whole_word(env: dict[str, str]) -> None:
    done = run(env, "guide", "--search", "CA")
    for line in done.stdout.decode().splitlines():
        assert re.search(r"\bca\b", line, re.IGNORECASE), line


@pytest.mark.parametrize(
    "words", ["latency", "weekly", "deduplicate", "dry run", "GDPR", "snowflake"]
)
def test_words_from_elsewhere_are_found(env: dict[str, str], words: str) -> None:
    done = run(env, "guide", "--search", words)
    assert re.match(r"glossary +Words from elsewhere: ", done.stdout.decode())


@pytest.mark.parametrize("words", ["client leaves", "async def", "deadlines views exports"])
def test_a_comment_of_a_program_is_not_a_section(env: dict[str, str], words: str) -> None:
    done = run(env, "guide", "--search", words)
    headings: set[str] = set()
    for path in GUIDES.glob("*.md"):
        prose = re.sub(
            r"^( *)```.*?^\1```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL
        )
        headings.update(re.findall(r"^#+ (.+)", prose, re.MULTILINE))
    lines = done.stdout.decode().splitlines()
    assert lines
    for line in lines:
        assert any(line.split(maxsplit=1)[1].startswith(f"{one}: ") for one in headings), line


@pytest.mark.parametrize("words", ["zebra", "", " "])
def test_words_that_are_nowhere_are_not_found(env: dict[str, str], words: str) -> None:
    done = run(env, "guide", "--search", words)
    assert done.code == 5
    assert "no section of the guides" in done.stderr


def test_a_misspelled_guide_is_guessed(env: dict[str, str]) -> None:
    done = run(env, "guide", "every-nigth")
    assert done.code == 2
    assert "did you mean every-night?" in done.stderr
    done = run(env, "guide", "xyz")
    assert "for the list, run: altaprofiles guide" in done.stderr


def test_hits_are_broken_at_words_on_a_terminal(env: dict[str, str]) -> None:
    search = ("guide", "--search", "cursor")
    whole = run(env, *search).stdout.decode()
    with Terminal(env, *search, columns=80) as terminal:
        assert terminal.ended().code == 0
    assert longest(whole) > 80 >= longest(terminal.text)
    assert terminal.text.split() == whole.split()


def test_what_is_copied_from_a_guide_is_whole(env: dict[str, str]) -> None:
    for name in ("every-night", "errors"):
        guide = (GUIDES / f"{name}.md").read_text("utf-8")
        with Terminal(env | {"PAGER": "cat"}, "guide", name, columns=80) as terminal:
            assert terminal.ended().code == 0
        blocks = re.findall(r"^```\w+\n(.+?)^```", guide, re.MULTILINE | re.DOTALL)
        lines = [line.strip() for block in blocks for line in block.splitlines()]
        assert lines
        assert [line for line in lines if line not in terminal.text] == []
        # No cell is cut.
        assert terminal.text.count("…") == guide.count("…")
