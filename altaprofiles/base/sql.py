"""Identifiers and texts in SQL, as every database here has them, and codes of SQLite. Pure."""

from __future__ import annotations

__all__ = ["literal", "quoted", "sqlite_code"]


def literal(text: str) -> str:
    """Return `text` as a text in SQL."""
    return "'{}'".format(text.replace("'", "''"))


def quoted(name: str) -> str:
    """Return `name` as an identifier in SQL."""
    return '"{}"'.format(name.replace('"', '""'))


def sqlite_code(error: BaseException) -> int:
    """Return the primary code of an error of SQLite, or 0 if it has none."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
