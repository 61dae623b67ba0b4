"""Verdicts on errors, as one table: whether to retry, stop everything, or accept. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import (
    AltaProfilesError,
    BadRequest,
    ConfigurationError,
    ConnectError,
    DecodeError,
    Forbidden,
    NotReady,
    RateLimited,
    ResponseTooLarge,
    ServerError,
    TransportError,
    Unauthorized,
)

__all__ = ["can_pass", "dooms_all", "is_final"]


class _Verdict(NamedTuple):
    can_pass: bool = False
    dooms_all: bool = False
    is_final: bool = False


def _always(error: Any) -> bool:
    return True


def _is_permanent(error: Any) -> bool:
    return bool(error.permanent)


def _is_of_the_service(error: Any) -> bool:
    # Without a code of the API's own, or with that of a success, a proxy or a firewall refused,
    # perhaps because of one key.
    return error.code not in (None, 0, 200)


_NONE = _Verdict()
_PASSES = _Verdict(can_pass=True)

# The first row that matches decides. An error without a row cannot pass and concerns one item.
_TABLE: tuple[tuple[type[AltaProfilesError], Callable[[Any], bool], _Verdict], ...] = (
    (ConnectError, _is_permanent, _NONE),
    (ResponseTooLarge, _always, _NONE),
    (TransportError, _always, _PASSES),
    (RateLimited, _always, _PASSES),
    (ServerError, _always, _PASSES),
    (NotReady, _always, _PASSES),
    # Connections cut short and proxies cause undecodable bodies.
    (DecodeError, _always, _PASSES),
    (BadRequest, _is_of_the_service, _Verdict(is_final=True)),
    (Unauthorized, _always, _Verdict(dooms_all=True)),
    (Forbidden, _is_of_the_service, _Verdict(dooms_all=True, is_final=True)),
    (ConfigurationError, _always, _Verdict(dooms_all=True, is_final=True)),
)


def can_pass(error: AltaProfilesError) -> bool:
    """Return whether the same request can succeed later."""
    return _verdict(error).can_pass


def dooms_all(error: AltaProfilesError) -> bool:
    """Return whether an error of one item would fail every other: credentials, a closed session."""
    return _verdict(error).dooms_all


def is_final(error: AltaProfilesError | None) -> bool:
    """Return whether a later request could not change the result of this key.

    True when the service itself, or this library, refuses the key; False for None.
    """
    return error is not None and _verdict(error).is_final


def _verdict(error: AltaProfilesError) -> _Verdict:
    for kind, applies, verdict in _TABLE:
        if isinstance(error, kind) and applies(error):
            return verdict
    return _NONE
