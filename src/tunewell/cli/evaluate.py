"""`tunewell evaluate`: the metrics of a tuned model on a file."""

from __future__ import annotations

import click

from tunewell.cli.base import Command

_EXAMPLES = (
    "tunewell evaluate runs/reviews",
    "tunewell evaluate runs/reviews new.csv",
    "tunewell evaluate path/to/model new.csv --text review --label stars --json",
)


@click.command("evaluate", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.argument("data", required=False)
@click.option("--text", metavar="TEXT", help="Column with the text; by default the one the run was tuned on.")
@click.option("--text_pair", metavar="TEXT", help="Column with the second text.")
@click.option("--label", metavar="LIST", multiple=True, help="Column with the label; several for multi-label.")
@click.option("--encoding", default="auto", metavar="TEXT", help="Character encoding of a text file. [auto]")
@click.option("--seed", type=int, default=42, metavar="INTEGER", help="Seed of the bootstrap. [42]")
@click.option("--task_name", metavar="TEXT", help="Which task of a sequence; needed where RUN has several.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def command(
    run: str,
    data: str | None,
    text: str | None,
    text_pair: str | None,
    label: tuple[str, ...],
    encoding: str,
    seed: int,
    task_name: str | None,
    as_json: bool,
) -> None:
    """Measure a tuned model on a file, each metric with its 95 % interval.

    RUN is a run folder, a sequence folder (with --task_name) or a plain Transformers classification
    folder. Without DATA: what the run measured on its own test rows.
    """
    from tunewell.cli.options import given
    from tunewell.cli.show import evaluation_table
    from tunewell.run import evaluate_run

    labels = given({"label": label}).get("label")
    columns = {"text": text, "text_pair": text_pair, "label": labels}
    result = evaluate_run(run, data, **columns, encoding=encoding, seed=seed, task_name=task_name)
    click.echo(result.model_dump_json(indent=1) if as_json else evaluation_table(result))
