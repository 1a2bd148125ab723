"""`tunewell probe`: what a model knows, without tuning anything."""

from __future__ import annotations

import click

from tunewell.cli.as_json import json_option, json_text, show_json
from tunewell.cli.base import Command, say

_EXAMPLES = (
    "tunewell probe all-MiniLM-L6-v2",
    "tunewell probe all-MiniLM-L6-v2 runs/reviews",
    "tunewell probe all-MiniLM-L6-v2 path/to/model --probe_files my-pairs.csv --json",
)


@click.command("probe", cls=Command, examples=_EXAMPLES)
@click.argument("model")
@click.argument("model2", required=False)
@click.option("--probes", multiple=True, metavar="LIST", help="Probes by name; `auto` takes all that fit. [auto]")
@click.option("--probe_files", multiple=True, metavar="LIST", help="Your own: text_a, text_b, score or text, label.")
@click.option("--half", type=click.Choice(["report", "select"]), default="report", help="Half of each probe. [report]")
@click.option("--seed", type=int, default=42, metavar="INTEGER", help="Seed of samples and bootstrap. [42]")
@json_option("Print the records as JSON.")
def command(
    model: str,
    model2: str | None,
    probes: tuple[str, ...],
    probe_files: tuple[str, ...],
    half: str,
    seed: int,
    as_json: bool,
) -> None:
    """Measure what a model knows, or what a second model has lost against the first.

    MODEL is an asset, a folder, a hub id or a run folder. With MODEL2 the first is the base, and each
    probe's retention is shown with its paired interval.
    """
    from tunewell.cli.options import given
    from tunewell.cli.show import probe_table, retention_table
    from tunewell.run import probe_models

    chosen = given({"probes": probes, "probe_files": probe_files})
    result = probe_models([model, *([model2] if model2 else [])], half=half, seed=seed, echo=say, **chosen)
    if model2 is not None:
        click.echo(json_text(result) if as_json else retention_table(result))
        return
    from tunewell.retention.forgetting import compare
    from tunewell.retention.suite import DRIFT

    itself = compare(result, result, seed=seed)  # for the intervals of its own values
    known = [p for p in itself.probes if p.name not in DRIFT]  # drift is defined between two models only
    if as_json:
        rows = [p.model_dump(include={"name", "title", "metric", "chance"}) | p.before.model_dump() for p in known]
        show_json({"model": model, "half": half, "probes": rows})
    else:
        click.echo(probe_table(known))
