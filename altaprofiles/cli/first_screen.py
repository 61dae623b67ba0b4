"""The screen of `altaprofiles` alone: the next steps of somebody with credentials, or without."""

from __future__ import annotations

__all__ = ["first_screen"]

_WITHOUT = (
    ("demo", "see it work within seconds, without an account"),
    ("emulator", "try every command, without an account"),
    ("login", "save the credentials of an account, and test them"),
    ("guide start-here", "read about the first ten minutes"),
)

_WITH = (
    ("doctor", "check credentials, network and machine"),
    ('count "App Launched" --from -7d --to yesterday', "the first question"),
    ('export "App Launched" --from -7d --to yesterday -o people.ndjson', "the first export"),
    ("status", "the outputs in this folder, and what is unfinished"),
    ("guide", "the guides, such as every-night"),
)


def first_screen() -> str:
    """Return the screen."""
    from ..accounts import Accounts
    from ..credentials import is_in_environment
    from ..errors import ConfigurationError

    fault = None
    places = [
        f"{name} from the environment"
        for name in ("CleverTap", "Alta")
        if is_in_environment(name.upper())
    ]
    try:
        accounts = Accounts.read()
        if names := ", ".join(accounts.tables):
            places.append(f"{names} in {accounts.path}")
    except ConfigurationError as error:
        fault = str(error)
    if fault is not None:
        heading = fault
    elif places:
        heading = f"Credentials: {'; '.join(places)}. Next:"
    else:
        heading = "There are no credentials yet. Next:"
    steps = _WITH[:1] if fault is not None else _WITH if places else _WITHOUT
    lines = [f"    altaprofiles {step}\n        {purpose}" for step, purpose in steps]
    return "\n".join(
        (
            "Customer profiles from CleverTap and CDP users from Alta, every record exactly once.",
            f"\n{heading}\n",
            *lines,
            "\nAll commands: altaprofiles --help",
        )
    )
