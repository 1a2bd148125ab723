"""The monitor: what it reads, that it leaves a run alone, and that it ends one where it is told to."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tunewell.recipe import Recipe
from tunewell.retention import estimate
from tunewell.train.monitor import KEY, Monitor, sample_texts


@pytest.fixture
def watch(general_file):
    def make(mode: str = "watch", floor: float | None = None) -> Monitor:
        return Monitor(mode, floor=floor, source=general_file, samples=32, seed=1)

    return make


def same(a, b) -> bool:
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


@torch.no_grad()
def log_probabilities(model, weights, row):
    """(T - 1, V) of each next token of one row, under given weights."""
    model.load_state_dict(weights, strict=False)
    return model(input_ids=row).logits[0, :-1].log_softmax(-1)


def readings(record) -> dict[int, float]:
    return {e["step"]: e[KEY] for e in record.history if KEY in e}


# ---------------------------------------------------------------- what is read


def test_structure_is_scipys_spearman_of_all_pairs():
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 6))
    y = x + 0.5 * rng.standard_normal((20, 6))
    wanted = spearmanr(pdist(x, "cosine"), pdist(y, "cosine"))[0]
    assert estimate.structure(x, y) == pytest.approx(wanted, abs=1e-9)
    assert estimate.structure(x, x * 2.5) == 1.0
    assert estimate.statistics(x, x) == pytest.approx(dict.fromkeys(estimate.statistics(x, x), 1.0))


def test_mean_cosine_by_hand():
    """Cosines 1, 0 and 0.6: a mean of 0.5333, and a third of what is missing is foretold to be lost."""
    before = np.array([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    after = np.array([[3.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    assert estimate.mean_cosine(before, after) == pytest.approx(1.6 / 3)
    assert estimate.kept_cosine(1.6 / 3) == pytest.approx(1 - (1 - 1.6 / 3) / 3)


def test_forward_kl_by_hand():
    """p = (1/2, 1/2) against q = (1/4, 3/4): 1/2 ln 2 + 1/2 ln 2/3."""
    before = torch.tensor([[0.5, 0.5]]).log()
    after = torch.tensor([[1.0, 3.0]]).log() + 7.0  # logits may be off by a constant
    assert float(estimate.forward_kl(before, after)) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert float(estimate.forward_kl(before, before)) == 0.0


def test_a_decoder_is_read_by_its_next_tokens(tiny_model, watch, tmp_path):
    """One for the base model; by hand the mean over real tokens of KL and of surprise."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                         num_attention_heads=2, pad_token_id=0)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    monitor = watch()
    monitor.prepare(model, tokenizer, bf16=False, tokens=100.0, steps=10, cache=tmp_path)
    assert monitor.kind == "kl"
    assert monitor.read(model) == {KEY: 1.0, "forward_kl": 0.0}
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.05)
    found = monitor.read(model)
    kl, nats, n = 0.0, 0.0, 0
    now = {k: p.detach().clone() for k, p in model.named_parameters()}
    for batch in monitor._batches:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            row = ids[mask.bool()][None, : 257 - n]
            after, base = (log_probabilities(model, weights, row) for weights in (now, before))
            kl += float((base.exp() * (base - after)).sum())
            nats -= float(base.gather(1, row[0, 1:, None]).sum())
            n += row.shape[1] - 1
    assert found["forward_kl"] == pytest.approx(kl / n, abs=2e-6)
    assert found[KEY] == pytest.approx(nats / (nats + kl), abs=2e-6)


def test_the_sample_is_not_what_strategies_learn_from(general_file):
    from tunewell.data.general import general_texts

    sample = sample_texts((general_file, 32), 16, 1)
    assert len(sample) == 16
    assert not set(sample) & set(general_texts(general_file, 32, seed=1))
    assert len(sample_texts((general_file, 4000), 16, 1)) == 16  # of a file that is used up, any


# ---------------------------------------------------------------- along tuning


@pytest.mark.parametrize("names", [("plain",), ("lora",), ("ema",), ("distill",)], ids="+".join)
def test_watching_changes_no_weight(small_job, watch, names):
    alone = small_job(*names, folder="a")
    watched = small_job(*names, folder="b", monitor=watch())
    assert same(alone.weights, watched.weights)
    assert watched.record.monitor.readings == len(readings(watched.record)) + 1
    assert max(readings(watched.record)) == watched.record.steps  # the last step is always read
    losses = [[e["loss"] for e in r.record.history if "loss" in e] for r in (alone, watched)]
    assert losses[0] == losses[1]  # no reading has swallowed an entry of the log


