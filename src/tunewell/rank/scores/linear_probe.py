"""A cross-validated linear probe: the task's headline metric of a ridge regression on frozen features.

Classes are regressed as 0 and 1 (a regularised least-squares classifier), so that one decomposition of the features
serves all strengths of regularisation and all classes: a hundredth of the time of a logistic regression.

Shapes: n rows, F features, C outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tunewell.tasks import TaskSpec

FOLDS = 5
ALPHAS = (0.01, 0.1, 1.0, 10.0, 100.0)  # times the number of rows, on standardised features
LEAST_SPREAD = 1e-6


def folds_of(spec: TaskSpec, targets: np.ndarray, seed: int, folds: int = FOLDS) -> np.ndarray:
    """(n,) the fold of each row; every class is spread over all folds."""
    rng = np.random.default_rng(seed)
    n = len(targets)
    order = rng.permutation(n)
    if targets.ndim == 1 and not spec.regression:
        order = order[np.argsort(targets[order], kind="stable")]
    fold = np.empty(n, dtype=np.int64)
    fold[order] = np.arange(n) % folds
    return fold


def ridge_path(x: np.ndarray, y: np.ndarray, held: np.ndarray, alphas: tuple[float, ...] = ALPHAS) -> np.ndarray:
    """Answers of ridge regressions for rows that they have not seen.

    Args:
        x: (n, F) features, y: (n, C) outputs, held: (m, F) features of the held-out rows. Standardised by `x`, the
            intercept free. alphas: penalties over n.

    Returns:
        (len(alphas), m, C).
    """
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > LEAST_SPREAD * (np.abs(mean) + 1), scale, np.inf)  # a constant feature says nothing
    z, centre = (x - mean) / scale, y.mean(axis=0)
    new, n = (held - mean) / scale, len(x)
    if n > x.shape[1]:
        values, vectors = np.linalg.eigh(z.T @ z)
        left, right = new @ vectors, vectors.T @ (z.T @ (y - centre))
    else:  # the same through the rows' inner products
        values, vectors = np.linalg.eigh(z @ z.T)
        left, right = (new @ z.T) @ vectors, vectors.T @ (y - centre)
    values = np.maximum(values, 0.0)[:, None]
    return np.stack([left @ (right / (values + alpha * n)) + centre for alpha in alphas])


def probe_scores(spec: TaskSpec, features: np.ndarray, targets: np.ndarray, *, seed: int) -> float:
    """The headline metric of held-out answers, at the strength of regularisation that serves best.

    Args:
        features: (n, F). targets: as `tasks.targets` gives them. seed: of the folds.
    """
    from tunewell.evaluate.linear import outputs_of
    from tunewell.evaluate.metrics import score

    x = np.asarray(features, np.float64)
    kind = "regression" if spec.regression else "multi-label" if spec.multi_label else "single-label"
    y = outputs_of(kind, targets, spec.outputs)  # type: ignore[arg-type]
    fold = folds_of(spec, targets, seed, min(FOLDS, len(targets)))
    answers = np.empty((len(ALPHAS), *y.shape))
    for k in range(int(fold.max()) + 1):
        out = fold == k
        answers[:, out] = ridge_path(x[~out], y[~out], x[out])
    given = answers[:, :, 0] if spec.regression else np.clip(answers, 0.0, 1.0)
    return max(score(spec.metric, spec, a.astype(np.float32), targets) for a in given)
