"""`tunewell slices`: kinds of texts on which a run errs more than elsewhere."""

from __future__ import annotations

import click

from tunewell.cli.as_json import json_option, show_json
from tunewell.cli.base import Command, say

_EXAMPLES = (
    "tunewell slices runs/reviews",
    "tunewell slices runs/reviews --seed 7",
    "tunewell slices runs/reviews --json",
)


@click.command("slices", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.option("--seed", type=int, default=42, metavar="INTEGER", help="Which half is held out. [42]")
@json_option("Print JSON.")
def command(run: str, seed: int, as_json: bool) -> None:
    """Find kinds of texts on which a run errs more than elsewhere.

    Half of the test rows are clustered by what they say and how the model reads them; clusters with more errors are
    then tested on the other half, p-values adjusted for their number, so that what is shown is not chance. Each comes
    with the words that tell it from the rest. The record goes into the run folder, and `tunewell report RUN` shows it.
    """
    from tunewell.explain.show_slices import lines_of
    from tunewell.stages.slices import slices_of_run

    found = slices_of_run(run, seed=seed)
    if as_json:
        show_json(found)
        return
    click.echo("\n".join(lines_of(found)))
    say(f"\nin {run}/slices.json; tunewell report {run} shows it")
