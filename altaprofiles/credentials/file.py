"""The credentials file with named accounts, and the keyring for its secrets. Sends nothing.

The file is TOML::

    default = "shop"

    [accounts.shop]
    account_id = "W9R-654-865Z"
    passcode = "…"
    region = "in1"
    timezone = "Asia/Kolkata"
    alta_token = "…"

No error shows a secret.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shlex
import stat
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from ..base.checks import check_no_database, is_harmless, shown, shown_setting
from ..base.extras import is_installed
from ..base.paths import absolute_path, status_of
from ..base.wording import login_step, meant, one_of
from ..errors import ConfigurationError, InvalidArgument, MissingCredentials
from ..redaction import Secret, as_secret, mask_values
from .environment import secrets_in_environment, shared_from_env
from .secret import SecretFunction, hidden
from .settings import InvalidSetting, can_name, check_token, explained

__all__ = ["CLEVERTAP_KEYS", "KEYS", "AccountsFile", "Arguments", "accounts_path", "key_of"]

C = TypeVar("C")

_CLEVERTAP = {
    "account_id": "account_id",
    "passcode": "passcode",
    "region": "region",
    "base_url": "base_url",
    "max_in_flight": "max_in_flight",
    "timezone": "timezone",
    "shared": "shared",
}
_ALTA = {
    "alta_token": "token",
    "alta_endpoint": "endpoint",
    "alta_base_url": "base_url",
    "alta_max_in_flight": "max_in_flight",
    "alta_requests_per_minute": "requests_per_minute",
    "shared": "shared",
}

CLEVERTAP_KEYS = tuple(key for key in _CLEVERTAP if key not in _ALTA)
"""Keys of an account that belong to CleverTap alone."""

KEYS = tuple(dict.fromkeys((*_CLEVERTAP, *_ALTA)))
"""All keys that an account can have."""

_SECRETS = ("passcode", "alta_token")
_PLAIN = ("default", *(key for key in KEYS if key not in _SECRETS))
_EXPECTED = {
    "max_in_flight": 'a whole number or "auto"',
    "alta_max_in_flight": 'a whole number or "auto"',
    "alta_requests_per_minute": "a whole number",
    "shared": "true, false or the path of a folder",
}
"""The types of values that are not text."""

_KEYRING = "altaprofiles"


def accounts_path() -> Path:
    """Return the path of the credentials file, which need not exist.

    It is `$ALTAPROFILES_CONFIG`, or else `altaprofiles/accounts.toml` in `$XDG_CONFIG_HOME` or
    `~/.config` (on Windows, in `%APPDATA%`).

    Raises:
        ConfigurationError: the home folder is unknown, or the variable is the URL of a database.
    """
    variable = "APPDATA" if sys.platform == "win32" else "XDG_CONFIG_HOME"
    folder = os.environ.get(variable)
    try:
        if chosen := os.environ.get("ALTAPROFILES_CONFIG"):
            check_no_database("ALTAPROFILES_CONFIG", chosen)
            return Path(chosen).expanduser()
        # The XDG specification says to ignore a path that is not absolute.
        base = Path(folder) if folder and Path(folder).is_absolute() else Path.home() / ".config"
    except RuntimeError as error:
        # Happens in containers whose user is a bare number.
        raise MissingCredentials(f"{error} Set ALTAPROFILES_CONFIG to a path") from None
    return base / "altaprofiles" / "accounts.toml"


def key_of(service: str, argument: str) -> str | None:
    """Return the key of the file for an argument of the credentials; None if it has none.

    Args:
        service: "CleverTap" or "Alta".
        argument: the argument.
    """
    keys = _CLEVERTAP if service == "CleverTap" else _ALTA
    return next((key for key, name in keys.items() if name == argument), None)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of the credentials of one service, as an account has them.

    Attributes:
        service: "CleverTap" or "Alta".
        values: the arguments, secrets included.
        place: the file and the account, in words.
        source: the source of the secret, in words.
    """

    service: Literal["CleverTap", "Alta"]
    values: Mapping[str, Any]
    place: str
    source: str

    def made(self, kind: Callable[..., C]) -> C:
        """Return the credentials, made by a class or function.

        Raises:
            ConfigurationError: a value is invalid; it names the file, the account and the key.
        """
        values = self.values
        if "shared" not in values:
            values = {**values, "shared": shared_from_env()}
        try:
            for argument in ("account_id", "passcode", "token"):
                if argument in values and not isinstance(values[argument], SecretFunction):
                    type_name, value = hidden(values[argument])
                    check_token(argument, value, type_name, "file")
            return kind(**values)
        except ConfigurationError as error:
            raise explained(
                error, lambda argument: key_of(self.service, argument), f"{self.place}: "
            ) from None


