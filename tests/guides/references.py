"""The guides that are made from the code: `python -m tests.guides.references` writes them.

They are the reference of the command line, from the commands, and that of Python, from signatures
and docstrings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from enum import Enum

import click

import altaprofiles
from altaprofiles import emulator, notebook, otel, progress
from altaprofiles.cli import cli

from ..support.guides import GUIDES

__all__ = ["REFERENCES", "main"]


# ----------------------------------------------------------------------------- the command line


def command_line() -> str:
    """Return the reference of the command line, as Markdown."""
    return "\n".join(
        [
            "# Command line reference",
            "",
            "Made from the commands: `altaprofiles COMMAND --help` shows the same.",
            "",
            *_help(cli.help or ""),
            "",
            "## Options of all commands",
            "",
            "Before the command's name or after it:",
            "",
            *_options(cli),
            "",
            *(line for name in cli.commands for line in _command(name)),
        ]
    )


def _command(name: str) -> Iterator[str]:
    command = cli.commands[name]
    usage = [f"altaprofiles {name}", *_arguments(command)]
    yield from (f"## `{' '.join(usage)}`", "")
    yield from _help(command.help or "")
    yield ""
    if rows := _options(command, without={param.name for param in cli.params}):
        yield from (*rows, "")


def _arguments(command: click.Command) -> Iterator[str]:
    context = click.Context(command, **cli.context_settings)
    for param in command.params:
        if isinstance(param, click.Argument):
            yield param.make_metavar(context)


def _help(text: str) -> Iterator[str]:
    """Yield the lines of a help text; its literal paragraphs become blocks of code."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if not paragraph.startswith("\b"):
            yield from (_marked(re.sub(r"\s+", " ", paragraph)), "")
            continue
        heading, *lines = paragraph.removeprefix("\b\n").splitlines()
        yield from (heading, "", "```sh", *(line.strip() for line in lines), "```", "")


def _marked(text: str) -> str:
    """Return prose with names such as `<out>.export` as code: a bare one is a tag of HTML."""
    parts = text.split("`")
    parts[::2] = (re.sub(r"<\w+>(?:[\w.-]*\w)?", r"`\g<0>`", part) for part in parts[::2])
    return "`".join(parts)


def _options(command: click.Command, without: set[str | None] | None = None) -> list[str]:
    context = click.Context(command, **cli.context_settings)
    rows = []
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is None or param.name in (without or ()) or not isinstance(param, click.Option):
            continue
        names, told = (text.replace("|", r"\|") for text in record)
        rows.append(f"| `{names}` | {_marked(told)} |")
    return ["| option | |", "| --- | --- |", *rows] if rows else []


# ----------------------------------------------------------------------------------------- Python


_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Class Variables):")
_ITEM = re.compile(r"    (\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*): (.*)")
_WRAPPED_NAMES = re.compile(r"^(    [\w.*]+,(?: [\w.*]+,)*)\n +(?=[\w.*, ]+:)", re.MULTILINE)


def python() -> str:
    """Return the reference of the public names, as Markdown."""
    lines = [
        "# Python reference",
        "",
        "Made from signatures and docstrings: `help(name)` shows the same.",
        "`altaprofiles.blocking` has the same methods without `await`.",
        "",
    ]
    for name in sorted(altaprofiles.__all__, key=_rank):
        if not name.startswith(("Blocking", "_")):
            lines += _entry(name, getattr(altaprofiles, name), "##")
    for module in (emulator, notebook, otel, progress):
        lines += [f"## `{module.__name__}`", "", *_prose(inspect.getdoc(module) or "")]
        for name in module.__all__:
            lines += _entry(f"{module.__name__}.{name}", getattr(module, name), "###")
    return "\n".join(lines).rstrip() + "\n"


def _rank(name: str) -> tuple[int, str]:
    """Return the place of a name: sessions first, then what they take and give, then errors."""
    value = getattr(altaprofiles, name)
    if inspect.isclass(value) and issubclass(value, altaprofiles.AltaProfilesError):
        return 3, name
    first = ("Session", "CleverTap", "Alta", "blocking", "Profiles", "Cdp", "EventProfiles")
    return (0, str(first.index(name))) if name in first else (1, name)


