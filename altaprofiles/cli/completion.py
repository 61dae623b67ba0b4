"""Words that the shell completes: events of earlier runs, and faults."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click
from click.shell_completion import CompletionItem

__all__ = ["complete_event", "complete_fault"]


def complete_event(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the events of outputs and of unfinished exports in the current folder."""
    from ..export.outputs import events_in

    try:
        events = events_in(Path.cwd())
    except OSError:
        return []
    given = context.params.get(str(parameter.name)) or ()
    return [
        CompletionItem(_as_word(event))
        for event in sorted(events)
        if event.startswith(incomplete) and event not in given
    ]


def complete_fault(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the faults of the emulator, each with a rate."""
    from ..emulator import Fault

    return [
        CompletionItem(f"{fault.value}=0.1", help="a tenth of the responses")
        for fault in Fault
        if fault.value.startswith(incomplete)
    ]


def _as_word(event: str) -> str:
    """Return an event as one word for bash, which inserts it as it is; other shells quote it."""
    is_bash = os.environ.get("_ALTAPROFILES_COMPLETE", "").startswith("bash")
    typed = os.environ.get("COMP_WORDS", "").rsplit("\n", 1)[-1]
    if not is_bash or typed.startswith(("'", '"')):
        return event
    return shlex.quote(event)
