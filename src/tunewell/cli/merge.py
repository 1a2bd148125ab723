"""`tunewell merge`: several runs' models made into one, without training."""

from __future__ import annotations

import click

from tunewell.cli.as_json import SUMMARY, json_option, show_json, summary_of
from tunewell.cli.base import Command, command_line, say, show_progress
from tunewell.errors import RecipeError

_EXAMPLES = (
    "tunewell merge runs/a runs/b runs/c --output_dir runs/soup",
    "tunewell merge runs/a runs/b --method ties --density 0.2 --scale 0.5,1 --output_dir runs/ties",
)


def _numbers(key: str, text: str | None) -> list[float] | None:
    """`0.5,1` as numbers."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(
            f"`{key}: {text}`", where=key, expected="numbers with commas between, such as 0.5,1"
        ) from None


@click.command("merge", cls=Command, examples=_EXAMPLES)
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN ...")
@click.option(
    "--method",
    default="soup",
    metavar="NAME",
    help="soup, greedy, task_arithmetic, ties, dare, dare_ties, lines. Default: soup, the mean of all.",
)
@click.option("--output_dir", "--output", required=True, metavar="TEXT", help="Folder of the merged run.")
@click.option("--weights", metavar="NUMBERS", help="One for each run, such as 0.7,0.3; by default all alike.")
@click.option("--scale", metavar="NUMBERS", help="Factors of the merged change, chosen among on validation.")
@click.option("--density", type=float, default=0.5, metavar="NUMBER", help="Share of entries kept by ties and dare.")
@click.option("--seed", type=int, default=42, metavar="NUMBER", help="Seed of what dare drops.")
@click.option("--overwrite_output_dir", is_flag=True, help="Start afresh in a folder that holds another run.")
@json_option(SUMMARY)
def command(
    runs: tuple[str, ...],
    method: str,
    output_dir: str,
    weights: str | None,
    scale: str | None,
    density: float,
    seed: int,
    overwrite_output_dir: bool,
    as_json: bool,
) -> None:
    """Make one model of the models of several runs, and measure it as every run is measured.

    RUN RUN ... are finished runs of one base model and one task. Data, budget and probes are those of the first;
    rows that it is tested on must not have been learned by the others. Nothing is trained.
    """
    from tunewell.cli.show import merged_table
    from tunewell.merging.runs import merge

    merged = merge(
        runs,
        method=method,
        output_dir=output_dir,
        weights=_numbers("weights", weights),
        scales=_numbers("scale", scale),
        density=density,
        seed=seed,
        overwrite=overwrite_output_dir,
        echo=say,
        progress=show_progress(),
        command=command_line(),
    )
    if as_json:
        show_json(summary_of(merged))
    else:
        click.echo(merged_table(merged))
