"""What all commands share: their class, their common options, and silence from other people's packages."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from tunewell.cli.complete import complete

COMMAND_LINE = "tunewell.command_line"
DEBUG = "TUNEWELL_DEBUG"
VERBOSE = "tunewell.verbose"
QUIET = "tunewell.quiet"
# what keeps Transformers, Datasets and the hub client from talking, unless the user has set it
SILENCE = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
}


def keep_input(output: str | None, data: str | None) -> None:
    """Make sure that a command does not write over what it reads; `-` is no file.

    Raises:
        DataError: both are the same file.
    """
    if not output or not data or "-" in (output, data):
        return
    there, given = Path(output), Path(data)
    if there.exists() and given.exists() and there.samefile(given):
        from tunewell.errors import DataError

        raise DataError("would overwrite the input", where=output, remedy="name another -o")


ON, OFF = ("true", "yes", "on", "1"), ("false", "no", "off", "0")  # what people write after a flag


def _debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        os.environ[DEBUG] = "1"


def _set(key: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta[key] = True
            if key == VERBOSE:
                _talk()

    return callback


def common_options(command: Any) -> Any:
    """`--verbose`, `--quiet`, `--debug`: before or after the command's name."""
    flags: dict[str, Any] = {"is_flag": True, "expose_value": False}
    command = click.option("--debug", **flags, callback=_debug, help="Show the whole trace of an error.")(command)
    command = click.option("--quiet", **flags, callback=_set(QUIET), help="Results only: no progress.")(command)
    return click.option(
        "--verbose", **flags, callback=_set(VERBOSE), help="Let Transformers and others print their warnings."
    )(command)


class Command(click.Command):
    """A command with examples below its help, options in sections and the common options.

    Args:
        examples: command lines, shown as they are.
    """

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        common_options(self)
        complete(self)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _naming(ctx):
            if not ctx.resilient_parsing:  # the shell asks how to go on
                self._refuse_values_of_flags(ctx, args)
            rest = super().parse_args(ctx, args)
            if not ctx.resilient_parsing:
                self._refuse_empty_places(ctx)
            return rest

    def _refuse_empty_places(self, ctx: click.Context) -> None:
        """An empty name of a file or folder, as an unset variable of the shell leaves it, would mean the folder that
        the user happens to be in."""
        for param in self.get_params(ctx):
            value = ctx.params.get(param.name or "")
            if _is_place(param) and "" in [v.strip() for v in _strings(value)]:
                option = isinstance(param, click.Option)
                name = max(param.opts, key=len) if option else (param.name or "").upper()
                raise click.UsageError(f"`{name}` is empty; expected a name (is a variable of the shell not set?)")

    def _refuse_values_of_flags(self, ctx: click.Context, args: list[str]) -> None:
        """`--bf16 false` would switch bf16 on and take `false` for a file."""
        flags = {o: p for p in self.get_params(ctx) if isinstance(p, click.Option) and p.is_flag for o in p.opts}
        for flag, value in pairwise([*args, ""]):
            name, _, given = flag.partition("=")
            value = given or value
            if name not in flags or value.casefold() not in (*ON, *OFF):
                continue
            off = next(iter(flags[name].secondary_opts), "")
            wanted = name if value.casefold() in ON else off
            remedy = f"write `{wanted}`" if wanted else "leave it out"
            raise click.UsageError(f"`{name}` takes no value, but `{value}` follows it: {remedy}")

    def invoke(self, ctx: click.Context) -> Any:
        with _naming(ctx):
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is None:
                continue
            if heading := getattr(param, "section", None):
                sections.setdefault(heading, []).append(record)
            else:
                (common if param.name in ("verbose", "quiet", "debug", "help") else own).append(record)
        for heading, rows in ({"Options": own} | sections | {"Everywhere": common}).items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows, col_max=34)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        super().format_epilog(ctx, formatter)


PLACES = ("FILE", "DIR", "ID", "RUN", "RUN...", "MODEL", "MODEL...", "OUT")  # metavars of options that name one


def _is_place(param: click.Parameter) -> bool:
    """Whether a parameter names a file, a folder, a run or a model."""
    if isinstance(param, click.Argument):
        return param.name not in ("text", "texts")
    return param.metavar in PLACES or param.name == "output_dir"


def _strings(value: Any) -> list[str]:
    return [v for v in (value if isinstance(value, (tuple, list)) else [value]) if isinstance(v, str)]


@contextlib.contextmanager
def _naming(ctx: click.Context) -> Iterator[None]:
    """A mistake on the command line is told with the name of its command."""
    try:
        yield
    except click.UsageError as error:
        error.ctx = error.ctx or ctx
        raise


def _root_meta() -> dict[str, Any]:
    return click.get_current_context().meta


def in_colour(stream: Any) -> bool:
    """Whether a stream is a terminal whose user takes colours (https://no-color.org)."""
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR")


def is_quiet() -> bool:
    """Whether the user asked for results only."""
    return bool(_root_meta().get(QUIET))


def show_progress() -> bool:
    """Whether bars make sense: someone watches, and did not ask for quiet."""
    return sys.stderr.isatty() and not is_quiet()


def say(line: str) -> None:
    """A line about what is going on, on stderr; nothing under `--quiet`."""
    if not is_quiet():
        click.echo(line, err=True)


def command_line() -> str:
    """What the user typed, for the run's records."""
    return shlex.join(["tunewell", *_root_meta().get(COMMAND_LINE, [])])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence other packages while a command runs; the environment is as before afterwards."""
    before = {name: os.environ.get(name) for name in SILENCE}
    try:
        with warnings.catch_warnings():
            if not _root_meta().get(VERBOSE):
                warnings.simplefilter("ignore")
                for name, value in SILENCE.items():
                    os.environ.setdefault(name, value)
            yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


def _talk() -> None:
    """Undo `quiet`: the user wants to hear it all."""
    for name, value in SILENCE.items():
        if os.environ.get(name) == value:
            os.environ.pop(name)
    warnings.simplefilter("default")
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_warning()
