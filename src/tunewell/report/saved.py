"""What texts without labels or copies have saved in labels: one run cannot tell, and says what can.

A gain in points is measured in the run; that it equals plain tuning with N labels takes tunings with other numbers of
labels. So a run in which such a method is used names the command that puts it on a learning curve (`tunewell curve
--runs`), and no number.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from tunewell.recipe import SECTIONS, Recipe, keys_of
from tunewell.results import Summary

LEFT_OUT = {  # keys that a curve refuses, or that say nothing of what a row teaches
    "train", "augment", "keep", "keep_worst", "probes", "probe_files", "monitor", "average_alphas",
    "max_cost", "strict", "seeds", "source", "target",
}  # fmt: skip
SEARCHED = ("auto", "average")  # strategies that a curve refuses
CURVED = ("text-classification", "text-regression")  # what a curve is drawn for


def made_more(summary: Summary) -> bool:
    """Whether a run's model has learned from texts without labels, or from copies."""
    if summary.task not in CURVED:
        return False
    unlabelled, augment = summary.unlabelled or {}, summary.augment or {}
    return bool(unlabelled.get("method") or augment.get("helps"))


def curve_command(recipe: Mapping[str, Any], run: str) -> str:
    """The command that puts a run on the curve of its own rows, tuned by the same recipe without what is to be valued.

    Args:
        recipe: keys of the run's recipe. run: its folder, as the command is to find it.

    >>> recipe = {"train": "few.csv", "test": "my test.csv", "num_train_epochs": 9, "unlabelled": "pool.csv"}
    >>> curve_command(recipe, "runs/a")
    "tunewell curve few.csv --test 'my test.csv' --num_train_epochs 9 --runs runs/a"
    """
    words = ["tunewell", "curve", str(recipe.get("train"))]
    for key in _passed():
        value = recipe.get(key)
        if key == "strategy" and value is not None:
            value = [s for s in ([value] if isinstance(value, str) else value) if s not in SEARCHED] or None
        if value is None or value == Recipe.model_fields[key].default:
            continue
        if isinstance(value, bool):
            words.append(f"--{key}" if value else f"--no-{key}")
        else:
            words += [f"--{key}", _typed(value)]
    return shlex.join([*words, "--runs", run])


def _passed() -> list[str]:
    """Keys that a curve takes, in the recipe's order."""
    keys = [k for section in SECTIONS if section not in ("unlabelled", "output") for k in keys_of(section)]
    return [k for k in keys if k not in LEFT_OUT and not k.startswith("augment_")]


def _typed(value: Any) -> str:
    """A value as it is typed on a command line.

    >>> _typed(["a", "b"]), _typed({"good": ["great", "fine"], "bad": ["awful"]}), _typed(1e-05)
    ('a,b', 'good=great|fine,bad=awful', '1e-05')
    """
    if isinstance(value, Mapping):
        cells = {k: "|".join(map(str, v)) if isinstance(v, list | tuple) else v for k, v in value.items()}
        return ",".join(f"{k}={v}" for k, v in cells.items())
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
