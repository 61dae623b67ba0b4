"""Identifiers and texts in SQL, as every database here has them. Pure."""

from __future__ import annotations

__all__ = ["literal", "quoted"]


def literal(text: str) -> str:
    """Return `text` as a text in SQL."""
    return "'{}'".format(text.replace("'", "''"))


def quoted(name: str) -> str:
    """Return `name` as an identifier in SQL."""
    return '"{}"'.format(name.replace('"', '""'))
