"""`--method auto`: which method's rows teach a quick probe most.

Each method chooses its rows; a linear probe is fitted to the frozen base model's embeddings of these alone and scored
on rows that none of them could choose: validation rows, else a seeded fifth that is set aside for this. The best one
is taken where it is better than a random choice by more than a standard error of the paired difference, else `random`
(the rule of one standard error; Breiman et al., 1984). It is a guess in seconds: what a probe learns best from and
what tuning does need not be the same.

Shapes: n rows, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tunewell.prune.choose import ORDERS, RANDOM
from tunewell.prune.records import Tried

if TYPE_CHECKING:
    from tunewell.tasks import TaskSpec

ASIDE = 0.2  # share of the rows that is set aside where there are no validation rows


def set_aside(targets: np.ndarray, seed: int) -> np.ndarray:
    """(n,) booleans: a fifth of each class (of the rows, where they have several labels)."""
    n = len(targets)
    out = np.zeros(n, dtype=bool)
    group = targets if targets.ndim == 1 else np.zeros(n, dtype=np.int64)
    rng = np.random.default_rng(seed)
    for k in np.unique(group):
        mine = rng.permutation(np.flatnonzero(group == k))
        out[mine[: round(ASIDE * len(mine))]] = True
    return out


def best(
    spec: TaskSpec,
    x: np.ndarray,
    targets: np.ndarray,
    judge_x: np.ndarray,
    judge_targets: np.ndarray,
    kept_by: Callable[[str], np.ndarray],
    *,
    seed: int,
) -> tuple[str, tuple[Tried, ...]]:
    """The method whose rows teach a linear probe most, and how all did.

    Args:
        x: (n, F) embeddings; targets as in `tasks.targets`; judge_x, judge_targets: of the rows that judge.
        kept_by: method -> (n,) booleans, the rows that it keeps.
    """
    from tunewell.evaluate.linear import fit_linear_probe
    from tunewell.evaluate.metrics import evaluate
    from tunewell.evaluate.statistics import compare

    scores = {}
    for method in (RANDOM, *ORDERS):
        kept = kept_by(method)
        probe = fit_linear_probe(x[kept], targets[kept], x[:0], targets[:0], seed=seed, n_classes=len(spec.labels))
        scores[method] = probe.scores(judge_x)
    tried = []
    for method, found in scores.items():
        headline = evaluate(spec, found, judge_targets, split="held out", seed=seed, n_boot=500).headline
        against = None if method == RANDOM else compare(spec, found, scores[RANDOM], judge_targets, seed=seed)
        tried.append(Tried(method=method, score=headline, difference=against))
    return winner(tried), tuple(tried)


def winner(tried: list[Tried]) -> str:
    """The method with the largest gain over `random`, where it is more than a standard error; else `random`."""
    gains = [
        (t.difference.difference.value, t.method)
        for t in tried
        if t.difference is not None
        and t.difference.difference.value is not None
        and (error := t.difference.difference.standard_error or 0.0) > 0
        and t.difference.difference.value > error
    ]
    return max(gains)[1] if gains else RANDOM
