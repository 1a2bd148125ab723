"""`tunewell continue`: one more task for a run or a sequence."""

from __future__ import annotations

from typing import Any

import click

from tunewell.cli.as_json import SUMMARY, json_option, show_json, summary_of
from tunewell.cli.base import Command, command_line, say, show_progress
from tunewell.cli.options import recipe_options
from tunewell.cli.sequence import SHARED, keys_from, own_options, sequence_table

_EXAMPLES = (
    "tunewell continue runs/reviews --train tickets.csv",
    "tunewell continue runs/sequence --train tickets.csv --test tickets_test.csv --text body --label queue",
    "tunewell continue runs/sequence --train reviews_2027.csv --head reviews",
)


@click.command("continue", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.option("--name", metavar="TEXT", help="What to call the task; by default the file's name.")
@click.option("--head", metavar="TEXT", help="Go on with the head of this earlier task, which has the same labels.")
@recipe_options(only=("train", "validation", "test", "text", "text_pair", "label"))
@own_options
@recipe_options(only=SHARED)
@json_option(SUMMARY)
def command(run: str, train: str | None, name: str | None, as_json: bool, **keys: Any) -> None:
    """Add a task to a tuned model: shared body, a head for each task; earlier test rows become probes.

    RUN is a finished run, which becomes the first task of a new sequence in RUN-continued (or
    --output_dir), or a sequence, which grows in its own folder by its own settings.
    """
    from tunewell.errors import RecipeError
    from tunewell.sequence.extend import continue_run

    if train is None:
        raise RecipeError(
            "`train` is missing", where="continue", expected="the new task's rows", remedy="--train next.csv"
        )
    typed = keys_from(keys)
    if isinstance(typed.get("label"), list):
        typed["label"] = ",".join(typed["label"])
    try:
        done = continue_run(
            run, train=train, name=name, echo=say, progress=show_progress(), command=command_line(), **typed
        )
    except KeyboardInterrupt:
        say("\nthe same command goes on from here")
        raise
    if as_json:
        show_json(summary_of(done))
    else:
        click.echo(sequence_table(done))
