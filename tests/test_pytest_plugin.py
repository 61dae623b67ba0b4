"""pytest's plugin in a pytest of its own, as people who test their own programs meet it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from .support.guides import GUIDES, block_of
from .support.interruptions import AT_THE_LOOP
from .support.tasks import PATIENCE
from .support.terminals import environment

pytest_plugins = ["pytester"]

GUIDE = GUIDES / "testing.md"


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return an empty project, whose pytest has the plugins that are installed and no options."""
    clean = environment(pytester.path)
    for name in [name for name in os.environ if name not in clean]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return pytester


def run(inner: pytest.Pytester, code: str, *options: str, **outcomes: int) -> str:
    inner.makepyfile(test_it=code)
    command = (sys.executable, "-m", "pytest", "--strict-markers", "-W", "error", "-rA")
    done = inner.run(*command, *(options or ("-p", "no:asyncio")), timeout=PATIENCE)
    printed = done.stdout.str() + done.stderr.str()
    assert done.parseoutcomes() == outcomes, printed
    return printed


KINDS = {
    "plain": ("import asyncio", "", "", "asyncio.run(look_up())"),
    "asyncio": ("import pytest", "@pytest.mark.asyncio", "async ", "await look_up()"),
    "anyio": ("import pytest", "@pytest.mark.anyio", "async ", "await look_up()"),
}
ASYNCIO = ("-o", "asyncio_default_fixture_loop_scope=function")


@pytest.mark.parametrize("kind", KINDS)
def test_the_session_of_the_environment_meets_the_emulator(
    inner: pytest.Pytester, kind: str
) -> None:
    imports, mark, kind_of, call = KINDS[kind]
    run(
        inner,
        f"""
        {imports}
        import pytest
        from altaprofiles import Session

        async def look_up():
            async with Session.from_env() as session:
                ann = await session.profiles.get(identity="ann")
                assert ann.email == "ann@example.com"
                assert await session.profiles.get(identity="5555555555") is None
                people = session.profiles.by_event("Any Event", start=20260101, end=20260101)
                assert [person.identity async for person in people] == ["ann", "bo"]
                assert list(await session.cdp.get(anonymous_id="a1")) == ["ann"]

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.altaprofiles(
            records=[{{"identity": "ann", "email": "ann@example.com"}}, {{"identity": "bo"}}],
            bindings={{"ann": ["a1"]}},
        )
        {mark}
        {kind_of}def test_it(altaprofiles_emulator):
            {call}
            assert altaprofiles_emulator.stats.requests["profile"] == 2
            altaprofiles_emulator.faults = {{"not_ready": 0.5}}
            altaprofiles_emulator.add({{"identity": "cy"}})
            assert len(altaprofiles_emulator.population) == 3

        {mark}
        {kind_of}def test_people_of_the_seed(altaprofiles_emulator):
            assert len(altaprofiles_emulator.population) == 1000
        """,
        *(ASYNCIO if kind == "asyncio" else ()),
        passed=2,
    )


