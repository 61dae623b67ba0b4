"""What may be shown: secrets masked, control characters escaped. Knows no error and does no I/O."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, NoReturn

__all__ = ["Secret", "as_secret", "harmless", "mask_values", "masked"]


class Secret(str):
    """Text that shows itself to whoever uses it, and to nobody who only looks.

    Debuggers and error reporters print the `repr` of every local in every frame: with this type
    they print stars, in our frames and in aiohttp's.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "credentials do not pickle, so that they never reach a disk or a queue by accident; "
            "build them where they are used, for example with from_env()"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self


def as_secret(value: object) -> Secret:
    """Return a credential as a `Secret`: empty for a value that is not text."""
    return Secret(value if isinstance(value, str) else "")


def mask_values(values: Mapping[str, Any], *, plain: Container[str] = ()) -> dict[str, Any]:
    """Return `values` with each text as a `Secret`, in nested tables as well.

    Args:
        values: HTTP headers, or the content of a TOML file.
        plain: keys whose values are not secret.
    """
    return {
        key: mask_values(value, plain=plain)
        if isinstance(value, Mapping)
        else Secret(value)
        if isinstance(value, str) and key not in plain
        else value
        for key, value in values.items()
    }


def masked(value: Any, secret: str) -> Any:
    if not isinstance(value, str):
        return value
    # A body may have it JSON-escaped, and an excerpt of it stands in its message as its repr.
    forms = {secret, secret.replace("/", "\\/")}
    forms |= {form.replace("\\", "\\\\") for form in forms}
    forms |= {form.replace("'", "\\'") for form in forms}
    for form in forms:
        value = _without(value, form)
    return value


def _without(text: str, secret: str) -> str:
    """Return `text` with stars for `secret`, also where an excerpt ends within it."""
    kept, position = [], 0
    while (start := text.find(secret[:6], position)) >= 0:
        kept.append(text[position:start])
        position = start
        for character in secret:
            if text[position : position + 1] != character:
                break
            position += 1
    return "***".join([*kept, text[position:]])


def harmless(text: str, *, keep: str = "") -> str:
    """Return `text` with what a terminal would obey shown as escapes; `keep` stays as it is."""
    return "".join(x if x.isprintable() or x in keep else repr(x)[1:-1] for x in text)
