"""Counts of the things that a run tries more often than it has tests. pytest prints them."""

from __future__ import annotations

from collections import Counter

__all__ = ["TRIED"]

TRIED: Counter[str] = Counter()
"""The number of tries of each in this process."""
