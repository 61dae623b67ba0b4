"""`login` and `doctor`: getting there, and finding out why not. Arguments only."""

from __future__ import annotations

import click

from ..app import App, Command

__all__ = ["doctor", "login"]


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
    from ..login import log_in

    log_in(app, name, test=not no_test)


@click.command(cls=Command)
@click.option(
    "--try-regions",
    is_flag=True,
    help="If CleverTap refuses the credentials, try them in every region, and name the right one.",
)
@click.pass_obj
def doctor(app: App, try_regions: bool) -> None:
    """Check credentials, network and machine; say what to do.

    Each line begins with ok, note or wrong. Exits with 0 when nothing is wrong, with 3 when
    credentials are missing or refused, and with 1 for anything else.

    \b
    Examples:
        altaprofiles doctor
        altaprofiles doctor --account shop --try-regions
    """
    from ..doctor.examine import examine_all

    examine_all(app, try_regions=try_regions)
