"""`altaprofiles login`: credentials from the terminal into the credentials file."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

import click

from ..app import App
from ..command import Command
from ..exits import Exit, Failure

if TYPE_CHECKING:
    from ...credentials import Alta, CleverTap
    from ...errors import AltaProfilesError

__all__ = ["login"]


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option(
    "--timezone",
    metavar="ZONE",
    help="The time zone of the CleverTap project, such as Asia/Kolkata. Days are days of that "
    "zone, and sync needs it to know which are over.",
)
@click.option("--no-test", is_flag=True, help="Save the answers without testing them.")
@click.pass_obj
def login(app: App, name: str | None, timezone: str | None, no_test: bool) -> None:
    """Ask for credentials, test them, and save them as account NAME.

    Asks on the terminal for the CleverTap account ID, its passcode and region, and for an Alta API
    key and its platform; either service can be left out. They are tested with one or two small
    requests each, and saved if they are accepted, in a file that only you can read. NAME is by
    default the account that is used when none is named, or "main" if there is none. The first
    account becomes the default.

    Without a terminal, set CLEVERTAP_ACCOUNT_ID, CLEVERTAP_PASSCODE and CLEVERTAP_REGION, or
    ALTA_TOKEN and ALTA_ENDPOINT, instead. They take precedence over the file, unless --account is
    passed. For several accounts, write the file: `altaprofiles guide many-accounts` has its format.

    \b
    Examples:
        altaprofiles login
        altaprofiles login shop --timezone Asia/Kolkata
        altaprofiles count Charged --from 2026-01-01 --to 2026-01-31 --account shop
    """
    from ...accounts import Accounts
    from ...base.checks import shown_setting
    from ...base.zones import zone_of
    from ...errors import AltaProfilesError, ConfigurationError
    from ..dialog import ask_credentials, why_silent

    try:
        if (reason := why_silent()) is not None:
            raise Failure(f"login asks questions, and {reason}; {_without_terminal()}", Exit.USAGE)
        accounts = Accounts.read()
        name = name or app.account or accounts.pick(None) or "main"
    except ConfigurationError as error:
        raise Failure(str(error), Exit.CREDENTIALS) from error
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        text = shown_setting(name)
        raise Failure(f"{text}: use letters, digits, - and _ for a name", Exit.USAGE)
    app.info(f"Account {name!r}, {'as it is' if name in accounts.tables else 'a new one'}:")
    # A single account needs no default; once there are two, it is the first as before.
    if accounts.default is not None or len(accounts.tables) < 2:
        accounts.default = accounts.pick(None) or name
    before = accounts.tables.get(name, {})
    if timezone is not None:
        zone_of("timezone", timezone)
        before = {**before, "timezone": timezone}
    table = accounts.tables[name] = ask_credentials(before)
    # Through the file's own rules, so that the saved account can be read again.
    project = accounts.clevertap(name)
    clevertap = None if project is None else project.credentials
    key = accounts.alta(name) if "alta_token" in table or clevertap is None else None
    alta = None if key is None else key.credentials
    if clevertap is None and alta is None:
        raise Failure("nothing to save: give a CleverTap account ID, an Alta API key, or both")
    if not no_test:
        try:
            _test(app, clevertap, alta)
        except AltaProfilesError as error:
            _add_advice(error, name, clevertap, alta)
            if key is not None:
                app.in_its_words = key.in_its_words
            raise
    try:
        accounts.write()
    except OSError as error:
        from ...export.store.workspace import disk_remedy

        remedy = disk_remedy(error) or "name another file in ALTAPROFILES_CONFIG, and "
        raise Failure(
            f"{accounts.path} cannot be written: {error.strerror}; nothing was saved; {remedy}run "
            f"the same command again"
        ) from error
    is_default = accounts.default == name or len(accounts.tables) == 1
    role = " (the default)" if is_default else ""
    app.info(f"Account {name!r}{role} is in {accounts.path}.")
    for service, variable in (("CleverTap", "CLEVERTAP_ACCOUNT_ID"), ("Alta", "ALTA_TOKEN")):
        if variable in os.environ:
            app.info(
                f"For {service}, {variable} takes precedence over it, unless you pass "
                f"--account {shlex.quote(name)}."
            )
    of = "" if role else f" --account {shlex.quote(name)}"
    app.info(f"Next: altaprofiles doctor{of}")


def _without_terminal() -> str:
    """Return what to do in place of a login, in words."""
    from ...accounts import accounts_path
    from ...credentials import secrets_in_environment

    found = {*secrets_in_environment()}
    secrets = {
        "CleverTap": {"CLEVERTAP_ACCOUNT_ID", "CLEVERTAP_PASSCODE"},
        "Alta": {"ALTA_TOKEN"},
    }
    complete = [service for service, names in secrets.items() if names <= found]
    advice = (
        f"the credentials of {' and '.join(complete)} are in the environment, and need no login"
        if complete
        else "run it in a terminal, or set CLEVERTAP_ACCOUNT_ID and CLEVERTAP_PASSCODE, or "
        "ALTA_TOKEN"
    )
    return (
        f"{advice}; for several accounts, write {accounts_path()} (its format: altaprofiles guide "
        f"many-accounts)"
    )


def _test(app: App, clevertap: CleverTap | None, alta: Alta | None) -> None:
    from ..doctor.probe import QUICK, Limits, probe_alta, probe_clevertap

    # The answers of a person take no time of the requests.
    app.start_clock()
    limits = Limits(app.limits, app.retry(QUICK), app.waits(usual=QUICK).note)

    async def main() -> None:
        if clevertap is not None:
            await probe_clevertap(clevertap, limits)
            app.info("CleverTap accepts them.")
        if alta is not None:
            await probe_alta(alta, limits)
            app.info("Alta accepts the API key.")

    app.run(main, is_limited=True)


def _add_advice(
    error: AltaProfilesError, name: str, clevertap: CleverTap | None, alta: Alta | None
) -> None:
    from ...errors import StatusError
    from ..doctor.probe import may_be_elsewhere

    error.add_note("Nothing was saved.")
    if not isinstance(error, StatusError) or not may_be_elsewhere(error):
        return
    account = clevertap if error.api == "CleverTap" else alta
    if account is not None and account.base_url is None:
        place = "region" if error.api == "CleverTap" else "platform"
        word = shlex.quote(name)
        error.add_note(
            f"To find the {place}: altaprofiles login {word} --no-test, then altaprofiles "
            f"doctor --account {word} --try-regions"
        )
