"""Small tasks and a way to run them in a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LABELS = {
    "mood": ("negative", "positive"),
    "tone": ("neutral", "positive"),
    "kind": ("negative", "neutral", "positive"),
}


@pytest.fixture
def tasks(tmp_path: Path, make_reviews, save_csv) -> list[dict[str, Any]]:
    """Three tasks of 60 training and 24 test rows; the labels can be learnt."""
    made = []
    for seed, (name, labels) in enumerate(LABELS.items()):
        rows = make_reviews(84, labels, seed=seed)
        files = {"train": save_csv(tmp_path / f"{name}.csv", rows[:60])}
        files["test"] = save_csv(tmp_path / f"{name}_test.csv", rows[60:])
        made.append({"name": name, **{k: str(v) for k, v in files.items()}, "text": "text", "label": "label"})
    return made


@pytest.fixture
def keys(tiny_model: Path, tmp_path: Path, make_reviews) -> dict[str, Any]:
    """Keys of a quick sequence on the tiny model."""
    general = tmp_path / "general.txt"
    general.write_text("\n".join(t for t, _ in make_reviews(32, ("neutral",), seed=9)), encoding="utf-8")
    return {
        "model": str(tiny_model), "probes": "none", "general_text": str(general), "bf16": False, "threads": 1,
        "learning_rate": 2e-3, "num_train_epochs": 2, "memory": 0.1, "output_dir": str(tmp_path / "out"),
    }  # fmt: skip


@pytest.fixture
def go(tasks, keys) -> Callable[..., Any]:
    """Run the tasks in a row; keyword arguments take precedence."""
    from tunewell.sequence.run import run_sequence

    def call(**over: Any) -> Any:
        own = {"echo": lambda line: None, **{k: over.pop(k) for k in ("jobs", "ray", "echo") if k in over}}
        return run_sequence({**keys, "tasks": tasks, **over}, progress=False, **own)

    return call
