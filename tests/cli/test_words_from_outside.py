"""Words of users and services that look like arguments of the library stay as they are."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import click
import pytest

from altaprofiles.cli import cli
from altaprofiles.cli.option_names import rewritten, with_options

from ..support.forks import start
from ..support.tasks import PATIENCE
from ..support.terminals import COMMAND, emulated, environment, held, refusing, resuming_words, run

DAYS = ("--from", "2026-01-01", "--to", "2026-01-31")
CLEVERTAP = {
    "CLEVERTAP_ACCOUNT_ID": "TEST-1",
    "CLEVERTAP_PASSCODE": "PASS-1",
    "CLEVERTAP_REGION": "eu1",
}
EXPORT: click.Command = cli.commands["export"]


@pytest.mark.parametrize(
    ("where", "out"),
    [
        ("Note contains profile=False", "v.ndjson"),
        ("Note contains a `profile=False`", "`table`.ndjson"),
        ("profile=False", "profile=False.ndjson"),
        ("Note contains write='replace'", "it's `write`.ndjson"),
    ],
)
def test_the_line_that_resumes_can_be_pasted(tmp_path: Path, where: str, out: str) -> None:
    with emulated(people=1) as emulator, held(emulator, holding=9) as (urls, _):
        env = environment(tmp_path, emulator.environment, urls)
        words = ["export", "Charged", *DAYS, "--where", where, "-o", out]
        streams = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
        with start([*COMMAND, *words], env=env, cwd=tmp_path, text=True, **streams) as process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("reading: ")
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stderr
    given = resuming_words(stderr)
    assert given[given.index("--where") + 1] == where
    assert given[given.index("--out") + 1] == out


def refused(tmp_path: Path, error: str, *arguments: str) -> tuple[str, str]:
    """Return the error on stderr and in --json if the service answers with `error`."""
    with refusing(error) as url:
        env = environment(tmp_path, CLEVERTAP, CLEVERTAP_BASE_URL=url)
        done = run(env, *arguments, "--json", cwd=tmp_path)
    assert done.code == 2
    return done.stderr, json.loads(done.stdout)["error"]


@pytest.mark.parametrize("name", ["`start`", "`event`", "`region`", "`account_id`"])
def test_an_event_that_the_service_refuses(tmp_path: Path, name: str) -> None:
    words = f"Invalid event : {name}"
    for text in refused(tmp_path, words, "count", name, *DAYS):
        assert words in text


@pytest.mark.parametrize("words", ["`start` must be a date", "pass by=`x` or `batch_size`"])
def test_the_words_of_a_service(tmp_path: Path, words: str) -> None:
    for text in refused(tmp_path, words, "count", "Charged", *DAYS):
        assert words in text
    export = ("export", "Charged", *DAYS, "-o", "p.ndjson")
    for text in refused(tmp_path, words, *export):
        assert words in text


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_column_that_is_named_like_an_option(tmp_path: Path, log_format: str) -> None:
    (tmp_path / "h.csv").write_text("a,b\n1,2\n")
    env = environment(tmp_path, CLEVERTAP)
    lookup = ("lookup", "h.csv", "--by", "identity", "--column", "`table`", "-o", "a.ndjson")
    done = run(env, *lookup, "--log-format", log_format, "--json", cwd=tmp_path)
    assert done.code == 2
    assert "'`table`'" in done.stderr
    assert "'`table`'" in json.loads(done.stdout)["error"]


def test_a_path_that_the_system_refuses(tmp_path: Path) -> None:
    env = environment(tmp_path, CLEVERTAP)
    done = run(env, "describe", "`format`.ndjson", cwd=tmp_path)
    assert "`format`.ndjson" in done.stderr


@pytest.mark.parametrize(
    ("text", "outside", "shown"),
    [
        ("use `table`", (), "use --table"),
        (
            "the service's `table`, the users' `table`",
            (),
            "the service's --table, the users' --table",
        ),
        ("'`table`' is not `table`", (), "'`table`' is not --table"),
        ('"it\'s `table`" is not `table`', (), '"it\'s `table`" is not --table'),
        ("run: altaprofiles lookup 'it'\"'\"'s `table`'", (), None),
        ("x/profile=False/p.ndjson is a folder", (), None),
        ("`profile=False` leaves it out", (), "--no-profile leaves it out"),
        ("a`table` is not `format`", ("a`table`",), "a`table` is not --format"),
        ("pass write='append'", (), "pass --write append"),
        ("with `batch_size=100` or less", (), "with --batch-size 100 or less"),
        ("the service's `x=1`", (), None),
        ("sync once with `late_days=7` or more", (), "sync once with --late-days 7 or more"),
        ("or with `late_days` of all days", (), "or with --late-days of all days"),
        ("\"write='append'\": pass write='append'", (), "\"write='append'\": pass --write append"),
    ],
)
def test_only_the_library_s_own_names_become_options(
    text: str, outside: tuple[str, ...], shown: str | None
) -> None:
    assert rewritten(text, outside, lambda words: with_options(words, EXPORT)) == (shown or text)
