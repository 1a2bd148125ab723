"""`tunewell run`: the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tunewell.cli.as_json import SUMMARY, json_option, only_json, show_json, summary_of
from tunewell.cli.base import Command, command_line, say, show_progress
from tunewell.cli.options import recipe_from, recipe_options, worker_options

if TYPE_CHECKING:
    from tunewell.recipe import Recipe

_EXAMPLES = (
    "tunewell run recipe.yaml",
    "tunewell run recipe.yaml --seed 7 --output_dir runs/seed7",
    "tunewell run --train reviews.csv --text review --label stars --keep 0.98 --output_dir runs/reviews",
    "tunewell run recipe.yaml --seeds 8 --threads 1 --jobs 4",
)


@click.command("run", cls=Command, examples=_EXAMPLES)
@click.argument("recipe", required=False)
@json_option(SUMMARY)
@worker_options
@recipe_options()
def command(recipe: str | None, as_json: bool, jobs: int | None, ray: str | None, **keys: Any) -> None:
    """Tune a pretrained model on labelled data; report what was gained and what was kept.

    RECIPE is a YAML file (`tunewell init DATA` writes one). Every key of a recipe is also an option and
    takes precedence over the file. Hyphens do as well as underscores.

    A run that was stopped goes on where it was when the same command is given again. Exit code 3: the
    run is complete, but no candidate met `keep`.
    """
    carry_out(recipe_from(recipe, keys), as_json=as_json, jobs=jobs, ray=ray)


def carry_out(recipe: Recipe, *, as_json: bool = False, **workers: Any) -> None:
    """Run a recipe and print its table, or its summary as JSON; GateError after everything is saved and shown."""
    from tunewell import processes
    from tunewell.cli.show import run_table
    from tunewell.run import gate_error, run

    options: dict[str, Any] = {"echo": say, "progress": show_progress(), "command": command_line()}
    try:
        with only_json(as_json):
            finished = run(recipe, **options, raise_on_gate=False, **workers)
    except KeyboardInterrupt:
        say("\nthe same command goes on from here")
        raise
    if processes.rank():
        return
    if as_json:
        show_json(summary_of(finished))
    else:
        click.echo(run_table(finished))
    if finished.summary.kept is False:
        raise gate_error(finished)
