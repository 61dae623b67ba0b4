"""The package as a whole: its public names, and the promise of its floors."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

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


def test_modules_take_from_each_other_only_the_names_in_all() -> None:
    root = Path(altaprofiles.__file__).parent.parent
    trees = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): (
            path,
            ast.parse(path.read_text(encoding="utf-8")),
        )
        for path in sorted(root.joinpath("altaprofiles").rglob("*.py"))
    }
    taken: set[tuple[str, str, str]] = set()
    for importer, (path, tree) in trees.items():
        package = importer if path.stem == "__init__" else importer.rpartition(".")[0]
        modules: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                home = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                for name in node.names:
                    if f"{home}.{name.name}" in trees:
                        modules[name.asname or name.name] = f"{home}.{name.name}"
                    else:
                        taken.add((importer, home, name.name))
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=ast.Name(id=module), attr=attribute) if module in modules:
                    taken.add((importer, modules[module], attribute))
    assert len(taken) > 300
    private = [
        f"{importer} takes {name} from {home}"
        for importer, home, name in sorted(taken)
        if name != "__version__"
        and name not in getattr(importlib.import_module(home), "__all__", ())
    ]
    assert private == []
