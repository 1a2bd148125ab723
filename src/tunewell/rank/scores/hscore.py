"""H-score (Bao et al., 2019) and its shrunken form (Ibrahim et al., 2022).

Features serve a classification when the means of the classes lie far apart and the features are not redundant:
`H = tr(cov(f)⁻¹ cov(E[f | y]))`. With few rows the covariance of many features cannot be inverted well; the shrunken
form takes Ledoit and Wolf's estimate of it (2004), and shrinks the covariance of the means by the same share.

Shapes: n rows, F features.
"""

from __future__ import annotations

import numpy as np


def _means(x: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(n, F) each row's class mean, for centred features."""
    _, ids = np.unique(classes, return_inverse=True)
    sums = np.zeros((ids.max() + 1, x.shape[1]))
    np.add.at(sums, ids, x)
    return (sums / np.bincount(ids)[:, None])[ids]


def hscore(features: np.ndarray, classes: np.ndarray) -> float:
    """The H-score: 0 to C − 1; the pseudo-inverse stands for the inverse.

    Args:
        features: (n, F). classes: (n,) ids.
    """
    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    means = _means(x, classes)
    return float(np.trace(np.linalg.pinv(x.T @ x / len(x), hermitian=True) @ (means.T @ means / len(x))))


def shrunken_hscore(features: np.ndarray, classes: np.ndarray) -> float:
    """The H-score with the Ledoit-Wolf covariance, times one minus its shrinkage.

    Args:
        features: (n, F). classes: (n,) ids.
    """
    from sklearn.covariance import ledoit_wolf

    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    if not x.any():
        return 0.0
    covariance, shrinkage = ledoit_wolf(x, assume_centered=True)
    means = _means(x, classes)
    between = means.T @ means / len(x)
    return float((1 - shrinkage) * np.trace(np.linalg.solve(covariance, between)))
