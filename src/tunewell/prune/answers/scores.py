"""How rows with written answers are scored, and the order in which they are kept.

- `less`: the influence of a row on the loss of the target rows, over the checkpoints of a warm-up tuning: Σ η̄_i ·
  cos(gradient of the target, Adam's step on the row), the mean over the rows of a subtask, the largest over subtasks
  (Xia et al., 2024, LESS: Selecting Influential Data for Targeted Instruction Tuning). As in their published code, the
  mean is one of cosines, so that each target row counts the same, and the rates η̄ are divided by their sum.
- `ifd`: loss of the answer given the prompt over its loss alone, high where the prompt helps little (Li et al., 2024,
  From Quantity to Quality: Boosting LLM Performance with Self-Guided Data Selection for Instruction Tuning). Highest
  first; rows of 1 and above, whose prompt does not help at all, last.
- `perplexity`: exp of the mean nats a token of the answer, by the base model; the middle of the pool first (Marion et
  al., 2023, When Less is More: Investigating Data Pruning for Pretraining LLMs at Scale).

Shapes: n rows of the pool, t target rows, J subtasks, E checkpoints, k numbers of a projected gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewell.explain.influence.answers.gradients import unit
from tunewell.explain.influence.answers.methods import cosines
from tunewell.prune.answers import IFD, LESS, PERPLEXITY, RANDOM


def less_by_subtask(
    steps: Sequence[np.ndarray], targets: Sequence[np.ndarray], rates: Sequence[float], group: np.ndarray
) -> np.ndarray:
    """(n, J) influence of each row on each subtask, −1 to 1.

    Args:
        steps: E of (n, k), Adam's steps on the rows of the pool, of length 1; may be on disk.
        targets: E of (t, k), gradients of the target rows' losses. rates: E mean learning rates.
        group: (t,) subtask of each target row, 0 to J − 1.
    """
    share = np.asarray(rates, dtype=np.float64) / sum(rates)
    total = np.zeros((len(steps[0]), int(group.max()) + 1))
    for step, target, weight in zip(steps, targets, share, strict=True):
        directions = unit(target)
        mean = np.stack([directions[group == j].mean(axis=0) for j in range(total.shape[1])])
        total += weight * cosines(step, mean)
    return total


def order_of(method: str, scores: dict[str, np.ndarray], n: int, seed: int) -> np.ndarray:
    """(n,) places of the rows, those to keep first; rows of equal score in a seeded order, rows without one last.

    >>> order_of("ifd", {"ifd": np.array([0.2, 1.3, 0.9])}, 3, 0).tolist()
    [2, 0, 1]
    >>> order_of("perplexity", {"perplexity": np.array([90.0, 2.0, 7.0])}, 3, 0)[0]
    np.int64(2)
    """
    shuffled = np.random.default_rng(seed).permutation(n)
    if method == RANDOM:
        return shuffled
    values = scores[method][shuffled]
    if method == LESS:
        key = -values
    elif method == IFD:
        key = np.where(values < 1, -values, values)
    else:
        assert method == PERPLEXITY
        key = np.abs(ranks(values) - (np.isfinite(values).sum() - 1) / 2)
    key = np.where(np.isfinite(values), key, np.inf)
    return shuffled[np.argsort(key, kind="stable")]


def ranks(values: np.ndarray) -> np.ndarray:
    """(n,) mean ranks from 0, of those that are numbers.

    >>> ranks(np.array([5.0, 1.0, 5.0, np.nan])).tolist()
    [1.5, 0.0, 1.5, nan]
    """
    from scipy.stats import rankdata

    out = np.full(len(values), np.nan)
    there = np.isfinite(values)
    out[there] = rankdata(values[there]) - 1
    return out


def ifd(given: tuple[np.ndarray, np.ndarray], alone: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(n,) mean nats a token with the prompt over those without; NaN where an answer has no token to compare.

    Args:
        given, alone: nats (n,) and tokens (n,) of the answers after their prompts, and by themselves.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return (given[0] / given[1]) / (alone[0] / alone[1])
