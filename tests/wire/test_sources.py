"""Every rule of the two APIs cites its source, and addresses are the vendors' own."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import altaprofiles

PACKAGE = Path(altaprofiles.__file__).parent
MODULES = sorted((PACKAGE / "wire").glob("[a-z]*.py"))
CITATION = re.compile(r"\[([a-z]+)\]")
SOURCE = re.compile(r"^ {4}\[([a-z]+)\] ", re.MULTILINE)

# They hold values and state no rule of an API.
PLAIN = {"API", "Request", "Response", "PAGE_BODY", "SLICE"}

ADDRESSES = (
    # pages of the vendor's documentation
    r"developer\.clevertap\.com/docs/get-user-profiles-api",
    r"developer\.clevertap\.com/docs/clevertap-query-language",
    r"developer\.clevertap\.com/docs/api-request-limit",
    # the services
    r"(?:[a-z]+[0-9]\.)?api\.clevertap\.com",
    r"altatech\.ai",
    r"api(?:-[a-z]+)?\.gptbots\.ai",
    r"api\.(?:DOMAIN|\{name\})",
    # the conventions of another project
    r"opentelemetry\.io/docs/specs/semconv/http/",
    # nobody
    r"(?:[a-z]+\.)*example\.com(?:/.*)?",
    r"HOST(?::PORT)?",
)

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)


def public_docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each name of `__all__` that the module defines, with its docstring."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    exported: list[str] = []
    for node, following in zip(body, [*body[1:], None], strict=True):
        match node:
            case ast.Assign(targets=[ast.Name("__all__")], value=value):
                exported = ast.literal_eval(value)
                continue
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                text = ast.get_docstring(node) or ""
            case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)):
                match following:
                    case ast.Expr(ast.Constant(str(text))):
                        pass
                    case _:
                        text = ""
            case _:
                continue
        if name in exported:
            yield name, text


def prose(path: Path) -> str:
    """Return all docstrings and comments of a module, but not the docstring of the module."""
    source = path.read_text(encoding="utf-8")
    found = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT or token.string.startswith('"""')
    ]
    return "\n".join(found[1:])


@each_module
def test_every_public_rule_cites_a_source(path: Path) -> None:
    names = dict(public_docstrings(path))
    assert names
    uncited = [name for name, text in names.items() if not CITATION.search(text)]
    assert [name for name in uncited if name not in PLAIN] == []


@each_module
def test_every_source_is_defined_once_and_cited(path: Path) -> None:
    sources = SOURCE.findall(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
    assert len(sources) == len(set(sources))
    assert set(CITATION.findall(prose(path))) == set(sources)


def test_a_source_means_the_same_in_every_module() -> None:
    meanings: dict[str, str] = {}
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines():
            if found := SOURCE.match(line):
                assert meanings.setdefault(found[1], line) == line, path


def test_no_address_is_made_up() -> None:
    found = {
        address
        for path in PACKAGE.rglob("*.py")
        for address in re.findall(r"https://([\w.:/{}-]+)", path.read_text(encoding="utf-8"))
    }
    assert len(found) > 10
    allowed = re.compile("|".join(ADDRESSES))
    assert [address for address in sorted(found) if not allowed.fullmatch(address)] == []
