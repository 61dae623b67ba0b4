"""`altaprofiles login`: a dialog that ends in the credentials file."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import click

from ..accounts import Accounts
from ..credentials import REGIONS, Alta, CleverTap, Secret
from ..errors import ConfigurationError, Forbidden, Unauthorized
from ..session import Session
from .app import App, Exit, Failure
from .doctor import QUICK, ask_alta, ask_clevertap

__all__ = ["log_in"]


def log_in(app: App, name: str | None, *, test: bool) -> None:
    """Ask, try and save.

    Raises:
        Failure: there is no terminal, or nothing was answered.
        Unauthorized, Forbidden: the credentials are refused; nothing was saved.
    """
    if not sys.stdin.isatty():
        raise Failure(
            "login asks questions, and stdin is no terminal; run it on one, or set "
            "CLEVERTAP_ACCOUNT_ID and CLEVERTAP_PASSCODE, or ALTA_TOKEN",
            Exit.USAGE,
        )
    try:
        accounts = Accounts.read()
    except ConfigurationError as error:
        raise Failure(str(error), Exit.CREDENTIALS) from error
    name = name or app.account or accounts.default or "main"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise Failure(f"{name!r}: use letters, digits, - and _ for a name", Exit.USAGE)
    # Older versions of click write the blank behind a question to stdout, whatever they are told.
    with redirect_stdout(sys.stderr):
        table = _asked(accounts.tables.get(name, {}))
    accounts.tables[name] = table
    accounts.default = accounts.default or name
    # Through the file's own rules, so that what is saved can be read again.
    clevertap = accounts.clevertap(name) if "account_id" in table else None
    alta = accounts.alta(name) if "alta_token" in table else None
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
        except (Unauthorized, Forbidden) as error:
            error.add_note(
                "Nothing was saved. To find the region: altaprofiles login --no-test, then "
                "altaprofiles doctor --try-regions"
            )
            raise
    accounts.write()
    role = ", the default" if accounts.default == name else ""
    app.say(f"Account {name!r}{role}, is in {accounts.path}")


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
        "CleverTap account ID (Enter for none)",
        lambda text: CleverTap(text, "x"),
        default=str(before.get("account_id", "")),
    )
    for key in ("account_id", "passcode", "region"):
        table.pop(key, None)
    if account_id:
        table["account_id"] = account_id
        table["passcode"] = _ask_secret(
            "Its passcode", lambda text: CleverTap("x", text), before.get("passcode")
        )
        where = _ask(
            f"Its region ({', '.join(REGIONS)}), or a base URL",
            _clevertap_at,
            default=str(before.get("base_url") or before.get("region") or "eu1"),
        )
        table.pop("base_url", None)
        table["base_url" if "://" in where else "region"] = where
    token = _ask_secret(
        "Alta API key (Enter for none)", Alta, before.get("alta_token"), optional=True
    )
    table.pop("alta_token", None)
    if token:
        table["alta_token"] = token
        table["alta_base_url"] = _ask(
            "Alta's base URL",
            lambda text: Alta("x", base_url=text),
            default=str(before.get("alta_base_url", "https://altatech.ai")),
        )
    return table


def _clevertap_at(where: str) -> CleverTap:
    return CleverTap("x", "x", base_url=where) if "://" in where else CleverTap("x", "x", where)


def _ask(question: str, check: Callable[[str], object], *, default: str) -> str:
    answer: str = click.prompt(
        question,
        default=default,
        show_default=bool(default),
        value_proc=lambda text: _checked(text, check),
        err=True,
    )
    return answer


def _ask_secret(
    question: str, check: Callable[[str], object], before: str | None, *, optional: bool = False
) -> str:
    if before is not None:
        question = f"{question.removesuffix(' (Enter for none)')} (Enter to keep the present one)"
    answer: str = click.prompt(
        question,
        default="" if optional or before is not None else None,
        show_default=False,
        hide_input=True,
        value_proc=lambda text: _checked(text, check),
        err=True,
    )
    return Secret(answer or before or "")


def _checked(text: str, check: Callable[[str], object]) -> str:
    """Return an answer; what it raises makes click ask again."""
    text = text.strip()
    if text:
        try:
            check(text)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from None
    return text
