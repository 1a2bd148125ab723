"""`tunewell prune`: which training rows are worth tuning on."""

from __future__ import annotations

from typing import Any

import click

from tunewell.cli.as_json import json_option, show_json
from tunewell.cli.base import Command, command_line, say, show_progress
from tunewell.cli.options import given, recipe_options

_EXAMPLES = (
    "tunewell prune reviews.csv -o kept.csv --keep_share 0.5 --test test.csv",
    "tunewell prune reviews.csv -o kept.csv --method el2n --tunings 3 --num_train_epochs 4",
    "tunewell prune runs/reviews -o kept.csv --method ambiguous --splits",
    "tunewell prune pool.jsonl -o kept.jsonl --method less --target_rows few.jsonl --keep_share 0.05",
)
_WITHOUT = (
    *("question", "context", "answers"),
    *("train", "strategy", "keep", "keep_worst", "monitor", "probes", "probe_files", "strict", "explain", "calibrate"),
    "early_stopping_patience",
    *("duplicates", "validation_size", "test_size", "framework", "classify_by", "seeds", "augment", "augment_factor"),
    *("augment_share", "augment_agree", "augment_similar", "augment_mlm", "augment_translators"),
)
_OF_ANSWERS = (
    "overlength", "max_target_length", "source_prefix", "source_lang", "target_lang", "lora_rank", "lora_alpha",
    "lora_targets", "lora_rate_factor",
)  # fmt: skip
_OWN = (
    "keep_share", "method", "balance", "duplicates", "tunings", "splits", "overwrite", "target_rows", "subtask",
    "warm_share",
)  # fmt: skip


@click.command("prune", cls=Command, examples=_EXAMPLES)
@click.argument("rows", metavar="DATA_OR_RUN")
@click.option("-o", "--output", required=True, metavar="FILE", help="Where to: .csv, .tsv or .jsonl.")
@click.option("--keep_share", type=float, default=0.5, metavar="NUMBER", help="Share of the rows to keep. [0.5]")
@click.option(
    "--method", default="auto", metavar="TEXT",
    help="el2n, forgetting, ambiguous, easy, hard, random, or auto: what a quick probe learns best from. Of written "
    "answers: less, ifd, perplexity, random. [auto]",
)  # fmt: skip
@click.option(
    "--target_rows", metavar="FILE",
    help="Of written answers: a few rows of what is wanted; rows are kept whose gradients serve them (less).",
)  # fmt: skip
@click.option("--subtask", metavar="TEXT", help="Column of the target rows that names subtasks.")
@click.option(
    "--warm_share", type=float, default=0.05, metavar="NUMBER",
    help="Share of the pool that adapters are tuned on before gradients are taken (less). [0.05]",
)  # fmt: skip
@click.option(
    "--balance", default="share", metavar="TEXT",
    help="share: the same share of each class; equal: as many of each; none: classes do not count. [share]",
)  # fmt: skip
@click.option(
    "--duplicates", default="near", metavar="TEXT",
    help="Leave out near or exact duplicates of a row with the same label, or keep them. [near]",
)  # fmt: skip
@click.option("--tunings", type=int, default=1, metavar="INTEGER", help="Seeds that scores are averaged over. [1]")
@click.option("--splits", is_flag=True, help="Of a run: also write its validation and test rows beside the output.")
@click.option("--train", metavar="FILE", help="Of a run: where its training file is now, if it was moved.")
@click.option("--overwrite", is_flag=True, help="Write over an output file that is there already.")
@json_option("Print the record as JSON.")
@recipe_options(("data", "model", "training", "output"), without=_WITHOUT)
@recipe_options(("answers", "strategies"), only=_OF_ANSWERS)
def command(rows: str, output: str, as_json: bool, **keys: Any) -> None:
    """Keep the training rows that are worth tuning on, by what a tuning thought of each.

    DATA_OR_RUN is a labelled file, all rows of which are tuned on for a few epochs and scored; or a finished run,
    whose training rows are scored by what it recorded, without tuning. The kept rows go to a file with their scores
    and their row numbers; a page shows the data map. Score a model tuned on them with test rows of their own: that is
    what --test is for, whose texts are never kept.
    """
    from tunewell.prune.run import prune

    own = {k: keys.pop(k) for k in _OWN}
    done = prune(rows, output, **own, echo=say, progress=show_progress(), command=command_line(), **given(keys))
    if as_json:
        show_json(done.record)
        return
    record = done.record
    click.echo(f"{output}: {record.kept:,} of {record.rows:,} rows, by {record.method}")
    click.echo(f"{'data map' if hasattr(record, 'points') else 'page'}: {done.page}")
    click.echo(f"next: {record.command}")


__all__ = ["command"]
