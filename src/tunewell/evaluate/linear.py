"""Linear models on fixed features, for baselines and probes: logistic regression and ridge, chosen on validation.

scikit-learn's LogisticRegression fits one label set at a time and stops at classes that the rows lack;
here softmax and sigmoid outputs are fitted jointly over all C labels in a given order, sparse or dense,
each C (inverse regularisation) starting where the one before ended. The objective is scikit-learn's:
sum of log losses · C + half the squared weights, the intercept free.

Shapes: n rows, F features, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["single-label", "multi-label", "regression"]
Objective = Callable[[np.ndarray], float]  # scores of validation rows -> higher is better

PROBE_CS = (1e-4, 1e-3, 1e-2, 0.1, 1.0)  # on standardised features
PROBE_ALPHAS = (1.0, 10.0, 100.0, 1e3, 1e4)
FOLDS = 5  # of the training rows, where there are none for validation
MAX_ITER = 100
TOLERANCE = 1e-5  # relative fall of the objective in one step at which fitting ends
COST = 1.5e8  # multiplications of one pass over the rows; above, C is chosen on a sample of them
LEAST_ROWS = 1000


@dataclass(frozen=True)
class Linear:
    """A fitted model: `weights` (F, C), `bias` (C,); C = 1 for regression."""

    kind: Kind
    weights: np.ndarray
    bias: np.ndarray
    regularisation: float  # C, or ridge's alpha

    def scores(self, x: Any) -> np.ndarray:
        """(n, C) probabilities, or (n,) values for regression; float32."""
        from scipy.special import expit, softmax

        z = x @ self.weights.astype(x.dtype) + self.bias
        if self.kind == "regression":
            return z[:, 0].astype(np.float32)
        return (softmax(z, axis=1) if self.kind == "single-label" else expit(z)).astype(np.float32)


@dataclass(frozen=True)
class LinearProbe:
    """A linear model on standardised features; what `fit_linear_probe` returns."""

    mean: np.ndarray
    scale: np.ndarray
    model: Linear

    def scores(self, x: np.ndarray) -> np.ndarray:
        """(n, C) probabilities, or (n,) values for regression."""
        return self.model.scores((np.asarray(x, np.float64) - self.mean) / self.scale)

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """(n, C) probabilities in the order of the class ids."""
        if self.model.kind == "regression":
            raise ValueError("a regression has no probabilities; use `predict`")
        return self.scores(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n,) class ids, (n, C) booleans for multi-label, (n,) values for regression."""
        scores = self.scores(x)
        if self.model.kind == "regression":
            return scores
        return scores.argmax(axis=1) if self.model.kind == "single-label" else scores >= 0.5


def fit_linear_probe(
    train_x: np.ndarray,
    train_y: np.ndarray,
    val_x: np.ndarray,
    val_y: np.ndarray,
    *,
    seed: int = 42,
    n_classes: int | None = None,
    objective: Objective | None = None,
) -> LinearProbe:
    """A linear probe on frozen embeddings: what can be read off them without changing the model.

    Args:
        train_x, val_x: (n, F) embeddings; standardised by the training rows' mean and deviation. Without validation
            rows the choice is made by cross-validation on the training rows.
        train_y, val_y: (n,) integers are class ids (logistic regression), (n, C) of 0 and 1 are several
            labels a row, (n,) floats are values (ridge regression).
        seed: of the sample on which C is chosen when rows and classes are many.
        n_classes: when the training rows may lack the last classes.
        objective: of the validation scores, higher is better; by default minus the log loss (classes)
            or minus the squared error (values).

    Returns:
        The probe whose regularisation is best on validation; the stronger one when two are equal.
    """
    train_x, train_y = np.asarray(train_x, np.float64), np.asarray(train_y)
    mean, scale = train_x.mean(axis=0), train_x.std(axis=0)
    scale = np.where(scale > 1e-6 * np.abs(mean) + 1e-12, scale, 1.0)  # a constant feature stays constant
    kind: Kind = "regression" if train_y.dtype.kind == "f" else "single-label"
    if train_y.ndim == 2:
        kind = "multi-label"
    y = outputs_of(kind, train_y, n_classes or int(max([train_y.max(), *np.ravel(val_y)])) + 1)
    model = choose(
        kind,
        (train_x - mean) / scale,
        y,
        (np.asarray(val_x, np.float64) - mean) / scale,
        objective or _default_objective(kind, np.asarray(val_y) if len(val_y) else train_y),
        grid=PROBE_ALPHAS if kind == "regression" else PROBE_CS,
        seed=seed,
    )
    return LinearProbe(mean, scale, model)


