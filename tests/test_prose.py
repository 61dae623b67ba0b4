"""The wording of the package: plain English, in which nouns stand before clauses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import altaprofiles

PACKAGE = Path(altaprofiles.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES})

# `told` and its like say that something happened to a value, not what the value is.
VAGUE = frozenset({"asked", "had", "kept", "said", "shown", "there", "told"})


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring, those behind assignments included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        documented = True
        for statement in node.body:
            match statement:
                case ast.Expr(ast.Constant(str(text))) if documented:
                    yield statement.lineno, text
            documented = isinstance(statement, ast.Assign | ast.AnnAssign)


def test_no_docstring_begins_with_a_clause() -> None:
    clauses = [
        f"{path.relative_to(PACKAGE)}:{line}: {text.splitlines()[0]}"
        for path in MODULES
        for line, text in docstrings(path)
        if re.match(r"\s*(What|Who|Whom|Where|How|Whether)\b", text)
    ]
    assert clauses == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_few_clauses_stand_for_nouns(folder: Path) -> None:
    texts = [text for path in sorted(folder.glob("*.py")) for _, text in docstrings(path)]
    words = re.findall(r"[\w']+", " ".join(texts))
    clauses = [word for word in words if word.lower() in ("what", "who", "whom")]
    assert 1000 * len(clauses) <= 5 * len(words), f"{len(clauses)} in {len(words)} words"


def test_variables_say_what_they_hold() -> None:
    vague = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name | ast.arg)
        and not (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
        and (name := node.id if isinstance(node, ast.Name) else node.arg) in VAGUE
    ]
    assert vague == []
