"""Sinks without an export around them."""

from __future__ import annotations

from altaprofiles.export.sinks import Sink

__all__ = ["put_in_place"]


def put_in_place(sink: Sink) -> None:
    """Close a sink, and the file that it returns."""
    if (file := sink.close()) is not None:
        file.close()
