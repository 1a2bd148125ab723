"""`tunewell evaluate`: the metrics of a tuned model on a file, or on sets of several domains side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tunewell.cli.as_json import json_option, json_text
from tunewell.cli.base import Command, say

if TYPE_CHECKING:
    from tunewell.evaluate.shift import DomainShift

_EXAMPLES = (
    "tunewell evaluate runs/reviews",
    "tunewell evaluate runs/reviews new.csv",
    "tunewell evaluate path/to/model new.csv --text review --label stars --json",
    "tunewell evaluate runs/tweets --data amazon.csv --data news.csv",
)
_SHOWN = ("accuracy", "mae", "quadratic_kappa", "spearman", "exact_match")  # beside the headline metric


@click.command("evaluate", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.argument("data", required=False)
@click.option("--data", "sets", metavar="FILE", multiple=True, help="A further set, for a table; give it once a set.")
@click.option("--text", metavar="TEXT", help="Column with the text; by default the one the run was tuned on.")
@click.option("--text_pair", metavar="TEXT", help="Column with the second text.")
@click.option("--label", metavar="LIST", multiple=True, help="Column with the label; several for multi-label.")
@click.option("--polarity", metavar="TEXT", help="Of sentiment: which labels are which class (`<3=negative,...`).")
@click.option("--encoding", default="auto", metavar="TEXT", help="Character encoding of a text file. [auto]")
@click.option("--seed", type=int, default=42, metavar="INTEGER", help="Seed of the bootstrap. [42]")
@click.option("--task_name", metavar="TEXT", help="Which task of a sequence; needed where RUN has several.")
@json_option("Print the record as JSON.")
def command(
    run: str,
    data: str | None,
    sets: tuple[str, ...],
    text: str | None,
    text_pair: str | None,
    label: tuple[str, ...],
    polarity: str | None,
    encoding: str,
    seed: int,
    task_name: str | None,
    as_json: bool,
) -> None:
    """Measure a tuned model on a file, each metric with its 95 % interval.

    RUN is a run folder, a sequence folder (with --task_name) or a plain Transformers classification
    folder. Without DATA: what the run measured on its own test rows. With --data, once for each set: a
    table of all of them, and how far each lies below the run's own test rows.
    """
    from tunewell.cli.options import given
    from tunewell.cli.show import evaluation_table
    from tunewell.evaluate.shift import domain_shift
    from tunewell.run import evaluate_run

    options: dict[str, Any] = {"text": text, "text_pair": text_pair, "label": given({"label": label}).get("label")}
    options |= {"encoding": encoding, "seed": seed, "task_name": task_name, "polarity": _polarity(polarity)}
    if sets:
        shift = domain_shift(run, [*([data] if data else []), *sets], echo=say, **options)
        click.echo(json_text(shift) if as_json else shift_table(shift))
        return
    result = evaluate_run(run, data, echo=say, **options)
    click.echo(json_text(result) if as_json else evaluation_table(result))


def _polarity(value: str | None) -> Any:
    from tunewell.errors import RecipeError
    from tunewell.tasks.polarity import parse

    try:
        return None if value is None else parse(value)
    except ValueError as error:
        raise RecipeError(str(error), where=f"--polarity {value}") from None


def shift_table(shift: DomainShift) -> str:
    """One line a set: n, the headline metric with its interval, the drop with its interval, other metrics."""
    from tunewell.cli.show import DASH, interval, number, table

    others = [name for name in _SHOWN if name != shift.metric and name in shift.rows[0].metrics]
    head = ["", "rows", shift.metric, "95 % interval", "drop", "95 % interval", *others]
    rows = [head]
    for row in shift.rows:
        drop = [DASH, DASH] if row.drop is None else [number(row.drop.value), interval(row.drop)]
        measured = row.metrics[shift.metric]
        rest = [number(row.metrics[name].value) for name in others]
        rows.append([row.data, f"{row.n:,}", number(measured.value), interval(measured), *drop, *rest])
    return "\n".join(
        [
            f"{shift.run}: {shift.metric} on several sets",
            table(rows, right=(1, 2, 4, *range(6, 6 + len(others)))),
            "drop: own test rows - this set; an interval above 0 says that the set is harder beyond chance",
        ]
    )
