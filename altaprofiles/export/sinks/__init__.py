"""The outputs of an export: a file or a database table, in a format of `resolve.TARGETS`.

`resolve` turns an `Output` into a `Target` without contacting a server. `Target.check` raises
before the first request if the export would fail at its end. `Target.open` returns a `Sink`, whose
records appear under the target's name completely or not at all.

A new format is a module with a `Target` and a `Sink`, and an entry in `resolve.TARGETS`.
"""

from .encoding import Encoded, Encoder
from .resolve import resolve
from .target import BlockSink, FileSink, Sink, Stage, Target

__all__ = ["BlockSink", "Encoded", "Encoder", "FileSink", "Sink", "Stage", "Target", "resolve"]
