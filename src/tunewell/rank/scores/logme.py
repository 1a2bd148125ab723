"""LogME, the log of the maximum evidence (You et al., 2021).

A Bayesian linear model on fixed features: `y = F w + noise`, `w ~ N(0, I/alpha)`, `noise ~ N(0, I/beta)`. The evidence
`p(y | F, alpha, beta)` is maximised over alpha and beta by MacKay's fixed point; LogME is its logarithm, a row,
averaged over the outputs. Unlike a maximum-likelihood fit it does not reward features merely for being many.

Shapes: n rows, F features, C outputs, r the rank of the features.
"""

from __future__ import annotations

import numpy as np

MOST_STEPS = 100
TOLERANCE = 1e-6  # relative change of alpha / beta at which the fixed point is taken as reached
TINY = 1e-12


def logme(features: np.ndarray, targets: np.ndarray) -> float:
    """The score; without unit, comparable between models on the same rows only.

    The published code stops after eleven steps and adds 1e-5 to the denominators; here the fixed point is followed
    until alpha / beta changes by less than 1e-6. With more features than rows the directions without data cancel.

    Args:
        features: (n, F), as they are: neither centred nor scaled.
        targets: (n, C) of 0 and 1 (one-hot for classes), or (n,) or (n, 1) values.
    """
    x = np.asarray(features, np.float64)
    y = np.asarray(targets, np.float64).reshape(len(x), -1)
    n = len(x)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    kept = s > s.max(initial=0.0) * max(x.shape) * np.finfo(np.float64).eps  # the others cancel
    u, s, rank = u[:, kept], s[kept], int(kept.sum())
    sigma = (s**2)[:, None]  # (r, 1) eigenvalues of F'F
    z2 = (u.T @ y) ** 2  # (r, C) squared projections of the targets
    outside = np.maximum((y**2).sum(axis=0) - z2.sum(axis=0), 0.0)  # (C,) what no weights can reach

    alpha, beta = np.ones(y.shape[1]), np.ones(y.shape[1])
    residual, weight = np.zeros_like(alpha), np.zeros_like(alpha)
    for _ in range(MOST_STEPS):
        ratio = np.clip(alpha / beta, TINY, 1 / TINY)
        gamma = (sigma / (sigma + ratio)).sum(axis=0)
        weight = (sigma * z2 / (sigma + ratio) ** 2).sum(axis=0)  # |m|², m the posterior mean
        residual = (z2 / (1 + sigma / ratio) ** 2).sum(axis=0) + outside  # |F m − y|²
        alpha = np.maximum(gamma, TINY) / np.maximum(weight, TINY)
        beta = np.maximum(n - gamma, TINY) / np.maximum(residual, TINY)
        if np.all(np.abs(alpha / beta - ratio) <= TOLERANCE * ratio):
            break
    evidence = (
        rank / 2 * np.log(alpha)
        + n / 2 * np.log(beta)
        - np.log(alpha + beta * sigma).sum(axis=0) / 2
        - beta / 2 * residual
        - alpha / 2 * weight
        - n / 2 * np.log(2 * np.pi)
    )
    return float(evidence.mean() / n)
