"""`tunewell meta`: an initialisation that was learned over many small tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tunewell.cli.as_json import json_option, json_text
from tunewell.cli.base import Command, command_line, say, show_progress
from tunewell.cli.options import given, recipe_options
from tunewell.meta.methods import METHODS

if TYPE_CHECKING:
    from tunewell.meta.records import MetaLearning

_EXAMPLES = (
    "tunewell meta tasks/ --shots 5 --ways 5",
    "tunewell meta intents.csv --task_column domain --method fomaml --output_dir runs/meta",
    "tunewell meta tasks/ --held_out banking,travel --keep 0.98",
    "tunewell run --model runs/meta/model --train new.csv --strategy fewshot",
)
SHARED = ("text", "text_pair", "label", "encoding", "model", "revision", "trust_remote_code", "max_length", "keep",
          "probes", "probe_files", "bf16", "seed", "threads", "output_dir", "overwrite_output_dir", "lang")  # fmt: skip


@click.command("meta", cls=Command, examples=_EXAMPLES)
@click.argument("tasks")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="protonet",
    help="protonet: embeddings in which prototypes work. anil: a head that adapts on them. reptile, fomaml: weights "
    "from which all layers tune fast. [protonet]",
)
@click.option("--shots", type=int, default=5, metavar="INTEGER", help="Rows of each class to learn from. [5]")
@click.option("--ways", type=int, metavar="INTEGER", help="Classes an episode. [5, or as many as a task has]")
@click.option("--queries", type=int, default=15, metavar="INTEGER", help="Other rows of a class that are asked. [15]")
@click.option("--task_column", metavar="TEXT", help="Of one file with all tasks: the column that tells them apart.")
@click.option("--held_out", default="0.2", metavar="SHARE|NAMES", help="Tasks that are only reported on. [0.2]")
@click.option(
    "--selection", default="0.1", metavar="SHARE|NAMES", help="Tasks that choose when to stop, and rates. [0.1]"
)
@click.option("--inner_steps", type=int, default=5, metavar="INTEGER", help="Gradient steps on an episode. [5]")
@click.option("--inner_rate", type=float, metavar="NUMBER", help="Their learning rate. [0.005; 0.05 on a head]")
@click.option("--outer_rate", type=float, metavar="NUMBER", help="Of the shared weights. [the method's]")
@click.option("--steps", type=int, default=100, metavar="INTEGER", help="Steps of the outer loop. [100]")
@click.option("--tasks_per_step", type=int, default=4, metavar="INTEGER", help="Episodes a step. [4]")
@click.option("--episodes", type=int, default=100, metavar="INTEGER", help="Episodes that are reported. [100]")
@json_option("Print the record as JSON.")
@recipe_options(only=SHARED)
def command(tasks: str, as_json: bool, **values: Any) -> None:
    """Learn over many small tasks how to learn the next one from a few rows.

    TASKS is a folder with a file a task, or one file with --task_column. Whole tasks are held out: some choose,
    others are only reported on, beside the base model put to use in the same ways. The result is a model folder to
    start runs from. A job that was stopped goes on where it was when the same command is given again; with `--keep`
    not met on report halves, the exit code is 3.
    """
    from tunewell.errors import GateError
    from tunewell.meta import meta

    own = {k: values.pop(k) for k in list(values) if k not in SHARED}
    try:
        done = meta(tasks, **own, echo=say, progress=show_progress(), command=command_line(), **given(values))
    except KeyboardInterrupt:
        say("\nthe same command goes on from here")
        raise
    click.echo(json_text(done) if as_json else meta_table(done))
    if done.kept is False and done.retention is not None:
        raise GateError(
            f"retention {done.retention.mean.value:.4f} is below keep: {done.keep:g}",
            where=done.output_dir,
            expected="what select halves promised to hold on report halves",
            remedy="ask for a little more than you need, or lower --outer_rate",
        )


def meta_table(m: MetaLearning) -> str:
    """Both models in every way of use, what it is worth, and where everything is."""
    from tunewell.cli.show import number, table
    from tunewell.meta.words import sentences, use_words

    rows = [["", "put to use with", "rate", "accuracy", "95 % interval", *m.names("report")]]
    for u in m.uses:
        e = u.accuracy
        rows.append(
            [
                "learned" if u.body == "meta" else "base",
                use_words(u.use, m.inner_steps),
                "–" if u.rate is None else f"{u.rate:g}",
                number(e.value),
                f"{number(e.low)} to {number(e.high)}",
                *(number(u.tasks[name].value) for name in m.names("report")),
            ]
        )
    parts = [f"\n{m.title}, best at step {m.best_step} of {m.steps}", "", table(rows, right=(2, 3, *range(5, 9))), ""]
    parts += sentences(m)
    parts += ["", f"model   {m.model_path}", f"report  {m.report_path}"]
    if m.best_step and m.alpha:
        parts.append(f"tunewell run --model {m.model_path} --train new.csv --strategy fewshot")
    return "\n".join(parts)


__all__ = ["command", "meta_table"]
