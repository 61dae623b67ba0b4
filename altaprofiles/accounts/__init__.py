"""Credentials of named accounts, and their source in words."""

from __future__ import annotations

from ..credentials.file import CLEVERTAP_KEYS, KEYS, accounts_path
from .resolved import ENVIRONMENT, Accounts, Resolved, find_alta, find_clevertap

__all__ = [
    "CLEVERTAP_KEYS",
    "ENVIRONMENT",
    "KEYS",
    "Accounts",
    "Resolved",
    "accounts_path",
    "find_alta",
    "find_clevertap",
]
