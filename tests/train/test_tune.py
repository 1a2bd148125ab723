"""The loop: gradients that do not depend on accumulation, resuming to the bit, steps that are not finite."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from tunewell.errors import TrainingError
from tunewell.models.load import load_classifier, load_tokenizer
from tunewell.recipe_file import load_recipe
from tunewell.strategies import strategy_class
from tunewell.tasks import TaskSpec
from tunewell.train import vocabulary
from tunewell.train.checkpoint import last_whole
from tunewell.train.dynamics import FILE, Dynamics
from tunewell.train.tune import tune

SPEC = TaskSpec("text-classification", ("negative", "positive"))


class StopError(Exception):
    """What ends a tuning in the middle."""


def job(
    tiny_model: Path, make_reviews, folder: Path, *, callbacks=(), strategies=("plain",), general=None, rows=64, **keys
):
    """Tune the tiny model; returns its weights and the record."""
    data = make_reviews(rows)
    texts, labels = [t for t, _ in data], np.array([int(label == "positive") for _, label in data])
    train = Dataset.from_dict({"text": texts, "label": labels.tolist()})
    options = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "bf16": False,
        "threads": 1,
    }
    recipe = load_recipe(strategy=list(strategies), general_text=general, general_samples=64, **{**options, **keys})
    tokenizer = load_tokenizer("tiny", str(tiny_model))
    model = load_classifier(str(tiny_model), SPEC, seed=recipe.seed)
    record = tune(
        model,
        tokenizer,
        SPEC,
        train,
        recipe=recipe,
        max_length=32,
        targets=labels,
        validate=lambda m: {"f1_macro": float(m.classifier.weight.detach().sum())},
        strategies=[strategy_class(s)(recipe.model_dump()) for s in strategies],
        folder=folder,
        echo=lambda line: None,
        progress=False,
        callbacks=callbacks,
    )
    return {k: v.clone() for k, v in model.state_dict().items()}, record


def same(a, b) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def general(tmp_path: Path, make_reviews) -> str:
    path = tmp_path / "general.txt"
    path.write_text("\n".join(t for t, _ in make_reviews(64, seed=9)), encoding="utf-8")
    return str(path)


def test_same_seed_same_weights_and_it_learns(tiny_model, make_reviews, tmp_path):
    first, record = job(tiny_model, make_reviews, tmp_path / "a")
    second, _ = job(tiny_model, make_reviews, tmp_path / "b")
    assert same(first, second)
    losses = [e["loss"] for e in record.history if "loss" in e]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert (record.steps, record.examples, record.epochs) == (16, 128, 2.0)
    assert 0 <= record.padding_share < 0.2


def test_accumulation_does_not_change_the_step(tiny_model, make_reviews, tmp_path):
    """One optimiser step over all rows: 8 × 1 and 2 × 4 give the same loss and gradient norm; dropout is off."""
    from transformers import AutoConfig

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = AutoConfig.from_pretrained(folder)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.save_pretrained(folder)
    keys = {"rows": 8, "max_steps": 1}
    _, whole = job(folder, make_reviews, tmp_path / "a", **keys)
    _, parts = job(
        folder, make_reviews, tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=4, **keys
    )
    one, four = (next(e for e in r.history if "grad_norm" in e) for r in (whole, parts))
    assert four["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert four["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("strategies", [("plain",), ("distill",)])
@pytest.mark.parametrize("stop_at", [5, 12])
def test_resumed_equals_uninterrupted_to_the_bit(tiny_model, make_reviews, tmp_path, general, strategies, stop_at):
    from transformers import TrainerCallback

    class Crash(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == stop_at:
                raise StopError

    keys = {"strategies": strategies, "general": general, "evals_per_epoch": 2}
    whole, record = job(tiny_model, make_reviews, tmp_path / "a", **keys)
    with pytest.raises(StopError):
        job(tiny_model, make_reviews, tmp_path / "b", callbacks=[Crash()], **keys)
    assert last_whole(tmp_path / "b" / "checkpoints") is not None
    resumed, again = job(tiny_model, make_reviews, tmp_path / "b", **keys)
    assert same(whole, resumed)
    assert (again.steps, again.examples, again.tokens) == (record.steps, record.examples, record.tokens)
    for a, b in zip(record.history, again.history, strict=True):
        assert a.get("loss") == b.get("loss")


def test_a_torn_checkpoint_is_passed_over(tiny_model, make_reviews, tmp_path):
    job(tiny_model, make_reviews, tmp_path / "a", evals_per_epoch=2, save_total_limit=4)
    folder = tmp_path / "a" / "checkpoints"
    last = last_whole(folder)
    assert last is not None
    (last / "trainer_state.json").write_text('{"global_st')
    before = last_whole(folder)
    assert before is not None
    assert int(before.name.split("-")[1]) < int(last.name.split("-")[1])
    assert not last.exists()


def test_weight_zero_is_plain_to_the_bit(tiny_model, make_reviews, tmp_path, general):
    plain, _ = job(tiny_model, make_reviews, tmp_path / "a")
    zero, _ = job(
        tiny_model, make_reviews, tmp_path / "b", strategies=("distill",), general=general, distill_weight=0.0
    )
    assert same(plain, zero)


def poison(monkeypatch, at):
    from tunewell.train import trainer

    whole = trainer.TunewellTrainer.compute_loss

    def spoilt(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = whole(self, model, inputs, return_outputs, num_items_in_batch)
        return loss * float("nan") if self.state.global_step in at else loss

    monkeypatch.setattr(trainer.TunewellTrainer, "compute_loss", spoilt)


def test_a_step_that_is_not_finite_is_skipped_and_shown(tiny_model, make_reviews, tmp_path, monkeypatch):
    poison(monkeypatch, {3})
    weights, record = job(tiny_model, make_reviews, tmp_path / "a")
    assert record.nonfinite_steps == (4,)
    assert all(torch.isfinite(v).all() for v in weights.values())
    assert [e["loss"] for e in record.history if e.get("step") == 4 and "loss" in e] == ["nan"]
    assert '"loss": "nan"' in (tmp_path / "a" / "metrics.jsonl").read_text()


def test_a_loss_that_stays_non_finite_ends_it(tiny_model, make_reviews, tmp_path, monkeypatch):
    poison(monkeypatch, set(range(2, 99)))
    with pytest.raises(TrainingError) as caught:
        job(tiny_model, make_reviews, tmp_path / "a")
    assert "not finite for 10 steps in a row, last at step 12" in str(caught.value)
    assert "lower learning_rate" in str(caught.value)


def test_embeddings_of_the_used_rows_give_the_weights_that_the_whole_matrix_gives(
    tiny_model, make_reviews, tmp_path, monkeypatch
):
    monkeypatch.setattr(vocabulary, "WORTH", 1.0)
    part, record = job(tiny_model, make_reviews, tmp_path / "part", weight_decay=0.0)
    monkeypatch.setattr(vocabulary, "WORTH", 0.0)
    whole, other = job(tiny_model, make_reviews, tmp_path / "whole", weight_decay=0.0)
    assert record.trainable_parameters < other.trainable_parameters == record.parameters
    for name, tensor in whole.items():
        assert torch.allclose(part[name], tensor, atol=1e-6), name
    losses = [[e["loss"] for e in r.history if "loss" in e] for r in (record, other)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_every_row_is_noted_in_every_epoch(tiny_model, make_reviews, tmp_path):
    job(tiny_model, make_reviews, tmp_path / "a")
    found = Dynamics.load(tmp_path / "a" / FILE)
    assert found is not None and found.margin.shape == (2, 64) and np.isfinite(found.margin).all()
    assert ((found.margin > 0) == (found.confidence > 0.5)).all()
    assert found.margin[1].mean() > found.margin[0].mean()  # it learns
    assert Dynamics.load(tmp_path / "b" / FILE) is None


@pytest.mark.parametrize("stop", [5, 11])
def test_a_resumed_tuning_notes_the_same(tiny_model, make_reviews, tmp_path, stop):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == stop:
                raise StopError

    job(tiny_model, make_reviews, tmp_path / "whole", evals_per_epoch=2)
    with pytest.raises(StopError):
        job(tiny_model, make_reviews, tmp_path / "parts", evals_per_epoch=2, callbacks=[Stop()])
    job(tiny_model, make_reviews, tmp_path / "parts", evals_per_epoch=2)
    whole, parts = (Dynamics.load(tmp_path / name / FILE) for name in ("whole", "parts"))
    assert whole is not None and parts is not None
    np.testing.assert_array_equal(whole.margin, parts.margin)
    np.testing.assert_array_equal(whole.other, parts.other)