def outputs_of(kind: Kind, targets: np.ndarray, n_classes: int) -> np.ndarray:
    """Targets as (n, C) float64: one-hot, 0 and 1, or (n, 1) values."""
    if kind == "single-label":
        return np.eye(n_classes)[targets]
    return np.asarray(targets, np.float64).reshape(len(targets), -1)


def choose(
    kind: Kind,
    x: Any,
    y: np.ndarray,
    val_x: Any,
    objective: Objective,
    *,
    grid: Sequence[float],
    seed: int,
    tolerance: float = TOLERANCE,
) -> Linear:
    """Fit a model for each value of `grid` and return the best on validation; without validation rows the best by the
    out-of-fold scores of the training rows, which `objective` is then given.

    When a pass over the rows is dear (many classes), the choice is made on a seeded sample of the
    training rows and the winner fitted to all of them.

    Args:
        x, val_x: (n, F) features, dense or sparse rows.
        y: (n, C) from `outputs_of`.
        grid: C of the logistic regression, ascending; ridge's alpha is tried from the largest down.
        tolerance: of the logistic regression, see `fit_logistic`.
    """
    if not val_x.shape[0]:
        return _best_by_folds(kind, x, y, objective, grid, seed, tolerance)
    if kind == "regression":
        fits = [fit_ridge(x, y[:, 0], alpha) for alpha in sorted(grid, reverse=True)]
        return max(fits, key=lambda fit: objective(fit.scores(val_x)))  # the first of equals
    passes = (x.nnz if hasattr(x, "nnz") else x.size) * y.shape[1]
    if passes <= COST:
        return _best_on_path(kind, x, y, val_x, objective, grid, tolerance)
    few = max(min(LEAST_ROWS, len(y)), int(len(y) * COST / passes))
    rows = np.sort(np.random.default_rng(seed).permutation(len(y))[:few])
    chosen = _best_on_path(kind, x[rows], y[rows], val_x, objective, grid, tolerance)
    return fit_logistic(kind, x, y, chosen.regularisation, start=chosen, tolerance=tolerance)


def _best_by_folds(
    kind: Kind, x: Any, y: np.ndarray, objective: Objective, grid: Sequence[float], seed: int, tolerance: float
) -> Linear:
    """The value of `grid` with the best out-of-fold scores, the first of equals, fitted to all rows."""

    def fit(rows: np.ndarray, value: float) -> Linear:
        if kind == "regression":
            return fit_ridge(x[rows], y[rows, 0], value)
        return fit_logistic(kind, x[rows], y[rows], value, tolerance=tolerance)

    n = len(y)
    order = np.random.default_rng(seed).permutation(n)
    order = order[np.argsort(y[order].argmax(axis=1), kind="stable")]  # classes go to the folds in turn
    fold = np.empty(n, dtype=np.int64)
    fold[order] = np.arange(n) % min(FOLDS, n)
    grid = sorted(grid, reverse=kind == "regression")

    def worth(value: float) -> float:
        scores = np.zeros(n if kind == "regression" else y.shape, np.float32)
        for k in range(min(FOLDS, n)):
            scores[fold == k] = fit(np.flatnonzero(fold != k), value).scores(x[fold == k])
        return objective(scores)

    best = max(grid, key=worth) if n > 1 else grid[0]
    return fit(np.arange(n), best)


