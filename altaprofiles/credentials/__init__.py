"""Credentials of both services: from arguments, the environment, or the credentials file."""

from __future__ import annotations

from .addresses import ENDPOINTS, REGIONS, is_custom, same_host
from .environment import (
    check_prefix,
    ignored_shared,
    ignored_variables,
    is_in_environment,
    naming_shared,
    secrets_in_environment,
    variable,
)
from .secret import SecretFunction, SecretSource
from .services import Alta, CleverTap, check_api_key, check_passcode
from .settings import (
    CHAIN_SLOTS,
    InvalidSetting,
    MaxInFlight,
    Source,
    can_name,
    explained,
    hide_misplaced,
    renamed,
)

__all__ = [
    "CHAIN_SLOTS",
    "ENDPOINTS",
    "REGIONS",
    "Alta",
    "CleverTap",
    "InvalidSetting",
    "MaxInFlight",
    "SecretFunction",
    "SecretSource",
    "Source",
    "can_name",
    "check_api_key",
    "check_passcode",
    "check_prefix",
    "explained",
    "hide_misplaced",
    "ignored_shared",
    "ignored_variables",
    "is_custom",
    "is_in_environment",
    "naming_shared",
    "renamed",
    "same_host",
    "secrets_in_environment",
    "variable",
]
