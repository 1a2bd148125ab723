"""Other encoders than BERT: sums come out, rules keep the values, and what cannot be done is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tunewell.errors import ModelError
from tunewell.explain.scorer import Scorer
from tunewell.explain.tokens import attnlrp, integrated_gradients, method
from tunewell.tasks import TaskSpec

SIZES: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 80, "pad_token_id": 0, "num_labels": 3, "initializer_range": 0.1,
}  # fmt: skip
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48}
KINDS = ["roberta", "distilbert", "electra", "deberta-v2", "modernbert", "albert"]
TARGETS = np.array([2, 0])


def model_of(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    more = {
        "distilbert": DISTIL,
        "electra": {"embedding_size": 16},
        "albert": {"embedding_size": 16},
        "modernbert": {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    }.get(kind, {})
    config = AutoConfig.for_model(kind, **(SIZES | more))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.fixture
def two(make_items: Callable) -> list:
    return [replace(item, types=None) for item in make_items(["the crew was great and the seat fine", "rude crew"])]


@pytest.mark.parametrize("kind", KINDS)
def test_sums_and_rules(kind: str, two: list, tiny_predictor: Any) -> None:
    scorer = Scorer(model_of(kind), tiny_predictor.tokenizer, TaskSpec("text-classification", ("a", "b", "c")))
    whole = [float(scorer.score(row, t)) for row, t in zip(scorer.logits(two), TARGETS, strict=True)]
    for a in integrated_gradients.attribute(scorer, two, TARGETS):
        assert a.delta is not None and a.total is not None
        assert a.delta <= max(0.01 * abs(a.total), integrated_gradients.FLOOR) * 1.001
        assert np.abs(a.scores).max() > 0
    for item, a in zip(two, method("occlusion").attribute(scorer, two, TARGETS), strict=True):
        assert a.scores.shape == (len(item.words),)
    if kind in attnlrp.KNOWN:
        with attnlrp.rules():
            passed = {i: s for i, _, _, s in scorer.passes(two, TARGETS, [0, 1], lambda job, text: text)}
        assert [passed[0], passed[1]] == pytest.approx(whole, abs=1e-4)
        assert all(np.isfinite(a.scores).all() for a in attnlrp.attribute(scorer, two, TARGETS))
    else:
        with pytest.raises(ModelError, match=f"not written for {kind} models"):
            attnlrp.attribute(scorer, two, TARGETS)


def test_rules_ask_for_an_activation_that_they_know(two: list, tiny_predictor: Any) -> None:
    model = model_of("roberta")
    model.config.hidden_act = "gelu_new"
    scorer = Scorer(model, tiny_predictor.tokenizer, TaskSpec("text-classification", ("a", "b", "c")))
    with pytest.raises(ModelError, match="not written for the activation gelu_new"):
        attnlrp.attribute(scorer, two, TARGETS)