@pytest.mark.slow
def test_the_environment_is_the_emulators_and_comes_back(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALTA_ENDPOINT", "sg")
    monkeypatch.setenv("CLEVERTAP_REGION", "in1")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "real-secret")
    monkeypatch.setenv("CLEVERTAP_MAX_IN_FLIGHT", "1")
    monkeypatch.setenv("ALTAPROFILES_CONFIG", "mine")
    monkeypatch.setenv("ALTAPROFILES_SHARED", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.com")
    monkeypatch.setenv("SHOP_ALTA_TOKEN", "real-secret")
    run(
        inner,
        """
        import os
        import pytest
        from altaprofiles import Alta, CleverTap, MissingCredentials, Session

        SET = {"CLEVERTAP_ACCOUNT_ID", "CLEVERTAP_PASSCODE", "CLEVERTAP_BASE_URL"}
        SET |= {"ALTA_TOKEN", "ALTA_BASE_URL"}

        def those_of(*beginnings):
            return {name for name in os.environ if name.upper().startswith(beginnings)}

        def test_inside(altaprofiles_emulator):
            assert CleverTap.from_env() == altaprofiles_emulator.clevertap
            assert Alta.from_env() == altaprofiles_emulator.alta
            own = those_of("CLEVERTAP_", "ALTA_", "ALTAPROFILES_")
            assert own == SET | {"ALTAPROFILES_CONFIG"}
            assert those_of("HTTP_P", "HTTPS_P", "ALL_PROXY", "NO_PROXY") == set()
            with pytest.raises(MissingCredentials, match="accounts.toml does not exist"):
                CleverTap.from_account()

        @pytest.mark.altaprofiles(prefix="SHOP_", people=3)
        def test_prefix(altaprofiles_emulator):
            assert len(altaprofiles_emulator.population) == 3
            assert CleverTap.from_env("SHOP_") == altaprofiles_emulator.clevertap
            assert Alta.from_env("SHOP_") == altaprofiles_emulator.alta
            assert those_of("SHOP_") == {f"SHOP_{name}" for name in SET}
            with pytest.raises(MissingCredentials):
                Session.from_env()

        def test_outside():
            assert os.environ["ALTA_ENDPOINT"] == "sg"
            assert os.environ["CLEVERTAP_REGION"] == "in1"
            assert os.environ["CLEVERTAP_PASSCODE"] == "real-secret"
            assert "CLEVERTAP_BASE_URL" not in os.environ
            assert os.environ["ALTAPROFILES_CONFIG"] == "mine"
            assert os.environ["ALTAPROFILES_SHARED"] == "1"
            assert os.environ["HTTPS_PROXY"] == "http://127.0.0.1:9"
            assert os.environ["SHOP_ALTA_TOKEN"] == "real-secret"
        """,
        passed=3,
    )


@pytest.mark.slow
def test_the_marker_alone_starts_it_before_the_tests_own_fixtures(inner: pytest.Pytester) -> None:
    run(
        inner,
        """
        import unittest
        import pytest
        from altaprofiles import CleverTap

        @pytest.fixture
        def client():
            return CleverTap.from_env()

        @pytest.mark.altaprofiles
        def test_marked(client):
            assert client.url.startswith("http://127.0.0.1:")

        def test_named_last(client, altaprofiles_emulator):
            assert client.url == altaprofiles_emulator.url

        @pytest.mark.altaprofiles(people=5)
        class TestClass:
            def test_of_the_class(self, altaprofiles_emulator):
                assert len(altaprofiles_emulator.population) == 5

            @pytest.mark.altaprofiles(people=6, max_in_flight=2, seed=3, think=0)
            def test_of_its_own(self, altaprofiles_emulator):
                assert len(altaprofiles_emulator.population) == 6
                assert altaprofiles_emulator.max_in_flight == 2

            @pytest.mark.altaprofiles(max_in_flight=2)
            def test_of_both(self, altaprofiles_emulator):
                assert len(altaprofiles_emulator.population) == 5
                assert altaprofiles_emulator.max_in_flight == 2

        @pytest.mark.altaprofiles(people=0)
        class TestOld(unittest.TestCase):
            def test_it(self):
                assert CleverTap.from_env().url.startswith("http://127.0.0.1:")
        """,
        passed=6,
    )


WRONG = {
    "poeple=3": "unknown argument poeple; did you mean people?",
    "colour='red'": "unknown argument colour; use people, records, bindings, replay, seed, ",
    "port=80": "unknown argument port",
    "3": "arguments stand by name, such as people=100",
    "prefix='SHOP-'": "prefix: expected letters, digits and _",
    "prefix=7": "prefix: expected letters, digits and _",
    "people=-1": "people is -1; use 0 or more",
    "faults={'no': 1}": "faults: 'no' is not a fault",
    "records=[{'identity': 'u'}, {'name': 'secret'}]": "records[1]: has neither identity, email",
    "records={'identity': 'secret'}": "records: expected a list of records, got an object",
    "bindings={'secret': 'a1'}": "bindings: entry 1: expected a list of anonymous IDs",
}


@pytest.mark.slow
def test_a_wrong_argument_of_the_marker_is_named(inner: pytest.Pytester) -> None:
    tests = "".join(
        f"@pytest.mark.altaprofiles({arguments})\ndef test_{number}():\n    assert 0, 'it runs'\n"
        for number, arguments in enumerate(WRONG)
    )
    printed = run(inner, f"import pytest\n{tests}", errors=len(WRONG))
    for message in WRONG.values():
        assert f"@pytest.mark.altaprofiles: {message}" in printed
    assert "Traceback" not in printed
    assert "During handling" not in printed
    assert "it runs" not in printed
    assert "secret" not in printed


def test_nothing_is_imported_before_a_test_uses_it(inner: pytest.Pytester) -> None:
    run(
        inner,
        """
        import sys

        def test_it():
            ours = {name for name in sys.modules if name.startswith("altaprofiles.")}
            assert ours == {"altaprofiles.pytest_plugin", "altaprofiles._version"}
            assert {"aiohttp", "msgspec", "click"}.isdisjoint(sys.modules)
        """,
        *("-p", "no:anyio", "-p", "no:hypothesispytest", "-p", "no:xdist", "-p", "no:asyncio"),
        passed=1,
    )


@pytest.mark.slow
def test_the_example_of_the_guide_runs_as_it_stands(inner: pytest.Pytester) -> None:
    """A newcomer tests an app of FastAPI against two people of their own in ten lines."""
    blocks = re.findall(r"```python\n(# (\w+)\.py\n.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    files = {name: code for code, name in blocks}
    assert files.keys() == {"app", "test_app"}
    code = [line for line in files["test_app"].splitlines()[1:] if line.strip()]
    own = [line for line in code if not line.startswith(("import", "from"))]
    assert len(own) <= 10
    for name, text in files.items():
        Path(f"{name}.py").write_text(text, "utf-8")
    done = inner.run(sys.executable, "-m", "pytest", "-q", timeout=PATIENCE)
    assert done.parseoutcomes()["passed"] == 1, done.stdout.str()
    # It fails if the people are others.
    Path("test_app.py").write_text(files["test_app"].replace('"ann"', '"eve"', 1), "utf-8")
    done = inner.run(sys.executable, "-m", "pytest", "-q", timeout=PATIENCE)
    assert done.parseoutcomes()["failed"] == 1, done.stdout.str()


def test_a_program_with_two_accounts_meets_two_emulators(inner: pytest.Pytester) -> None:
    test = """
import asyncio
from altaprofiles import Session

@pytest.mark.altaprofiles(prefix="IN1_", records=[{"identity": "ann"}])
def test_both(altaprofiles_emulator, eu1):
    accounts = altaprofiles_emulator.clevertap.account_id, eu1.clevertap.account_id
    assert len(set(accounts)) == 2

    async def main():
        async with Session.from_env("IN1_") as india, Session.from_env("EU1_") as europe:
            for session, known, unknown in ((india, "ann", "cy"), (europe, "cy", "ann")):
                assert await session.profiles.get(identity=known)
                assert await session.profiles.get(identity=unknown) is None

    asyncio.run(main())
"""
    run(inner, block_of("testing.md", "def eu1(") + test, passed=1)


def test_an_interruption_while_the_emulator_starts_ends_the_run(inner: pytest.Pytester) -> None:
    test = """
def test_it(request):
    try:
        request.getfixturevalue("altaprofiles_emulator")
    except KeyboardInterrupt:
        assert threading.active_count() == 1
    else:
        assert False, "not interrupted"
"""
    run(inner, AT_THE_LOOP + test, passed=1)
