"""What is gained by leaving the least sure answers to a person: risk against coverage.

Rows are answered from the surest on. Risk is the share of wrong answers among those that are answered, coverage the
share that is (El-Yaniv and Wiener, 2010). AURC is the mean risk over all coverages (Geifman et al., 2019): the
error rate itself where sureness says nothing, and the best order there could be puts all wrong answers last.

Shapes: n rows.
"""

from __future__ import annotations

import numpy as np

from tunewell.evaluate.statistics import bootstrap, wilson
from tunewell.results import Abstention, Estimate, RiskPoint

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3)
CURVE = 60  # points drawn at the most
N_BOOT = 500


def risks(sureness: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """(n,) share wrong among the k surest, for k = 1 to n; rows that are equally sure count with their mean.

    >>> risks(np.array([0.9, 0.8, 0.8]), np.array([0, 1, 0]))
    array([0.        , 0.25      , 0.33333333])
    """
    s, w = np.asarray(sureness, np.float64), np.asarray(wrong, np.float64)
    order = np.argsort(-s, kind="stable")
    s, w = s[order], w[order]
    _, group, rows = np.unique(-s, return_inverse=True, return_counts=True)
    expected = (np.bincount(group, weights=w) / rows)[group]  # over all orders of equally sure rows
    return np.cumsum(expected) / np.arange(1, len(w) + 1)


def aurc(sureness: np.ndarray, wrong: np.ndarray) -> float:
    """Area under the risk-coverage curve: the mean of `risks`."""
    return float(risks(sureness, wrong).mean())


def best_aurc(errors: int, n: int) -> float:
    """The AURC of the order that puts all wrong answers last.

    >>> round(best_aurc(1, 2), 2)
    0.25
    """
    k = np.arange(1, n + 1)
    return float((np.maximum(k - (n - errors), 0) / k).mean())


def abstention(sureness: np.ndarray, wrong: np.ndarray, *, seed: int = 42) -> Abstention:
    """The curve, its area with an interval, and the risk at some coverages with Wilson's interval.

    Args:
        sureness: (n,) how sure each answer is, such as its probability. wrong: (n,) 1 where it is wrong.
    """
    s, w = np.asarray(sureness, np.float64), np.asarray(wrong, np.float64)
    n, curve = len(w), risks(s, w)
    low, high = bootstrap(lambda rows: aurc(s[rows], w[rows]), n, n_boot=N_BOOT, seed=seed)
    ranked = np.sort(s)[::-1]
    points = []
    for coverage in COVERAGES:
        k = max(1, round(coverage * n))
        lower, upper = wilson(curve[k - 1] * k, k)
        risk = Estimate(value=float(curve[k - 1]), low=lower, high=upper, n=k)
        points.append(RiskPoint(coverage=coverage, threshold=float(ranked[k - 1]), risk=risk))
    drawn = np.unique(np.linspace(max(1, n // 50), n, CURVE).round().astype(int))
    return Abstention(
        aurc=Estimate(value=float(curve.mean()), low=low, high=high, n=n),
        best=best_aurc(round(w.sum()), n),
        error=float(w.mean()),
        points=tuple(points),
        curve=tuple((float(k / n), float(curve[k - 1])) for k in drawn),
    )