class AccountsFile:
    """The content of a credentials file.

    Attributes:
        path: the path of the file, which need not exist.
        default: the name of the default account, or None.
        tables: the keys and values of each account by its name, secrets included.
    """

    def __init__(
        self, path: Path, default: str | None, tables: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.path = path
        self.default = default
        self.tables = {name: dict(table) for name, table in tables.items()}

    @classmethod
    def read(cls, path: Path | None = None) -> Self:
        """Return the content of `path`, without accounts if the file does not exist.

        Raises:
            ConfigurationError: other users can read the file, or its content is invalid.
        """
        path = path or accounts_path()
        try:
            content = mask_values(tomllib.loads(_data(path).decode()), plain=_PLAIN)
        except FileNotFoundError:
            return cls(path, None, {})
        except ConfigurationError:
            raise
        except OSError as error:
            failure = f"{path} cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            failure = f"{path} is not UTF-8; save it as UTF-8"
        except tomllib.TOMLDecodeError as error:
            failure = f"{path} is not TOML: {error}"
            if "value" in str(error):
                failure += '; text stands in quotation marks, as in default = "NAME"'
        except (ValueError, RecursionError):
            # Python itself refuses numbers of thousands of digits, and as many brackets.
            failure = f"{path} cannot be read: a number is too long, or it is nested too deeply"
        else:
            return cls(path, *_checked(path, content))
        # Raised outside the handlers, because the frames of those errors hold the whole text.
        raise MissingCredentials(failure)

    def pick(self, account: str | None, *, advice: str = "pass --account NAME") -> str | None:
        """Return the name of the account to use: `account`, the default, or the only one.

        Args:
            account: the name of an account, or None.
            advice: the way to name one of several.

        Returns:
            The name, or None if the file has no accounts.

        Raises:
            ConfigurationError: the account does not exist, or there are several and no default.
        """
        known = ", ".join(self.tables)
        if account is not None and account not in self.tables:
            has = f"has {known}" if known else "has none"
            if not self.path.exists():
                has = "does not exist"
            raise MissingCredentials(
                f"no account {shown_setting(account)}: {self.path} {has}; {self._step(account)}"
            )
        if account is None and self.default is None and len(self.tables) > 1:
            raise MissingCredentials(
                f"{self.path} has the accounts {known}; {advice}, or add the line "
                f'default = "NAME" at its top'
            )
        wanted = account if account is not None else self.default
        # The file's own text: `account` may be hidden from tracebacks.
        return next((name for name in self.tables if wanted in (None, name)), None)

    def _step(self, account: str) -> str:
        """Return the next step after the name of an account that does not exist.

        A name that may be a secret is not shown.
        """
        several = [name.strip() for name in account.split(",")]
        if len(several) > 1 and all(name in self.tables for name in several):
            options = " ".join(f"--account {shlex.quote(name)}" for name in several)
            return f"name each by itself, as in {options}"
        is_shown = account and is_harmless(account)
        login = login_step(str(account) if is_shown else "NAME")
        close = meant(account, self.tables)
        return login if close is None else f"did you mean {close}? For a new one, {login}"

    def named(self, name: object) -> str:
        """Return the name of an account that must exist: `name`, the default, or the only one.

        Raises:
            MissingCredentials: there is none, or there are several and no default.
            ConfigurationError: `name` is not text.
        """
        if name is not None and not isinstance(name, str):
            raise InvalidArgument(f"name: expected the name of an account, got {shown(name)}")
        picked = self.pick(name, advice="pass the name of one")
        if picked is None:
            has = "has no accounts" if self.path.exists() else "does not exist"
            found = " and ".join(secrets_in_environment())
            other = f"; or use from_env(), which reads {found}" if found else ""
            raise MissingCredentials(
                f"no account: {self.path} {has}; run: altaprofiles login; or set "
                f"ALTAPROFILES_CONFIG to the path of another file{other}"
            )
        return picked

    def required(
        self, name: object, service: Literal["CleverTap", "Alta"], secret: Secret | None = None
    ) -> Arguments:
        """Return the arguments of an account's credentials, which must be there: see `named`.

        Args:
            name: the name of the account, or None.
            service: the service.
            secret: as for `arguments`.

        Raises:
            MissingCredentials: there is no such account, or it has none for the service.
            ConfigurationError: a value is invalid.
        """
        account = self.named(name)
        advice = ", or pass `passcode` to CleverTap.from_account"
        arguments = self.arguments(account, service, secret, advice=advice)
        if arguments is None:
            steps = []
            if others := self.having(service):
                steps.append(f"pass the name of one that has: {', '.join(map(repr, others))}")
            if service == "Alta":
                steps.append("pass `token`")
            steps.append(login_step(account))
            raise MissingCredentials(
                f"{self._where(account)} has no {service} credentials; {', or '.join(steps)}"
            )
        return arguments

    def having(self, *services: Literal["CleverTap", "Alta"]) -> list[str]:
        """Return the names of the accounts that have each of `services`, by the file alone."""
        keys = ["account_id" if one == "CleverTap" else "alta_token" for one in services]
        return [name for name, table in self.tables.items() if table.keys() >= {*keys}]

    def steps_without(
        self,
        name: str,
        missing: Literal["CleverTap", "Alta"],
        *,
        needs_both: bool,
        is_alone: bool,
    ) -> str:
        """Return the steps of a user of the command line whose account lacks a service.

        Args:
            name: the name of the account.
            missing: the service.
            needs_both: whether the command asks both services, with credentials of one account.
            is_alone: whether the command asks this account only, so that another can replace it.
        """
        login = login_step(name)
        others = self.having(*(("CleverTap", "Alta") if needs_both else (missing,)))
        if is_alone and others:
            others = [shlex.quote(other) for other in others]
            return f"pass --account {' or --account '.join(others)}, or {login}"
        # One agent can serve several accounts, each of which names its key.
        of, into = name, name
        if needs_both and missing == "Alta" and (agents := self.having("Alta")):
            both = self.having("CleverTap", "Alta")
            of = min(agents, key=both.__contains__)
        elif needs_both and is_alone and (projects := self.having("CleverTap")):
            into = projects[0]
        if of == into:
            return login
        copy = f"copy the alta_… lines of {_table(of)} into {_table(into)}"
        if into != name:
            copy += f" and pass --account {shlex.quote(into)}"
        return f"{copy}, or {login}"

    def names_clevertap(self, name: str) -> bool:
        """Return whether the account `name` has the account ID of a project at CleverTap."""
        return "account_id" in self.tables[name]

    def names_alta(self, name: str) -> bool:
        """Return whether the account `name` has a key that belongs to Alta alone."""
        return any(key in _ALTA and key not in _CLEVERTAP for key in self.tables[name])

    def arguments(
        self,
        name: str,
        service: Literal["CleverTap", "Alta"],
        secret: Secret | None = None,
        *,
        advice: str = "",
    ) -> Arguments | None:
        """Return the arguments of the credentials of the account `name`, or None if it has none.

        Args:
            name: the name of the account.
            service: the service.
            secret: takes the place of the secret in the file and in the keyring.
            advice: what a caller in Python can do besides about a passcode that is missing.

        Raises:
            ConfigurationError: a key is missing.
        """
        if service == "Alta":
            return self._of_alta(name, secret)
        return self._of_clevertap(name, secret, advice)

    def _of_clevertap(self, name: str, secret: Secret | None, advice: str) -> Arguments | None:
        given = self._given(name, _CLEVERTAP)
        login = login_step(name)
        if "account_id" not in given:
            if given.keys() - {"shared"}:
                raise MissingCredentials(f"{self._where(name)}: account_id is missing; {login}")
            return None
        source = self._complete(name, "passcode", "passcode", given, secret)
        if source is None:
            raise MissingCredentials(
                f"{self._where(name)}: passcode is missing, and the keyring has none; "
                f"{login}{advice}"
            )
        return Arguments("CleverTap", given, self._where(name), source)

    def _of_alta(self, name: str, secret: Secret | None) -> Arguments | None:
        given = self._given(name, _ALTA)
        source = self._complete(name, "alta_token", "token", given, secret)
        if source is None:
            return None
        # The file may use a name that `Alta` refuses; then the token identifies the agent.
        if can_name(name):
            given["name"] = name
        elif isinstance(secret, SecretFunction):
            raise ConfigurationError(
                f"{self._where(name)}: a token that a function returns needs an account whose name "
                f"has 1 to 100 printable characters; rename the account"
            )
        return Arguments("Alta", given, self._where(name), source)

    def write(self) -> None:
        """Replace the file atomically, readable by its owner only. Comments in it are lost.

        Raises:
            ConfigurationError: its path does not lead to a regular file.
            OSError: the file cannot be written. The old one is unchanged.
        """
        # Resolved, so that a link to a file in another folder stays a link.
        path = absolute_path("ALTAPROFILES_CONFIG", str(self.path))
        status = status_of("ALTAPROFILES_CONFIG", path)
        if status is not None:
            _check_regular(path, status)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A scratch file, private from the start, so that the name never holds half a file.
        _remove_scratch_files(path)
        handle, scratch = tempfile.mkstemp(_PARTIAL, f".{path.name}.", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self._toml().encode())
                file.flush()
                os.fsync(handle)
            Path(scratch).replace(path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    def _where(self, name: str) -> str:
        return f"{self.path}: account {name!r}"

    def _given(self, name: str, keys: Mapping[str, str]) -> dict[str, Any]:
        table = self.tables[name]
        return {keys[key]: value for key, value in table.items() if key in keys}

    def _complete(
        self, name: str, key: str, argument: str, given: dict[str, Any], secret: Secret | None
    ) -> str | None:
        """Add `secret`, or that of the keyring if the file has none; return its source, or None."""
        if secret is not None:
            given[argument] = secret
        if argument in given:
            return self._where(name)
        try:
            found = _from_keyring(f"{name}.{key}")
        except MissingCredentials as error:
            raise MissingCredentials(
                f"{self._where(name)}: {key} is missing, and {error}"
            ) from None
        if found is None:
            return None
        given[argument] = found
        return f"{self._where(name)}, {key} from the keyring"

    def _toml(self) -> str:
        lines = [] if self.default is None else [f"default = {_toml_text(self.default)}", ""]
        for name, table in self.tables.items():
            lines.append(_table(name))
            for key, value in table.items():
                text = _toml_text(value) if isinstance(value, str) else str(value).lower()
                lines.append(f"{_toml_key(key)} = {text}")
            lines.append("")
        return "\n".join(lines)


_PARTIAL = ".partial"
_ABANDONED = 60.0
"""Age, in seconds, at which no process is still writing a file of a few lines."""


def _remove_scratch_files(path: Path) -> None:
    """Remove the secrets that a process which was killed while it wrote `path` has left beside."""
    for scratch in path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"):
        with suppress(OSError):
            if time.time() - scratch.lstat().st_mtime > _ABANDONED:
                scratch.unlink()


_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    # Otherwise a named pipe to which nobody writes would block.
    | getattr(os, "O_NONBLOCK", 0)
)


def _data(path: Path) -> bytes:
    """Return the content of a private file, or of a pipe: `ALTAPROFILES_CONFIG=<(…)`."""
    number = os.open(path, _FLAGS)
    try:
        status = os.fstat(number)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        is_pipe = stat.S_ISFIFO(status.st_mode)
        if is_pipe:
            os.set_blocking(number, True)
        else:
            _check_regular(path, status)
        _check_private(path, status)
        data = b"".join(iter(lambda: os.read(number, 1 << 16), b""))
    finally:
        os.close(number)
    if is_pipe and not data:
        raise ConfigurationError(
            f"{path} is a pipe to which nobody writes; set ALTAPROFILES_CONFIG to a file"
        )
    return data


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(
            f"{path} is not a regular file; set ALTAPROFILES_CONFIG to the path of one"
        )


def _check_private(path: Path, status: os.stat_result) -> None:
    if os.name != "posix":
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise ConfigurationError(
            f"{path} holds secrets, and other users can read or change it (mode {mode:04o}); "
            f"run: chmod 600 {shlex.quote(str(path))}"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"{path} holds secrets, and belongs to another user ({status.st_uid}); run: "
            f"altaprofiles login, with ALTAPROFILES_CONFIG set to a file of your own"
        )


def _checked(path: Path, content: dict[str, Any]) -> tuple[str | None, dict[str, dict[str, Any]]]:
    """Return the default account and all accounts in the content of a file."""
    tables, default = content.get("accounts", {}), content.get("default")
    for key in content:
        if key not in ("accounts", "default"):
            raise ConfigurationError(
                f"{path}: unknown key {shown_setting(key)}; use `default` and tables "
                f"[accounts.NAME]"
            )
    if not isinstance(tables, dict) or not all(isinstance(one, dict) for one in tables.values()):
        raise ConfigurationError(f"{path}: accounts must be tables; write [accounts.NAME]")
    for name, table in tables.items():
        for text in (name, *table):
            check_no_database(f"{path}: the name of an account or a key", text)
        for key, value in table.items():
            if key not in KEYS:
                raise ConfigurationError(
                    f"{path}: account {name!r}: {shown_setting(key)} is unknown; use "
                    f"{one_of(KEYS, key)}"
                )
            where = f"{path}: account {name!r}: {key}"
            if key == "shared" and isinstance(value, bool):
                continue
            # Types that only TOML has are refused here, other wrong types where the value is used.
            if isinstance(value, bool) or not isinstance(value, str | int):
                if key in _SECRETS or not isinstance(value, bool | float):
                    raise ConfigurationError(f"{where} is neither text nor a whole number")
                expected = _EXPECTED.get(key, "text")
                raise InvalidSetting(f"{where}: expected {expected}, got {str(value).lower()}")
    if default is not None and (not isinstance(default, str) or default not in tables):
        raise ConfigurationError(
            f"{path}: default is {shown(default)}, which is not an account in the file"
        )
    return default, tables


def _from_keyring(user: str) -> str | None:
    if not is_installed("keyring"):
        return None
    try:
        keyring = import_module("keyring")
        secret = keyring.get_password(_KEYRING, user)
    except Exception as error:
        # Third-party backends raise errors of any class. Without D-Bus, or with a wrong
        # PYTHON_KEYRING_BACKEND, it is not one of the package's own.
        errors = sys.modules.get("keyring.errors")
        if errors is not None and isinstance(error, errors.NoKeyringError):
            # The package is installed without a keyring to read from, as on servers.
            return None
        raise MissingCredentials(f"the keyring cannot be read: {error}") from None
    return None if secret is None else as_secret(secret)


def _table(name: str) -> str:
    return f"[accounts.{_toml_key(name)}]"


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_text(key)


def _toml_text(text: str) -> str:
    # TOML has the escapes of JSON, and requires DEL to be escaped as well.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
