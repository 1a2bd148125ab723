"""Rank correlation of scores, where all of them may be the same."""

from __future__ import annotations

import numpy as np


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of (W,) with (W,), −1 to 1; 0 where one is constant, since it ranks nothing.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.9, 0.5]))
    0.5
    """
    from scipy.stats import rankdata

    ra, rb = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
    norm = float(np.sqrt((ra**2).sum() * (rb**2).sum()))
    return float(ra @ rb) / norm if norm > 0 else 0.0
