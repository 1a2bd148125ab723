"""The loop in TensorFlow against PyTorch's: the same losses without dropout; resuming; steps that are not finite."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tunewell.errors import ModelError, TrainingError
from tunewell.tasks import TaskSpec
from tunewell.train.dynamics import FILE, Dynamics

MULTI = TaskSpec("text-classification", ("a", "b", "c"), multi_label=True, metric="f1_micro")
SCORES = TaskSpec("text-regression", metric="r2")


def made(kind: str) -> dict:
    rng = np.random.default_rng(0)
    if kind == "multi":
        return {"spec": MULTI, "targets": rng.integers(0, 2, (48, 3)).astype(np.float32)}
    if kind == "scores":
        return {"spec": SCORES, "targets": rng.normal(size=48).astype(np.float32)}
    return {}


CASES = {
    "as it comes": {"num_train_epochs": 4},
    "accumulated, cosine, no clipping, balanced": {
        "gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine", "max_grad_norm": 0, "class_weight": "balanced",
        "num_train_epochs": 4, "weight_decay": 0.5,
    },
    "smoothed, constant rate, a clipped head": {
        "label_smoothing_factor": 0.1, "lr_scheduler_type": "constant_with_warmup", "max_grad_norm": 0.1,
        "head_rate_factor": 3,
    },
    "focal": {"loss": "focal"},
    "several labels": {"kind": "multi", "class_weight": "balanced"},
    "several labels, focal": {"kind": "multi", "loss": "focal"},
    "scores": {"kind": "scores"},
    "scores, mae": {"kind": "scores", "loss": "mae", "learning_rate": 1e-4},
    "scores, huber": {"kind": "scores", "loss": "huber"},
    "distilled": {"strategy": ["distill"], "distill_weight": 5.0, "num_train_epochs": 4},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_same_losses_as_pytorch(name, still_model, tuned, tmp_path, make_reviews):
    """Up to 24 steps on the same batches, each loss and gradient norm, the validation scores, and the weights."""
    keys = {"learning_rate": 3e-4, **CASES[name]}
    keys |= made(keys.pop("kind", ""))
    if name == "distilled":
        general = tmp_path / "general.txt"
        general.write_text("\n".join(t for t, _ in make_reviews(64, seed=9)), encoding="utf-8")
        keys["general"] = str(general)
    ours, record = tuned("tensorflow", still_model, tmp_path / "tensorflow", **keys)
    theirs, wanted = tuned("pytorch", still_model, tmp_path / "pytorch", **keys)
    assert record.steps >= 12
    assert (record.examples, record.tokens, record.best_step, record.trainable_parameters) == (
        wanted.examples, wanted.tokens, wanted.best_step, wanted.trainable_parameters,
    )  # fmt: skip
    assert len(record.history) == len(wanted.history) - 1  # Trainer adds a summary
    for a, b in zip(record.history, wanted.history, strict=False):
        assert (a["step"], a["epoch"]) == (b["step"], pytest.approx(b["epoch"]))
        for key in set(a) & {"loss", "grad_norm", "learning_rate", f"eval_{keys.get('spec', MULTI).metric}"}:
            near = 1e-9 if key == "learning_rate" else 1e-4
            far = 1e-3 if key == "grad_norm" else 1e-4
            assert a[key] == pytest.approx(b[key], rel=far, abs=near), (a, b)
    assert max(np.abs(ours[k] - theirs[k]).max() for k in theirs) < 1e-4
    assert max(record.parity.values()) < 1e-5
    before, after = (Dynamics.load(tmp_path / f / FILE) for f in ("pytorch", "tensorflow"))
    assert np.allclose(before.margin, after.margin, atol=1e-3, equal_nan=True)


def test_adamw_and_clipping_are_those_of_pytorch(tiny_classifier):
    """Gradients of the size of epsilon, where its place matters, and one that is clipped; decay on one of two."""
    import torch

    import tensorflow as tf
    from tunewell.backends.tensorflow.model import Classifier
    from tunewell.backends.tensorflow.steps import Steps
    from tunewell.models.load import load_tuned

    twin = Classifier.of(load_tuned(tiny_classifier)[0])
    names = ["classifier.weight", "classifier.bias"]
    twin.variables = {name: twin.variables[name] for name in names}
    twin.unlearned = {}
    steps = Steps(
        twin,
        lambda logits, labels: labels,
        tf.TensorSpec([None], tf.int32),
        decayed={names[0]},
        weight_decay=0.3,
        factors={names[1]: 4.0},
        max_norm=1e-6,
    )
    theirs = [torch.nn.Parameter(torch.from_numpy(twin.variables[n].numpy().copy())) for n in names]
    groups = [{"params": theirs[:1], "weight_decay": 0.3, "lr": 1e-2}, {"params": theirs[1:], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=4e-2, eps=1e-8, betas=(0.9, 0.999))
    rng = np.random.default_rng(0)
    for size in (1e-8, 3e-9, 1.0, 1e-7, 1e-8, 1e-8):
        gradients = [(size * rng.normal(size=p.shape)).astype(np.float32) for p in theirs]
        for p, g in zip(theirs, gradients, strict=True):
            p.grad = torch.from_numpy(g.copy())
        norm = steps.norm([tf.constant(g) for g in gradients])
        assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, 1e-6)), rel=1e-5)
        optimizer.step()
        steps.update([tf.constant(g) for g in gradients], norm, 1e-2)
        for name, p in zip(names, theirs, strict=True):
            assert np.allclose(twin.variables[name].numpy(), p.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_dropout_is_drawn_by_the_seed(tiny_model, tuned, tmp_path):
    first, record = tuned("tensorflow", tiny_model, tmp_path / "a")
    again, _ = tuned("tensorflow", tiny_model, tmp_path / "b")
    other, _ = tuned("tensorflow", tiny_model, tmp_path / "c", seed=7)
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert not np.array_equal(first["classifier.weight"], other["classifier.weight"])
    losses = [e["loss"] for e in record.history if "loss" in e]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_resumed_equals_uninterrupted_to_the_bit(tiny_model, tuned, tmp_path):
    """Six steps an epoch, two checkpoints in each: stopped in the second, with gradients that are clipped."""
    from safetensors.numpy import load_file
    from transformers import TrainerCallback

    class Crash(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 10:
                raise KeyboardInterrupt

    keys = {"evals_per_epoch": 2, "max_grad_norm": 0.3}
    whole, record = tuned("tensorflow", tiny_model, tmp_path / "a", **keys)
    with pytest.raises(KeyboardInterrupt):
        tuned("tensorflow", tiny_model, tmp_path / "b", callbacks=[Crash()], **keys)
    kept = {p.name for p in (tmp_path / "b" / "checkpoints").iterdir()}
    assert {"step-9-best-", "step-6-best-"} == {name[:12] for name in kept if name.startswith("step")}
    assert not any(name.startswith(".") for name in kept)
    resumed, again = tuned("tensorflow", tiny_model, tmp_path / "b", **keys)
    last = [load_file(str(next((tmp_path / place / "checkpoints").glob("step-12-*s")))) for place in ("a", "b")]
    assert all(np.array_equal(last[0][k], last[1][k]) for k in last[0])  # of the optimiser too
    assert all(np.array_equal(whole[k], resumed[k]) for k in whole)
    assert (again.examples, again.tokens, again.best_step) == (record.examples, record.tokens, record.best_step)
    assert again.history == record.history


def test_a_damaged_checkpoint_is_passed_over_and_a_signal_saves_at_once(tiny_model, tuned, tmp_path):
    """A byte of the last one is another: from the one before it; SIGINT in the middle of an epoch: from there."""
    import os
    import signal

    from transformers import TrainerCallback

    whole, record = tuned("tensorflow", tiny_model, tmp_path / "a", evals_per_epoch=2)

    class Asked(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 8:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it puts aside
    try:
        with pytest.raises(KeyboardInterrupt):
            tuned("tensorflow", tiny_model, tmp_path / "b", evals_per_epoch=2, callbacks=[Asked()])
    finally:
        signal.signal(signal.SIGINT, before)
    saved = next((tmp_path / "b" / "checkpoints").glob("step-8-*s"))
    data = bytearray(saved.read_bytes())
    data[-1] ^= 1
    for name in ("c", "d"):
        shutil.copytree(tmp_path / "b", tmp_path / name)
    (tmp_path / "c" / "checkpoints" / saved.name).write_bytes(data)
    for name in ("c", "d"):
        resumed, again = tuned("tensorflow", tiny_model, tmp_path / name, evals_per_epoch=2)
        assert all(np.array_equal(whole[k], resumed[k]) for k in whole)
        assert again.history == record.history


def test_it_stops_early(still_model, tuned, tmp_path):
    _, record = tuned("tensorflow", still_model, tmp_path / "a", learning_rate=1e-6, early_stopping_patience=2,
                      num_train_epochs=9, head_rate_factor=1)  # fmt: skip
    assert record.stopped_early
    assert record.steps == record.best_step + 2 * 6


def test_a_step_that_is_not_finite_changes_nothing(still_model, tuned, tmp_path):
    targets = np.zeros(48, dtype=np.float32)
    targets[3] = np.float32(1e30)  # its square is beyond float32
    keys = {"spec": SCORES, "targets": targets, "num_train_epochs": 1}
    weights, record = tuned("tensorflow", still_model, tmp_path / "a", **keys)
    assert len(record.nonfinite_steps) == 1
    assert all(np.isfinite(w).all() for w in weights.values())
    with pytest.raises(TrainingError, match="not finite for 10 steps in a row, last at step 10"):
        tuned("tensorflow", still_model, tmp_path / "b", **keys | {"targets": targets + np.float32(1e30),
              "num_train_epochs": 3})  # fmt: skip


def test_a_twin_that_is_none_is_refused_with_the_figure(still_model, tuned, tmp_path, monkeypatch):
    """ReLU instead of GELU."""
    import tensorflow as tf
    import tunewell.backends.tensorflow.encoders as layers

    monkeypatch.setattr(layers, "activate", lambda name, x: tf.nn.relu(x))
    with pytest.raises(ModelError, match=r"differ by 0\.\d+ in a logit before tuning, on 48 rows"):
        tuned("tensorflow", still_model, tmp_path / "a")
