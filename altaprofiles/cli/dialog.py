"""`altaprofiles login`: a dialog that ends in the credentials file."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from getpass import getpass
from typing import Any, NoReturn

import click

from ..accounts import CLEVERTAP_KEYS, Accounts
from ..credentials import REGIONS, Alta, CleverTap
from ..errors import AltaProfilesError, ConfigurationError, Forbidden, Unauthorized
from ..redaction import Secret
from ..session import Session
from .app import App
from .doctor.probe import QUICK, ask_alta, ask_clevertap
from .exits import Exit, Failure, Interrupted

__all__ = ["log_in"]


def log_in(app: App, name: str | None, *, test: bool) -> None:
    """Ask, try and save.

    Raises:
        Failure: there is no terminal, or nothing was answered.
        AltaProfilesError: the credentials are refused, or cannot be tried; nothing was saved.
    """
    if not sys.stdin.isatty():
        raise Failure(
            "login asks questions, and stdin is no terminal; run it on one, or set "
            "CLEVERTAP_ACCOUNT_ID and CLEVERTAP_PASSCODE, or ALTA_TOKEN",
            Exit.USAGE,
        )
    try:
        accounts = Accounts.read()
        name = name or app.account or accounts.pick(None) or "main"
    except ConfigurationError as error:
        raise Failure(str(error), Exit.CREDENTIALS) from error
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise Failure(f"{name!r}: use letters, digits, - and _ for a name", Exit.USAGE)
    app.say(f"Account {name!r}, {'as it is' if name in accounts.tables else 'a new one'}:")
    # One account needs no default; of two, the first is it as before.
    accounts.default = accounts.pick(None) or name
    with _interruptible():
        accounts.tables[name] = _asked(accounts.tables.get(name, {}))
    # Through the file's own rules, so that what is saved can be read again.
    clevertap = accounts.clevertap(name)
    kept = "alta_token" in accounts.tables[name] or clevertap is None
    alta = accounts.alta(name) if kept else None
    if clevertap is None and alta is None:
        raise Failure("nothing to save: give a CleverTap account ID, an Alta API key, or both")
    if test:
        try:
            app.run(
                lambda: _try(
                    app,
                    None if clevertap is None else clevertap.credentials,
                    None if alta is None else alta.credentials,
                )
            )
        except AltaProfilesError as error:
            error.add_note("Nothing was saved.")
            refused = isinstance(error, Unauthorized | Forbidden) and error.api == "CleverTap"
            if refused and clevertap is not None and clevertap.credentials.base_url is None:
                error.add_note(
                    f"To find the region: altaprofiles login {name} --no-test, then altaprofiles "
                    f"doctor --account {name} --try-regions"
                )
            raise
    accounts.write()
    role = " (the default)" if accounts.pick(None) == name else ""
    app.say(f"Account {name!r}{role} is in {accounts.path}.")
    for service, variable in (("CleverTap", "CLEVERTAP_ACCOUNT_ID"), ("Alta", "ALTA_TOKEN")):
        if variable in os.environ:
            app.say(f"For {service}, {variable} goes before it, unless you pass --account {name}.")


async def _try(app: App, clevertap: CleverTap | None, alta: Alta | None) -> None:
    async with Session(clevertap=clevertap, alta=alta, retry=QUICK, trust_env=True) as session:
        if clevertap is not None:
            await ask_clevertap(session)
            app.say("CleverTap accepts them.")
        if alta is not None:
            await ask_alta(session)
            app.say("Alta accepts the API key.")


def _asked(before: dict[str, Any]) -> dict[str, Any]:
    """Return the account's keys, as they are answered now; what is not asked for stays."""
    table = dict(before)
    account_id = _ask(
        "CleverTap account ID",
        lambda text: CleverTap(text, "x"),
        default=str(before.get("account_id", "")),
        optional=True,
    )
    if not account_id:
        for key in CLEVERTAP_KEYS:
            table.pop(key, None)
    else:
        table["account_id"] = account_id
        _put_secret(
            table,
            "passcode",
            "Its passcode",
            lambda text: CleverTap("x", text),
            # It may be in the keyring.
            optional="account_id" in before and "passcode" not in before,
        )
        where = _ask(
            f"Its region ({', '.join(REGIONS)}), or a base URL",
            _clevertap_at,
            default=str(before.get("base_url") or before.get("region") or "eu1"),
        )
        table.pop("base_url", None)
        table.pop("region", None)
        table["base_url" if "://" in where else "region"] = where
    _put_secret(table, "alta_token", "Alta API key", Alta, optional=True)
    if "alta_token" in table:
        table["alta_base_url"] = _ask(
            "Alta's base URL",
            lambda text: Alta("x", base_url=text),
            default=str(before.get("alta_base_url", "https://altatech.ai")),
        )
    return table


def _clevertap_at(where: str) -> CleverTap:
    return CleverTap("x", "x", base_url=where) if "://" in where else CleverTap("x", "x", where)


def _ask(
    question: str, check: Callable[[str], object], *, default: str, optional: bool = False
) -> str:
    if default and optional:
        question = f"{question} (- for none)"
    elif optional:
        question = f"{question} (Enter for none)"
    shown = f" [{default}]" if default else ""
    answer = _answer(_line, f"{question}{shown}: ", check, optional=optional or bool(default))
    return "" if answer == _NONE else answer or default


def _put_secret(
    table: dict[str, Any],
    key: str,
    question: str,
    check: Callable[[str], object],
    *,
    optional: bool = False,
) -> None:
    """Ask for a secret, and have it in `table`, or not."""
    there = key in table
    if there and optional:
        question = f"{question} (Enter to keep the present one, - for none)"
    elif there:
        question = f"{question} (Enter to keep the present one)"
    elif optional:
        question = f"{question} (Enter for none)"
    answer = _answer(getpass, f"{question}: ", check, optional=optional or there)
    if answer == _NONE:
        table.pop(key, None)
    elif answer:
        table[key] = Secret(answer)


_NONE = "-"
"""The answer that takes out what there was."""


def _answer(
    read: Callable[[str], str], prompt: str, check: Callable[[str], object], *, optional: bool
) -> str:
    """Return an answer that `check` takes, or nothing if it is optional; ask until there is one."""
    while True:
        try:
            answer = read(prompt).strip()
            # Some locales let bytes pass that are no text.
            answer.encode()
            if answer and not (optional and answer == _NONE):
                check(answer)
        except UnicodeError:
            click.echo("Error: that is not UTF-8", err=True)
        except ConfigurationError as error:
            click.echo(f"Error: {error}", err=True)
        except EOFError:
            click.echo(err=True)
            raise Failure("the input has ended; nothing was saved") from None
        except KeyboardInterrupt:
            click.echo(err=True)
            raise
        else:
            if answer or optional:
                return answer
            click.echo("Error: it cannot be empty", err=True)


def _line(prompt: str) -> str:
    # Not `input`: it forgets a Ctrl-C that comes while it writes its prompt.
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let signals be exceptions, which show again what a hidden answer has hidden.

    Also one that comes just before a read begins: a read that has begun knows nothing of it until
    another signal interrupts it.
    """
    before: dict[int, Any] = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, _end),
    }
    ticking = hasattr(signal, "setitimer")
    if ticking:
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        yield
    finally:
        if ticking:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: object) -> NoReturn:
    raise Interrupted(number)
