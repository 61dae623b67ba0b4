"""The wheel and the sdist hold what they should and nothing else; licences and versions hold."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import metadata, requires
from pathlib import Path
from typing import Any

import pytest

import altaprofiles

from .support.guides import GUIDES

ROOT = Path(__file__).parents[1]
VERSION = altaprofiles.__version__
NAME = f"altaprofiles-{VERSION}"
FOR_DEVELOPERS = {"bench", "integration", "lint", "test"}
"""Extras that no user needs."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def files_in(*folders: str) -> set[str]:
    """Return the files of the project's folders, without those that Python and tools make."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and not re.search(r"__pycache__|/\.|\.py[co]$", path.as_posix()[len(str(ROOT)) :])
    }


def test_the_wheel_holds_the_package_and_its_metadata(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    assert names == files_in("altaprofiles") | {f"{NAME}.dist-info/{name}" for name in info}
    assert {"altaprofiles/py.typed", "altaprofiles/guides/start-here.md"} <= names


def test_the_sdist_holds_the_sources_tests_and_benchmarks(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name for member in archive if member.isfile()}
    beside = {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    expected = files_in("altaprofiles", "benchmarks", "tests") | beside
    assert names == {f"{NAME}/{name}" for name in expected}


def requirements() -> Iterator[str]:
    """Yield the name of each package that users install with this one."""
    for requirement in requires("altaprofiles") or ():
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if extra is None or extra[1] not in FOR_DEVELOPERS:
            match = re.match(r"[\w.-]+", requirement)
            assert match is not None
            if match[0] != "altaprofiles":
                yield re.sub(r"[._]", "-", match[0].lower())


FAMILIES = {
    "Apache-2.0": r"Apache",
    "BSD-3-Clause": r"BSD",
    "LGPL-3.0": r"LGPL|Lesser General",
    "MIT": r"\bMIT\b",
    "PSF-2.0": r"PSF|Python Software Foundation",
}


def families_of(name: str) -> set[str]:
    """Return the licences that an installed package names."""
    # `License` may be the whole text, of which the first line is the title.
    found: Any = metadata(name)
    classifiers = [one for one in found.get_all("Classifier") or () if one.startswith("License")]
    title = (found.get("License") or "").partition("\n")[0]
    text = found.get("License-Expression") or " ".join([title, *classifiers])
    return {family for family, pattern in FAMILIES.items() if re.search(pattern, text)}


def test_the_licences_of_dependencies_are_those_that_they_name() -> None:
    guide = (GUIDES / "start-here.md").read_text("utf-8")
    section = guide.partition("## Licences")[2].partition("\n## ")[0]
    listed = {
        name.strip(): set(re.findall("|".join(map(re.escape, FAMILIES)), licences))
        for names, licences in re.findall(r"^\| `(.+)` \| (.+) \|$", section, re.MULTILINE)
        for name in re.sub(r"[._]", "-", names.replace("`", "")).split(",")
    }
    assert listed == {name: families_of(name) for name in set(requirements())}


def test_the_readme_names_the_versions_of_the_classifiers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    classifiers = " ".join(project["classifiers"])
    versions = re.findall(r"Python :: (3\.\d+)", classifiers)
    assert project["requires-python"] == f">={versions[0]}"
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    [tested] = re.findall(r"was tested on Linux with Python ([^;:]+)[;:]", readme)
    assert re.findall(r"3\.\d+", tested) == versions
