"""What holds a decoder to general text: distillation of next tokens, rehearsal; each against its definition."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tunewell.errors import RecipeError
from tunewell.strategies import anchor, next_tokens, rehearsal
from tunewell.strategies.distillation import Distillation

GENERAL = {"general_samples": 32, "distill_weight": 2.0, "rehearse_weight": 2.0, "rehearse_text": "general"}


@pytest.fixture
def general(tmp_path):
    path = tmp_path / "general.txt"
    path.write_text("\n".join(f"sentence {i} of the red house on hill {i * 7}" for i in range(32)), encoding="utf-8")
    return str(path)


@pytest.fixture
def tuning(tiny_decoder, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    said: list[str] = []
    return SimpleNamespace(
        model=AutoModelForCausalLM.from_pretrained(tiny_decoder).eval(),
        tokenizer=AutoTokenizer.from_pretrained(tiny_decoder),
        steps=4, tokens=800.0, seed=0, bf16=False, cache=tmp_path / "cache", echo=said.append, said=said,
    )  # fmt: skip


# ---------------------------------------------------------------- divergence


def test_divergence_of_all_tokens_is_the_whole_one():
    """With K = V nothing is left over: the same as the anchor's; rows (1/2, 1/2) and (1/4, 3/4) by hand."""
    base = torch.tensor([[[0.5, 0.5], [0.2, 0.8]]]).log()
    now = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]).log()
    mask = torch.tensor([[1, 0]])
    kept = next_tokens.answers(Fixed(base), {}, k=2)
    found = float(next_tokens.divergence(kept, now, mask))
    assert found == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), abs=2e-3)  # float16
    assert found == pytest.approx(float(anchor.divergence(base, now, mask)), abs=2e-3)


def test_divergence_with_the_rest_as_one_by_hand():
    """(0.6, 0.3, 0.1) with K = 1 is (0.6, rest 0.4) against (0.3, rest 0.7); never more than the whole."""
    base = torch.tensor([[[0.6, 0.3, 0.1]]]).log()
    now = torch.tensor([[[0.3, 0.1, 0.6]]]).log()
    mask = torch.ones(1, 1)
    found = float(next_tokens.divergence(next_tokens.answers(Fixed(base), {}, k=1), now, mask))
    assert found == pytest.approx(0.6 * np.log(0.6 / 0.3) + 0.4 * np.log(0.4 / 0.7), abs=1e-3)
    assert found < float(anchor.divergence(base, now, mask))


class Fixed:
    """A model that always gives the same logits."""

    device = torch.device("cpu")

    def __init__(self, logits):
        self.logits = logits

    def __call__(self, **batch):
        return self


# ---------------------------------------------------------------- distillation


def test_a_decoder_is_held_to_its_next_tokens_on_general_text(tuning, general):
    """0 at the base weights, with no gradient; a step away weight · every · KL, as the anchor has it on that batch."""
    strategy = Distillation({**GENERAL, "general_text": general})
    strategy.prepare(tuning)
    model = tuning.model
    term = strategy.extra_loss(model, 0)
    term.backward()
    assert float(term.detach()) == pytest.approx(0.0, abs=1e-3)
    batch, mask = strategy.batches[0], strategy.batches[0]["attention_mask"]
    before = model(**batch).logits.detach()
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)
        found = float(strategy.extra_loss(model, 0))
        whole = float(anchor.divergence(before, model(**batch).logits, mask))
    assert 0.5 * whole < found / (2.0 * strategy.every) <= whole + 1e-3


# ---------------------------------------------------------------- rehearsal


def test_surprise_is_what_transformers_computes(tuning):
    batch = dict(tuning.tokenizer(["the red house", "a hill"], return_tensors="pt", padding=True))
    batch.pop("token_type_ids", None)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    with torch.no_grad():
        outputs = tuning.model(**batch, labels=labels)
        assert float(rehearsal.surprise(outputs.logits, batch)) == pytest.approx(float(outputs.loss), rel=1e-5)


def test_general_text_is_learned(tuning, general):
    strategy = rehearsal.Rehearsal({**GENERAL, "general_text": general})
    strategy.prepare(tuning)
    model = tuning.model
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    first = float(strategy.extra_loss(model, 0).detach())
    for _ in range(5):
        optimiser.zero_grad()
        strategy.extra_loss(model, 0).backward()
        optimiser.step()
    assert float(strategy.extra_loss(model, 0).detach()) < first
    assert strategy.extra_loss(model, 1) is None or strategy.every == 1
    assert "general texts" in tuning.said[-1]


def test_the_base_model_writes_its_own_once(tuning, general):
    drawn = torch.get_rng_state()
    strategy = rehearsal.Rehearsal({**GENERAL, "rehearse_text": "self", "general_text": general})
    strategy.prepare(tuning)
    assert torch.equal(drawn, torch.get_rng_state())  # the loop draws as it would without
    assert any("kept" in line for line in tuning.said) and "of the base model's own" in tuning.said[-1]
    again = SimpleNamespace(**{**vars(tuning), "said": [], "echo": lambda line: again.said.append(line)})
    resumed = rehearsal.Rehearsal({**GENERAL, "rehearse_text": "self", "general_text": general})
    resumed.prepare(again)
    assert not any("writes" in line for line in again.said)
    assert all(
        torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(strategy.batches, resumed.batches, strict=True)
    )


def test_a_model_that_repeats_itself_is_told(tuning, general, monkeypatch):
    def again(input_ids, **options):
        return torch.cat([input_ids, input_ids[:, :1].repeat(1, 20)], dim=1)

    monkeypatch.setattr(tuning.model, "generate", again)
    strategy = rehearsal.Rehearsal({**GENERAL, "rehearse_text": "self", "general_text": general})
    with pytest.raises(RecipeError, match="only 0 do not repeat themselves"):
        strategy.prepare(tuning)


def test_rehearsal_is_for_decoders(tiny_model, make_reviews, tmp_path):
    import csv

    import tunewell

    path = tmp_path / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *make_reviews(40)])
    with pytest.raises(RecipeError, match="takes a decoder that writes"):
        tunewell.run(train=str(path), model=str(tiny_model), strategy="rehearse", output_dir=str(tmp_path / "run"))
