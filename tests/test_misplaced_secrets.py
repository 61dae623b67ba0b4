"""The URL of a database in the place of something else is neither shown nor stored."""

from __future__ import annotations

import inspect
import logging
import os
import traceback
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from altaprofiles import (
    Alta,
    CleverTap,
    ConfigurationError,
    EventQuery,
    Filter,
    InvalidArgument,
    Session,
    arrow_schema,
    unfinished_in,
)
from altaprofiles.base.checks import shown
from altaprofiles.base.paths import path_text
from altaprofiles.cli import cli
from altaprofiles.cli.app import CONDITIONS
from altaprofiles.credentials.environment import _SECRETS, _SETTINGS
from altaprofiles.emulator import Emulator

from .support.sessions import session_for
from .support.terminals import Done, environment, run

PASSWORD = "hunter2secret"
URL = f"postgresql://u:{PASSWORD}@127.0.0.1:9/db/t"
TEXTS = {
    "url": URL,
    "driver": f"jdbc:postgresql+psycopg://127.0.0.1:9/db?password={PASSWORD}",
    "misspelt": f"postgre://u:{PASSWORD}@127.0.0.1:9/db/t",
    "colon": f"postgresql//u:{PASSWORD}@127.0.0.1:9/db/t",
    "path": str(Path(URL)),
    "conninfo": f"host=127.0.0.1 port=9 user=u password = '{PASSWORD}'",
    "key": f"scram_client_key={PASSWORD} dbname=db",
}
IN_WORDS = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)

LEGITIMATE = [
    "password = reset",
    "password=",
    "Password=Changed by user",
    "user = new",
    "Postgres: migrated",
    "postgres",
    "backups/postgresql//a.csv",
    "C:/Users/a@b/x",
    "C:\\Users\\a@b\\x",
    "//server/share/a@b",
    "a@b.csv",
    "12:30@office",
    "s3://bucket/a@b",
    "s3://bucket/postgres/day=2026-01-31/",
    "gs://bucket/a:b@c",
    "abfss://container@account.dfs.core.windows.net/folder/p.parquet",
    "abfss://container@account.dfs.core.windows.net/postgres/a@b:c",
    "github://owner:repository@branch/p.csv",
    "oci://bucket@namespace/p.csv",
    "hdfs://user@host:8020/a@b",
    "s3://arn:aws:s3:eu-west-1:1:accesspoint/a/b@c",
    "zip://p.csv::s3://bucket/a@b.zip",
    "days/service=web/person_key=1/",
    "https://user@host",
    "https://host:8080/a@b",
    "visited https://example.com/?next=/a:b@c",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which is the home as well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "keys.txt").write_text("1\n")
    (tmp_path / "keys.csv").write_text("a,b\n1,2\n")
    return tmp_path


