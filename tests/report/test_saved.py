"""The command that tells what a run has saved in labels: a curve by the run's own recipe, at the run's own folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from tunewell.cli import curve
from tunewell.cli.options import recipe_from
from tunewell.curve.run import _check
from tunewell.recipe import Recipe
from tunewell.recipe_file import load_recipe
from tunewell.report.saved import curve_command

SET: tuple[dict[str, Any], ...] = (
    {
        "task": "text-classification", "text": "review", "label": ["stars"], "test": "my test.csv", "group": "who",
        "num_train_epochs": 10, "learning_rate": 1e-4, "max_length": 64, "strategy": ["l2sp", "llrd"],
        "l2sp_weight": 0.5, "llrd_decay": 0.8, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2,
        "class_weight": "balanced", "loss": "focal", "focal_gamma": 1.5, "warmup_ratio": 0.2, "bf16": False,
        "weight_decay": 0.1, "seed": 7, "early_stopping_patience": 2, "metric": "accuracy", "multi_label": False,
    },
    {"task": "text-regression", "label": ["score"], "max_steps": 200, "optim": "prodigy", "model": "splade-tiny"},
    {
        "task": "sentiment", "polarity": {"<3": "bad", "3": "middling", "4..5": "good"}, "strategy": ["prompt"],
        "verbaliser": {"bad": ["awful", "poor"], "middling": ["fine"], "good": ["great"]}, "pattern": "{text} [MASK]",
    },
    {"strategy": ["lora"], "lora_rank": 4, "lora_targets": ["query", "value"], "threads": 2, "guard": "off"},
)  # fmt: skip
REFUSED: tuple[dict[str, Any], ...] = (
    {"unlabelled": "pool.csv", "unlabelled_methods": ["self_training"], "unlabelled_rounds": 3},
    {"augment": ["swap"], "augment_share": 0.2, "augment_factor": 2},
    {"keep": 0.98, "monitor": "rollback", "output_dir": "runs/a", "overwrite_output_dir": True, "explain": False},
    {"keep_worst": 0.9, "strategy": ["auto"], "max_cost": 3.0, "seeds": 3},
    {"strategy": ["average"], "keep": 0.9, "average_alphas": [0.5]},
)


def curved(recipe: Recipe, run: str) -> tuple[Recipe, dict[str, Any]]:
    """What `tunewell curve` makes of the command, as it reads what was typed."""
    typed = curve.command.make_context(
        "curve", shlex.split(curve_command(recipe.model_dump(exclude_unset=True), run))[2:]
    ).params
    own = ("data", "sizes", "repeats", "by", "target", "more", "runs", "cost_per_label", "labels_per_hour", "as_json")
    keys = {k: v for k, v in typed.items() if k not in (*own, "jobs", "ray")}
    return recipe_from(None, keys, train=typed["data"]), typed


@pytest.mark.parametrize("keys", SET)
def test_the_curve_is_tuned_as_the_run_was(keys: dict[str, Any]) -> None:
    recipe = load_recipe(None, train="few rows.csv", **keys)
    found, typed = curved(recipe, "runs/my run")
    assert found.model_dump() == recipe.model_dump()
    assert list(typed["runs"]) == ["runs/my run"]


@pytest.mark.parametrize("keys", REFUSED)
def test_what_a_curve_refuses_is_left_out(keys: dict[str, Any]) -> None:
    rest = {"train": "few.csv", "validation": "val.csv", "learning_rate": 2e-4, "label": ["stars"]}
    found, _ = curved(load_recipe(None, **rest, **keys), "runs/a")
    assert found.model_dump() == load_recipe(None, **rest).model_dump()
    _check(found, 1, None, None, ())


def test_what_is_left_of_a_strategy() -> None:
    assert "--strategy lora " in curve_command({"train": "a.csv", "strategy": ["lora", "average"]}, "r")
    assert "--strategy" not in curve_command({"train": "a.csv", "strategy": "auto"}, "r")


def test_the_report_names_the_run_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by its folder's name alone, which is another folder to who stands elsewhere."""
    from types import SimpleNamespace

    from tunewell.report.build import _curve

    summary = SimpleNamespace(task="text-classification", unlabelled={"method": "uda"}, augment=None)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    for folder, told in ((Path("runs/a"), "runs/a"), (tmp_path / "runs" / "a", str(tmp_path / "runs" / "a"))):
        monkeypatch.chdir(tmp_path)
        records: Any = SimpleNamespace(summary=summary, recipe={"train": "few.csv"}, folder=folder)
        assert _curve(records) == f"tunewell curve few.csv --runs {told}"
    monkeypatch.chdir(tmp_path / "runs" / "a")
    records.folder = Path(".")
    assert _curve(records) == f"tunewell curve few.csv --runs {tmp_path / 'runs' / 'a'}"
