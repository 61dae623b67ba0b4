"""Optional dependencies: which extra brings which modules."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import MissingExtra

__all__ = ["EXTRAS", "is_installed", "missing_modules", "require", "zstd_module"]

# In the standard library since Python 3.14 (PEP 784).
_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"

EXTRAS: dict[str, tuple[str, ...]] = {
    "parquet": ("pyarrow",),
    "duckdb": ("duckdb", "pyarrow"),
    "postgres": ("psycopg",),
    "remote": ("fsspec",),
    "keyring": ("keyring",),
    "speedups": ("isal", _ZSTD) if sys.platform == "win32" else ("isal", _ZSTD, "uvloop"),
    "zstd": (_ZSTD,),
    "cli": ("click", "rich"),
    "otel": ("opentelemetry",),
    "spark": ("pandas", "pyarrow"),
}
"""The modules that each extra of pyproject.toml brings, by its name."""


def require(extra: str, *, what: str) -> Any:
    """Import the modules of an extra, and return the first.

    Args:
        extra: a key of `EXTRAS`.
        what: the feature that needs them, for the message.

    Raises:
        MissingExtra: one of them is not installed, or cannot be imported.
    """
    modules = []
    for name in EXTRAS[extra]:
        try:
            modules.append(import_module(name))
        except ImportError:
            raise MissingExtra(
                f"{what} needs {name}; install it with: pip install 'altaprofiles[{extra}]'"
            ) from None
        except Exception as error:
            # Modules of compiled code raise errors of any class if their parts do not match.
            raise MissingExtra(
                f"{what} needs {name}, which cannot be imported ({error}); install it again with: "
                f"pip install --force-reinstall 'altaprofiles[{extra}]'"
            ) from error
    return modules[0]


def missing_modules(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed. Imports none of them."""
    return [name for name in EXTRAS[extra] if not _is_findable(name)]


def is_installed(extra: str) -> bool:
    """Return whether every module of an extra is installed. Imports none of them."""
    return not missing_modules(extra)


def zstd_module() -> Any:
    """Return the module for zstd.

    Raises:
        ImportError: neither Python nor `backports.zstd` has it.
    """
    return import_module(_ZSTD)


def _is_findable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        # The package that it is a part of is missing.
        return False
