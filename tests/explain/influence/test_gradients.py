"""Projected per-example gradients against autograd, one example at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tunewell.errors import ModelError
from tunewell.explain.influence.gradients import Projector, direction, head_of
from tunewell.predict import Predictor

TEXTS = ["good flight", "the crew was rude and the seat was broken", "nice"]


@pytest.fixture
def predictor(tiny_classifier: Path) -> Predictor:
    return Predictor.load(tiny_classifier)


def batch(predictor: Predictor, texts: list[str]) -> dict[str, Any]:
    return dict(predictor.tokenizer(texts, padding=True, return_tensors="pt"))


def test_projected_gradients_are_those_of_autograd(predictor: Predictor) -> None:
    model = predictor.model
    with Projector(model, side=4, seed=3) as projector:
        found = projector.run(batch(predictor, TEXTS), None, predictor.spec)
        layers = dict(projector._layers)
        blocks = dict(projector.blocks)
    assert found.gradients.shape == (3, projector.size) and projector.size == blocks["head"].stop
    for i, text in enumerate(TEXTS):
        model.zero_grad()
        logits = model(**batch(predictor, [text])).logits
        which = logits.argmax(dim=1)
        p = torch.softmax(logits[0], dim=0)[which[0]]
        (torch.log(p) - torch.log1p(-p)).backward()  # log odds, from its definition
        for name, (module, inner, outer) in layers.items():
            whole = torch.cat([module.weight.grad, module.bias.grad[:, None]], dim=1)  # (out, in + 1)
            whole = whole if outer is None else outer.T @ whole
            whole = whole if inner is None else whole @ inner
            np.testing.assert_allclose(
                found.gradients[i, blocks[name]], whole.flatten().numpy(), rtol=2e-3, atol=2e-5, err_msg=name
            )


def test_a_rows_gradient_does_not_depend_on_its_batch(predictor: Predictor) -> None:
    with Projector(predictor.model) as projector:
        together = projector.run(batch(predictor, TEXTS), None, predictor.spec)
        alone = projector.run(batch(predictor, TEXTS[:1]), None, predictor.spec)
    np.testing.assert_allclose(together.gradients[0], alone.gradients[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(together.features[0], alone.features[0], rtol=1e-4, atol=1e-6)


def test_inner_products_are_kept_in_the_mean(predictor: Predictor) -> None:
    """Over many projections the mean inner product of two rows is that of their whole gradients."""
    products = []
    for seed in range(200):
        with Projector(predictor.model, side=8, seed=seed) as projector:
            g = projector.run(batch(predictor, TEXTS[:2]), np.array([0, 0]), predictor.spec).gradients
        products.append(g[0] @ g[1])
    with Projector(predictor.model, side=10_000) as projector:
        g = projector.run(batch(predictor, TEXTS[:2]), np.array([0, 0]), predictor.spec).gradients
    true, error = float(g[0] @ g[1]), float(np.std(products) / np.sqrt(len(products)))
    assert abs(np.mean(products) - true) < 4 * error and error < abs(true)


def test_the_model_is_as_before_even_after_an_error(predictor: Predictor) -> None:
    model = predictor.model
    required = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(RuntimeError, match="stop"), Projector(model):
        raise RuntimeError("stop")
    assert {name: p.requires_grad for name, p in model.named_parameters()} == required
    assert not any(m._forward_hooks for m in model.modules())


def test_the_direction_of_log_odds() -> None:
    from tunewell.tasks import TaskSpec

    spec = TaskSpec("text-classification", ("a", "b", "c"))
    logits = torch.tensor([[0.3, -1.0, 2.0]], requires_grad=True)
    p = torch.softmax(logits, dim=1)[0, 1]
    (torch.log(p) - torch.log1p(-p)).backward()
    np.testing.assert_allclose(direction(spec, logits.detach(), torch.tensor([1])), logits.grad, rtol=1e-5)


def test_a_model_without_a_linear_head_is_refused(predictor: Predictor) -> None:
    predictor.model.config.num_labels = 7
    with pytest.raises(ModelError, match="not linear"):
        head_of(predictor.model)