def _entry(name: str, value: object, level: str) -> Iterator[str]:
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return
    yield from (f"{level} `{name}`", "", *_described(name.rpartition(".")[2], value))
    if not inspect.isclass(value) or issubclass(value, BaseException):
        # Methods of errors are for the library itself.
        return
    # Methods of private bases are those of the class for its callers.
    bases = [one for one in value.__mro__ if one.__module__.startswith("altaprofiles")]
    members = {key: member for base in reversed(bases) for key, member in vars(base).items()}
    for key, member in members.items():
        function = getattr(member, "__func__", member)
        if not key.startswith("_") and inspect.isfunction(function):
            yield from (f"{level}# `{name}.{key}`", "", *_described(key, function))
        elif not key.startswith("_") and isinstance(member, property):
            yield from (f"{level}# `{name}.{key}`", "", *_prose(inspect.getdoc(member) or ""))


def _described(name: str, value: Callable[..., object]) -> Iterator[str]:
    if not (inspect.isclass(value) and issubclass(value, BaseException | dict | Enum)):
        yield from ("```text", *_signature(name, value), "```", "")
    yield from _prose(inspect.getdoc(value) or "")


def _signature(name: str, value: Callable[..., object]) -> Iterator[str]:
    """Yield a signature as lines, one for each parameter if it is long."""
    found = inspect.signature(value)
    parameters = [one for one in found.parameters.values() if one.name not in ("self", "cls")]
    prefix = "async " if inspect.iscoroutinefunction(inspect.unwrap(value)) else ""
    result = found.return_annotation
    end = "" if result is found.empty or inspect.isclass(value) else f" -> {_annotated(result)}"
    text = f"{prefix}{name}({', '.join(map(str, map(_plain, parameters)))}){end}"
    if len(text) < 90 and not any(one.kind is one.KEYWORD_ONLY for one in parameters):
        yield text
        return
    yield f"{prefix}{name}("
    kind = None
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and kind not in (one.KEYWORD_ONLY, one.VAR_POSITIONAL):
            yield "    *,"
        kind = one.kind
        yield f"    {_plain(one)},"
    yield f"){end}"


def _plain(one: inspect.Parameter) -> str:
    """Return a parameter as it stands in the code."""
    stars = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
    kind = "" if one.annotation is one.empty else f": {_annotated(one.annotation)}"
    default = "" if one.default is one.empty else f" = {one.default!r}"
    return f"{stars}{one.name}{kind}{default}"


def _annotated(annotation: object) -> str:
    return (
        annotation
        if isinstance(annotation, str)
        else getattr(annotation, "__name__", str(annotation))
    )


def _prose(text: str) -> Iterator[str]:
    """Yield a docstring as Markdown: sections become lists, and examples blocks of code."""
    block: list[str] = []

    def ended() -> Iterator[str]:
        if block:
            yield from ("```pycon", *block, "```", "")
            block.clear()

    is_list = False
    for line in _WRAPPED_NAMES.sub(r"\1 ", text).splitlines():
        if line.lstrip().startswith((">>>", "...")) or (block and line.strip()):
            block.append(line)
            continue
        yield from ended()
        if _SECTION.fullmatch(line):
            is_list = True
            yield from (f"**{line}**", "")
        elif is_list and (item := _ITEM.fullmatch(line)):
            names = ", ".join(f"`{name}`" for name in item[1].split(", "))
            yield f"- {names}: {item[2]}"
        elif is_list and line.startswith("    "):
            # A line that goes on, or a result without a name.
            yield f"  {line.strip()}" if line.startswith("      ") else line.strip()
        else:
            is_list = is_list and not line.strip()
            yield line
    yield from ended()
    yield ""


REFERENCES: dict[str, Callable[[], str]] = {"command-line.md": command_line, "python.md": python}
"""The guides that are made, by file name."""


def main() -> None:
    """Write the guides that are made from the code."""
    for name, made in REFERENCES.items():
        (GUIDES / name).write_text(made(), "utf-8")


if __name__ == "__main__":
    main()
