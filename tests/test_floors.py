"""The size of the top floor, and the number of places that name one option of an export.

import-linter holds the direction of imports; these two keep a new option or a new file from
spreading where no import shows it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import altaprofiles

PACKAGE = Path(altaprofiles.__file__).parent

OPTIONS = frozenset(
    {
        "batch_size",
        "bom",
        "distinct",
        "event_summaries",
        "flatten",
        "on_progress",
        "resume",
        "spool",
        "windows",
    }
)


def test_few_files_stand_at_the_top() -> None:
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 18


def test_every_folder_of_modules_is_a_package() -> None:
    """import-linter sees no others."""
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_aiohttp_is_imported_in_one_room_and_the_emulator() -> None:
    """A new module of `http` is in no list of import-linter's yet."""
    importers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        if "aiohttp" in ast.unparse(node).split()[1].split(".")
    }
    emulator = {path for path in importers if path.startswith("emulator/")}
    assert importers - emulator == {"http/connections.py", "http/transport.py"}


def mentions(path: Path) -> Iterator[str]:
    """Yield the options that a module names as parameters, keywords or fields."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.arg(arg=str(name)) | ast.keyword(arg=str(name)):
                yield name
            case ast.ClassDef(body=body):
                for statement in body:
                    match statement:
                        case ast.AnnAssign(target=ast.Name(id=name)):
                            yield name


def test_an_option_of_an_export_is_named_where_it_is_used_and_nowhere_in_between() -> None:
    modules = sorted((PACKAGE / "export").rglob("*.py"))
    found = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in modules
        for name in mentions(path)
        if name in OPTIONS
    ]
    assert len(found) <= 64, "\n".join(found)
