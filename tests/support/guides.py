"""The programs in the project's documents, as files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sybil import Sybil
from sybil.document import Document
from sybil.parsers.markdown import PythonCodeBlockParser

import altaprofiles

__all__ = [
    "GUIDES",
    "block_of",
    "document_at",
    "function_of",
    "program_name",
    "write_programs",
]

GUIDES = Path(altaprofiles.__file__).parent / "guides"


def document_at(path: Path) -> Document:
    """Return a document with its code blocks in Python as examples."""
    return Sybil(parsers=[PythonCodeBlockParser()]).parse(path)


def function_of(guide: str, name: str) -> Callable[..., Any]:
    """Return a function of a guide, such as "errors.md"."""
    names: dict[str, Any] = {}
    for example in document_at(GUIDES / guide).examples():
        if f"def {name}(" in example.parsed:
            exec(example.parsed, names)  # noqa: S102
    function: Callable[..., Any] = names[name]
    return function


def block_of(guide: str, text: str, language: str = "python") -> str:
    """Return the only code block of a guide, such as "errors.md", with a text in it."""
    blocks = re.findall(
        rf"^```{language}\n(.*?)^```$",
        (GUIDES / guide).read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    (found,) = (block for block in blocks if text in block)
    return str(found)


def program_name(code: str) -> str | None:
    """Return the name of the file that a code block is; None if it is not one."""
    found = re.match(r"# (\w+\.py)\n", code)
    return None if found is None else found[1]


def write_programs(guide: str, folder: Path) -> None:
    """Write the programs of a guide, such as "in-a-web-service.md", into a folder."""
    for example in document_at(GUIDES / guide).examples():
        if name := program_name(example.parsed):
            (folder / name).write_text(example.parsed)
