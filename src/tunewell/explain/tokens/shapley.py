"""Shapley values: a word's contribution averaged over all orders in which words could be added to nothing.

A text of few words is enumerated: 2^W subsets give the exact values. Longer ones are sampled: random orders, each
also read backwards (antithetic pairs), and the t interval of the pairs' means. Either way the scores add up to the
score of the text minus that of the text without words.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from typing import TYPE_CHECKING

import numpy as np

from tunewell.explain.segment import Item
from tunewell.explain.tokens import Attribution

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer

title = "Shapley values"
paper = "Shapley, 1953; sampled as in Castro et al., 2009, and Mitchell et al., 2022 (antithetic orders)"
unit = "log-odds of the target (units of the label in regression)"

EXACT = 7  # words: 128 subsets
PAIRS = 8  # of orders
ROWS = 6000  # rows for one text at the most; long texts get fewer orders, but two pairs at least


def attribute(
    scorer: Scorer,
    items: Sequence[Item],
    targets: np.ndarray,
    *,
    seed: int = 42,
    pairs: int = PAIRS,
    exact: int = EXACT,
) -> list[Attribution]:
    """Scores of words, with 95 % intervals where they were sampled.

    Args:
        pairs: pairs of orders of a longer text, 2 or more. exact: texts of at most so many words are enumerated.
    """
    plans = [
        _all_subsets(len(item.words)) if len(item.words) <= exact else _chains(item, pairs, seed) for item in items
    ]
    logits = iter(scorer.without([(item, keep) for item, plan in zip(items, plans, strict=True) for keep in plan]))
    out = []
    for item, target, plan in zip(items, targets, plans, strict=True):
        values = scorer.score(np.stack([next(logits) for _ in plan]), int(target))
        n = len(item.words)
        out.append(_exact(values, n) if n <= exact else _sampled(values, plan, n))
    return out


def _all_subsets(n: int) -> np.ndarray:
    """(2^n, n) bool; row s holds the bits of s, the first word lowest."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)


def _exact(values: np.ndarray, n: int) -> Attribution:
    """Shapley's formula over the values (2^n,) of all subsets."""
    subset = np.arange(2**n)
    size = np.array([int(s).bit_count() for s in subset])
    weight = np.array([factorial(k) * factorial(n - k - 1) / factorial(n) for k in range(n)])
    scores = np.empty(n)
    for word in range(n):
        outside = subset[subset >> word & 1 == 0]
        scores[word] = (weight[size[outside]] * (values[outside | 1 << word] - values[outside])).sum()
    total = float(values[-1] - values[0])
    return Attribution(scores, abs(float(scores.sum()) - total), total, passes=2**n)


def _chains(item: Item, pairs: int, seed: int) -> np.ndarray:
    """(2 · pairs · (W + 1), W) bool: order by order, the subsets from nothing to everything."""
    n = len(item.words)
    rng = np.random.default_rng([seed, item.key])
    orders = []
    for _ in range(max(2, min(pairs, ROWS // (2 * n)))):
        order = rng.permutation(n)
        orders += [order, order[::-1]]
    out = np.zeros((len(orders), n + 1, n), dtype=bool)
    for o, order in enumerate(orders):
        out[o, np.arange(n + 1)[:, None] > np.argsort(order)[None, :]] = True
    return out.reshape(-1, n)


def _sampled(values: np.ndarray, plan: np.ndarray, n: int) -> Attribution:
    from scipy import stats

    values, keeps = values.reshape(-1, n + 1), plan.reshape(-1, n + 1, n)
    gains = np.empty((len(values), n))
    for o, (chain, keep) in enumerate(zip(values, keeps, strict=True)):
        added = (keep[1:] & ~keep[:-1]).argmax(axis=1)  # (n,) the word that each step adds
        gains[o, added] = np.diff(chain)
    means = gains.reshape(-1, 2, n).mean(axis=1)  # (pairs, n)
    scores = means.mean(axis=0)
    half = stats.t.ppf(0.975, len(means) - 1) * means.std(axis=0, ddof=1) / np.sqrt(len(means))
    total = float(values[0, -1] - values[0, 0])
    return Attribution(scores, abs(float(scores.sum()) - total), total, scores - half, scores + half, len(plan))
