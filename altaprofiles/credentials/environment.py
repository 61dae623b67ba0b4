"""Credentials in variables of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..base.checks import shown, shown_setting, whole_in
from ..errors import ConfigurationError, InvalidArgument, MissingCredentials
from ..redaction import as_secret
from .settings import InvalidSetting, check_token, explained

__all__ = [
    "check_prefix",
    "ignored_shared",
    "ignored_variables",
    "is_in_environment",
    "naming_shared",
    "naming_variables",
    "number_from_env",
    "required_from_env",
    "secrets_in_environment",
    "shared_from_env",
    "text_from_env",
    "variable",
]

_SHARED = "ALTAPROFILES_SHARED"

_SECRETS = {"CLEVERTAP": ("ACCOUNT_ID", "PASSCODE"), "ALTA": ("TOKEN",)}
_SETTINGS = {
    "CLEVERTAP": ("REGION", "BASE_URL", "MAX_IN_FLIGHT", "TIMEZONE"),
    "ALTA": ("ENDPOINT", "BASE_URL", "MAX_IN_FLIGHT", "REQUESTS_PER_MINUTE", "NAME"),
}


def check_prefix(prefix: object) -> str:
    """Return the text in front of the names of variables.

    Raises:
        ConfigurationError: no variable can begin with it.
    """
    if not isinstance(prefix, str) or not re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)?", prefix):
        raise InvalidArgument(
            f"prefix: expected letters, digits and _ in front of the names of variables, such as "
            f"'SHOP_', got {shown_setting(prefix)}"
        )
    return prefix


def variable(service: str, argument: str, prefix: str = "") -> str:
    """Return the name of an argument's variable, such as `ALTA_ENDPOINT`.

    Args:
        service: the beginning of the service's variables, "CLEVERTAP" or "ALTA".
        argument: the argument of `CleverTap` or `Alta`.
        prefix: the text in front of the name.
    """
    name = _SHARED if argument == "shared" else f"{service}_{argument}".upper()
    return f"{prefix}{name}"


def is_in_environment(service: str, prefix: str = "") -> bool:
    """Return whether a secret of a service is set, even if empty: `from_env` names what is missing.

    Args:
        service, prefix: as for `variable`.
    """
    return any(variable(service, name, prefix) in os.environ for name in _SECRETS[service])


def secrets_in_environment() -> list[str]:
    """Return the names of the variables that are set and hold the secrets of the services."""
    names = (variable(service, name) for service in _SECRETS for name in _SECRETS[service])
    return [name for name in names if os.environ.get(name)]


def ignored_variables(service: str, prefix: str = "") -> str | None:
    """Return a sentence on variables without effect, because no secret is set; None without any.

    Args:
        service, prefix: as for `variable`.
    """
    names = [variable(service, name, prefix) for name in _SETTINGS[service]]
    idle = [name for name in names if os.environ.get(name, "").strip()]
    if not idle or is_in_environment(service, prefix):
        return None
    secrets = [variable(service, name, prefix) for name in _SECRETS[service]]
    return (
        f"{' and '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect, because "
        f"{' and '.join(secrets)} {'is' if len(secrets) == 1 else 'are'} not set"
    )


def ignored_shared(prefix: str) -> str | None:
    """Return a sentence on an `ALTAPROFILES_SHARED` without effect, because of the prefix, or None.

    The variable with the prefix, even if it is 0, shows that its absence is no mistake.

    Args:
        prefix: as for `variable`.
    """
    name = variable("", "shared", prefix)
    is_off = os.environ.get(_SHARED, "").strip().lower() in ("", "0", "false")
    if not prefix or is_off or name in os.environ:
        return None
    return (
        f"{_SHARED} has no effect on credentials with the prefix {prefix}; set {name} to 1 or a "
        f"path to share their limits, or to 0 to keep them apart"
    )


def required_from_env(service: str, argument: str, prefix: str) -> str:
    """Return the value of a variable that must be set.

    Args:
        service, argument, prefix: as for `variable`.

    Raises:
        MissingCredentials: it is not set, or is empty.
        InvalidArgument: it cannot be sent.
    """
    name = variable(service, argument, prefix)
    # A traceback may show the locals of the frames that check it.
    value = as_secret(os.environ.get(name))
    if not value:
        raise MissingCredentials(f"the environment variable {name} is not set, or is empty")
    check_token(argument, value, "str", "environment")
    return str(value)


def text_from_env(service: str, argument: str, prefix: str) -> str | None:
    """Return the value of a variable, or None if it is not set, or is empty.

    Args:
        service, argument, prefix: as for `variable`.
    """
    return os.environ.get(variable(service, argument, prefix)) or None


def number_from_env(service: str, argument: str, prefix: str, default: int | None) -> Any:
    """Return the number in a variable, or `default` if it is not set, or is blank.

    Anything but a number is returned as it is: it is checked, and shown, where it is used.

    Args:
        service, argument, prefix: as for `variable`.
        default: the value without the variable.
    """
    text = (text_from_env(service, argument, prefix) or "").strip()
    number = whole_in(text)
    return number if number is not None else text or default


def shared_from_env(prefix: str = "") -> bool | str:
    """Return the value of `ALTAPROFILES_SHARED`: True for 1 or true, False for 0, false or nothing.

    Any other text is a path.

    Args:
        prefix: as for `variable`.

    Raises:
        InvalidSetting: it is something else.
    """
    name = variable("", "shared", prefix)
    text = os.environ.get(name, "").strip()
    known = {"": False, "0": False, "false": False, "1": True, "true": True}
    shared = known.get(text.lower(), text)
    if isinstance(shared, str) and not os.path.isabs(shared):  # noqa: PTH117
        raise InvalidSetting(
            f"{name}: expected 1, 0 or the absolute path of a folder, got {shown(shared)}"
        )
    return shared


@contextmanager
def naming_shared(place: Path | None) -> Generator[None, None, None]:
    """Let an error about the folder of `shared` name the variable that it comes from, if one does.

    Args:
        place: the folder, or None for the user's. The variable that has the same one is taken for
            its source, whatever the prefix of its name.
    """
    try:
        yield
    except ConfigurationError as error:
        name = _variable_with(place)
        if name is None or not str(error).startswith("shared: "):
            raise
        raise explained(error, {"shared": name}.get) from None


def _variable_with(place: Path | None) -> str | None:
    for name in os.environ:
        if not name.endswith(_SHARED):
            continue
        with suppress(InvalidSetting):
            shared = shared_from_env(name.removesuffix(_SHARED))
            if shared and place == (None if shared is True else Path(shared)):
                return name
    return None


@contextmanager
def naming_variables(service: str, prefix: str) -> Generator[None, None, None]:
    """Let an error name variables of the environment in place of the arguments made of them.

    Args:
        service, prefix: as for `variable`.
    """
    try:
        yield
    except MissingCredentials:
        raise
    except ConfigurationError as error:
        raise explained(error, lambda argument: variable(service, argument, prefix)) from None