def stores_no_password(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        assert PASSWORD not in root.lower()
        for name in names:
            assert PASSWORD not in name.lower()
            path = Path(root, name)
            assert not path.is_file() or PASSWORD.encode() not in path.read_bytes().lower(), path


# ---------------------------------------------------------------------------------- command line


def sample(param: click.Parameter) -> str:
    """Return a value that a parameter takes."""
    if isinstance(param.type, click.Choice):
        return str(param.type.choices[0])
    if param.name == "keys":
        return "keys.txt"
    return {"DAY": "2026-01-01", "FILE|URL": "p.duckdb"}.get(param.metavar or "", "Charged")


def words_for(name: str, param: click.Parameter, text: str) -> list[str]:
    """Return a command line with `text` as the value of a parameter."""
    command = cli.commands.get(name, cli)
    words = ["-v", "--log-format=json", "--retries=0"]
    words = [word for word in words if word.partition("=")[0] not in param.opts]
    if any(one.name == "as_json" for one in command.params):
        words.append("--json")
    for one in command.params:
        if one is param or one.required:
            value = text if one is param else sample(one)
            is_option = isinstance(one, click.Option)
            words += [max(one.opts, key=len), value] if is_option else [value]
    return [*words, "doctor"] if command is cli else [name, *words]


def takes_text(param: click.Parameter) -> bool:
    return not isinstance(param, click.Option) or not (param.is_flag or param.count)


PARAMETERS = [
    pytest.param(name, param, id=f"{name} {max(param.opts, key=len)}")
    for name, command in {"": cli, **cli.commands}.items()
    for param in command.params
    if takes_text(param)
]


def shows_no_password(done: Done) -> None:
    assert PASSWORD not in done.stderr.lower()
    assert PASSWORD.encode() not in done.stdout.lower()


CREDENTIALS = {
    "CLEVERTAP_ACCOUNT_ID": "TEST-1",
    "CLEVERTAP_PASSCODE": "PASS-1",
    "CLEVERTAP_BASE_URL": "http://127.0.0.1:9",
    "ALTA_TOKEN": "TOKEN-1",
    "ALTA_BASE_URL": "http://127.0.0.1:9",
}


@pytest.mark.parametrize(("name", "param"), PARAMETERS)
def test_in_every_option_of_every_command(folder: Path, name: str, param: click.Parameter) -> None:
    env = environment(folder, CREDENTIALS)
    # A condition has a value behind a =, which may be any text.
    texts = (URL,) if param.name in CONDITIONS else (URL, TEXTS["conninfo"])
    for text in texts:
        done = run(env, *words_for(name, param, text), cwd=folder)
        shows_no_password(done)
        stores_no_password(folder)
        if "URL" not in (param.metavar or ""):
            assert done.code == 2, done.stderr
            assert "database" in done.stderr


@IN_WORDS
def test_in_each_form(folder: Path, text: str) -> None:
    for option in ("--spool", "--table"):
        words = ("export", "Charged", "--from", "-3d", "--to", "-2d", "-o", "a.duckdb")
        done = run(environment(folder, CREDENTIALS), *words, option, text, "-v", cwd=folder)
        assert done.code == 2
        assert f"{option}: looks like a database; only an output can be one" in done.stderr
        shows_no_password(done)
    stores_no_password(folder)


@pytest.mark.parametrize("value", ["https://shop:8080@x", '"service = x and password = y"'])
def test_values_in_conditions_may_be_addresses(folder: Path, value: str) -> None:
    words = ("count", "Charged", "--from", "-3d", "--to", "-2d", "--retries", "0")
    env = environment(folder, CREDENTIALS)
    done = run(env, *words, "--where", f"Referrer = {value}", cwd=folder)
    assert "database" not in done.stderr
    assert "Connection refused" in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        'default = "{}"\n[accounts.a]\n',
        '[accounts."{}"]\naccount_id = "TEST-1"\n',
        '"{}" = "a"\n',
        '[accounts.a]\n"{}" = "a"\n',
        '[accounts.a]\n"{}" = 1.5\n',
    ],
)
def test_in_the_credentials_file(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "accounts.toml"
    path.write_text(text.format(URL))
    path.chmod(0o600)
    env = environment(folder, {"ALTAPROFILES_CONFIG": str(path)})
    for command in (("doctor",), ("count", "Charged", "--from", "-3d", "--to", "-2d")):
        for options in ((), ("--account", "b")):
            done = run(env, *command, *options, cwd=folder)
            assert done.code in (2, 3)
            shows_no_password(done)
    monkeypatch.setenv("ALTAPROFILES_CONFIG", str(path))
    with pytest.raises(ConfigurationError) as caught:
        Session.from_account()
    assert PASSWORD not in str(caught.value)


VARIABLES = [
    "ALTAPROFILES_CONFIG",
    "ALTAPROFILES_SHARED",
    *(f"{service}_{name}" for service in _SETTINGS for name in _SETTINGS[service]),
    *(f"{service}_{name}".upper() for service in _SECRETS for name in _SECRETS[service]),
]


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("text", [URL, TEXTS["conninfo"]], ids=["url", "conninfo"])
def test_in_every_variable(folder: Path, variable: str, text: str) -> None:
    known = {} if variable == "ALTAPROFILES_CONFIG" else CREDENTIALS
    env = environment(folder, known, {variable: text})
    for words in (
        ("doctor",),
        ("export", "Charged", "--from", "-3d", "--to", "-2d", "-o", "p.ndjson", "--json"),
        ("lookup", "keys.txt", "--by", "user-id", "-o", "b.csv", "--json"),
    ):
        done = run(env, *words, "-v", "--retries", "0", cwd=folder)
        assert done.code != 0
        shows_no_password(done)
    stores_no_password(folder)


# ---------------------------------------------------------------------------------------- Python

DAYS: dict[str, Any] = {"start": 20260101, "end": 20260131}
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "export": (Session.export, {"events": "Charged", **DAYS, "to": "p.duckdb"}),
    "export_lookups": (
        Session.export_lookups,
        {"keys": "keys.csv", "by": "identity", "to": "k.duckdb", "column": "a"},
    ),
    "sync": (
        Session.sync,
        {"events": "Charged", "since": 20260101, "until": 20260102, "to": "s.duckdb"},
    ),
    "with_options": (Session.with_options, {}),
    "unfinished_in": (unfinished_in, {"to": "p.duckdb"}),
    "CleverTap": (CleverTap, {"account_id": "A", "passcode": "P"}),
    "Alta": (Alta, {"token": "T"}),
    "Session": (Session, {}),
    "Session.from_env": (Session.from_env, {}),
    "Session.from_account": (Session.from_account, {}),
    "EventQuery": (EventQuery.of, {"event": "Charged", **DAYS}),
    "Filter": (Filter, {"name": "Amount", "operator": "=", "value": 1}),
    "arrow_schema": (arrow_schema, {}),
}
# Secrets, which are hidden themselves, and the values that records are compared with.
ANY_TEXT = {"passcode", "token", "value"}


