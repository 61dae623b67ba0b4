"""An output as a caller asks for it, before anything is checked. Plain values."""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec import Struct

__all__ = ["Output"]


class Output(Struct, frozen=True, kw_only=True):
    """The arguments of `Session.export` that say where to, in which layout, and gathered where.

    Attributes: as the arguments of `Session.export` with these names.
    """

    to: str | os.PathLike[str]
    format: str | None = None
    table: str | None = None
    bom: bool = False
    flatten: Sequence[str] = ()
    resume: bool = True
    spool: str | os.PathLike[str] | None = None
