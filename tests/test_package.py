"""The package as a whole: its public names, and the promise of its floors."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import altaprofiles
from altaprofiles import errors

FOLDER = Path(altaprofiles.__file__).parent


def name_of(path: Path) -> str:
    """Return the name of a module, that of the package itself for an `__init__`."""
    parts = path.relative_to(FOLDER.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(FOLDER.rglob("*.py"))}


def exported(tree: ast.Module) -> list[str]:
    """Return `__all__`, or nothing if there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def defined(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that a module defines, not those that it imports."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (name for target in targets for name in ast.walk(target)):
                if isinstance(name, ast.Name):
                    yield name.id
        elif isinstance(node, ast.If | ast.Try):
            handlers = [line for handler in getattr(node, "handlers", ()) for line in handler.body]
            yield from defined([*node.body, *node.orelse, *handlers])


def imported(name: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield each name that a module takes from another one of the package, and that one."""
    package = name if MODULES[name].stem == "__init__" else name.rpartition(".")[0]
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            source = importlib.util.resolve_name(relative, package)
            for alias in node.names:
                if f"{source}.{alias.name}" in MODULES:
                    modules[alias.asname or alias.name] = f"{source}.{alias.name}"
                elif source in MODULES:
                    yield source, alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in modules:
            yield modules[ast.unparse(node.value)], node.attr


def rank(name: str) -> tuple[int, str]:
    """Return what names are sorted by: constants first, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


TOP = {
    *("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"),
    *("altaprofiles", "tests", "benchmarks"),
}
MADE = {"build", "dist", "PKG-INFO"}
"""Made by tools for packages, and never committed."""


def test_the_top_level_has_nothing_else() -> None:
    names = {
        path.name for path in Path(__file__).parents[1].iterdir() if not path.name.startswith(".")
    }
    assert names - MADE <= TOP


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


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text("utf-8"))


@pytest.mark.parametrize("name", MODULES)
def test_all_is_what_others_may_import(name: str) -> None:
    tree = tree_of(name)
    names = exported(tree)
    assert names == sorted(set(names), key=rank)
    if MODULES[name].stem != "__init__":
        assert set(names) <= {*defined(tree.body)}, "a name is handed on; only `__init__` may do so"
    private = [
        f"{taken} is not in {source}.__all__"
        for source, taken in imported(name, tree)
        if taken not in exported(tree_of(source))
    ]
    assert private == []


def test_importing_it_needs_the_core_dependencies_only() -> None:
    code = (
        "import altaprofiles.session, altaprofiles.emulator, sys\n"
        "print({'click', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(altaprofiles, "Sessions")
