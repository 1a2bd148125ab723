"""What every strategy of the table must hold to: its seed, its zero, its checkpoints, its saved model."""

from __future__ import annotations

import pytest
import torch

from tunewell.strategies import STRATEGIES, strategy_class

# keys under which a strategy protects nothing; those without one are told of below
ZERO = {
    "plain": {},
    "prompt": {},  # of the loop it asks nothing: what it changes is the model, see tests/test_prompt.py
    "distill": {"distill_weight": 0.0},
    "average": {"average_alphas": [1.0]},
    "lines": {"lines_alphas": [1.0]},
    "llrd": {"llrd_decay": 1.0},
    "l2sp": {"l2sp_weight": 0.0},
    "ewc": {"ewc_weight": 0.0},
    "mas": {"mas_weight": 0.0},
    "recadam": {"recadam_pull": 0.0},
    "ema": {"ema_decay": 0.0},
    "swa": {"swa_start": 1.0},
    "sam": {"sam_rho": 0.0},
    "gpm": {"gpm_threshold": 0.0},
    "anchor": {"anchor_weight": 0.0},
    "mixup": {"mixup_alpha": 0.0},
}
# freeze: see gradual; lpft and fewshot have no strength; lora at 0 is freezing
NO_ZERO = {"freeze", "lpft", "fewshot", "lora", "rehearse", "sdft"}
FOR_DECODERS = ("rehearse", "sdft")  # not for the tiny encoder of this file: see test_general_text.py, test_sdft.py
# settings that make a strategy's own state matter within 8 steps
STRONG = {
    "ewc": {"ewc_weight": 100.0},
    "mas": {"mas_weight": 100.0},
    "l2sp": {"l2sp_weight": 1.0},
    "recadam": {"recadam_pull": 100.0},
    "ema": {"ema_decay": 0.5},
    "swa": {"swa_start": 0.2},
    "freeze": {"freeze": "gradual"},
    "lora": {"lora_variant": "pissa", "lora_rank": 2},
    "fewshot": {"fewshot_steps": 8},
    "mixup": {"mixup_alpha": 1.0},
}
TOGETHER = [
    ("gpm", "anchor"),
    ("lpft", "distill"),
    ("lora", "ema", "sam"),
    ("ewc", "llrd", "swa"),
    ("freeze", "distill"),
    ("fewshot", "distill", "ema"),
    ("lora", "fewshot"),
    ("mixup", "lora", "sam"),
    ("fewshot", "mixup"),
]
TRAINED = [(name,) for name in STRATEGIES if name not in ("average", "lines", *FOR_DECODERS)] + TOGETHER


def same(a, b) -> bool:
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


def strong(names) -> dict:
    return {k: v for name in names for k, v in STRONG.get(name, {}).items()}


def test_every_strategy_has_its_place_here():
    assert set(ZERO) | NO_ZERO == set(STRATEGIES)


@pytest.fixture(scope="module")
def remembered():
    return {}


@pytest.mark.parametrize("name", ZERO)
def test_strength_zero_is_plain_to_the_bit(small_job, remembered, name):
    if "plain" not in remembered:
        remembered["plain"] = small_job().weights
    tuned = small_job(name, folder="zero", **ZERO[name])
    assert same(tuned.weights, remembered["plain"])
    if name in ("average", "lines"):
        assert not list(tuned.strategies[0].variants({}, {}))


def test_adapters_at_zero_are_a_frozen_encoder_to_the_bit(small_job, monkeypatch):
    monkeypatch.setattr("tunewell.train.frozen.frozen_layers", lambda model: 0)  # kept outputs have no dropout
    frozen = small_job("freeze", freeze="head_only", folder="a")
    adapters = small_job("lora", lora_alpha=0.0, folder="b")
    assert same(frozen.weights, adapters.weights)


@pytest.mark.parametrize("names", TRAINED, ids="+".join)
def test_resumed_equals_uninterrupted_and_the_saved_model_answers_the_same(small_job, crash_at, tmp_path, names):
    """A run stopped after step 5 goes on from its checkpoint at 4 and ends as one of the same seed that was not."""
    from tunewell.models.embed import logits
    from tunewell.models.load import load_tuned

    whole = small_job(*names, folder="a", rows=32, **strong(names))
    with pytest.raises(crash_at.error):
        small_job(*names, folder="b", rows=32, callbacks=(crash_at(5),), **strong(names))
    resumed = small_job(*names, folder="b", rows=32, **strong(names))
    assert same(whole.weights, resumed.weights)
    assert (whole.record.steps, whole.record.examples) == (resumed.record.steps, resumed.record.examples)
    assert whole.record.best_score == resumed.record.best_score

    assert list(whole.weights) == list(whole.base)  # no adapter, no average is left behind
    assert any(not torch.equal(whole.weights[k], whole.base[k]) for k in whole.base)
    whole.model.save_pretrained(tmp_path / "saved")
    whole.tokenizer.save_pretrained(tmp_path / "saved")
    again, tokenizer = load_tuned(tmp_path / "saved")
    first, second = (
        logits(m, t, whole.texts, max_length=32) for m, t in ((whole.model, whole.tokenizer), (again, tokenizer))
    )
    assert abs(first - second).max() < 1e-6
    assert whole.record.strategy == names


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_names_itself_and_its_paper(name):
    kind = strategy_class(name)
    assert kind.name == name
    assert kind.title
    assert any(ch.isdigit() for ch in kind.paper)
