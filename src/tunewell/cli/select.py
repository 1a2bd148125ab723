"""`tunewell select`: which rows to label next."""

from __future__ import annotations

from typing import Any

import click

from tunewell.cli.as_json import WRITTEN, json_option, show_json
from tunewell.cli.base import Command, say

_EXAMPLES = (
    "tunewell select pool.csv --n 50",
    "tunewell select pool.csv --labelled to-label.csv --n 100 -o next.csv",
    "tunewell select pool.csv --run runs/reviews --method badge -o next.json --format label_studio",
)
_METHODS = ("auto", "random", "entropy", "margin", "least_confidence", "diverse_margin", "bald", "badge", "cal",
            "coreset", "kmeans", "typiclust")  # fmt: skip


@click.command("select", cls=Command, examples=_EXAMPLES)
@click.argument("pool")
@click.option("--n", type=click.IntRange(1), default=100, metavar="INTEGER", help="Rows to choose. [100]")
@click.option("-o", "--output", default="to-label.csv", metavar="FILE", help="Where to. [to-label.csv]")
@click.option(
    "--format", "format_", type=click.Choice(["csv", "jsonl", "label_studio", "argilla"]), help="By the ending of -o."
)
@click.option(
    "--labelled", multiple=True, metavar="FILE", help="Labels so far; repeatable. Files of this command, too."
)
@click.option("--run", metavar="RUN", help="A tuned model that says what it is unsure of.")
@click.option("--model", metavar="TEXT", help="Base model of embeddings where there is no RUN. [all-MiniLM-L6-v2]")
@click.option("--method", default="auto", metavar="TEXT", help="; ".join(("auto", *_METHODS[1:])) + ". [auto]")
@click.option("--text", metavar="TEXT", help="Column with the text; inferred when missing.")
@click.option("--label", metavar="TEXT", help="Column with the label in the files of --labelled.")
@click.option("--test", metavar="FILE", help="The test file: a pool that shares texts with it is refused.")
@click.option("--encoding", default="auto", metavar="TEXT", help="Character encoding of text files. [auto]")
@click.option("--seed", type=click.IntRange(0), default=42, metavar="INTEGER", help="Of all that is random. [42]")
@click.option("--overwrite", is_flag=True, help="Write over an output file that is there already.")
@json_option(WRITTEN)
def command(output: str, format_: str | None, model: str | None, overwrite: bool, as_json: bool, **keys: Any) -> None:
    """Choose the rows of a pool whose labels would teach the most; write them to be labelled.

    POOL is a data file with texts. The output has an empty column `label`: fill it in with a spreadsheet,
    with `tunewell label`, Label Studio or Argilla, then give the file (or the export) back with --labelled
    for the next round. Rows that are labelled already, and copies, are not chosen.
    """
    from pathlib import Path

    from tunewell.cli.show import printable, table
    from tunewell.errors import DataError
    from tunewell.selection.run import select
    from tunewell.selection.write import format_for, write_selection

    wanted = format_for(output, format_.replace("_", "-") if format_ else None)
    if Path(output).exists() and not overwrite:
        raise DataError(
            "is there already, and may hold labels",
            where=output,
            expected="a new file",
            remedy="name another with -o, or --overwrite",
        )
    if model:
        keys["model"] = model
    chosen = select(echo=say, **keys)
    write_selection(output, chosen.rows, format=wanted, labels=chosen.labels)
    if as_json:
        account = {"output": output, "format": wanted, "rows": len(chosen.rows), "pool": chosen.pool}
        account |= {"method": chosen.method, "labels": chosen.labels, "left_out": chosen.left_out}
        show_json(account | {"advice": None if chosen.advice is None else chosen.advice.sentence()})
        return
    rows = [["", "row", "prediction", "p", "text"]]
    for r in chosen.rows[:8]:
        p = "" if r["probability"] is None else f"{r['probability']:.2f}"
        rows.append([str(r["rank"]), str(r["row"]), r["prediction"] or "", p, printable(r["text"])[:70]])
    click.echo(table(rows, right=(0, 1, 3)))
    for reason, count in chosen.left_out.items():
        click.echo(f"left out: {count:,} {reason}")
    click.echo(f"{len(chosen.rows):,} of {chosen.pool:,} rows by {chosen.method}: {output}")
    if chosen.advice is not None:
        click.echo(chosen.advice.sentence())
    flags = " ".join(f"--labelled {f}" for f in (*keys["labelled"], output))
    click.echo(f"fill in `label`, then: tunewell select {keys['pool']} {flags} -o next.csv")


__all__ = ["command"]
