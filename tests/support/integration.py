"""Marks for tests with heavy peers, which the extra `integration` brings."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

__all__ = ["needs"]


def needs(*modules: str) -> list[pytest.MarkDecorator]:
    """Return the marks of tests that need some modules, and are skipped without them."""
    missing = [name for name in modules if find_spec(name) is None]
    reason = f"needs {', '.join(missing)}: pip install 'altaprofiles[integration]'"
    return [pytest.mark.integration, pytest.mark.skipif(bool(missing), reason=reason)]
