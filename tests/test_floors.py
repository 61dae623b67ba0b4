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
        "table",
        "windows",
    }
)


def test_few_files_stand_at_the_top() -> None:
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 16


def test_every_folder_of_modules_is_a_package() -> None:
    """import-linter sees no others."""
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


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
    assert len(found) <= 45, "\n".join(found)
