"""Twins to compare: the tiny model without dropout, and a tuning of it by either framework."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if find_spec("tensorflow") is None:
    collect_ignore_glob = ["test_with_*.py"]


@pytest.fixture(scope="session")
def still_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model` with dropout 0, so that nothing is drawn while it is tuned."""
    folder = tmp_path_factory.mktemp("still") / "tiny"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def tuned(make_reviews) -> Callable[..., tuple[dict[str, np.ndarray], Any]]:
    """tuned(framework, model, folder, spec=..., ...): weights and record after tuning on reviews."""

    def tune_by(
        framework: str, place: Path, folder: Path, *, spec=None, targets=None, callbacks=(), n=48, general=None, **keys
    ):
        from datasets import Dataset

        from tunewell.backends.tensorflow.tune import tune as by_tensorflow
        from tunewell.evaluate.metrics import score
        from tunewell.models.embed import logits
        from tunewell.models.load import load_classifier, load_tokenizer
        from tunewell.recipe_file import load_recipe
        from tunewell.strategies import strategy_class
        from tunewell.tasks import TaskSpec
        from tunewell.tasks.spec import scores_of
        from tunewell.train.tune import tune as by_pytorch

        spec = spec or TaskSpec("text-classification", ("negative", "positive"))
        data = make_reviews(n)
        texts = [t for t, _ in data]
        if targets is None:
            targets = np.array([int(label == "positive") for _, label in data])
        options = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "threads": 1}
        strategies = keys.pop("strategy", ["plain"])
        recipe = load_recipe(
            framework=framework, strategy=strategies, general_text=general, general_samples=64, **{**options, **keys}
        )
        model, tokenizer = (
            load_classifier(str(place), spec, seed=recipe.seed),
            load_tokenizer("tiny", str(place)),
        )
        more = {"bf16": False} if framework == "pytorch" else {}
        record = (by_tensorflow if framework == "tensorflow" else by_pytorch)(
            model,
            tokenizer,
            spec,
            Dataset.from_dict({"text": texts, "label": targets.tolist()}),
            recipe=recipe.model_copy(update=more),
            max_length=32,
            targets=targets,
            validate=lambda m: {
                spec.metric: score(
                    spec.metric, spec, scores_of(spec, logits(m, tokenizer, texts, max_length=32)), targets
                )
            },
            strategies=[strategy_class(s)(recipe.model_dump()) for s in strategies],
            folder=folder,
            echo=lambda line: None,
            progress=False,
            callbacks=callbacks,
        )
        return {k: v.numpy().copy() for k, v in model.state_dict().items()}, record

    return tune_by
