"""`tunewell tune`: the training alone."""

from __future__ import annotations

from typing import Any

import click

from tunewell.cli.as_json import json_option, only_json, show_json
from tunewell.cli.base import Command, command_line, say, show_progress
from tunewell.cli.options import recipe_from, recipe_options

_EXAMPLES = (
    "tunewell tune recipe.yaml",
    "tunewell tune --train reviews.csv --num_train_epochs 2 --output_dir runs/quick",
)


@click.command("tune", cls=Command, examples=_EXAMPLES)
@click.argument("recipe", required=False)
@json_option("Print what tuning took, what was chosen and where it lies as JSON.")
@recipe_options()
def command(recipe: str | None, as_json: bool, **keys: Any) -> None:
    """Tune and save the model, without check, baselines and report; prints the model's folder.

    Takes what `tunewell run` takes; `tunewell run` on the same folder goes on from here.
    """
    checked = recipe_from(recipe, keys)
    from tunewell.run import tune_only

    try:
        with only_json(as_json):
            folder = tune_only(checked, echo=say, progress=show_progress(), command=command_line())
    except KeyboardInterrupt:
        say("\nthe same command goes on from here")
        raise
    if not as_json:
        click.echo(folder)
        return
    from tunewell.results import Choice, Training

    training = Training.load(folder.parent / "train" / "training.json").model_dump(exclude={"history"})
    choice = Choice.load(folder.parent / "choice.json").model_dump()
    show_json({"folder": str(folder.parent), "model_path": str(folder), "training": training, "choice": choice})
