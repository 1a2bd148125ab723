"""What a simple model, which has not seen a row, thinks of it: out-of-fold predictions on fixed features.

Shapes: n rows, F features, C outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tunewell.tasks import TaskSpec

FOLDS = 5
CS = (1e-3, 3e-3, 1e-2, 5e-2)  # inverse regularisation on standardised features: strong, since labels are in doubt
ALPHAS = (30.0, 100.0, 300.0, 1e3, 3e3)


def out_of_fold(spec: TaskSpec, x: np.ndarray, targets: np.ndarray, *, seed: int, folds: int = FOLDS) -> np.ndarray:
    """Each row predicted by a linear model fitted to the other folds.

    Logistic regression (ridge for regression) on standardised features; its regularisation is the one with the least
    loss on the first fold.

    Args:
        x: (n, F). targets: as in `tunewell.tasks.targets`.

    Returns:
        (n, C) probabilities, or (n,) values for regression.
    """
    from tunewell.evaluate.linear import Kind, fit_logistic, fit_ridge, outputs_of

    kind: Kind = "regression" if spec.regression else "multi-label" if spec.multi_label else "single-label"
    x = np.asarray(x, dtype=np.float32)
    scale = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(scale > 1e-6, scale, 1.0)
    y = outputs_of(kind, targets, len(spec.labels))
    fold = fold_of(spec, targets, seed=seed, folds=folds)
    out = np.zeros(len(y) if spec.regression else y.shape, dtype=np.float32)
    strength = None
    for k in range(folds):
        inside, outside = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        grid = (ALPHAS if spec.regression else CS) if strength is None else (strength,)
        fits = [
            fit_ridge(x[inside], y[inside, 0], value)
            if kind == "regression"
            else fit_logistic(kind, x[inside], y[inside], value)
            for value in grid
        ]
        losses = [_loss(kind, fit.scores(x[outside]), y[outside]) for fit in fits]
        best = fits[int(np.argmin(losses))]
        strength = best.regularisation
        out[outside] = best.scores(x[outside])
    return out


def fold_of(spec: TaskSpec, targets: np.ndarray, *, seed: int, folds: int) -> np.ndarray:
    """(n,) fold of each row, seeded; each class is spread evenly over the folds."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(targets))
    if not (spec.regression or spec.multi_label):
        order = order[np.argsort(targets[order], kind="stable")]
    fold = np.empty(len(targets), dtype=np.int64)
    fold[order] = np.arange(len(targets)) % folds
    return fold


def neighbour_votes(
    spec: TaskSpec, x: np.ndarray, targets: np.ndarray, *, neighbours: int = 20, rows_a_time: int = 2000
) -> np.ndarray:
    """What the nearest other rows say: their labels, weighted by cosine similarity.

    Returns:
        (n, C) shares, (n,) mean values for regression.
    """
    from tunewell.evaluate.linear import outputs_of

    kind = "regression" if spec.regression else "multi-label" if spec.multi_label else "single-label"
    y = outputs_of(kind, targets, len(spec.labels))  # type: ignore[arg-type]
    x = np.asarray(x, dtype=np.float32)
    x = x - x.mean(axis=0)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    k = min(neighbours, len(x) - 1)
    out = np.zeros((len(x), y.shape[1]), dtype=np.float32)
    for start in range(0, len(x), rows_a_time):
        part = np.arange(start, min(start + rows_a_time, len(x)))
        near = x[part] @ x.T
        near[np.arange(len(part)), part] = -np.inf
        best = np.argpartition(-near, k - 1, axis=1)[:, :k]
        weight = np.maximum(np.take_along_axis(near, best, axis=1), 1e-6)
        weight /= weight.sum(axis=1, keepdims=True)
        out[part] = np.einsum("rk,rkc->rc", weight, y[best])
    return out[:, 0] if spec.regression else out


def _loss(kind: str, scores: np.ndarray, y: np.ndarray) -> float:
    tiny = 1e-7
    if kind == "regression":
        return float(np.mean((scores - y[:, 0]) ** 2))
    p = np.clip(scores.astype(np.float64), tiny, 1 - tiny)
    if kind == "multi-label":
        return -float(np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))
    return -float(np.mean(np.log((p * y).sum(axis=1))))
