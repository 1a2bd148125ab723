"""Small tuned folders: classes (some labels turned round), several labels a row, scores."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Tuned:
    """A tuned folder, its training file, and the rows (counted from 1) whose labels were turned round."""

    run: Path
    train: Path
    wrong: frozenset[int]


def tuned(tiny_model: Path, folder: Path, train: Path, **keys: Any) -> Path:
    from tunewell.recipe_file import load_recipe
    from tunewell.run import tune_only

    tune_only(
        load_recipe(
            train=str(train),
            model=str(tiny_model),
            output_dir=str(folder),
            early_stopping_patience=0,
            learning_rate=2e-3,
            head_rate_factor=1.0,
            per_device_train_batch_size=16,
            bf16=False,
            threads=1,
            seed=7,
            **{"num_train_epochs": 10, **keys},
        ),
        echo=lambda line: None,
        progress=False,
    )
    return folder


@pytest.fixture(scope="session")
def classes(tiny_model: Path, make_reviews, save_csv, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """240 reviews with a column `id`, 24 labels turned round, split by the run itself."""
    folder = tmp_path_factory.mktemp("classes")
    rows = make_reviews(240)
    wrong = frozenset(random.Random(5).sample(range(1, 241), 24))
    turned = {"negative": "positive", "positive": "negative"}
    cells = [(f"r{i}", text, turned[label] if i in wrong else label) for i, (text, label) in enumerate(rows, start=1)]
    train = save_csv(folder / "reviews.csv", cells, ("id", "text", "label"))
    return Tuned(tuned(tiny_model, folder / "run", train), train, wrong)


@pytest.fixture(scope="session")
def several(tiny_model: Path, make_reviews, save_csv, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """160 rows with labels `good` and `short` in any combination; 12 rows have `good` turned round."""
    folder = tmp_path_factory.mktemp("several")
    wrong = frozenset(random.Random(6).sample(range(1, 161), 12))
    cells = []
    for i, (text, mood) in enumerate(make_reviews(160), start=1):
        good = (mood == "positive") != (i in wrong)
        cells.append((text, "|".join(n for n, y in (("good", good), ("short", len(text.split()) < 6)) if y) or "none"))
    train = save_csv(folder / "rows.csv", cells, ("text", "label"))
    return Tuned(
        tuned(tiny_model, folder / "run", train, multi_label=True, label_separator="|", num_train_epochs=20),
        train,
        wrong,
    )


@pytest.fixture(scope="session")
def scores(tiny_model: Path, make_reviews, save_csv, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """160 rows scored 1 or 4 with some noise; 8 rows have the score of the other kind."""
    folder = tmp_path_factory.mktemp("scores")
    rng, wrong = random.Random(7), frozenset(random.Random(8).sample(range(1, 161), 8))
    cells = []
    for i, (text, mood) in enumerate(make_reviews(160), start=1):
        high = (mood == "positive") != (i in wrong)
        cells.append((text, f"{(4 if high else 1) + rng.uniform(-0.3, 0.3):.3f}"))
    train = save_csv(folder / "scores.csv", cells, ("text", "score"))
    return Tuned(tuned(tiny_model, folder / "run", train, label=["score"], task="text-regression"), train, wrong)
