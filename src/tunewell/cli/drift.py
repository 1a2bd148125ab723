"""`tunewell drift`: what tuning changed inside the model."""

from __future__ import annotations

import sys

import click

from tunewell.cli.as_json import json_option, show_json
from tunewell.cli.base import Command, say, show_progress

_EXAMPLES = (
    "tunewell drift runs/reviews",
    "tunewell drift runs/reviews --general news.txt --rows 400",
    "tunewell drift runs/reviews --json",
)


@click.command("drift", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.option("--rows", type=click.IntRange(8, 2000), default=200, metavar="INTEGER", help="Texts at the most. [200]")
@click.option("--general", metavar="FILE", help="General text: a file of lines or with a column `text`.")
@click.option("--seed", type=int, default=42, metavar="INTEGER", help="Which rows are taken. [42]")
@json_option("Print JSON.")
def command(run: str, rows: int, general: str | None, seed: int, as_json: bool) -> None:
    """Show what tuning changed inside the model, layer by layer.

    How far the weights moved; how much of the geometry of task rows and of general text is left (CKA against the
    base model); whether attention became narrower; at which layer the answer is made; and which texts moved most.
    The record goes into the run folder, and `tunewell report RUN` draws it.
    """
    from tqdm import tqdm

    from tunewell.stages.drift import drift_of

    with tqdm(file=sys.stderr, leave=False, disable=not show_progress(), bar_format="{desc} {elapsed}") as bar:
        found = drift_of(run, rows=rows, general=general, seed=seed, watch=bar.set_description_str)
    if as_json:
        show_json(found)
        return
    from tunewell.explain.show_drift import lines_of

    click.echo("\n".join(lines_of(found)))
    say(f"\nin {run}/drift.json; tunewell report {run} draws it")
