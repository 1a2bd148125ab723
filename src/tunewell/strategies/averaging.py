"""Weight averaging between the base model and the tuned one (WiSE-FT; Wortsman et al., 2022).

The encoder's weights become (1 − α) · base + α · tuned; the head stays as tuned. No training: the
candidates are made after tuning and the retention budget chooses among them. The paper
interpolates the head too, from a zero-shot head that an encoder does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewell.train.hooks import Weights


class Averaging:
    name = "average"
    title = "Weight averaging with the base model"
    paper = "Wortsman et al., 2022, Robust fine-tuning of zero-shot models"

    def __init__(self, options: dict[str, Any]) -> None:
        # 1 is the tuned model, which is always a candidate
        self.alphas = sorted({a for a in options["average_alphas"] if a < 1}, reverse=True)

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        for alpha in self.alphas:
            yield {"alpha": alpha}, interpolate(base, tuned, alpha)


def interpolate(base: Weights, tuned: Weights, alpha: float) -> Weights:
    """(1 − α) · base + α · tuned for floating weights; other entries (buffers of whole numbers) as tuned."""
    return {
        name: base[name].lerp(weight, alpha) if weight.is_floating_point() and name in base else weight
        for name, weight in tuned.items()
    }
