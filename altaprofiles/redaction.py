"""Text that is safe to show: secrets masked, control characters escaped. Does no I/O."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, NoReturn

__all__ = ["Secret", "as_secret", "harmless", "mask_values", "masked"]


class Secret(str):
    """A string whose `repr` is `'***'`: usable as text, invisible in tracebacks.

    Debuggers and error reporters print the `repr` of every local of every frame. With this type
    they print stars, in the frames of this library and in those of aiohttp.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "credentials do not pickle, so that they never reach a disk or a queue by accident; "
            "create them where they are used, for example with from_env()"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self


def as_secret(value: object) -> Secret:
    """Return a credential as a `Secret`, empty if `value` is not text."""
    return Secret(value if isinstance(value, str) else "")


def mask_values(values: Mapping[str, Any], *, plain: Container[str] = ()) -> dict[str, Any]:
    """Return `values` with each text as a `Secret`, in nested tables as well.

    A text made from a `Secret`, such as `Bearer …`, is plain until it is masked again.

    Args:
        values: HTTP headers, or the content of a credentials file.
        plain: keys whose values are not secret. An unknown key may be a misspelt one, so its value
            is masked.
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
    """Return `value` with stars in place of `secret`; unchanged if it is not text."""
    if not isinstance(value, str):
        return value
    # A body may hold the secret JSON-escaped, and a message holds an excerpt of it as its repr.
    forms = {secret, secret.replace("/", "\\/")}
    forms |= {form.replace("\\", "\\\\") for form in forms}
    forms |= {form.replace("'", "\\'") for form in forms}
    for form in forms:
        value = _without(value, form)
    return value


def _without(text: str, secret: str) -> str:
    """Return `text` with stars in place of `secret`, even where an excerpt cuts it short."""
    parts, position = [], 0
    while (start := text.find(secret[:6], position)) >= 0:
        parts.append(text[position:start])
        position = start
        for character in secret:
            if text[position : position + 1] != character:
                break
            position += 1
    return "***".join([*parts, text[position:]])


def harmless(text: str, *, keep: str = "") -> str:
    """Return `text` with control characters escaped, except those in `keep`."""
    return "".join(x if x.isprintable() or x in keep else repr(x)[1:-1] for x in text)
