"""`tunewell checklist`: does the answer stay, or move, as it should when texts change?"""

from __future__ import annotations

import sys
from typing import Any

import click

from tunewell.cli.as_json import json_option, show_json
from tunewell.cli.base import Command, say, show_progress

_EXAMPLES = (
    "tunewell checklist runs/reviews",
    "tunewell checklist runs/reviews --data new.csv --rows 500",
    "tunewell checklist runs/news --negation same --json",
)


@click.command("checklist", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.option("--data", metavar="FILE", help="Rows to change; by default the run's test rows.")
@click.option("--rows", type=click.IntRange(5), default=200, metavar="INTEGER", help="Rows at the most. [200]")
@click.option(
    "--negation",
    default="auto",
    metavar="NAME",
    help="What a negated text's answer should do: changes or same. auto: changes where labels judge. [auto]",
)
@click.option("--seed", type=int, default=42, metavar="INTEGER", help="Of the changes. [42]")
@json_option("Print JSON.")
def command(run: str, data: str | None, rows: int, negation: str, seed: int, as_json: bool) -> None:
    """Test how answers behave when texts change: typos, case, names, numbers, negation and the like.

    Each test changes the run's own test rows in one way and counts how often the answer does what it should, with a
    95 % interval. The record goes into the run folder.
    """
    from tqdm import tqdm

    from tunewell.cli.show import interval, number, printable, table
    from tunewell.stages.checklist import checklist_of

    some = _rows(run, data) if data else None
    with tqdm(file=sys.stderr, leave=False, disable=not show_progress(), bar_format="{desc} {elapsed}") as bar:
        found = checklist_of(run, some, rows=rows, negation=negation, seed=seed, watch=bar.set_description_str)
    if as_json:
        show_json(found)
        return
    lines = [("test", "answer should", "pass", "95 % interval", "rows")]
    for t in found.tests:
        shown = (number(t.passed.value), interval(t.passed)) if t.passed else ("–", "too few rows to change")
        lines.append((t.name, {"same": "stay", "changes": "move"}[t.expects], *shown, str(t.changed)))
    click.echo(table(lines, right=(2, 4)))
    for t in found.tests:
        if t.failures:
            f = t.failures[0]
            click.echo(f"\n{t.name}, {f.answer_before} → {f.answer_after}:")
            click.echo(printable(f"  {f.before}\n  {f.after}"))
    say(f"\nin {run}/checklist.json")


def _rows(run: str, data: str) -> list[dict[str, Any]]:
    from tunewell.cli.predict import column_of
    from tunewell.data.rows import open_rows
    from tunewell.run import load_run

    predictor = load_run(run).predictor
    out: list[dict[str, Any]] = []
    with open_rows(data) as source:
        column = column_of(source, None, predictor, "text")
        pair = column_of(source, None, predictor, "text_pair") if predictor.pair else None
        for chunk in source:
            texts = chunk.texts(column)
            others = chunk.texts(pair) if pair else [""] * len(texts)
            out += [{"text": t, "text_pair": o} for t, o in zip(texts, others, strict=True) if t.strip()]
    return out
