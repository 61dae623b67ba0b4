"""The number of files and connections that a process may have open."""

from __future__ import annotations

import errno
import sys

__all__ = ["limit_of_open_files", "more_files"]


def limit_of_open_files() -> int | None:
    """Return how many files and connections this process may have open; None if that is unknown."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def more_files(error: OSError) -> str | None:
    """Return what is to be done if too many files are open; None if the error is another one."""
    if error.errno == errno.ENFILE:
        return "close some in other programs, as this machine has no more"
    if error.errno != errno.EMFILE:
        return None
    limit = limit_of_open_files()
    present = "" if limit is None else f" than {limit}"
    return f"allow more{present} in a process (`ulimit -n 1024`)"
