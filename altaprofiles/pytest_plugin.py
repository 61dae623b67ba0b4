"""pytest's plugin: a fixture with both services on loopback, for tests of programs that call them.

pytest finds it by itself once `altaprofiles` is installed. It imports nothing of the library before
a test uses it. `-p no:altaprofiles` switches it off.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .emulator import Emulator

__all__ = ["altaprofiles_emulator"]

_FIXTURE = "altaprofiles_emulator"
_MARKER = "altaprofiles"
_OWN = ("CLEVERTAP_", "ALTA_", "ALTAPROFILES_")
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(people=1000, seed=0, faults=None, think=0.0, records=None, bindings=None, …, "
        f"prefix=''): run the test with the fixture {_FIXTURE}, an altaprofiles.emulator.Emulator "
        f"with these arguments, and prefix in front of the names of its variables",
    )


@pytest.fixture(autouse=True)
def _altaprofiles_first(request: pytest.FixtureRequest) -> None:
    """Start the emulator, for the marker alone as well, before other fixtures of one test.

    They may read the environment variables. pytest makes those of a class, a module or the whole
    run before.
    """
    is_marked = request.node.get_closest_marker(_MARKER) is not None
    if is_marked or _FIXTURE in request.fixturenames:
        request.getfixturevalue(_FIXTURE)


@pytest.fixture
def altaprofiles_emulator(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Emulator]:
    """An emulator of CleverTap and Alta that `Session.from_env()` meets while the test runs.

    The marker `@pytest.mark.altaprofiles(…)` of the test, its class or its module has the arguments
    of `altaprofiles.emulator.Emulator`, such as `records=[{"identity": "ann"}]`. The emulator runs
    in a thread of its own, so that plain tests, pytest-asyncio and anyio's plugin can use it alike.
    It sets `CLEVERTAP_*` and `ALTA_*` variables of the environment. The marker's `prefix`, such as
    "SHOP_" for `Session.from_env(prefix="SHOP_")`, stands in front of their names.

    Fixtures with the scope of a class, a module or the whole run are made before, and do not meet
    it. A session or a client of the program under test therefore needs a fixture of its own for
    each test, which is the default.

    Markers of a module, a class and a test add up; the innermost one decides on an argument that
    several have.

    Other variables of these names, those of `ALTAPROFILES_*` and those of proxies are unset, with
    the prefix and without it. `ALTAPROFILES_CONFIG` is the path of a file in `tmp_path` that does
    not exist, so that `from_account` reads no account of yours.
    """
    from .flow.loop_thread import loop_thread

    arguments = _arguments(request)
    prefix = _prefix(arguments.pop("prefix", ""))
    emulator = _emulator(arguments)
    for name in list(os.environ):
        if name.upper() in _PROXIES or name.removeprefix(prefix).startswith(_OWN):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ALTAPROFILES_CONFIG", str(tmp_path / "accounts.toml"))
    with loop_thread() as thread:
        try:
            thread.call(emulator.__aenter__)
            for name, value in emulator.environment.items():
                monkeypatch.setenv(f"{prefix}{name}", value)
            yield emulator
        finally:
            thread.call(emulator.__aexit__)


def _prefix(prefix: object) -> str:
    from .credentials import check_prefix

    try:
        return check_prefix(prefix)
    except ValueError as error:
        raise _failure(str(error)) from None


def _emulator(arguments: dict[str, Any]) -> Emulator:
    from .emulator import Emulator

    try:
        return Emulator(**arguments)
    except (ValueError, TypeError, OSError) as error:
        raise _failure(str(error)) from None


def _arguments(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the arguments of the markers: the innermost one decides."""
    markers = [*request.node.iter_markers(_MARKER)]
    if not markers:
        return {}
    import inspect
    from difflib import get_close_matches

    from .emulator import Emulator

    if any(marker.args for marker in markers):
        raise _failure("arguments stand by name, such as people=100")
    given = {name: value for marker in reversed(markers) for name, value in marker.kwargs.items()}
    # The port is left out, because tests run side by side.
    known = [name for name in inspect.signature(Emulator).parameters if name != "port"]
    known.append("prefix")
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            advice = f"did you mean {close[0]}?" if close else f"use {', '.join(known)}"
            raise _failure(f"unknown argument {name}; {advice}")
    return given


def _failure(message: str) -> BaseException:
    """Return a failure that pytest reports without a traceback."""
    return pytest.fail.Exception(f"@pytest.mark.{_MARKER}: {message}", pytrace=False)
