"""The final folder: body and heads come back as they were, whatever the base model's files call their weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from tunewell.errors import ModelError
from tunewell.models.load import load_classifier, load_encoder
from tunewell.sequence.heads import attach, body_of, head_of
from tunewell.sequence.model import export_task, load_task, save_models
from tunewell.sequence.state import State
from tunewell.tasks import TaskSpec

SPEC = TaskSpec("text-classification", ("no", "yes"))
ABOUT = {"spec": SPEC.to_dict(), "columns": {"text": "text"}, "max_length": 32, "base_model": "tiny", "head": "a"}


@pytest.fixture(params=["new names", "old names"])
def base(request, tiny_model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    shutil.copytree(tiny_model, folder)
    if request.param == "old names":
        weights = load_file(str(folder / "model.safetensors"))
        old = {k.replace("LayerNorm.weight", "LayerNorm.gamma"): v for k, v in weights.items()}
        old = {k.replace("LayerNorm.bias", "LayerNorm.beta"): v for k, v in old.items()}
        save_file(old, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def test_a_task_comes_back_as_it_was(base: Path, tmp_path: Path):
    model = load_classifier(str(base), SPEC, seed=0).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    attach(model, {"b": head_of(model)})  # another task's head is not part of this one
    state = State(body_of(model), {"a": head_of(model), **model.task_heads.copies()})
    encoder = load_encoder(str(base))
    before = {k: v.clone() for k, v in encoder.model.state_dict().items()}
    save_models(tmp_path / "out" / "model", encoder, state, {"a": ABOUT, "b": {**ABOUT, "head": "b"}})
    assert all(torch.equal(v, before[k]) for k, v in encoder.model.state_dict().items())  # the base is the base again
    with safe_open(tmp_path / "out" / "model" / "model.safetensors", "pt") as file:
        assert not any("gamma" in k or "beta" in k for k in file.keys())  # noqa: SIM118
    again, tokenizer, about = load_task(tmp_path / "out", "a")
    assert about["max_length"] == 32
    inputs = tokenizer(["good day", "a late flight"], return_tensors="pt", padding=True)
    with torch.no_grad():
        wanted = model(**inputs).logits
        torch.testing.assert_close(again(**inputs).logits, wanted)
        alone, _, _ = load_task(tmp_path / "out" / "model", "a")  # the model folder by itself
        torch.testing.assert_close(alone(**inputs).logits, wanted)
        assert not (tmp_path / "out" / "models").exists()  # loading writes nothing
        plain = AutoModelForSequenceClassification.from_pretrained(export_task(tmp_path / "out", "a") / "model").eval()
        torch.testing.assert_close(plain(**inputs).logits, wanted)
    assert plain.config.id2label == {0: "no", 1: "yes"}

    for name, says in ((None, "several tasks, and none is named"), ("c", "no task `c`")):
        with pytest.raises(ModelError, match=says):
            load_task(tmp_path / "out", name)
    (tmp_path / "out" / "model" / "heads" / "b.safetensors").unlink()
    with pytest.raises(ModelError, match="the head file is missing"):
        load_task(tmp_path / "out", "b")
