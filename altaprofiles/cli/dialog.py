"""Questions on the terminal about the credentials of an account. Saves nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from getpass import getpass
from typing import Any, NoReturn

import click

from ..accounts import CLEVERTAP_KEYS
from ..credentials import ENDPOINTS, REGIONS, Alta, CleverTap, renamed
from ..errors import ConfigurationError
from ..redaction import Secret
from .exits import Failure, Interrupted
from .streams import HANG_UP, heeded_signals

__all__ = ["ask_credentials", "why_silent"]


def why_silent() -> str | None:
    """Return why nobody can answer a question, in words, or None if somebody can."""
    if not sys.stdin.isatty():
        return "stdin is not a terminal"
    # IPython gives a command of a cell a terminal, and no way to type into it.
    if "JPY_PARENT_PID" in os.environ:
        return "a cell of a notebook takes no answers"
    return None


_NONE = "-"
"""The answer that removes the present value."""

_WORDS = {"base_url": "base URL"}
"""Words of the questions for the library's arguments that have others."""


def ask_credentials(before: dict[str, Any]) -> dict[str, Any]:
    """Return an account's keys with the user's answers; keys without a question stay.

    Args:
        before: the account's present keys; empty for a new account.

    Raises:
        Failure: the input ended before the last answer.
        Interrupted: SIGTERM or SIGHUP.
        KeyboardInterrupt: SIGINT.
    """
    with _raising_signals():
        table = dict(before)
        _ask_clevertap(table, before)
        _ask_secret(table, "alta_token", "Alta API key", Alta, is_optional=True)
        if "alta_token" in table:
            _ask_platform(table, before)
        return table


def _ask_clevertap(table: dict[str, Any], before: dict[str, Any]) -> None:
    account_id = _ask(
        "CleverTap account ID",
        lambda text: CleverTap(text, "x"),
        default=str(before.get("account_id", "")),
        is_optional=True,
    )
    if not account_id:
        for key in CLEVERTAP_KEYS:
            table.pop(key, None)
        return
    table["account_id"] = account_id
    _ask_secret(
        table,
        "passcode",
        "Its passcode",
        lambda text: CleverTap(account_id, text),
        # It may be in the keyring.
        is_optional="account_id" in before and "passcode" not in before,
    )
    place = _ask(
        f"Its region ({', '.join(REGIONS)}), or a base URL",
        lambda text: (
            CleverTap("x", "x", base_url=text) if "://" in text else CleverTap("x", "x", text)
        ),
        default=str(before.get("base_url") or before.get("region") or "eu1"),
    )
    table.pop("base_url", None)
    table.pop("region", None)
    if "://" in place:
        table["base_url"] = place
    else:
        table["region"] = CleverTap("x", "x", place).region


def _ask_platform(table: dict[str, Any], before: dict[str, Any]) -> None:
    place = _ask(
        f"The key's platform ({', '.join(ENDPOINTS)}), or Alta's base URL",
        lambda text: Alta("x", base_url=text) if "://" in text else Alta("x", endpoint=text),
        default=str(before.get("alta_base_url") or before.get("alta_endpoint") or "altatech"),
    )
    table.pop("alta_base_url", None)
    table.pop("alta_endpoint", None)
    if "://" in place:
        table["alta_base_url"] = place
    else:
        table["alta_endpoint"] = Alta("x", endpoint=place).endpoint


def _ask(
    question: str, check: Callable[[str], object], *, default: str, is_optional: bool = False
) -> str:
    if default and is_optional:
        question = f"{question} (- for none)"
    elif is_optional:
        question = f"{question} (Enter for none)"
    hint = f" [{default}]" if default else ""
    answer = _answer(
        _read_line, f"{question}{hint}: ", check, is_optional=is_optional or bool(default)
    )
    return "" if answer == _NONE else answer or default


def _ask_secret(
    table: dict[str, Any],
    key: str,
    question: str,
    check: Callable[[str], object],
    *,
    is_optional: bool = False,
) -> None:
    """Ask for a secret, and put it into `table`, leave it there, or remove it."""
    is_present = key in table
    if is_present and is_optional:
        question = f"{question} (Enter to keep the present one, - for none)"
    elif is_present:
        question = f"{question} (Enter to keep the present one)"
    elif is_optional:
        question = f"{question} (Enter for none)"
    answer = _answer(getpass, f"{question}: ", check, is_optional=is_optional or is_present)
    if answer == _NONE:
        table.pop(key, None)
    elif answer:
        table[key] = Secret(answer)


def _answer(
    read: Callable[[str], str], prompt: str, check: Callable[[str], object], *, is_optional: bool
) -> str:
    """Return an answer that `check` accepts, or "" if it is optional; repeat until there is one."""
    while True:
        try:
            answer = read(prompt).strip()
            # In some locales, bytes that are not UTF-8 come through as surrogates.
            answer.encode()
            if answer and not (is_optional and answer == _NONE):
                check(answer)
        except UnicodeError:
            click.echo("Error: that is not UTF-8", err=True)
        except ConfigurationError as error:
            click.echo(f"Error: {renamed(str(error), _WORDS.get)}", err=True)
        except EOFError:
            click.echo(err=True)
            raise Failure("the input has ended; nothing was saved") from None
        except KeyboardInterrupt:
            click.echo(err=True)
            raise
        else:
            if answer or is_optional:
                return answer
            click.echo("Error: it cannot be empty", err=True)


def _read_line(prompt: str) -> str:
    # Not `input`, which loses a Ctrl-C that arrives while it writes its prompt.
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


@contextmanager
def _raising_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise, so that a hidden answer's terminal echo is restored.

    A timer signal wakes each read every 0.1 s: a signal that arrives just before a read begins is
    not handled until the next one interrupts the read.
    """
    before: dict[int, Any] = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, _raise_interrupted),
    }
    if HANG_UP in heeded_signals():
        before[HANG_UP] = signal.signal(HANG_UP, _raise_interrupted)
    has_timer = hasattr(signal, "setitimer")
    if has_timer:
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        yield
    finally:
        if has_timer:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_interrupted(number: int, _: object) -> NoReturn:
    raise Interrupted(number)
