"""Merge methods against PEFT's functions, cases worked by hand, and what must hold of them."""

from __future__ import annotations

import pytest
import torch
from peft.utils import merge_utils

from tunewell.merging.tensors import METHODS, agreeing_mean, drop, merge_states, merged_vector, trim

WEIGHTS = [0.7, 0.2, 0.5]


@pytest.fixture
def taus():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(13, 7, generator=generator) for _ in WEIGHTS]


@pytest.mark.parametrize("density", [0.2, 0.5, 0.9])
def test_ties_is_pefts(taus, density):
    wanted = merge_utils.ties(taus, torch.tensor(WEIGHTS), density)
    found = merged_vector("ties", taus, WEIGHTS, density, torch.Generator())
    assert torch.allclose(found, wanted, atol=1e-6, rtol=0)
    assert torch.equal(trim(taus[0], density), merge_utils.prune(taus[0], density, "magnitude"))


def test_task_arithmetic_is_pefts(taus):
    wanted = merge_utils.task_arithmetic(taus, torch.tensor(WEIGHTS))
    found = merged_vector("task_arithmetic", taus, WEIGHTS, 1.0, torch.Generator())
    assert torch.allclose(found, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("method", "reference"), [("dare", "dare_linear"), ("dare_ties", "dare_ties")])
def test_dare_is_pefts_with_the_same_draws(taus, method, reference):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        wanted = getattr(merge_utils, reference)(taus, torch.tensor(WEIGHTS), 0.4)
    found = merged_vector(method, taus, WEIGHTS, 0.4, torch.Generator().manual_seed(5))
    assert torch.allclose(found, wanted, atol=1e-6, rtol=0)


def test_ties_by_hand():
    """Trimmed to half, elected signs +, −, +, and means of those that agree (Yadav et al., 2023)."""
    taus = [torch.tensor([4.0, -3.0, 0.1, 0.2]), torch.tensor([-1.0, -5.0, 2.0, 0.1])]
    trimmed = [trim(t, 0.5) for t in taus]
    assert [t.tolist() for t in trimmed] == [[4.0, -3.0, 0.0, 0.0], [0.0, -5.0, 2.0, 0.0]]
    assert agreeing_mean(trimmed, [1.0, 1.0]).tolist() == [4.0, -4.0, 2.0, 0.0]


def test_what_dare_drops_is_the_same_on_average():
    tau = torch.ones(200_000)
    found = drop(tau, 0.3, torch.Generator().manual_seed(0))
    assert found.unique().tolist() == pytest.approx([0.0, 1 / 0.3])
    assert float(found.mean()) == pytest.approx(1.0, abs=0.02)
    assert float((found > 0).float().mean()) == pytest.approx(0.3, abs=0.01)


def states():
    base = {"embeddings.w": torch.tensor([1.0]), "layer.0.w": torch.tensor([1.0]), "layer.1.w": torch.tensor([1.0])}
    made = []
    for step in (1.0, 3.0):
        made.append({k: v + step for k, v in base.items()} | {"head.w": torch.tensor([step]), "n": torch.tensor(7)})
    return base, made


@pytest.mark.parametrize(
    ("method", "scale", "wanted"),
    [
        ("soup", 1.0, [3.0, 3.0, 3.0]),  # 1 + (1 + 3) / 2
        ("task_arithmetic", 0.5, [2.0, 2.0, 2.0]),  # 1 + 0.5 · (0.5 · 1 + 0.5 · 3)
        ("lines", 1.0, [2.0, 2.0, 3.0]),  # the first layer keeps 1 / n of the change, the last all
    ],
)
def test_models_by_hand(method, scale, wanted):
    base, made = states()
    found = merge_states(method, base, made, weights=[0.5, 0.5], scale=scale)
    assert [found[k].item() for k in base] == pytest.approx(wanted)
    assert found["head.w"].item() == 2.0  # the base model has no head: the mean of the models' own
    assert found["n"].item() == 7


@pytest.mark.parametrize("method", METHODS)
def test_one_model_with_itself_is_itself(method):
    base, (model, _) = states()
    weights = [1.0, 1.0] if method in ("ties", "dare_ties") else [0.5, 0.5]
    found = merge_states(method, base, [model, model], weights=weights, density=1.0)
    same = [k for k in found if method != "lines" or k == "layer.1.w"]
    assert all(torch.equal(found[k], model[k]) for k in same)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("soup", "greedy")])
def test_at_scale_zero_is_the_base_model(method):
    base, made = states()
    found = merge_states(method, base, made, weights=[1.0, 1.0], scale=0.0)
    assert all(torch.equal(found[k], base[k]) for k in base)
