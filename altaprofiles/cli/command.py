"""click's commands and groups, with the options and the error handling that all of ours share."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from ..base.checks import NO_DATABASE, shown_setting, whole_in
from ..base.wording import numbered
from ..redaction import DATABASE_URL, POSTGRES_URL
from .app import CONDITIONS, TYPOGRAPHIC, App
from .exits import Exit
from .numbers import number_in
from .relative_days import resolve_days
from .streams import abandon_broken_streams

__all__ = ["QUOTE_CONDITIONS", "Command", "Group"]

QUOTE_CONDITIONS = (
    "a condition stands in quotation marks, as one word for the shell: --where 'Amount = 100'"
)
"""Advice to someone whose shell has split a condition into several arguments."""

_OUTPUTS = ("-o", "--out", "--output")


class Command(click.Command):
    """A command that accepts the shared options as well, and turns errors into exit codes.

    Args:
        misplaced: advice to someone who passes an argument too many.
        redirect: for a command that prints its result, the name of a file to redirect it to.
        several: whether it takes several accounts.
    """

    def __init__(
        self,
        *args: Any,
        misplaced: str = "a value with blanks stands in quotation marks, such as 'App Launched'",
        redirect: str | None = None,
        several: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._misplaced = misplaced
        self._redirect = redirect
        self._several = several
        self._own = len(self.params)
        self.params += _shared_options(several=several)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _known_by(ctx):
            return self._parse(ctx, args)

    def _parse(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            _check_given(self, ctx, args)
        except click.NoSuchOption as error:
            if self._redirect is None or error.option_name not in _OUTPUTS:
                raise
            ctx.fail(
                f"{self.name} prints its result: leave out {error.option_name}, and redirect with "
                f"> {self._redirect}"
            )
        # click's own message would quote the arguments, which may be people's keys.
        ctx.allow_extra_args = True
        given = [*args]
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            self._check_accounts(ctx, given, rest)
        if rest and not ctx.resilient_parsing:
            unexpected = numbered(len(rest), "unexpected extra argument")
            advice = self._misplaced
            if any(map(ctx.params.get, CONDITIONS)):
                advice = QUOTE_CONDITIONS
            if any(map(TYPOGRAPHIC.search, given)):
                advice = (
                    "some quotation marks are those of a word processor, which no shell knows: "
                    "type straight ones"
                )
            ctx.fail(f"got {unexpected}; {advice}")
        return rest

    def _check_accounts(
        self, ctx: click.Context, given: Sequence[str], rest: Sequence[str]
    ) -> None:
        """Raise `click.UsageError` if another account stands behind that of --account."""
        names = {*ctx.params.get("events", ()), ctx.params.get("event"), *rest}
        behind = [
            (one, next_)
            for option, one, next_ in zip(given, given[1:], given[2:], strict=False)
            if option == "--account" and next_ in names
        ]
        if not self._several or not behind:
            return
        from ..accounts import Accounts
        from ..errors import ConfigurationError

        try:
            known = Accounts.read().tables
        except ConfigurationError:
            return
        for one, other in behind:
            if one in known and other in known:
                both = " ".join(f"--account {shlex.quote(name)}" for name in (one, other))
                advice = f"{other!r} is an account as well: name each by itself, as in {both}"
                if {"event", "events"} & ctx.params.keys():
                    advice += "; if it is an event, write it in front of --account"
                ctx.fail(advice)

    def invoke(self, ctx: click.Context) -> Any:
        app = ctx.ensure_object(App)
        if len(app.accounts) > 1 and not self._several:
            ctx.fail(f"{_one_account(self)}, got {len(app.accounts)}; {_each_account(self)}")
        app.start_logging()
        app.start_clock()
        try:
            resolve_days(ctx)
            return super().invoke(ctx)
        except click.ClickException:
            raise
        except (Exception, KeyboardInterrupt) as error:
            try:
                code = app.report(error)
            except BrokenPipeError:
                code = Exit.PIPE
            if code is None:
                raise
            abandon_broken_streams()
            sys.exit(code)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shared = self.params[self._own :]
        own: list[tuple[str, str]] = []
        others: list[tuple[str, str]] = []
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None and isinstance(option, click.Option):
                (others if option in shared else own).append(record)
        for title, records in (("Options", own), ("Options of all commands", others)):
            with formatter.section(title):
                formatter.write_dl(records)


class Group(click.Group):
    """A group of commands whose shared options stand before the command's name or after it."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_options(several=True)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _known_by(ctx):
            _check_given(self, ctx, args)
            return super().parse_args(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        try:
            code = self._run(*args, **kwargs)
        except BrokenPipeError:
            # That of an error's message.
            code = Exit.PIPE
            abandon_broken_streams()
        except OSError as error:
            # The help or the version could not be written.
            with suppress(OSError):
                sys.stderr.write(f"error: {error.strerror}\n")
            code = Exit.FAILED
            abandon_broken_streams()
        sys.exit(code)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """Return the exit code of a command line, or raise an `OSError` of its output."""
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            _show(error, _words(*args, **kwargs))
            return error.exit_code
        except (click.Abort, KeyboardInterrupt):
            return 128 + signal.SIGINT

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _ended_by_reader():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _ended_by_reader():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        is_known = name.startswith("-") or self.get_command(ctx, name) is not None
        if not is_known and not ctx.resilient_parsing:
            # click's own message would quote the argument, which may be a person's key.
            from difflib import get_close_matches

            from .carried_over import COMMANDS

            meant = COMMANDS.get(name)
            close = [meant] if meant else get_close_matches(name, self.commands)
            advice = f"for a person, run: {ctx.command_path} get --email ADDRESS, or --identity ID"
            later = next((word for word in args[1:] if word in self.commands), None)
            if name in ("help", "version"):
                advice = f"run: {ctx.command_path} --{name}"
            elif later is not None and (not close or ctx.ensure_object(App).accounts):
                advice = (
                    f"there is a word too many before {later}: quote a value with blanks, and "
                    "repeat --account for each account"
                )
            elif close:
                advice = f"did you mean {' or '.join(close)}?"
            ctx.fail(f"no such command; {advice}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        # In the order in which users are likely to need them, not alphabetically.
        return list(self.commands)


def _shared_options(*, several: bool) -> list[click.Parameter]:
    option = partial(click.Option, expose_value=False, callback=_store_in_app)
    account = "Use this account of the credentials file, whatever the environment holds."
    if several:
        account += " Repeatable for count, export, lookup and sync, which ask several side by side."
    return [
        option(
            ["--account", "accounts"],
            metavar="NAME",
            multiple=several,
            shell_complete=_complete_account,
            help=account,
        ),
        option(
            ["-q", "--quiet"],
            is_flag=True,
            help="Show warnings and errors only.",
        ),
        option(
            ["-v", "--verbose"],
            is_flag=True,
            help="Show every failed request and the start of its answer, which may hold people's "
            "data, and tracebacks.",
        ),
        option(
            ["--log-format"],
            type=click.Choice(["text", "json"]),
            help="Format of stderr: text (the default), or one JSON object per line.",
        ),
        option(
            ["--timeout"],
            type=_seconds,
            metavar="SECONDS",
            help="Longest silence of a service during one attempt; 60 by default. A whole answer "
            "may take five times as long.",
        ),
        option(
            ["--max-time"],
            type=_seconds,
            metavar="SECONDS",
            help="Longest duration of the requests of the whole command, with all waits. An export "
            "then keeps what it has, and exits with 4.",
        ),
        option(
            ["--retries"],
            type=_tries,
            metavar="N",
            help="Tries of a failed request after the first; 7 by default, 0 for none. Waits for a "
            "rate limit or for a page in preparation are not counted.",
        ),
    ]


def _store_in_app(context: click.Context, option: click.Parameter, value: object) -> None:
    app = context.ensure_object(App)
    # Not 0, which is a number of retries.
    if value is None or value is False or value == ():
        return
    name = str(option.name)
    if name == "accounts":
        value = value if isinstance(value, tuple) else (value,)
        for account in value:
            if value.count(account) > 1:
                context.fail(
                    f"--account names {shown_setting(account)} twice; leave one of them out"
                )
    is_given_before = context.parent is not None and (
        context.parent.get_parameter_source(name) is ParameterSource.COMMANDLINE
    )
    if is_given_before and getattr(app, name) != value:
        context.fail(
            f"{option.opts[-1]} is given before the command and behind it, with two values; "
            f"give it once"
        )
    setattr(app, name, value)


@contextmanager
def _known_by(context: click.Context) -> Iterator[None]:
    """Name the command in an error of its options, which decides how the error is shown."""
    try:
        yield
    except click.UsageError as error:
        error.ctx = error.ctx or context
        if isinstance(error, click.NoSuchOption):
            from .carried_over import advice_on, suggested

            given, command = error.option_name, context.command
            name = _with_two_dashes(given) or given
            if advice := advice_on(name, command):
                context.fail(f"no such option {given!r}; {advice}")
            text = f"no such option {given!r}"
            if meant := suggested(name, command, error.possibilities or ()):
                text += f". Did you mean {' or '.join(map(repr, meant))}?"
            raise click.NoSuchOption(given, text, ctx=context) from None
        raise


@contextmanager
def _ended_by_reader() -> Iterator[None]:
    """Exit with 141 if the help or the version meets a closed pipe; click itself exits with 1."""
    try:
        yield
    except BrokenPipeError:
        abandon_broken_streams()
        raise click.exceptions.Exit(Exit.PIPE) from None


def _check_given(command: click.Command, context: click.Context, args: list[str]) -> None:
    """Raise `click.UsageError` for what click would take or show.

    Of two values of one parameter it takes the last. It shows wrong values, such as the URL of a
    database in the place of a number.
    """
    if context.resilient_parsing:
        return
    _check_dashes(context, args)
    values, _, order = command.make_parser(context).parse_args(list(args))
    for param in command.get_params(context):
        value = values.get(str(param.name))
        texts = value if isinstance(value, list | tuple) else (value,)
        if any(_is_database(text, param) for text in texts):
            raise click.BadParameter(NO_DATABASE, context, param)
    first: dict[str | None, click.Parameter] = {}
    for option in order:
        if (other := first.setdefault(option.name, option)) is not option:
            names = " and ".join(max(one.opts, key=len) for one in (other, option))
            context.fail(f"{names} exclude each other; leave one of them out")
    for option in {*order}:
        if not isinstance(option, click.Option) or option.multiple or option.count:
            continue
        # A flag that can only be set is the same however often it is given.
        is_plain_flag = option.is_flag and not option.secondary_opts
        if order.count(option) > 1 and not is_plain_flag:
            names = " or ".join(max(opts, key=len) for opts in _spellings(option))
            fix = "give it once"
            if option.name == "accounts":
                fix = f"{_one_account(command)}; {_each_account(command)}"
            context.fail(f"{names} is given {order.count(option)} times; {fix}")


def _one_account(command: click.Command) -> str:
    return f"{command.name} takes one --account"


def _each_account(command: click.Command) -> str:
    """Return what to do with a command that takes one account, for someone who has several."""
    advice = "run it once for each"
    if {"identity", "user_id"}.isdisjoint(one.name for one in command.params):
        return advice
    return f"{advice}, or write the keys into a file for lookup, which takes several"


_LONG_DASHES = re.compile("-?[\u2012-\u2015\u2212][-\u2012-\u2015\u2212]*")


def _check_dashes(context: click.Context, args: Sequence[str]) -> None:
    """Raise `click.UsageError` for an option that is written with other dashes, or as -o=VALUE.

    Values are left as they are, also those that read like options.
    """
    options = {
        text: one
        for one in context.command.get_params(context)
        if isinstance(one, click.Option)
        for text in (*one.opts, *one.secondary_opts)
    }
    taking = {text for text, one in options.items() if not one.is_flag and not one.count}
    words = iter(args)
    for word in words:
        _check_long_dash(context, word, options)
        if not word.startswith("-") or word == "-":
            if context.allow_interspersed_args:
                continue
            return
        if word == "--":
            return
        _check_single_dash(context, word, options)
        # Several of one letter can stand behind one dash, and the first that takes a value ends it.
        names = [word] if word.startswith("--") else [f"-{letter}" for letter in word[1:]]
        number = next((number for number, name in enumerate(names) if name in taking), None)
        if number is None:
            continue
        if number == len(names) - 1:
            next(words, None)
        elif names[number + 1] == "-=":
            short, long = names[number], max(options[names[number]].opts, key=len)
            context.fail(f"{short} takes its value without =; write {short} VALUE or {long}=VALUE")


def _with_two_dashes(word: str) -> str | None:
    """Return the option that a word may be with a dash more, such as --from of -from=-7d."""
    match = re.match("-[a-z][a-z-]+(?==|$)", word)
    return None if match is None else f"-{match[0]}"


def _check_single_dash(context: click.Context, word: str, known: Collection[str]) -> None:
    """Raise `click.UsageError` for a long option with one dash; click takes -out for -o ut."""
    if (long := _with_two_dashes(word)) is None:
        return
    if long in known:
        context.fail(f"{long[1:]} has one dash: write {long}")
    from .carried_over import advice_on, suggested

    alike: list[str] = []
    if "=" in word and word[:2] in known:
        # Only errors need it, and its import takes time.
        from difflib import get_close_matches

        alike = get_close_matches(long, [name for name in known if name.startswith("--")])
    if advice_on(long, context.command) or suggested(long, context.command, alike):
        raise click.NoSuchOption(long[1:], possibilities=alike, ctx=context)


def _check_long_dash(context: click.Context, word: str, known: Collection[str]) -> None:
    """Raise `click.UsageError` for an option with a dash of a word processor."""
    if (dashes := _LONG_DASHES.match(word)) is None:
        return
    name = word[dashes.end() :].partition("=")[0]
    meant = f"--{name}" if len(name) > 1 else f"-{name}"
    if meant in known:
        context.fail(f"{dashes[0]}{name} has a long dash, as word processors write: use {meant}")


def _is_database(value: object, param: click.Parameter) -> bool:
    """Return whether the value of a parameter is the URL of a database, by a slip."""
    # A file of keys is refused with better advice.
    if not isinstance(value, str) or "URL" in (param.metavar or "") or param.name == "keys":
        return False
    # Values in conditions may be addresses of any kind.
    pattern = POSTGRES_URL if param.name in CONDITIONS else DATABASE_URL
    return pattern.search(value) is not None


def _spellings(option: click.Option) -> list[list[str]]:
    return [opts for opts in (option.opts, option.secondary_opts) if opts]


_LONGEST = 86_400.0


def _seconds(text: str) -> float:
    seconds = number_in(text) or 0.0
    if not 0 < seconds <= _LONGEST:
        raise click.BadParameter(
            f"{text!r} is not a number of seconds above 0 and up to {_LONGEST:,.0f}"
        )
    return seconds


_MOST_TRIES = 1_000


def _tries(text: str) -> int:
    tries = whole_in(text)
    if tries is None or tries > _MOST_TRIES:
        raise click.BadParameter(
            f"{text!r} is not a whole number of tries from 0 to {_MOST_TRIES:,}"
        )
    return tries


def _complete_account(
    context: click.Context, option: click.Parameter, incomplete: str
) -> list[str]:
    from ..accounts import Accounts
    from ..errors import ConfigurationError

    try:
        return [name for name in Accounts.read().tables if name.startswith(incomplete)]
    except ConfigurationError:
        return []


def _words(args: Sequence[str] | None = None, *_: object, **__: object) -> Sequence[str]:
    """Return the words of a command line that may be options, also before they are parsed."""
    words = sys.argv[1:] if args is None else [*args]
    return words[: words.index("--")] if "--" in words else words


def _show(error: click.ClickException, words: Sequence[str]) -> None:
    context = getattr(error, "ctx", None) or click.get_current_context(silent=True)
    if context is None or type(error).__name__ == "NoArgsIsHelpError":
        # The help, or an error from before there was a command.
        error.show()
        return
    app = context.ensure_object(App)
    if "--log-format=json" in words or ("--log-format", "json") in pairwise(words):
        app.log_format = "json"
    app.start_logging()
    app.report_usage(error, _message(error, context), as_json="--json" in words)


def _message(error: click.ClickException, context: click.Context) -> str:
    """Return the message of an error, in the form in which the library names an argument.

    Errors of the library and of click reach the same users: `--where: no operator`.
    """
    if isinstance(error, click.BadParameter) and (name := _subject(error)):
        text = error.message.rstrip(".")
        if not isinstance(error, click.MissingParameter):
            return f"{name}: {text}"
        return f"{name}: missing; {text or f'see {context.command_path} --help'}"
    if isinstance(error, click.BadOptionUsage) and "requires" in error.message:
        return f"{error.option_name}: its value is missing; see {context.command_path} --help"
    text = " ".join(error.format_message().split())
    text = f"{text[:1].lower()}{text[1:]}".rstrip(".")
    if isinstance(error, click.UsageError) and not isinstance(error, click.BadParameter):
        joint = " See" if text.endswith("?") else "; see"
        return f"{text}{joint} {context.command_path} --help"
    return text


def _subject(error: click.BadParameter) -> str | None:
    if isinstance(error.param_hint, str):
        return error.param_hint.strip("'\"")
    if isinstance(error.param, click.Option):
        return max(error.param.opts, key=len)
    return None if error.param is None else error.param.human_readable_name
