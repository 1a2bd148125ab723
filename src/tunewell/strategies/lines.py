"""LiNeS: the lower a layer, the more of its change is taken back after tuning (Wang et al., 2024).

The change of layer l of L is scaled by α + (1 − α) · (l − 1) / (L − 1), so that the first layer keeps α
of it and the last all: shallow layers hold what is general. Embeddings go with the first layer; a
pooler and the head stay as tuned. No training: each α in `lines_alphas` is one more candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewell.train.hooks import Weights


class LayerScaling:
    name = "lines"
    title = "Layer-wise scaling of what tuning changed (LiNeS)"
    paper = "Wang et al., 2024, LiNeS: post-training layer scaling prevents forgetting and enhances model merging"

    def __init__(self, options: dict[str, Any]) -> None:
        self.alphas = sorted({a for a in options["lines_alphas"] if a < 1}, reverse=True)

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        for alpha in self.alphas:
            yield {"lines": alpha}, scaled(base, tuned, alpha)


def scaled(base: Weights, tuned: Weights, alpha: float) -> Weights:
    """base + λ(l) · (tuned − base), layer by layer; names as in the base model's state."""
    numbers = place(tuned)
    last = max((n for name, n in numbers.items() if "pooler" not in name), default=1)
    out = {}
    for name, weight in tuned.items():
        share = 1.0 if numbers[name] > last else factor(numbers[name], last, alpha)
        whole = share == 1.0 or name not in base or not weight.is_floating_point()
        out[name] = weight if whole else base[name].lerp(weight, share)
    return out


def place(names: Iterable[str]) -> dict[str, int]:
    """Name -> number of its layer from 1; embeddings go with the first, a pooler stands above the last."""
    from tunewell.strategies.layers import within

    found = {name: within(name) for name in names}
    last = max((n for n in found.values() if n is not None), default=1)
    return {
        name: n if n is not None else last + 1 if "pooler" in name else 1 if "embed" in name else last
        for name, n in found.items()
    }


def factor(layer: int, layers: int, alpha: float) -> float:
    """λ(l), the share of its change that layer l (from 1) of `layers` keeps.

    >>> [round(factor(l, 5, 0.2), 2) for l in (1, 3, 5)]
    [0.2, 0.6, 1.0]
    """
    return alpha + (1 - alpha) * (layer - 1) / max(layers - 1, 1) if layers > 1 else 1.0
