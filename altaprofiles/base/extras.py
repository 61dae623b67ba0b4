"""Optional dependencies: which extra brings which module."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from ..errors import ConfigurationError

__all__ = ["require", "zstd_module"]


def require(module: str, *, extra: str, what: str) -> Any:
    """Return the optional dependency `module`, which `what` needs and `extra` brings.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise ConfigurationError(
            f"{what} needs {module}; install it with: pip install 'altaprofiles[{extra}]'"
        ) from None


def zstd_module() -> Any:
    """Return the module for zstd.

    Raises:
        ImportError: neither Python nor `backports.zstd` has it.
    """
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
