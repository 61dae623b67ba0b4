"""What a run tries more often than it has tests. pytest prints it at the end."""

from __future__ import annotations

from collections import Counter

__all__ = ["TRIED"]

TRIED: Counter[str] = Counter()
"""How often each of these was tried in this process."""
