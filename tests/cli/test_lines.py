"""Lines of prose that fit a terminal, and the commands in them."""

from __future__ import annotations

import pytest

from altaprofiles.cli.lines import wrapped

COMMANDS = [
    (
        "no account; run: ",
        "altaprofiles login 'a long name, with a comma; and more'",
        "; or set it",
    ),
    ("no account; run: ", "altaprofiles login 'it'\"'\"'s a long name' --no-test", ", or set it"),
    ("no account; run: ", 'altaprofiles login "it\'s a long \\" name" --region in1', "; or set it"),
    ("no account; run: ", "python -m altaprofiles login shop --no-test", "; or set it"),
    ("no account; run: ", "'/a b/python' -m altaprofiles login shop", ". Then count again"),
    ("others read it; run: ", "chmod 600 '/home/a b/credentials of it'", ", and count again"),
    ("it needs the extra; install it with: ", "pip install --upgrade 'altaprofiles[a,b]'", ""),
    ("no extra: ", "altaprofiles doctor --account 'a b c'", "; or install it"),
    ("run it again: ", "/a/bin/altaprofiles export -o 'a, b.csv' --account a", ""),
    ("run it again: ", "'/a b/bin/altaprofiles' export -o a.csv --account a", ""),
    ("run it again: ", "uv run altaprofiles export -o a.csv --account a", ""),
    ("run it again: ", "(cd '/a b' && altaprofiles export --account a -o a.csv)", ""),
    ("warning: the disk is full. ", "To resume: (cd /a && altaprofiles export x, y)", ""),
    (
        "it is held. End it: ",
        "`await asyncio.wait([one, another, and a third])`",
        ", and repeat it",
    ),
]


@pytest.mark.parametrize(("before", "command", "after"), COMMANDS)
def test_a_command_is_never_broken(before: str, command: str, after: str) -> None:
    text = before + command + after
    for width in (20, 30, 40):
        lines = wrapped(text, width).split("\n")
        assert " ".join(lines) == text
        [whole] = [line for line in lines if command in line]
        assert whole.startswith(command)
        assert all(len(line) <= width for line in lines if line != whole)
        # Of what follows, only the end of a word.
        assert " " not in whole.removeprefix(command) or len(whole) <= width