def _best_on_path(
    kind: Kind, x: Any, y: np.ndarray, val_x: Any, objective: Objective, grid: Sequence[float], tolerance: float
) -> Linear:
    best, top, previous, falls = None, -np.inf, None, 0
    for c in grid:
        previous = fit_logistic(kind, x, y, c, start=previous, tolerance=tolerance)
        value = objective(previous.scores(val_x))
        falls = falls + 1 if value < top else 0  # a level stretch is no fall: F1 is 0 until C is large enough
        if best is None or value > top:
            best, top = previous, value
        if falls == 2:  # past the top
            break
    assert best is not None
    return best


def fit_logistic(
    kind: Kind, x: Any, y: np.ndarray, c: float, *, start: Linear | None = None, tolerance: float = TOLERANCE
) -> Linear:
    """Logistic regression by L-BFGS: softmax over the outputs (single-label) or one sigmoid each (multi-label).

    Args:
        x: (n, F) dense or sparse; products are taken in its precision. y: (n, C) of 0 and 1.
        c: inverse regularisation, as scikit-learn's C.
        start: a fit of the same shape to begin from.
        tolerance: relative fall of the objective in one step at which fitting ends.
    """
    from scipy.optimize import minimize
    from scipy.sparse import issparse
    from scipy.special import expit, log_softmax

    (n, n_features), n_outputs = x.shape, y.shape[1]
    shape = (n_features + 1, n_outputs)  # the last row is the intercept
    transposed = x.T.tocsr() if issparse(x) else x.T
    penalty, y = 1.0 / (c * n), y.astype(x.dtype)
    if start is None:
        share = np.clip(y.mean(axis=0, dtype=np.float64), 0.5 / n, 1 - 0.5 / n)
        logit = np.log(share) - (0 if kind == "single-label" else np.log1p(-share))
        begin = np.concatenate([np.zeros((n_features, n_outputs)), logit[None, :]])
    else:
        begin = np.concatenate([start.weights, start.bias[None, :]])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = flat.reshape(shape)
        weights = parameters[:-1]
        z = x @ weights.astype(x.dtype) + parameters[-1].astype(x.dtype)
        if kind == "single-label":
            log_p = log_softmax(z, axis=1)
            value, error = -float((y * log_p).sum(dtype=np.float64)), np.exp(log_p) - y
        else:
            value, error = float((np.logaddexp(x.dtype.type(0), z) - y * z).sum(dtype=np.float64)), expit(z) - y
        gradient = np.empty(shape)
        gradient[:-1] = (transposed @ error) / n + penalty * weights
        gradient[-1] = error.sum(axis=0) / n
        return value / n + 0.5 * penalty * float((weights**2).sum()), gradient.ravel()

    options = {"maxiter": MAX_ITER, "ftol": tolerance, "gtol": 1e-6, "maxcor": 5}
    found = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(shape)
    return Linear(kind, found[:-1], found[-1], c)


def fit_ridge(x: Any, y: np.ndarray, alpha: float) -> Linear:
    """Ridge regression with a free intercept (scikit-learn's): conjugate gradients when x is sparse."""
    from scipy.sparse import issparse
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=alpha, solver="sparse_cg" if issparse(x) else "cholesky", tol=1e-4).fit(x, y)
    return Linear("regression", np.asarray(model.coef_, np.float64).reshape(-1, 1), np.array([model.intercept_]), alpha)


def _default_objective(kind: Kind, targets: np.ndarray) -> Objective:
    tiny = float(np.finfo(np.float32).eps)
    if kind == "regression":
        return lambda scores: -float(np.mean((scores - targets) ** 2))
    if kind == "multi-label":
        return lambda scores: float(
            np.mean(np.log(np.clip(np.where(targets > 0, scores, 1 - scores.astype(np.float64)), tiny, 1)))
        )
    return lambda scores: float(np.mean(np.log(np.clip(scores[np.arange(len(targets)), targets], tiny, 1))))
