"""LIME: a linear model of the score, fitted around the text on copies with words left out.

Different from the paper in two things: all words are kept (no selection of features), and the score that is fitted
is the log-odds, which is nearer to linear than a probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewell.explain.segment import Item
from tunewell.explain.tokens import Attribution

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer

title = "LIME"
paper = "Ribeiro et al., 2016, “Why Should I Trust You?”"
unit = "log-odds of the target (units of the label in regression)"

WIDTH = 0.25  # of the kernel over cosine distance, as the authors' package has it for text (25, of distance × 100)


def attribute(
    scorer: Scorer,
    items: Sequence[Item],
    targets: np.ndarray,
    *,
    seed: int = 42,
    samples: int = 150,
    ridge: float = 1.0,
) -> list[Attribution]:
    """Scores of words: weights of a ridge regression on which words are there.

    Args:
        samples: copies of a text with words left out (how many and which is uniformly random), beside the text
            itself. ridge: the penalty.
    """
    plans = [_copies(item, samples, seed) for item in items]
    logits = iter(scorer.without([(item, keep) for item, plan in zip(items, plans, strict=True) for keep in plan]))
    out = []
    for plan, target in zip(plans, targets, strict=True):
        values = scorer.score(np.stack([next(logits) for _ in plan]), int(target))
        out.append(Attribution(_fit(plan.astype(np.float64), values, ridge), passes=len(plan)))
    return out


def _copies(item: Item, samples: int, seed: int) -> np.ndarray:
    """(samples + 1, W) bool, the whole text first."""
    n = len(item.words)
    rng = np.random.default_rng([seed, item.key])
    gone = rng.integers(1, n + 1, size=samples)
    ranks = rng.random((samples, n)).argsort(axis=1).argsort(axis=1)
    return np.vstack([np.ones((1, n), dtype=bool), ranks >= gone[:, None]])


def _fit(there: np.ndarray, values: np.ndarray, ridge: float) -> np.ndarray:
    """Weighted ridge regression with an unpenalised intercept: there (s, W), values (s,) to weights (W,)."""
    distance = 1 - np.sqrt(there.mean(axis=1))  # cosine distance to the row of ones
    weight = np.sqrt(np.exp(-(distance**2) / WIDTH**2))
    weight /= weight.sum()
    x, y = there - weight @ there, values - weight @ values
    scaled = x * weight[:, None] * len(there)
    return np.linalg.solve(x.T @ scaled + ridge * np.eye(x.shape[1]), scaled.T @ y)
