"""Where an export ends up: a file or a table, in one of five formats.

`resolve` makes a `Target` out of what a caller wrote, and contacts nobody. Its `check` finds what
would fail in the end, before any request is sent; its `open` begins a `Sink`, which appears under
the target's name complete or not at all.
"""

from .resolve import resolve
from .target import Sink, Target

__all__ = ["Sink", "Target", "resolve"]