def arguments() -> Iterator[Any]:
    for name, (function, _) in CALLS.items():
        for argument in inspect.signature(function).parameters:
            if argument != "self" and argument not in ANY_TEXT:
                yield pytest.param(name, argument, id=f"{name}({argument}=)")


async def result_of(made: Any) -> Any:
    if isinstance(made, Awaitable):
        return await made
    return [one async for one in made] if isinstance(made, AsyncIterable) else made


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "argument"), [*arguments()])
async def test_in_every_argument(
    folder: Path, caplog: pytest.LogCaptureFixture, name: str, argument: str
) -> None:
    caplog.set_level(logging.DEBUG, "altaprofiles")
    function, values = CALLS[name]
    is_method = "self" in inspect.signature(function).parameters
    for text in (URL, TEXTS["conninfo"]):
        # Lists of keys hold any text, which is data.
        wrong: list[Any] = [text] if argument == "keys" else [text, [text], {text: text}]
        for value in wrong:
            async with Emulator(people=3) as emulator, session_for(emulator) as session:
                try:
                    made = function(*([session] if is_method else []), **values | {argument: value})
                    words = repr(await result_of(made))
                except Exception:
                    words = traceback.format_exc()
            # The lines of this file are not the library's words.
            assert PASSWORD not in words
    assert PASSWORD not in caplog.text
    stores_no_password(folder)


@IN_WORDS
def test_in_names_and_paths(text: str) -> None:
    for call in (
        lambda: EventQuery.of(text, **DAYS),
        lambda: Filter(text, "exists"),
        lambda: arrow_schema(flatten=[text]),
        lambda: path_text("spool", text),
        lambda: path_text("spool", Path(text)),
    ):
        with pytest.raises(InvalidArgument, match="looks like a database") as caught:
            call()
        assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("text", LEGITIMATE)
def test_what_only_looks_similar_is_taken(text: str) -> None:
    assert EventQuery.of(text, **DAYS).event == text
    assert Filter(text, "exists").name == text
    assert text in arrow_schema(flatten=[text]).names
    assert path_text("spool", text) == text
    assert shown(text) == repr(text)
