"""The table of extras: the same as in pyproject.toml, and the advice it gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from altaprofiles import ConfigurationError
from altaprofiles.base.extras import (
    CORE,
    EXTRAS,
    check_core,
    is_installed,
    missing_modules,
    outdated,
    require,
    zstd_module,
)

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
DEPENDENCIES: dict[str, list[str]] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))[
    "project"
]["optional-dependencies"]
FOR_DEVELOPERS = {"bench", "integration", "lint", "test"}


def test_the_table_has_each_extra_that_users_install() -> None:
    assert set(EXTRAS) == set(DEPENDENCIES) - FOR_DEVELOPERS - {"all"}
    (everything,) = map(Requirement, DEPENDENCIES["all"])
    assert everything.extras == set(EXTRAS)


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_the_modules_in_the_table(extra: str) -> None:
    """Each of these modules has the name of its distribution, but for that of one."""
    needed = [
        requirement.name.removesuffix("-api")
        for requirement in map(Requirement, DEPENDENCIES[extra])
        if requirement.marker is None or requirement.marker.evaluate()
    ]
    modules = [
        name for name in EXTRAS[extra] if name.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert sorted(needed) == sorted(modules)


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_is_installed_can_be_required(extra: str) -> None:
    assert is_installed(extra)
    assert missing_modules(extra) == []
    assert require(extra, what="this") is sys.modules[EXTRAS[extra][0]]
    assert zstd_module() is require("zstd", what="this")


@pytest.mark.parametrize(("extra", "module"), [("duckdb", "pyarrow"), ("zstd", EXTRAS["zstd"][0])])
def test_a_missing_module_comes_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, extra: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert not is_installed(extra)
    assert missing_modules(extra) == [module]
    with pytest.raises(ConfigurationError) as caught:
        require(extra, what="to: 'people'")
    assert str(caught.value) == (
        f"to: 'people' needs {module}; install it with: pip install 'altaprofiles[{extra}]'"
    )


def test_a_module_of_a_package_that_is_missing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "absent", ("no_such_package.module",))
    assert missing_modules("absent") == ["no_such_package.module"]


def test_a_module_that_cannot_be_imported_is_no_foreign_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_wheel.py").write_text("raise RuntimeError('compiled for another NumPy')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(EXTRAS, "broken", ("broken_wheel",))
    with pytest.raises(
        ConfigurationError, match="broken_wheel, which cannot be imported"
    ) as caught:
        require("broken", what="to: 'people'")
    assert "compiled for another NumPy" in str(caught.value)


@pytest.mark.parametrize(
    ("version", "is_outdated"),
    [
        ("3.9.5", True),
        ("3.13.2", True),
        ("3.14", False),
        ("3.14.0rc1", False),
        ("3.14.1+corp", False),
        ("3.15.0a1", False),
        ("4.0.0", False),
        ("unknown", False),
        (None, False),
    ],
)
def test_a_core_dependency_that_is_too_old_is_named_with_the_command_that_updates_it(
    monkeypatch: pytest.MonkeyPatch, version: str | None, is_outdated: bool
) -> None:
    monkeypatch.setattr("aiohttp.__version__", version)
    if not is_outdated:
        check_core()
        return
    with pytest.raises(ConfigurationError) as caught:
        check_core()
    assert str(caught.value) == (
        f"aiohttp {version} is older than 3.14, which altaprofiles needs; run: "
        f"pip install -U 'aiohttp>=3.14'"
    )


def test_the_oldest_versions_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    needed = {one.name: one for one in map(Requirement, project["dependencies"])}
    assert set(needed) == set(CORE)
    for extra in EXTRAS:
        for one in map(Requirement, DEPENDENCIES[extra]):
            needed[canonicalize_name(one.name)] = one
    modules = {*CORE, *(name for names in EXTRAS.values() for name in names)}
    for name in modules - set(sys.stdlib_module_names):
        module = ModuleType(name)
        module.__version__ = "0.0.1"  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
        old = outdated(name)
        assert old is not None, name
        requirement = Requirement(old.requirement)
        assert needed[canonicalize_name(requirement.name)].specifier == requirement.specifier
        module.__version__ = old.least  # type: ignore[attr-defined]
        assert outdated(name) is None


def installed(folder: Path, name: str, version: str) -> None:
    """Let a folder of modules say that it has a version of a distribution."""
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize("use", ["import", "count"])
def test_a_program_with_an_aiohttp_that_is_too_old_gets_one_error(tmp_path: Path, use: str) -> None:
    (tmp_path / "aiohttp").mkdir()
    (tmp_path / "aiohttp" / "__init__.py").write_text("")
    installed(tmp_path, "aiohttp", "3.9.5")
    command = {
        "import": ["-c", "from altaprofiles import Session"],
        "count": ["-m", "altaprofiles", "count", "Charged", "--from", "-7d", "--to", "yesterday"],
    }[use]
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "CLEVERTAP_ACCOUNT_ID": "A-1"}
    env |= {"CLEVERTAP_PASSCODE": "secret", "CLEVERTAP_BASE_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, *command], env=env, capture_output=True, text=True, check=False
    )
    last = done.stderr.splitlines()[-1]
    assert last.endswith(
        ": aiohttp 3.9.5 is older than 3.14, which altaprofiles needs; run: "
        "pip install -U 'aiohttp>=3.14'"
    )
    assert ("Traceback" in done.stderr) == (use == "import")
    assert done.returncode == (1 if use == "import" else 2)


def test_what_an_earlier_installation_left_does_not_count(tmp_path: Path) -> None:
    # As pip leaves it in a folder that it installs to twice.
    for version in ("4.5.2", "999.1", "4.6.0"):
        installed(tmp_path, "anyio", version)
    done = subprocess.run(
        [sys.executable, "-c", "from altaprofiles import Session"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_doctor_names_an_extra_that_is_too_old(tmp_path: Path) -> None:
    installed(tmp_path, "duckdb", "0.9.2")
    done = subprocess.run(
        [sys.executable, "-m", "altaprofiles", "doctor"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    place = next(at for at, line in enumerate(lines) if line.startswith("note   duckdb 0.9.2 is"))
    assert re.search(r" Run: pip install -U 'duckdb>=[\d.]+'$", lines[place + 1])
