"""`tunewell run`: the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tunewell.cli.base import Command, command_line, say, show_progress
from tunewell.cli.options import recipe_from, recipe_options

if TYPE_CHECKING:
    from tunewell.recipe import Recipe

_EXAMPLES = (
    "tunewell run recipe.yaml",
    "tunewell run recipe.yaml --seed 7 --output_dir runs/seed7",
    "tunewell run --train reviews.csv --text review --label stars --keep 0.98 --output_dir runs/reviews",
)


@click.command("run", cls=Command, examples=_EXAMPLES)
@click.argument("recipe", required=False)
@recipe_options()
def command(recipe: str | None, **keys: Any) -> None:
    """Tune a pretrained model on labelled data; report what was gained and what was kept.

    RECIPE is a YAML file (`tunewell init DATA` writes one). Every key of a recipe is also an option and
    takes precedence over the file. Hyphens do as well as underscores.

    A run that was stopped goes on where it was when the same command is given again. Exit code 3: the
    run is complete, but no candidate met `keep`.
    """
    carry_out(recipe_from(recipe, keys))


def carry_out(recipe: Recipe) -> None:
    """Run a recipe and print its table; GateError after everything is saved and shown."""
    from tunewell import processes
    from tunewell.cli.show import run_table
    from tunewell.run import gate_error, run

    try:
        finished = run(recipe, echo=say, progress=show_progress(), command=command_line(), raise_on_gate=False)
    except KeyboardInterrupt:
        say("\nthe same command goes on from here")
        raise
    if processes.rank():
        return
    click.echo(run_table(finished))
    if finished.summary.kept is False:
        raise gate_error(finished)
