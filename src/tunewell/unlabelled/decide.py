"""The guard: whether a method is better than the same tuning without it, on rows that neither has learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tunewell.evaluate.statistics import LEVEL, compare, holm
from tunewell.results import Comparison

if TYPE_CHECKING:
    from tunewell.tasks import TaskSpec

FOLDS = 4


def judge(
    spec: TaskSpec,
    without: np.ndarray,
    methods: Mapping[str, np.ndarray],
    targets: np.ndarray,
    *,
    rule: str,
    seed: int,
) -> dict[str, tuple[Comparison, bool]]:
    """Method -> its comparison with the tuning without it, and whether it helps.

    `likely`: the headline metric is better by more than a standard error of the paired difference (the rule of one
    standard error; Breiman et al., 1984): a text without a label costs nothing once a model is tuned, so that certainty
    is not asked for. `sure`: the 95 % interval excludes 0, and the test, adjusted for the number of methods (Holm,
    1979), gives p < 0.05.

    Args:
        without, methods: (n, C) probabilities on the same rows. targets: (n,) class ids.
    """
    found = {name: compare(spec, scores, without, targets, seed=seed) for name, scores in methods.items()}
    adjusted = dict(zip(found, holm([1.0 if c.p_value is None else c.p_value for c in found.values()]), strict=True))
    if rule == "sure":
        return {name: (c, c.better is True and adjusted[name] < 1 - LEVEL) for name, c in found.items()}
    return {name: (c, likely(c)) for name, c in found.items()}


def likely(comparison: Comparison) -> bool:
    """Whether the difference is above 0 by more than its standard error; not where the rows cannot tell."""
    d = comparison.difference
    return d.value is not None and d.standard_error is not None and d.value > d.standard_error


def folds(labels: np.ndarray, seed: int, n: int = FOLDS) -> np.ndarray:
    """(rows,) the fold of each row: seeded, of even size, each class spread over all.

    >>> f = folds(np.array([0, 0, 0, 0, 1, 1, 1, 1]), seed=1)
    >>> sorted(f[:4].tolist()), sorted(f[4:].tolist())
    ([0, 1, 2, 3], [0, 1, 2, 3])
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    out = np.empty(len(labels), dtype=np.int64)
    out[order] = np.arange(len(labels)) % n
    return out
