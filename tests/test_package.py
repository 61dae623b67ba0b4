"""The package as a whole: its public names, and the promise of its floors."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import contextlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import altaprofiles
import altaprofiles.emulator
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


def aliases(path: Path) -> Iterator[str]:
    """Yield the names that a module assigns, each with a string that documents it."""
    for node, after in pairwise(ast.parse(path.read_text("utf-8")).body):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
            yield ast.unparse(node.target)


def annotated(value: object) -> Iterator[tuple[str, str]]:
    """Yield the annotations of a function, or of all that is public in a class."""
    if inspect.isfunction(value):
        yield from ((value.__qualname__, str(one)) for one in value.__annotations__.values())
    elif inspect.isclass(value):
        for base in (base for base in value.__mro__ if base.__module__.startswith("altaprofiles")):
            for name, annotation in vars(base).get("__annotations__", {}).items():
                if not name.startswith("_"):
                    text = getattr(annotation, "__forward_arg__", annotation)
                    yield f"{base.__name__}.{name}", text
            for name, member in vars(base).items():
                if name == "__init__" or not name.startswith("_"):
                    yield from annotated(getattr(member, "fget", member))
                    yield from annotated(getattr(member, "__func__", None))


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
    documented = {name for path in MODULES.values() for name in aliases(path)}
    for name in altaprofiles.__all__:
        value = getattr(altaprofiles, name)
        if name != "__version__":
            is_alias = not inspect.isclass(value) and not inspect.isfunction(value)
            assert name in documented if is_alias else inspect.getdoc(value), name
    assert set(dir(altaprofiles)) == set(altaprofiles.__all__)
    assert set(errors.__all__) <= set(altaprofiles.__all__)


OF_THE_PACKAGE = re.compile(
    r"Session\.\w+_part|Unfinished\.plan|(Profiles|Cdp|EventProfiles|_Face)\.__init__"
)
"""Used by the package itself only."""


@pytest.mark.parametrize("package", [altaprofiles, altaprofiles.emulator])
def test_every_type_in_a_public_signature_can_be_imported_from_the_package(
    package: ModuleType,
) -> None:
    known = {*package.__all__, *altaprofiles.__all__}
    known |= {*dir(builtins), *dir(typing), *dir(collections.abc), *dir(contextlib)}
    known |= {"Path", "PathLike", "Raw", "SSLContext", "aiohttp", "array", "date", "datetime"}
    known |= {"os", "pyarrow"}
    names = {
        (place, name.id)
        for public in package.__all__
        for place, annotation in annotated(getattr(package, public))
        for name in ast.walk(ast.parse(annotation))
        if isinstance(name, ast.Name) and not name.id.startswith("_") and len(name.id) > 1
        if not OF_THE_PACKAGE.fullmatch(place)
    }
    assert len(names) > 50
    assert {(place, name) for place, name in names if name not in known} == set()


OPTIONS: dict[type, tuple[Any, set[str]]] = {
    altaprofiles.SessionOptions: (altaprofiles.Session.__init__, {"clevertap", "alta"}),
    altaprofiles.ViewOptions: (altaprofiles.Session.with_options, {"fixed"}),
    altaprofiles.EventProfilesOptions: (
        altaprofiles.Profiles.by_event,
        {"event", "start", "end"},
    ),
    altaprofiles.ExportOptions: (altaprofiles.Session.export, {"events", "start", "end", "to"}),
    altaprofiles.LookupOptions: (altaprofiles.Session.export_lookups, {"keys", "by", "to"}),
    altaprofiles.SyncOptions: (altaprofiles.Session.sync, {"events", "since", "until", "to"}),
}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.__name__)
def test_options_are_those_of_their_call(options: type) -> None:
    call, decided = OPTIONS[options]
    parameters = {
        name: annotation
        for name, annotation in call.__annotations__.items()
        if name not in decided | {"return"}
    }
    inherited = {
        name: getattr(annotation, "__forward_arg__", annotation)
        for name, annotation in options.__annotations__.items()
    }
    assert inherited == parameters


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


def test_public_modules_need_no_import_of_their_own() -> None:
    names = ("emulator", "models", "notebook", "otel", "progress")
    program = f"import altaprofiles; print(*(getattr(altaprofiles, n).__name__ for n in {names}))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert found.stdout.decode().split() == [f"altaprofiles.{name}" for name in names]
