"""The package as a whole: its public names, and the promise of its floors."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import altaprofiles
from altaprofiles import errors


def test_every_public_name_is_there_and_documented() -> None:
    for name in altaprofiles.__all__:
        value = getattr(altaprofiles, name)
        if name != "__version__":
            assert inspect.getdoc(value), name
    assert set(dir(altaprofiles)) == set(altaprofiles.__all__)
    assert set(errors.__all__) <= set(altaprofiles.__all__)


def test_modules_export_what_they_define() -> None:
    for found in pkgutil.walk_packages(altaprofiles.__path__, "altaprofiles."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        assert module.__doc__ or found.name.endswith("_version"), found.name
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{found.name}.{name}"


def test_importing_it_needs_the_core_dependencies_only() -> None:
    code = (
        "import altaprofiles.session, altaprofiles.emulator, sys\n"
        "print({'click', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(altaprofiles, "Sessions")
