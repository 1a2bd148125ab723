"""Random scores: the control that every method must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewell.explain.segment import Item
from tunewell.explain.tokens import Attribution

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer

title = "Random (control)"
paper = "Hooker et al., 2019, A Benchmark for Interpretability Methods in Deep Neural Networks"
unit = "none"


def attribute(scorer: Scorer, items: Sequence[Item], targets: np.ndarray, *, seed: int = 42) -> list[Attribution]:
    """Standard normal scores, the same for the same text and seed."""
    return [Attribution(np.random.default_rng([seed, item.key]).normal(size=len(item.words))) for item in items]
