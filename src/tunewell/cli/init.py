"""`tunewell init`: a commented recipe from a data file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from tunewell.cli.as_json import WRITTEN, json_option, show_json
from tunewell.cli.base import Command
from tunewell.cli.options import given, recipe_options
from tunewell.errors import RunFolderError

_EXAMPLES = ("tunewell init reviews.csv", "tunewell init reviews.csv --text body --label stars -o stars.yaml")
_KEYS = ("text", "text_pair", "label", "group", "task", "multi_label", "label_separator", "encoding")


@click.command("init", cls=Command, examples=_EXAMPLES)
@click.argument("data")
@click.option("-o", "--output", default="recipe.yaml", metavar="FILE", help="Where to. [recipe.yaml]")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@json_option(WRITTEN)
@recipe_options(("data",), only=_KEYS)
def command(data: str, output: str, force: bool, as_json: bool, **keys: Any) -> None:
    """Look at a data file and write a recipe with every key, its default and what it means.

    Columns and task are inferred from the data and said so at the top of the recipe.
    """
    if Path(output).exists() and not force:
        raise RunFolderError(
            "is there already", where=output, expected="a new file", remedy="name another -o, or --force"
        )
    from tunewell.init_recipe import compose, infer
    from tunewell.recipe_file import load_recipe, validate
    from tunewell.results import write_whole

    asked = given(keys)
    values, notices = infer(data, **asked)
    values |= asked
    validate(values, where=output)
    write_whole(output, compose(values, notices, shlex.quote(output)))
    load_recipe(output)
    if as_json:
        show_json({"output": output, "keys": values, "notices": notices})
        return
    for notice in notices:
        click.echo(notice)
    click.echo(f"wrote {output}; then: tunewell run {shlex.quote(output)}")
