"""`tunewell curve`: how many labels are enough."""

from __future__ import annotations

from typing import Any

import click

from tunewell.cli.as_json import json_option, show_json
from tunewell.cli.base import Command, command_line, say, show_progress
from tunewell.cli.options import recipe_from, recipe_options, worker_options
from tunewell.recipe import SECTIONS

_EXAMPLES = (
    "tunewell curve reviews.csv --target 0.9",
    "tunewell curve reviews.csv --text review --label stars --cost_per_label 0.08 --labels_per_hour 150",
    "tunewell curve reviews.csv --by probe --repeats 5 --sizes 50,100,200,400",
    "tunewell curve reviews.csv --test held_out.csv --runs runs/few --runs runs/selected",
    "tunewell curve reviews.csv --threads 2 --ray auto",
)


def _numbers(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[int]:
    out = []
    for part in (part.strip() for cell in value for part in cell.split(",")):
        if not part.replace("_", "").isdigit():
            raise click.BadParameter(f"{part!r} is not a whole number; expected for example 50,100,200")
        out.append(int(part))
    return out


@click.command("curve", cls=Command, examples=_EXAMPLES)
@click.argument("data")
@click.option("--sizes", multiple=True, callback=_numbers, metavar="LIST", help="Numbers of labels. [all, 1/2, 1/4 …]")
@click.option("--repeats", type=click.IntRange(1, 100), default=3, metavar="INTEGER", help="Subsets a size. [3]")
@click.option(
    "--by",
    type=click.Choice(["tune", "probe"]),
    default="tune",
    help="Tune at each point, or fit a linear probe on frozen embeddings: rougher, in seconds. [tune]",
)
@click.option("--target", type=float, metavar="NUMBER", help="How many labels reach this score?")
@click.option("--more", multiple=True, callback=_numbers, metavar="LIST", help="What do so many more labels bring?")
@click.option(
    "--runs", multiple=True, metavar="RUN", help="How many labels is this run's score worth? Can be repeated."
)
@click.option("--cost_per_label", type=float, metavar="NUMBER", help="Give the answers in money too.")
@click.option("--labels_per_hour", type=float, metavar="NUMBER", help="Give the answers in hours of labelling too.")
@json_option("Print the record as JSON.")
@worker_options
@recipe_options(
    tuple(s for s in SECTIONS if s != "unlabelled"),
    without=("train", "keep", "keep_worst", "probes", "probe_files", "explain", "strict", "source", "target"),
)
def command(data: str, as_json: bool, **keys: Any) -> None:
    """How the score grows with the number of labels, and what more of them would bring.

    DATA is a file with labels, or a recipe in YAML. Models are tuned on nested subsets of its training rows and
    scored on the same test rows; laws fitted to the scores are extrapolated with 90 % intervals. A curve
    that was stopped goes on where it was when the same command is given again.
    """
    from tunewell.cli.show import number, table
    from tunewell.curve.run import learning_curve
    from tunewell.curve.words import law_line, sentences

    own = {
        k: keys.pop(k)
        for k in (
            "sizes",
            "repeats",
            "by",
            "target",
            "more",
            "runs",
            "cost_per_label",
            "labels_per_hour",
            "jobs",
            "ray",
        )
    }
    is_recipe = data.endswith((".yaml", ".yml"))
    recipe = recipe_from(data if is_recipe else None, keys, **({} if is_recipe else {"train": data}))
    try:
        curve = learning_curve(recipe, **own, echo=say, progress=show_progress(), command=command_line())
    except KeyboardInterrupt:
        say("\nthe same command goes on from here")
        raise
    if as_json:
        show_json(curve)
        return
    rows = [["labels", curve.metric, "repeats"]]
    for size, mean in curve.means().items():
        scores = [p.score for p in curve.points if p.size == size]
        rows.append([f"{size:,}", number(mean), " ".join(number(s) for s in scores)])
    click.echo("\n" + table(rows, right=(0, 1)) + "\n")
    for line in sentences(curve):
        click.echo(line)
    click.echo(law_line(curve))


__all__ = ["command"]
