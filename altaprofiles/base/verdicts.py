"""Verdicts on errors: can it pass, does it doom all, is it final. Pure."""

from __future__ import annotations

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

__all__ = ["dooms_all", "is_final", "is_transient"]


def is_transient(error: AltaProfilesError) -> bool:
    """Whether the same request can succeed later.

    Undecodable bodies count: they come from connections cut short and from proxies.
    """
    if isinstance(error, ConnectError):
        return not error.untrusted
    if isinstance(error, ResponseTooLarge):
        return False
    return isinstance(error, TransportError | RateLimited | ServerError | NotReady | DecodeError)


def dooms_all(error: AltaProfilesError) -> bool:
    """Whether what failed one item will fail every other: credentials, or a closed session.

    A 403 without a code of the API's own is a firewall that dislikes one key.
    """
    if isinstance(error, Forbidden):
        return error.code is not None
    return isinstance(error, Unauthorized | ConfigurationError)


def is_final(error: AltaProfilesError | None) -> bool:
    """Whether asking again would not change it: the service, or this library, refuses the key."""
    if isinstance(error, BadRequest | Forbidden):
        # Without a code of the service's own, it is a proxy or a firewall that refused.
        return error.code is not None
    return isinstance(error, ConfigurationError)
