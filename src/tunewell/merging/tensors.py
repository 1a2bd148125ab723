"""Merge methods on single tensors: what tuning changed in several models (task vectors τ = θ − θ₀) as one change.

    task_arithmetic   Σ w τ (Ilharco et al., 2023)
    ties              each τ trimmed to its largest entries, a sign elected for each entry, and the mean of those that
                      agree with it (Yadav et al., 2023)
    dare              entries dropped at random and the rest rescaled, then as task_arithmetic (Yu et al., 2024)
    dare_ties         the same, then as ties
    lines             Σ w τ, less of it the lower the layer (Wang et al., 2024)

Trimming and dropping are done tensor by tensor, as PEFT and mergekit do it; the papers trim a model as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Weights

VECTORS = ("task_arithmetic", "ties", "dare", "dare_ties", "lines")  # work on what tuning changed
SOUPS = ("soup", "greedy")  # means of the models themselves
METHODS = (*SOUPS, *VECTORS)
SPARSE = ("ties", "dare", "dare_ties")  # take a density


def trim(tau: torch.Tensor, density: float) -> torch.Tensor:
    """The ⌊density · n⌋ entries of the largest size; the others 0.

    >>> import torch
    >>> trim(torch.tensor([3.0, 1.0, 2.0, -4.0]), 0.5).tolist()
    [3.0, 0.0, 0.0, -4.0]
    """
    import torch

    if density >= 1:
        return tau
    flat = tau.abs().flatten()
    kept = torch.topk(flat, int(density * flat.numel())).indices
    mask = torch.zeros_like(flat).scatter_(0, kept, 1.0)
    return tau * mask.view(tau.shape)


def drop(tau: torch.Tensor, density: float, generator: torch.Generator) -> torch.Tensor:
    """Each entry kept with probability `density` and divided by it, else 0: the same on average."""
    import torch

    if density >= 1:
        return tau
    return tau * torch.bernoulli(torch.full_like(tau, density), generator=generator) / density


def weighted_sum(taus: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Σ w τ."""
    import torch

    return torch.stack([w * t for t, w in zip(taus, weights, strict=True)]).sum(0)


def agreeing_mean(taus: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Σ w τ over the models whose entry has the elected sign, divided by their number.

    The elected sign is that of Σ τ; entries that were trimmed to 0 agree with none.
    """
    import torch

    stacked = torch.stack(list(taus))
    elected = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
    agree = stacked.sign() == elected
    total = torch.stack([w * t for t, w in zip(taus, weights, strict=True)]).mul(agree).sum(0)
    return total / agree.sum(0).clamp(min=1)


def merged_vector(
    method: str, taus: Sequence[torch.Tensor], weights: Sequence[float], density: float, generator: torch.Generator
) -> torch.Tensor:
    """One tensor's changes in several models as one change; `lines` is scaled afterwards, see `merge_states`."""
    if method == "ties":
        return agreeing_mean([trim(t, density) for t in taus], weights)
    if method in ("dare", "dare_ties"):
        dropped = [drop(t, density, generator) for t in taus]
        return weighted_sum(dropped, weights) if method == "dare" else agreeing_mean(dropped, weights)
    return weighted_sum(taus, weights)


def merge_states(
    method: str,
    base: Weights,
    states: Sequence[Weights],
    *,
    weights: Sequence[float],
    scale: float = 1.0,
    density: float = 0.5,
    seed: int = 42,
) -> Weights:
    """Whole models as one.

    Args:
        base: the base model's weights, without those of a head that was drawn for the task.
        states: the tuned models' weights, all with the same names and shapes.
        weights: one a model: factors of the task vectors; of the models themselves for `soup`.
        scale: factor of the merged change. density: share of entries kept by `ties`, `dare` and `dare_ties`.

    Returns:
        Weights by name. What the base model has not (a head) is the weighted mean of the models' own; entries that
        are no floats (buffers) are those of the first.
    """
    import torch

    from tunewell.strategies.lines import factor, place

    generator = torch.Generator().manual_seed(seed)
    share = [w / sum(weights) for w in weights]
    layers = place(base) if method == "lines" else {}
    last = max((n for name, n in layers.items() if "pooler" not in name), default=1)
    out: Weights = {}
    for name, first in states[0].items():
        own = [s[name].float() for s in states] if first.is_floating_point() else []
        if not own:
            out[name] = first.clone()
        elif method in SOUPS or name not in base:
            out[name] = weighted_sum(own, share).to(first.dtype)
        else:
            start = base[name].float()
            tau = merged_vector(method, [o - start for o in own], weights, density, generator)
            depth = factor(min(layers[name], last), last, 1 / len(states)) if method == "lines" else 1.0
            out[name] = (start + scale * depth * tau).to(first.dtype)
    return out
