"""AttnLRP's rules by hand, and the conservation of relevance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tunewell.explain.scorer import Scorer
from tunewell.explain.tokens import attnlrp
from tunewell.explain.tokens.attnlrp import rules
from tunewell.tasks import TaskSpec


def relevance(y: torch.Tensor, x: torch.Tensor, handed_down: torch.Tensor) -> torch.Tensor:
    """Of x, when y got `handed_down`: gradient × input."""
    (gradient,) = torch.autograd.grad(y, x, handed_down / y.detach(), retain_graph=True)
    return gradient * x.detach()


@pytest.mark.parametrize("function", [functional.gelu, torch.tanh, functional.silu])
def test_an_activation_hands_on_all_it_got(function) -> None:  # type: ignore[no-untyped-def]
    x = torch.tensor([-2.0, 0.7, 0.001, 3.0], requires_grad=True)
    with rules():
        y = function(x)
    assert torch.allclose(y, function(x), atol=1e-6)
    got = torch.tensor([1.0, -2.0, 0.5, 3.0])
    assert torch.allclose(relevance(y, x, got), got, atol=1e-4)


def test_layer_norm_keeps_values_and_relevance() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8, requires_grad=True)
    weight = torch.rand(8) + 0.5
    with rules():
        y = functional.layer_norm(x, (8,), weight, None, 1e-12)
        shifted = functional.layer_norm(x, (8,), weight, torch.ones(8), 1e-12)
    assert torch.allclose(y, functional.layer_norm(x, (8,), weight, None, 1e-12), atol=1e-5)
    assert torch.allclose(shifted, y + 1, atol=1e-5)
    got = torch.randn(3, 8)
    assert torch.allclose(relevance(y, x, got).sum(-1), got.sum(-1), atol=1e-3)


def test_values_get_half_and_queries_a_quarter() -> None:
    """out = softmax(q kᵀ) v: half to each factor, and of what attention gets, half again to q and k."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 4, 3, requires_grad=True) for _ in range(3))
    upstream = torch.randn(1, 1, 4, 3)
    plain = torch.autograd.grad(functional.scaled_dot_product_attention(q, k, v), (q, k, v), upstream)
    with rules():
        out = functional.scaled_dot_product_attention(q, k, v)
    ruled = torch.autograd.grad(out, (q, k, v), upstream)
    for part, whole, ratio in zip(ruled, plain, (0.25, 0.25, 0.5), strict=True):
        assert torch.allclose(part, whole * ratio, atol=1e-5)


@pytest.mark.parametrize("attends", [False, True])
def test_relevance_is_conserved(attends: bool, tiny_classifier: Path) -> None:
    """A model without biases: what comes in at the top arrives at the embeddings.

    What attention weights get is not passed on in full (softmax keeps some, as in the paper), so attention is either
    silenced or made to pass on values alone, uniformly, where the uniform rule keeps half of its branch.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith("bias") or "position_embeddings" in name or "token_type_embeddings" in name:
                weights.zero_()
            if "query" in name or ("value" in name and not attends):
                weights.zero_()
    tokenizer = AutoTokenizer.from_pretrained(tiny_classifier)
    scorer = Scorer(model, tokenizer, TaskSpec("text-classification", ("negative", "positive")))
    from tunewell.explain.segment import items_of

    found = items_of(tokenizer, ["the crew was great", "bad"], None, 32)
    with rules():
        passed = list(scorer.passes(found, np.array([1, 0]), [0, 1], lambda job, text: text))
    for _, fed, gradient, score in passed:
        total = float((fed.astype(np.float64) * gradient).sum())
        if attends:
            assert total != pytest.approx(score, rel=1e-3)  # the other half stays with attention
        else:
            assert total == pytest.approx(score, rel=1e-3, abs=1e-4)


def test_the_docs_name_the_kinds_that_it_knows() -> None:
    names = {"bert": "BERT", "camembert": "CamemBERT", "distilbert": "DistilBERT", "electra": "ELECTRA",
             "roberta": "RoBERTa", "xlm-roberta": "XLM-RoBERTa"}  # fmt: skip
    assert set(names) == set(attnlrp.KNOWN)
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "explanations.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith("| `attnlrp`")]
    for text in (row, attnlrp.__doc__ or ""):
        assert all(name in text for name in names.values())
        assert "MPNet" not in text and "their like" not in text
