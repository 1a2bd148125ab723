"""What texts without labels or copies have saved in labels: one run cannot tell, and says what can.

A gain in points is measured in the run; that it equals plain tuning with N labels takes tunings with other numbers of
labels. So a run in which such a method is used names the command that puts it on a learning curve (`tunewell curve
--runs`), and no number.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from tunewell.recipe import Recipe
from tunewell.results import Summary

KEYS = (
    "text", "text_pair", "label", "group", "multi_label", "label_separator", "encoding", "duplicates", "validation",
    "validation_size", "test", "test_size", "max_train_samples", "model", "metric", "seed",
)  # fmt: skip
CURVED = ("text-classification", "text-regression")  # what a curve is drawn for


def made_more(summary: Summary) -> bool:
    """Whether a run's model has learned from texts without labels, or from copies."""
    if summary.task not in CURVED:
        return False
    unlabelled, augment = summary.unlabelled or {}, summary.augment or {}
    return bool(unlabelled.get("method") or augment.get("helps"))


def curve_command(recipe: Mapping[str, Any], run: str) -> str:
    """The command that puts a run on the curve of its own rows, tuned plainly.

    Args:
        recipe: keys of the run's recipe. run: its folder.

    >>> recipe = {"train": "few.csv", "test": "my test.csv", "label": ["stars"], "unlabelled": "pool.csv"}
    >>> curve_command(recipe, "runs/a")
    "tunewell curve few.csv --label stars --test 'my test.csv' --runs runs/a"
    """
    words = ["tunewell", "curve", str(recipe.get("train"))]
    for key in KEYS:
        value = recipe.get(key)
        if value is None or value == Recipe.model_fields[key].default:
            continue
        if isinstance(value, bool):
            words.append(f"--{key}" if value else f"--no-{key}")
        else:
            words += [f"--{key}", ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]
    return shlex.join([*words, "--runs", run])
