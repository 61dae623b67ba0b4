"""Identifiers in SQL, as every database here has them. Pure."""

from __future__ import annotations

__all__ = ["quoted"]


def quoted(name: str) -> str:
    """Return `name` as an identifier in SQL."""
    return '"{}"'.format(name.replace('"', '""'))
