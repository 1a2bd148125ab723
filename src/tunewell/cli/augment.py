"""`tunewell augment`: changed copies of training rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tunewell.cli.as_json import WRITTEN, json_option, show_json
from tunewell.cli.base import Command, say

_EXAMPLES = (
    "tunewell augment reviews.csv -o more.csv",
    "tunewell augment reviews.csv -o more.csv --operations masked --copies 2 --similar 0.7",
    "tunewell augment reviews.csv -o more.csv --operations backtranslate --agree --similar 0.7",
    "tunewell augment reviews.csv -o more.csv --only neutral --copies 4 --test test.csv",
)


@click.command("augment", cls=Command, examples=_EXAMPLES)
@click.argument("data")
@click.option("-o", "--output", required=True, metavar="FILE", help="Where to: .csv or .jsonl.")
@click.option(
    "--operations", multiple=True, metavar="LIST",
    help="swap, delete, keyboard, ocr, case, masked, backtranslate, or auto; taken in turn. [swap,delete,keyboard]",
)  # fmt: skip
@click.option("--copies", type=int, default=1, metavar="INTEGER", help="Changed copies of each row. [1]")
@click.option("--share", type=float, default=0.1, metavar="NUMBER", help="Share of a text's words to change. [0.1]")
@click.option("--only", multiple=True, metavar="LIST", help="Classes to augment. [all]")
@click.option("--text", metavar="TEXT", help="Column with the text; inferred when missing.")
@click.option("--label", metavar="TEXT", help="Column with the label; inferred when missing.")
@click.option(
    "--mlm", default="splade-tiny", metavar="TEXT", help="Model that proposes words for `masked`. [splade-tiny]"
)
@click.option(
    "--translators", multiple=True, metavar="LIST",
    help="Models of `backtranslate`, there and back. [bergamot-en-pt,bergamot-pt-en]",
)  # fmt: skip
@click.option(
    "--similar", type=float, default=0.0, metavar="NUMBER", help="Least cosine to the original's embedding. [0]"
)
@click.option(
    "--model", default="all-MiniLM-L6-v2", metavar="TEXT", help="Model of these embeddings. [all-MiniLM-L6-v2]"
)
@click.option(
    "--agree", is_flag=True, help="Keep only copies to which a linear probe on these embeddings gives the row's label."
)
@click.option("--run", metavar="RUN", help="Keep only copies to which this tuned model gives the row's label.")
@click.option("--test", multiple=True, metavar="FILE", help="No copy may equal a text of this file; repeatable.")
@click.option("--encoding", default="auto", metavar="TEXT", help="Character encoding of text files. [auto]")
@click.option("--seed", type=click.IntRange(0), default=42, metavar="INTEGER", help="Of all that is random. [42]")
@click.option("--overwrite", is_flag=True, help="Write over an output file that is there already.")
@json_option(WRITTEN)
def command(data: str, output: str, overwrite: bool, as_json: bool, **keys: Any) -> None:
    """Write training rows and changed copies of them to a new file.

    Each copy says by what it was made and from which row. Negations and numbers are never touched; Chinese is
    changed letter by letter. Augment training rows only, after test rows are split off: a copy of a test row
    in the training rows would make the test worth nothing (--test watches over that). Whether it helps is
    for `tunewell run --augment` to say, which makes the copies itself and tunes with and without.
    """
    from tunewell.augment.run import augment
    from tunewell.errors import DataError
    from tunewell.selection.write import write_table

    if Path(output).suffix.lower() not in (".csv", ".jsonl"):
        raise DataError("cannot tell the format", where=output, expected=".csv or .jsonl")
    if Path(output).exists() and not overwrite:
        raise DataError("is there already", where=output, expected="a new file", remedy="or --overwrite")
    for name in ("operations", "only", "translators"):
        parts = [part.strip() for cell in keys[name] for part in cell.split(",") if part.strip()]
        keys[name] = parts
    for name in ("operations", "translators"):
        if not keys[name]:
            del keys[name]
    done = augment(data, echo=say, **keys)
    write_table(output, done.rows)
    originals = sum(not r["augmented_by"] for r in done.rows)
    if as_json:
        copies = len(done.rows) - originals
        show_json({"output": output, "rows": originals, "copies": copies, "left_out": done.left_out})
        return
    click.echo(f"{output}: {originals:,} rows and {len(done.rows) - originals:,} changed copies")
    for reason, count in done.left_out.items():
        click.echo(f"left out: {count:,} {reason}")
    for row in [r for r in done.rows if r["augmented_by"]][:3]:
        click.echo(
            f"  {row['augmented_by']:<9} of row {row['augmented_from']}: {json.dumps(_first(row), ensure_ascii=False)}"
        )


def _first(row: dict[str, Any]) -> str:
    texts = [v for k, v in row.items() if isinstance(v, str) and k != "augmented_by"]
    return max(texts, key=len, default="")[:90]


__all__ = ["command"]
