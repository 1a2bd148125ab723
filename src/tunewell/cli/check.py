"""`tunewell check`: look at data before anything is tuned on it."""

from __future__ import annotations

import sys
from typing import Any

import click

from tunewell.cli.as_json import json_option, json_text
from tunewell.cli.base import Command, in_colour, say
from tunewell.cli.options import recipe_from, recipe_options
from tunewell.errors import GateError

_EXAMPLES = (
    "tunewell check reviews.csv",
    "tunewell check train.csv test.csv --text review --label stars --strict",
    "tunewell check recipe.yaml --json > check.json",
)
_WITHOUT = ("train", "duplicates", "strict")


@click.command("check", cls=Command, examples=_EXAMPLES)
@click.argument("data", nargs=-1, required=True)
@click.option("--strict", is_flag=True, help="Exit with code 3 when there is an error among the findings.")
@json_option("Print the whole report as JSON.")
@recipe_options(("data", "model"), without=_WITHOUT)
def command(data: tuple[str, ...], strict: bool, as_json: bool, **keys: Any) -> None:
    """Look for faults in data: duplicates, leaks, conflicting labels, imbalance, cut texts, personal data.

    DATA is one file; or a file to train on and one to test on; or train, validation and test; or a
    recipe. Nothing is written and no row is changed. The check ends with an account of every row.
    """
    path, files = _files(data)
    recipe = recipe_from(path, keys | _without_repeats(files, keys))
    from tunewell.data.check import render
    from tunewell.run import check_only

    report = check_only(recipe, echo=say)
    click.echo(json_text(report) if as_json else render(report, colour=in_colour(sys.stdout)))
    if strict and report.errors:
        titles = ", ".join(finding.title for finding in report.errors)
        count = len(report.errors)
        raise GateError(
            f"the check found {count} error{'s' if count > 1 else ''}: {titles}",
            where=", ".join(data),
            expected="data without errors (--strict)",
            remedy="mend the rows that are shown, or run without --strict",
        )


def _files(data: tuple[str, ...]) -> tuple[str | None, dict[str, Any]]:
    """Files by their number: a recipe, or train, test, or train, validation, test."""
    if len(data) == 1 and data[0].lower().endswith((".yaml", ".yml")):
        return data[0], {}
    roles = {1: ("train",), 2: ("train", "test"), 3: ("train", "validation", "test")}.get(len(data))
    if roles is None:
        raise click.UsageError(f"{len(data)} files; expected one, two (train, test) or three (train, validation, test)")
    return None, dict(zip(roles, data, strict=True))


def _without_repeats(files: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    for role in files:
        if keys.get(role):
            raise click.UsageError(f"the {role} file is given twice: {files[role]} and --{role} {keys[role]}")
    return files
