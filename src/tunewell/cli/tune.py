"""`tunewell tune`: the training alone."""

from __future__ import annotations

from typing import Any

import click

from tunewell.cli.base import Command, command_line, say, show_progress
from tunewell.cli.options import recipe_from, recipe_options

_EXAMPLES = (
    "tunewell tune recipe.yaml",
    "tunewell tune --train reviews.csv --num_train_epochs 2 --output_dir runs/quick",
)


@click.command("tune", cls=Command, examples=_EXAMPLES)
@click.argument("recipe", required=False)
@recipe_options()
def command(recipe: str | None, **keys: Any) -> None:
    """Tune and save the model, without check, baselines and report; prints the model's folder.

    Takes what `tunewell run` takes; `tunewell run` on the same folder goes on from here.
    """
    checked = recipe_from(recipe, keys)
    from tunewell.run import tune_only

    try:
        folder = tune_only(checked, echo=say, progress=show_progress(), command=command_line())
    except KeyboardInterrupt:
        say("\nthe same command goes on from here")
        raise
    click.echo(folder)
