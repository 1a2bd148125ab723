"""A small tuning that strategies are tried in: the tiny model, 48 reviews at most, 2 epochs of 6 steps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

OPTIONS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "bf16": False,
    "threads": 1,
    "evals_per_epoch": 2,
    "general_samples": 32,
    "early_stopping_patience": 0,
}


@pytest.fixture(scope="session")
def general_file(tmp_path_factory: pytest.TempPathFactory, make_reviews) -> str:
    path = tmp_path_factory.mktemp("general") / "general.txt"
    path.write_text("\n".join(t for t, _ in make_reviews(64, seed=9)), encoding="utf-8")
    return str(path)


@pytest.fixture
def small_job(tiny_model: Path, make_reviews, general_file: str, tmp_path: Path):
    """Call with strategies and recipe keys; gives weights, record, the model itself and the strategies."""

    def run(
        *names: str,
        folder: str = "run",
        callbacks: tuple = (),
        rows: int = 48,
        monitor: Any = None,
        model: Any = None,
        **keys: Any,
    ) -> SimpleNamespace:
        from datasets import Dataset

        from tunewell.models.embed import logits
        from tunewell.models.load import load_classifier, load_tokenizer
        from tunewell.recipe_file import load_recipe
        from tunewell.strategies import strategy_class
        from tunewell.tasks import TaskSpec
        from tunewell.train.tune import tune

        place = str(model or tiny_model)
        spec = TaskSpec("text-classification", ("negative", "positive"))
        data = make_reviews(rows)
        texts, labels = [t for t, _ in data], np.array([int(label == "positive") for _, label in data])
        recipe = load_recipe(strategy=list(names) or ["plain"], **{"general_text": general_file, **OPTIONS, **keys})
        tokenizer = load_tokenizer("tiny", place)
        model = load_classifier(place, spec, seed=recipe.seed)
        base = {k: v.clone() for k, v in model.state_dict().items()}
        strategies = [strategy_class(s)(recipe.model_dump()) for s in recipe.strategies]
        scores: list[float] = []

        def validate(m: Any) -> dict[str, float]:
            scores.append(float(logits(m, tokenizer, texts[:8], max_length=32).std()))
            return {"f1_macro": scores[-1]}

        record = tune(
            model,
            tokenizer,
            spec,
            Dataset.from_dict({"text": texts, "label": labels.tolist()}),
            recipe=recipe,
            max_length=32,
            targets=labels,
            validate=validate,
            strategies=strategies,
            folder=tmp_path / folder,
            echo=lambda line: None,
            progress=False,
            callbacks=callbacks,
            monitor=monitor,
        )
        weights = {k: v.clone() for k, v in model.state_dict().items()}
        return SimpleNamespace(
            weights=weights, record=record, model=model, base=base, strategies=strategies, scores=scores,
            tokenizer=tokenizer, texts=texts, labels=labels, spec=spec,
        )  # fmt: skip

    return run


@pytest.fixture
def crash_at():
    """A callback that ends a tuning after a step, as a kill would."""
    from transformers import TrainerCallback

    class StopError(Exception):
        pass

    class Crash(TrainerCallback):
        def __init__(self, step: int) -> None:
            self.step = step

        def on_step_end(self, args, state, control, **_):
            if state.global_step == self.step:
                raise StopError

    Crash.error = StopError
    return Crash
