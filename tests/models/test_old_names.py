"""Models whose files call LayerNorm's weights gamma and beta, as bert-base-uncased does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tunewell import TextClassifier
from tunewell.models.load import load_classifier
from tunewell.tasks import TaskSpec


@pytest.fixture(scope="module")
def old_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model` with the old names in its file."""
    folder = tmp_path_factory.mktemp("old") / "old-bert"
    shutil.copytree(tiny_model, folder)
    weights = load_file(str(folder / "model.safetensors"))
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in weights.items()
    }
    assert set(renamed) != set(weights)
    save_file(renamed, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def test_what_is_saved_has_the_names_of_the_code(old_model: Path, tmp_path: Path) -> None:
    model = load_classifier(str(old_model), TaskSpec("text-classification", ("a", "b")), seed=0)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())


def test_the_best_checkpoint_is_restored_whole(old_model: Path, tiny_model: Path, make_reviews: Any) -> None:
    """Trained alike, the two differ in nothing, although the best step is not the last one."""
    rows = make_reviews(80)
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    keys = {"learning_rate": 0.05, "num_train_epochs": 4, "early_stopping_patience": 0, "bf16": False, "threads": 1}
    old, new = (TextClassifier(model=str(m), **keys).fit(texts, labels) for m in (old_model, tiny_model))
    assert old.training_.best_step < old.training_.steps
    assert (old.predict_proba(texts) == new.predict_proba(texts)).all()
