"""Dependencies: which extra brings which modules, and which versions are too old."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from ..errors import ConfigurationError, MissingExtra

__all__ = [
    "CORE",
    "EXTRAS",
    "Outdated",
    "check_core",
    "is_installed",
    "missing_modules",
    "outdated",
    "require",
    "update_of",
    "version_of",
    "zstd_module",
]

CORE = ("aiohttp", "msgspec", "anyio")
"""The modules without which nothing works."""

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

# Other modules have the name of their distribution.
_DISTRIBUTIONS = {"opentelemetry": "opentelemetry-api"}


class Outdated(NamedTuple):
    """A module that is older than the library needs. As text, `aiohttp 3.13.2 is older than 3.14`.

    Attributes:
        name: the module.
        found: its version.
        least: the oldest version that will do.
        requirement: its distribution and versions, for pip.
    """

    name: str
    found: str
    least: str
    requirement: str

    def __str__(self) -> str:
        return f"{self.name} {self.found} is older than {self.least}"


def check_core() -> None:
    """Raise `ConfigurationError` if a module of `CORE` is older than the library needs.

    Another package can have brought it, as installers only warn of that.
    """
    if old := [one for one in map(outdated, CORE) if one is not None]:
        texts = " and ".join(map(str, old))
        raise ConfigurationError(f"{texts}, which altaprofiles needs; run: {update_of(old)}")


def update_of(modules: Iterable[Outdated]) -> str:
    """Return the command that updates the modules."""
    return f"pip install -U {' '.join(repr(one.requirement) for one in modules)}"


def outdated(name: str) -> Outdated | None:
    """Return what is known of a module if it is older than the library needs. Does not import it.

    A version that cannot be read will do, as will a pre-release of the oldest one that will.
    """
    needed = _requirements().get(_distribution(name))
    found = version_of(name)
    if needed is None or found is None:
        return None
    least, requirement = needed
    release = _release(found)
    if not release or release >= _release(least):
        return None
    return Outdated(name, found, least, requirement)


def version_of(name: str) -> str | None:
    """Return the version of a module, or None if it is unknown. Does not import it."""
    # Its own word for it, if it is imported, as files of another version may lie about. Not by an
    # attribute, because some warn of being asked.
    module = sys.modules.get(name)
    found = None if module is None else vars(module).get("__version__")
    return found if isinstance(found, str) else _installed_version(_distribution(name))


@cache
def _installed_version(distribution: str) -> str | None:
    # Takes a while to import.
    from importlib import metadata

    found = [*metadata.distributions(name=distribution)]
    try:
        # pip leaves those of earlier versions in the folder that it installs to with `--target`.
        beside = [one for one in found if one.locate_file("") == found[0].locate_file("")]
        return max((one.version for one in beside), key=_release, default=None)
    except (KeyError, TypeError, ValueError):
        # One without a version, or of another encoding.
        return None


@cache
def _requirements() -> Mapping[str, tuple[str, str]]:
    """Return the oldest version of each distribution, and its requirement for pip."""
    from importlib import metadata

    try:
        lines = metadata.requires("altaprofiles") or []
    except metadata.PackageNotFoundError:
        # A copy of the files that was not installed.
        return {}
    found: dict[str, tuple[str, str]] = {}
    for line in lines:
        extra = _EXTRA.search(line)
        parts = _REQUIREMENT.match(line)
        if parts is None or (extra is not None and extra[1] not in EXTRAS):
            continue
        bounds = sorted(parts[2].replace(" ", "").split(","), reverse=True)
        least = next((bound[2:] for bound in bounds if bound.startswith(">=")), None)
        if least is not None:
            found.setdefault(_normalized(parts[1]), (least, parts[1] + ",".join(bounds)))
    return found


_EXTRA = re.compile(r"""extra\s*==\s*["']([\w-]+)""")
_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?([^;()]+)")


def _distribution(name: str) -> str:
    return _DISTRIBUTIONS.get(name) or _normalized(name)


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, without zeros at their end; none if it has an epoch."""
    found = re.match(r"v?(\d+(?:\.\d+)*)(?![\d!])", version.strip())
    if found is None:
        return ()
    numbers = [int(number) for number in found[1].split(".")]
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


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
