"""The table of extras: the same as in pyproject.toml, and the advice it gives."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from altaprofiles import ConfigurationError
from altaprofiles.base.extras import EXTRAS, is_installed, missing_modules, require, zstd_module

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