def test_readings_stand_in_the_run_folder_and_are_of_the_weights(small_job, watch, tmp_path):
    monitor = watch("stop", 0.01)  # decides, so that it reads at steps that follow from tokens
    tuned = small_job(folder="run", monitor=monitor, evals_per_epoch=1)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {e["step"]: e[KEY] for e in lines if KEY in e} == readings(tuned.record)
    from tunewell.models.embed import embed
    from tunewell.models.load import load_encoder

    texts = sample_texts(monitor._general, 64, 1)
    before = embed(load_encoder(str(tuned.model.name_or_path)).model, tuned.tokenizer, texts, max_length=48)
    after = embed(tuned.model, tuned.tokenizer, texts, max_length=48)
    order = np.argsort([len(tuned.tokenizer(t)["input_ids"]) for t in texts], kind="stable")
    wanted = estimate.kept_cosine(estimate.mean_cosine(before[order], after[order]))
    assert tuned.record.monitor.estimate == pytest.approx(wanted, abs=1e-4)
    assert tuned.record.monitor.ended_at is None


def crossing(seen: dict[int, float]) -> tuple[int, float, int]:
    """(step k ≥ 5, floor, step before): the first reading from step 5 on that is clearly below all before it."""
    for k in range(5, max(seen)):
        lowest = min(v for step, v in seen.items() if step < k)
        if seen[k] < lowest - 1e-4:
            return k, (seen[k] + lowest) / 2, k - 1
    raise AssertionError(f"the readings do not fall: {seen}")


def test_stop_ends_where_the_floor_is_crossed(small_job, watch):
    whole = small_job(folder="a", monitor=watch("stop", -9.0))
    seen = readings(whole.record)
    step, floor, _ = crossing(seen)
    stopped = small_job(folder="b", monitor=watch("stop", floor))
    assert stopped.record.steps == stopped.record.monitor.ended_at == step
    assert stopped.record.stopped_early
    assert {k: v for k, v in seen.items() if k <= step} == readings(stopped.record)
    scored = [e["step"] for e in stopped.record.history if "eval_f1_macro" in e]
    assert scored[-1] == step  # where it was stopped competes with the validated states before it


@pytest.mark.parametrize("names", [("plain",), ("lora",)], ids="+".join)
def test_rollback_goes_back_to_the_last_state_above(small_job, watch, names):
    whole = small_job(*names, folder="a", monitor=watch("stop", -9.0))
    seen = readings(whole.record)
    step, floor, before = crossing(seen)
    back = small_job(*names, folder="b", monitor=watch("rollback", floor))
    monitor = back.record.monitor
    assert (monitor.ended_at, monitor.back_to, back.record.best_step) == (step, before, before)
    assert monitor.estimate == pytest.approx(seen[before], abs=1e-4)
    assert monitor.estimate >= floor
    assert back.record.best_score == pytest.approx(back.scores[-1])
    assert not [n for n, _ in back.model.named_parameters() if "lora" in n]


def test_a_floor_that_nothing_can_meet_leaves_the_base_model(small_job, watch):
    tuned = small_job(folder="a", monitor=watch("rollback", 1.5))
    assert (tuned.record.monitor.ended_at, tuned.record.monitor.back_to) == (1, 0)
    assert same(tuned.weights, tuned.base)


def test_resumed_equals_uninterrupted(small_job, watch, crash_at):
    """Stopped after step 4, it goes on from its checkpoint at 3."""
    _, floor, before = crossing(readings(small_job(folder="a", monitor=watch("stop", -9.0)).record))
    whole = small_job(folder="b", monitor=watch("rollback", floor))
    with pytest.raises(crash_at.error):
        small_job(folder="c", monitor=watch("rollback", floor), callbacks=(crash_at(4),))
    resumed = small_job(folder="c", monitor=watch("rollback", floor))
    assert same(whole.weights, resumed.weights)
    assert readings(whole.record) == readings(resumed.record)
    assert whole.record.monitor.readings == resumed.record.monitor.readings
    assert whole.record.monitor.back_to == resumed.record.monitor.back_to == before


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"monitor": "rollback"}, "holds tuning to a budget: say how much"),
        ({"monitor": "stop", "keep": 0.9, "strategy": ["auto"]}, "would cut the search"),
        ({"monitor": "rollback", "keep": 0.9, "strategy": ["ema"]}, "leaves a mean of many states"),
        ({"monitor": "sometimes"}, "'watch', 'stop', 'rollback' or 'off'"),
    ],
)
def test_monitors_that_cannot_decide(keys, says):
    with pytest.raises(ValidationError, match=says):
        Recipe(**keys)


def test_only_a_monitor_that_decides_is_a_reason_to_tune_again(tiny_model):
    from tunewell.stages.keys import keys_for

    tune = {m: keys_for(Recipe(monitor=m, keep=0.9), "rows", str(tiny_model)).tune for m in (None, "watch", "off")}
    assert len(set(tune.values())) == 1
    held = {k: keys_for(Recipe(monitor="stop", keep=k), "rows", str(tiny_model)).tune for k in (0.9, 0.8)}
    assert len({*tune.values(), *held.values()}) == 3
