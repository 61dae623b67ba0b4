"""Credentials and their source: a named account, else the environment, else the file's default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..credentials import (
    ENDPOINTS,
    REGIONS,
    Alta,
    CleverTap,
    is_custom,
    is_in_environment,
    renamed,
    variable,
)
from ..credentials.file import AccountsFile, accounts_path, key_of

__all__ = ["ENVIRONMENT", "Accounts", "Resolved", "find_alta", "find_clevertap"]

C = TypeVar("C", CleverTap, Alta)

ENVIRONMENT = "the environment"
"""The `source` of credentials from environment variables."""


@dataclass(frozen=True, slots=True)
class Resolved(Generic[C]):
    """Credentials and, in words, their source."""

    credentials: C
    source: str

    def name_of(self, argument: str) -> str | None:
        """Return the variable or the key of the file for an argument; None if it has none."""
        service = "CleverTap" if isinstance(self.credentials, CleverTap) else "Alta"
        key = key_of(service, argument)
        if key is None or self.source != ENVIRONMENT:
            return key
        return variable(service.upper(), argument)

    def step_without(self, argument: str) -> str:
        """Return the step that takes an argument out of the source."""
        name = self.name_of(argument)
        if self.source == ENVIRONMENT:
            return f"unset {name}"
        return f"remove {name} from {accounts_path()}"

    def is_at_gateway(self, places: Mapping[str, str] | None = None) -> bool:
        """Return whether the credentials are meant for a host that is none of the vendor's.

        Args:
            places: the base URLs of the vendor, by name; None for all known ones.
        """
        known = places or (REGIONS if isinstance(self.credentials, CleverTap) else ENDPOINTS)
        return self.credentials.base_url is not None and is_custom(self.credentials.url, known)

    def in_its_words(self, text: str) -> str:
        """Return a message of the library with arguments named as the source names them."""
        return renamed(text, self.name_of)


def find_clevertap(account: str | None = None) -> Resolved[CleverTap] | None:
    """Return the CleverTap account to use, or None if none is configured.

    Args:
        account: a name in the credentials file. None for the account in the environment, or else
            the default account of the file.

    Raises:
        ConfigurationError: the account is incomplete or invalid.
    """
    if account is None and is_in_environment("CLEVERTAP"):
        return Resolved(CleverTap.from_env(), ENVIRONMENT)
    accounts = Accounts.read()
    name = accounts.pick(account)
    return None if name is None else accounts.clevertap(name)


def find_alta(account: str | None = None) -> Resolved[Alta] | None:
    """Return the Alta key to use, or None if none is configured: see `find_clevertap`."""
    if account is None and is_in_environment("ALTA"):
        return Resolved(Alta.from_env(), ENVIRONMENT)
    accounts = Accounts.read()
    name = accounts.pick(account)
    return None if name is None else accounts.alta(name)


class Accounts(AccountsFile):
    """The content of a credentials file, and the credentials of its accounts."""

    def clevertap(self, name: str) -> Resolved[CleverTap] | None:
        """Return the CleverTap credentials of the account `name`, or None if it has none.

        Raises:
            ConfigurationError: a key is missing or invalid.
        """
        found = self.arguments(name, "CleverTap")
        return None if found is None else Resolved(found.made(CleverTap), found.source)

    def alta(self, name: str) -> Resolved[Alta] | None:
        """Return the Alta credentials of the account `name`, or None if it has none.

        Raises:
            ConfigurationError: a key is invalid.
        """
        found = self.arguments(name, "Alta")
        return None if found is None else Resolved(found.made(Alta), found.source)
