"""Which words decided: one method a file, one line in this table.

Each file carries the method's `title`, `paper`, `unit` (what a score says) and one function `attribute`, which
takes a `Scorer`, items, (n,) targets and a seed, and returns one `Attribution` an item. Scores of a text depend on
that text alone: not on its neighbours, batches or padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError, nearest

if TYPE_CHECKING:
    import numpy as np

METHODS: dict[str, str] = {
    "gradient_x_input": "tunewell.explain.tokens.gradient_x_input",
    "attnlrp": "tunewell.explain.tokens.attnlrp",
    "rollout": "tunewell.explain.tokens.rollout",
    "integrated_gradients": "tunewell.explain.tokens.integrated_gradients",
    "occlusion": "tunewell.explain.tokens.occlusion",
    "smoothgrad": "tunewell.explain.tokens.smoothgrad",
    "lime": "tunewell.explain.tokens.lime",
    "shapley": "tunewell.explain.tokens.shapley",
    "random": "tunewell.explain.tokens.random_control",
}
# what `auto` tries, the cheap ones first: methods whose scores have a sign. Rollout has none and knows no target, so
# that a word against the label would be shown as one for it; it can be named
CANDIDATES = ("gradient_x_input", "attnlrp", "occlusion", "smoothgrad", "integrated_gradients", "lime", "shapley")


@dataclass(frozen=True)
class Attribution:
    """Scores of one text.

    Attributes:
        scores: (W,) float64, positive where a word speaks for the target.
        delta: for methods whose scores must add up to a known sum, how far they are from it.
        total: that sum; None where none is defined.
        low, high: (W,) 95 % intervals of sampled scores, None where nothing was sampled.
        passes: rows that went through the model for it.
    """

    scores: np.ndarray
    delta: float | None = None
    total: float | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    passes: int = 0


def method(name: str) -> Any:
    """The module of a method.

    Raises:
        RecipeError: no such method.
    """
    if name not in METHODS:
        hint = nearest(name, METHODS)
        raise RecipeError(
            f"no method `{name}`" + (f"; {hint}" if hint else ""),
            where="method",
            expected="auto, " + ", ".join(METHODS),
        )
    return import_module(METHODS[name])
