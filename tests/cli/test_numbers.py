"""Numbers of all commands: one rule, that of the environment."""

from __future__ import annotations

import click
import pytest

from altaprofiles.cli import cli
from altaprofiles.cli.app import App

NUMBERS = [
    pytest.param(name, option, id=f"{name} {max(option.opts, key=len)}")
    for name, command in cli.commands.items()
    for option in command.params
    if isinstance(option, click.Option)
    and option.metavar in ("N", "N|auto", "SECONDS", "CODE", "NAME=RATE")
]


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_only_plain_digits_are_a_number(name: str, option: click.Option) -> None:
    if option.metavar == "NAME=RATE":
        pytest.skip("its command reads it")
    outer = cli.make_context("altaprofiles", [name], obj=App())
    context = click.Context(cli.commands[name], parent=outer, info_name=name, obj=App())
    assert option.process_value(context, "7") in (7, None)
    for text in ("1_0", "\N{ARABIC-INDIC DIGIT SEVEN}", " 7", "7 ", "+7_0", "", "9" * 400):
        with pytest.raises(click.BadParameter) as raised:
            option.process_value(context, text)
        assert raised.value.exit_code == 2
