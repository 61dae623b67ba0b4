"""`altaprofiles login`."""

from __future__ import annotations

import click

from ..app import App
from ..command import Command

__all__ = ["login"]


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option("--no-test", is_flag=True, help="Save the answers without trying them.")
@click.pass_obj
def login(app: App, name: str | None, no_test: bool) -> None:
    """Ask for credentials, try them, and keep them as account NAME.

    Asks on the terminal for the CleverTap account ID, its passcode and region, and for an Alta API
    key; each service can be left out. They are tried with one small request each, and saved if they
    are accepted, in a file that only you can read. NAME is the account that is used when none
    is named, and "main" when there is none. The first account is the default.

    Without a terminal, set CLEVERTAP_ACCOUNT_ID, CLEVERTAP_PASSCODE and CLEVERTAP_REGION, or
    ALTA_TOKEN, instead. They go before the file, unless a command is given --account.

    \b
    Examples:
        altaprofiles login
        altaprofiles login shop
        altaprofiles count Charged --from 2026-01-01 --to 2026-01-31 --account shop
    """
    from ..dialog import log_in

    log_in(app, name, test=not no_test)
