"""Stopped within its second epoch, between two validations, a tuning goes on to the same bytes and the same records."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from tunewell.train.checkpoint import by_step
from tunewell.train.dynamics import FILE, Dynamics

# 40 rows in batches of 8, two a step: steps of 2, 2 and 1 batches; validated at every other step
KEYS = {
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 3,
    "evals_per_epoch": 1,
    "rows": 40,
    "early_stopping_patience": 3,
}
STRONG = {
    "ewc": {"ewc_weight": 100.0},
    "ema": {"ema_decay": 0.5},
    "swa": {"swa_start": 0.2},
    "sam": {"sam_rho": 0.05},
    "lora": {"lora_rank": 2},
    "distill": {"distill_weight": 5.0},
}
NAMES = [
    ("ewc",),
    ("distill",),
    ("lora", "ema", "sam"),
    *(pytest.param(n, marks=pytest.mark.slow) for n in (("plain",), ("ema",), ("gpm", "swa"), ("mas", "llrd"))),
]


class Signal(TrainerCallback):
    """Asks the process to stop in the middle of a step."""

    def __init__(self, step: int, number: int = signal.SIGINT, times: int = 1) -> None:
        self.step, self.number, self.times = step, number, times

    def on_pre_optimizer_step(self, args, state, control, **_):
        if state.global_step == self.step - 1:
            for _time in range(self.times):
                os.kill(os.getpid(), self.number)


def same_records(a, b, tmp_path, first, second, *, to_the_end=True):
    """Weights, scores, the log, and what tuning thought of each row."""
    assert all(torch.equal(a.weights[k], b.weights[k]) for k in a.weights)
    assert a.record.best_score == b.record.best_score and a.record.best_step == b.record.best_step
    assert (a.record.steps, a.record.examples, a.record.tokens) == (b.record.steps, b.record.examples, b.record.tokens)
    logs = [[{k: v for k, v in e.items() if "runtime" not in k and "flos" not in k and "second" not in k
              and k != "train_loss"} for e in r.record.history] for r in (a, b)]  # fmt: skip
    assert logs[0] == logs[1]
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in (first, second)]
    assert len(lines[0]) == len(lines[1]) and [json.loads(line)["step"] for line in lines[0]]
    one, other = (Dynamics.load(tmp_path / name / FILE) for name in (first, second))
    np.testing.assert_array_equal(one.margin, other.margin)
    assert np.isfinite(one.margin).all() == to_the_end


def strong(names):
    return {k: v for name in names for k, v in STRONG.get(name, {}).items()}


@pytest.mark.parametrize("names", NAMES, ids="+".join)
def test_stopped_by_a_signal_it_goes_on_to_the_same_bytes(small_job, tmp_path, names):
    whole = small_job(*names, folder="a", **KEYS, **strong(names))
    with pytest.raises(KeyboardInterrupt):
        small_job(*names, folder="b", callbacks=(Signal(5),), **KEYS, **strong(names))
    assert by_step(tmp_path / "b" / "checkpoints")[-1].name == "checkpoint-5"  # between validations at 3 and 6
    resumed = small_job(*names, folder="b", **KEYS, **strong(names))
    same_records(whole, resumed, tmp_path, "a", "b")


@pytest.mark.slow
def test_stopped_at_every_step_it_goes_on_to_the_same_bytes(small_job, tmp_path):
    whole = small_job("ema", folder="a", ema_decay=0.5, **KEYS)
    for step in range(1, 10):
        with pytest.raises(KeyboardInterrupt):
            small_job("ema", folder="b", callbacks=(Signal(step),), ema_decay=0.5, **KEYS)
    resumed = small_job("ema", folder="b", ema_decay=0.5, **KEYS)
    same_records(whole, resumed, tmp_path, "a", "b")


def test_a_tuning_that_had_ended_early_takes_no_further_step(small_job, tmp_path, monkeypatch):
    """Killed after the checkpoint at which patience was out, it ends there again."""
    import shutil

    from tunewell.train import trainer

    keys = {**KEYS, "early_stopping_patience": 1, "num_train_epochs": 6, "learning_rate": 1e-9}
    finish = trainer.TunewellTrainer._finalize_training
    copied = []

    def copy_first(self, *arguments):
        if not copied:
            copied.append(shutil.copytree(tmp_path / "a" / "checkpoints", tmp_path / "b" / "checkpoints"))
        return finish(self, *arguments)

    monkeypatch.setattr(trainer.TunewellTrainer, "_finalize_training", copy_first)
    whole = small_job("plain", folder="a", **keys)
    assert whole.record.stopped_early and whole.record.steps < 18
    again = small_job("plain", folder="b", **keys)
    assert (again.record.steps, again.record.best_step) == (whole.record.steps, whole.record.best_step)
    assert all(torch.equal(whole.weights[k], again.weights[k]) for k in whole.weights)


def test_a_second_signal_leaves_at_once_and_handlers_are_as_before(small_job, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        small_job("plain", folder="a", callbacks=(Signal(5, times=2),), **KEYS)
    assert by_step(tmp_path / "a" / "checkpoints")[-1].name == "checkpoint-3"  # it did not wait for a step's end
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with pytest.raises(SystemExit) as left:
        small_job("plain", folder="a", callbacks=(Signal(5, signal.SIGTERM),), **KEYS)
    assert left.value.code == 143
    assert by_step(tmp_path / "a" / "checkpoints")[-1].name == "checkpoint-5"


# ---------------------------------------------------------------- asked to stop where a validation is due, or under way


class SignalInValidation(TrainerCallback):
    """Asks the process to stop in the n-th pass of the model that is no training; draws random numbers there."""

    def __init__(self, number: int, draws: bool = True) -> None:
        self.number, self.draws, self.passes = number, draws, 0

    def on_train_begin(self, args, state, control, model=None, **_):
        model.register_forward_pre_hook(self.seen)

    def seen(self, module, inputs):
        if not module.training:
            self.passes += 1
            if self.draws:
                torch.rand(1), np.random.rand()
            if self.passes == self.number:
                os.kill(os.getpid(), signal.SIGINT)


def validated(folder) -> list[int]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "eval_f1_macro" in line]


@pytest.mark.parametrize("names", [("ema",), ("lora", "ema")], ids="+".join)
@pytest.mark.parametrize("step", [3, 6, 9])
def test_asked_to_stop_in_the_step_before_a_validation_it_saves_first(small_job, tmp_path, names, step):
    """Validation at 3, 6 and 9, the last one: it is not waited for, but made up for, the best step being the same."""
    whole = small_job(*names, folder="a", **KEYS, **strong(names))
    with pytest.raises(KeyboardInterrupt):
        small_job(*names, folder="b", callbacks=(Signal(step),), **KEYS, **strong(names))
    assert validated(tmp_path / "b") == [s for s in (3, 6, 9) if s < step]
    assert by_step(tmp_path / "b" / "checkpoints")[-1].name == f"checkpoint-{step}"
    resumed = small_job(*names, folder="b", **KEYS, **strong(names))
    assert validated(tmp_path / "b") == [3, 6, 9]
    same_records(whole, resumed, tmp_path, "a", "b")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_asked_to_stop_in_a_validation_it_leaves_it_and_saves(small_job, tmp_path, number):
    """Random numbers that validation draws are drawn again."""
    untouched = SignalInValidation(0)
    whole = small_job("ema", folder="a", callbacks=(untouched,), ema_decay=0.5, **KEYS)
    assert untouched.passes >= 3
    asking = SignalInValidation(number)
    with pytest.raises(KeyboardInterrupt):
        small_job("ema", folder="b", callbacks=(asking,), ema_decay=0.5, **KEYS)
    assert asking.passes == number and len(validated(tmp_path / "b")) == number - 1
    assert by_step(tmp_path / "b" / "checkpoints")[-1].name == f"checkpoint-{3 * number}"
    again = SignalInValidation(1)  # and once more in the one that is made up for
    with pytest.raises(KeyboardInterrupt):
        small_job("ema", folder="b", callbacks=(again,), ema_decay=0.5, **KEYS)
    resumed = small_job("ema", folder="b", callbacks=(SignalInValidation(0),), ema_decay=0.5, **KEYS)
    assert validated(tmp_path / "b") == [3, 6, 9]
    same_records(whole, resumed, tmp_path, "a", "b")


def test_a_validation_that_was_owed_may_end_the_tuning(small_job, tmp_path):
    keys = {**KEYS, "early_stopping_patience": 1, "num_train_epochs": 6, "learning_rate": 1e-9}
    whole = small_job("plain", folder="a", **keys)
    last = whole.record.steps
    assert whole.record.stopped_early
    with pytest.raises(KeyboardInterrupt):
        small_job("plain", folder="b", callbacks=(Signal(last),), **keys)
    assert last not in validated(tmp_path / "b")
    resumed = small_job("plain", folder="b", **keys)
    assert resumed.record.steps == last
    same_records(whole, resumed, tmp_path, "a", "b", to_the_end=False)


def test_a_handler_that_lets_tuning_go_on_loses_no_validation(small_job, tmp_path):
    whole = small_job("plain", folder="a", **KEYS)
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        other = small_job("plain", folder="b", callbacks=(Signal(6),), **KEYS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT] and validated(tmp_path / "b") == [3, 6, 9]
    same_records(whole, other, tmp_path, "a", "b")
