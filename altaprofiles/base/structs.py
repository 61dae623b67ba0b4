"""Structs that callers make: the error of a wrong argument names it, and those that there are."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from msgspec import StructMeta

from .wording import meant

__all__ = ["CalledStruct"]


class CalledStruct(StructMeta):
    """The metaclass of structs that callers make. Decoding does not call it."""

    # Otherwise type checkers would take any arguments.
    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().__call__(*args, **kwargs)
            except TypeError:
                fault = _fault(self, args, kwargs)
                if fault is None:
                    raise
            # Outside of the block, so that the text without a name does not stay as the context.
            raise TypeError(f"{self.__name__}{fault}")


def _fault(struct: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Return what is wrong with the arguments, to be read behind the name; None if they fit."""
    known = signature(struct)
    names = ", ".join(known.parameters)
    if unknown := next((name for name in kwargs if name not in known.parameters), None):
        close = meant(unknown, known.parameters)
        hint = f" Did you mean {close}?" if close else ""
        return f" has no argument {unknown!r}.{hint} Its arguments: {names}"
    if args and all(one.kind is Parameter.KEYWORD_ONLY for one in known.parameters.values()):
        first = next(iter(known.parameters))
        example = f"{struct.__name__}({first}=…)"
        return f" takes its arguments by name, as in {example}. Its arguments: {names}"
    try:
        known.bind(*args, **kwargs)
    except TypeError as error:
        return f": {error}. Its arguments: {names}"
    return None
