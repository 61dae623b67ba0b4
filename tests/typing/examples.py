"""Type-checks the examples of documents and docstrings: `python -m tests.typing.examples`.

Each example becomes a module of its own in a new folder. One run of mypy --strict and one of
pyright (strict) read the folder. Needs the `lint` extra.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import indent

import altaprofiles

from ..support.guides import GUIDES, document_at, program_name
from ..test_examples import EXAMPLES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

# As typed into an interpreter, where a value alone is displayed, and names are for what follows.
OFF = ("UnusedExpression", "UnusedFunction", "UnusedImport", "UnusedVariable")
# Libraries of tables have no types, or not all of them.
OF_TABLES = (
    "MissingTypeStubs",
    "OptionalMemberAccess",
    *(f"Unknown{what}Type" for what in ("Argument", "Member", "Parameter", "Variable")),
)
OFF_WITH_TABLES = (*OFF, *OF_TABLES)
# Some of the peers in a lake are not installed where this runs.
OFF_WITH_PEERS = (*OF_TABLES, "MissingImports", "UntypedFunctionDecorator")


def module_of(test: doctest.DocTest) -> str:
    """Return an example of a docstring as a module; its names are those that the test gives it."""
    source = "".join(example.source for example in test.examples)
    used = set(re.findall(r"\w+", source)) | {"Session"}
    public = ", ".join(name for name in altaprofiles.__all__ if name in used)
    off = OFF_WITH_TABLES if "to_arrow" in source else OFF
    makes_session = re.search(r"as session\b|session = ", source)
    return (
        f"# pyright: strict, {', '.join(f'report{rule}=false' for rule in off)}\n"
        f"import altaprofiles\nfrom altaprofiles import {public}\nfrom datetime import date\n\n\n"
        f"async def example({'' if makes_session else 'session: Session'}) -> None:\n"
        f"{indent(source, '    ')}"
    )


def write_examples(folder: Path) -> None:
    """Write each example to a module of its own."""
    for path in (README, *GUIDES.glob("*.md")):
        if path.name == "gallery.md":
            # Cells of one notebook, which are no modules. A kernel runs them.
            continue
        document = path.stem.lower().replace("-", "_")
        for number, example in enumerate(document_at(path).examples()):
            # Some are files, of which one imports the other.
            name = program_name(example.parsed) or f"{document}_{number}.py"
            source = str(example.parsed)
            if "import pandas" in source:
                # It has no types of its own, and every expression would be unknown.
                continue
            is_of_peers = path.name == "in-a-lake.md"
            off = OF_TABLES if re.search(r"pyarrow|duckdb|polars", source) else ()
            modes = ["strict", *(f"report{rule}=false" for rule in OFF_WITH_PEERS if is_of_peers)]
            modes += [f"report{rule}=false" for rule in off if not is_of_peers]
            # A decorator of a module that is not installed has no type, and DuckDB says of each
            # statement that it may have no result.
            untyped = "untyped-decorator" if is_of_peers else "union-attr" if off else ""
            codes = f'# mypy: disable-error-code="{untyped}"\n' if untyped else ""
            head = f"# pyright: {', '.join(modes)}\n{codes}"
            (folder / name).write_text(head + source, "utf-8")
    for name, test in EXAMPLES.items():
        file = folder / f"example_{name.replace('.', '_')}.py"
        file.write_text(module_of(test), "utf-8")


def main() -> int:
    """Return the number of checkers that find an error."""
    with tempfile.TemporaryDirectory() as folder:
        write_examples(Path(folder))
        checkers = [
            ["mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), "."],
            ["pyright", "--pythonpath", sys.executable, "."],
        ]
        environment = os.environ | {"MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")}
        done = [
            subprocess.run(
                [sys.executable, "-m", *checker], cwd=folder, env=environment, check=False
            )
            for checker in checkers
        ]
    return sum(one.returncode != 0 for one in done)


if __name__ == "__main__":
    sys.exit(main())
