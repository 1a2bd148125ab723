"""Gradient × input: one pass back; how fast the score grows along each word's embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.explain.segment import Item
from tunewell.explain.tokens import Attribution

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer

title = "Gradient × input"
paper = "Shrikumar et al., 2017, Learning Important Features Through Propagating Activation Differences"
unit = "log-odds of the target to first order (units of the label in regression)"


def attribute(scorer: Scorer, items: Sequence[Item], targets: np.ndarray, *, seed: int = 42) -> list[Attribution]:
    """Scores of words: the gradient of the score, times the embedding, summed over dimensions and tokens."""
    out: list[Any] = [None] * len(items)
    for i, fed, gradient, _ in scorer.passes(items, targets, range(len(items)), lambda job, text: text):
        out[i] = Attribution(items[i].to_words((gradient.astype(np.float64) * fed).sum(axis=1)), passes=1)
    return out
