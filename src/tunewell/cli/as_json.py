"""`--json`, which every command takes: one JSON document on stdout; progress and words stay on stderr.

The same flag makes an error a line of JSON on stderr, the last one there; see `faults.guarded`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

FLAG = "--json"
SUMMARY = "Print the summary and where it lies as JSON."
WRITTEN = "Print what was written as JSON."
ADDRESS = "Print the address as one line of JSON once it answers."


def json_option(help: str) -> Any:
    """A decorator that gives a command `--json`, as `as_json`."""
    return click.option(FLAG, "as_json", is_flag=True, help=help)


def is_asked(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, also one that cannot be parsed.

    >>> is_asked(["run", "--json"]), is_asked(["explain", "runs/x", "--", "--json"])
    (True, False)
    """
    typed = list(arguments)
    return FLAG in (typed[: typed.index("--")] if "--" in typed else typed)


def json_text(value: Any, *, indent: int | None = 1) -> str:
    """Records, paths and plain values as JSON; a figure that is not a number is null.

    >>> json_text({"kept": float("nan"), "name": "ü"}, indent=None)
    '{"kept":null,"name":"ü"}'
    """
    from pydantic_core import to_json

    return to_json(value, indent=indent, inf_nan_mode="null").decode("utf-8")


def show_json(value: Any, *, indent: int | None = 1) -> None:
    """Print a value as JSON on stdout."""
    click.echo(json_text(value, indent=indent))


@contextlib.contextmanager
def only_json(as_json: bool) -> Iterator[None]:
    """While others work (trackers print), what they print goes to stderr, so that stdout is JSON alone."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def summary_of(done: Any) -> dict[str, Any]:
    """What summary.json of a finished run or sequence holds, and its folder, model and report."""
    model = done.model_path if done.model_path.is_dir() else done.dir / "models"  # separate models of a sequence
    places = {"folder": done.dir, "model_path": model, "report_path": done.report_path}
    return done.summary.model_dump() | {name: str(path) for name, path in places.items()}
