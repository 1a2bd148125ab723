"""Metrics of a model on one split, each with its 95 % interval, and what the report draws from them.

| kind | metrics |
|---|---|
| single-label | accuracy, f1_macro, f1_micro, f1_weighted, mcc, balanced_accuracy, log_loss, ece |
| single-label, classes in order | these, mae (in steps between classes), quadratic_kappa (Cohen, 1968) |
| multi-label | f1_micro, f1_macro, subset_accuracy, hamming_loss, average_precision |
| regression | r2, pearson, spearman, mae, rmse |

A class that occurs neither in the targets nor in the answers is left out of macro averages, as
scikit-learn does by default. An undefined figure (a correlation with a constant) is None.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tunewell.errors import DataError, RecipeError, nearest
from tunewell.evaluate.calibration import reliability
from tunewell.evaluate.statistics import N_BOOT, interval, replicates, wilson
from tunewell.evaluate.weighted import decide, measure_of
from tunewell.results import CalibrationBin, Estimate, Evaluation, PerClass

METRICS: dict[str, tuple[str, ...]] = {
    "single-label": ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "mcc", "balanced_accuracy", "log_loss", "ece"),
    "multi-label": ("f1_micro", "f1_macro", "subset_accuracy", "hamming_loss", "average_precision"),
    "regression": ("r2", "pearson", "spearman", "mae", "rmse"),
}
ORDERED = ("mae", "quadratic_kappa")  # beside the others, where classes have an order
LOWER_IS_BETTER = frozenset({"log_loss", "ece", "hamming_loss", "mae", "rmse"})
# What may be a headline metric (higher is better); the first is the default.
HEADLINE: dict[str, tuple[str, ...]] = {
    "single-label": ("f1_macro", "accuracy", "f1_micro", "f1_weighted", "mcc", "balanced_accuracy"),
    "multi-label": ("f1_micro", "f1_macro", "subset_accuracy", "average_precision"),
    "regression": ("r2", "pearson", "spearman"),
}
SHARES = frozenset({"accuracy", "subset_accuracy"})  # of rows answered right: Wilson's interval
BOUNDS = {  # what a metric can be; 0 to 1 where not said
    "mcc": (-1.0, 1.0),
    "quadratic_kappa": (-1.0, 1.0),
    "pearson": (-1.0, 1.0),
    "spearman": (-1.0, 1.0),
    "r2": (-math.inf, 1.0),
    "log_loss": (0.0, math.inf),
    "mae": (0.0, math.inf),
    "rmse": (0.0, math.inf),
}
CONFUSION_CLASSES = 300  # beyond, the confusion matrix is left out: nobody could read it
SCATTER_POINTS = 500


def kind_of(spec: Any) -> str:
    """The key of METRICS and HEADLINE that a TaskSpec belongs to."""
    if spec.name == "text-regression":
        return "regression"
    return "multi-label" if spec.multi_label else "single-label"


def metrics_of(spec: Any) -> tuple[str, ...]:
    """The metrics of a task."""
    return METRICS[kind_of(spec)] + (ORDERED if getattr(spec, "ordered", False) else ())


def headlines_of(spec: Any) -> tuple[str, ...]:
    """Those of them that may be the headline metric; the first is the default."""
    return HEADLINE[kind_of(spec)] + (("quadratic_kappa",) if getattr(spec, "ordered", False) else ())


def check_metric(spec: Any, name: str) -> None:
    """Raise RecipeError unless this kind of task has a metric of that name."""
    if name not in metrics_of(spec):
        raise _unknown(kind_of(spec), name, metrics_of(spec))


def check_headline(spec: Any) -> None:
    """Raise RecipeError unless `spec.metric` can be the headline metric of this kind of task."""
    kind, name = kind_of(spec), spec.metric
    if name in headlines_of(spec):
        return
    if name in metrics_of(spec):
        raise RecipeError(
            f"`metric: {name}` cannot be the headline metric: lower is better",
            where="recipe",
            expected=f"one of {', '.join(headlines_of(spec))}",
            remedy=f"`metric: {HEADLINE[kind][0]}`; `{name}` is reported all the same",
        )
    raise _unknown(kind, name, headlines_of(spec))


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> RecipeError:
    others = sorted(k for k, names in METRICS.items() if name in names)
    what = f"`metric: {name}` is for {' and '.join(others)} tasks" if others else f"unknown metric `{name}`"
    return RecipeError(
        f"{what}, this is a {kind} task" if others else what,
        where="recipe",
        expected=f"one of {', '.join(known)}",
        remedy="" if others else nearest(name, known),
    )


def score(name: str, spec: Any, scores: np.ndarray, targets: np.ndarray) -> float:
    """One metric as one number, quick: for early stopping and choosing.

    Args:
        name: a metric of this kind of task.
        spec, scores, targets: see `evaluate`.

    Returns:
        The value; 0.0 where it is undefined (nothing shown), so that it can be compared.
    """
    check_metric(spec, name)
    if not len(targets):
        raise _no_rows("validation")
    return float(np.nan_to_num(measure_of(spec, scores, targets, [name])(np.ones((len(targets), 1)))[name][0], nan=0.0))


def evaluate(
    spec: Any,
    scores: np.ndarray,
    targets: np.ndarray,
    *,
    split: str,
    metric: str | None = None,
    seed: int = 42,
    n_boot: int = N_BOOT,
) -> Evaluation:
    """Measure a model on one split.

    Args:
        spec: a TaskSpec (name, multi_label, labels, metric).
        scores: (n, C) probabilities in the order of spec.labels; (n,) predicted values for regression.
        targets: (n,) class ids; (n, C) of 0 and 1 for multi-label; (n,) values for regression.
        split: name of the split, for the record.
        metric: headline metric; by default spec.metric.
        n_boot: bootstrap resamples of the 95 % intervals (see `statistics`).

    Raises:
        RecipeError: no such metric. DataError: no rows. TrainingError: scores that are not finite.
    """
    metric = metric or spec.metric
    check_metric(spec, metric)
    n = len(targets)
    if not n:
        raise _no_rows(split)
    targets = np.asarray(targets)
    names = metrics_of(spec)
    measure = measure_of(spec, scores, targets, names)
    values = {name: float(v[0]) for name, v in measure(np.ones((n, 1))).items()}
    resampled = replicates(measure, n, n_boot, seed)
    single = kind_of(spec) == "single-label"
    estimates = {}
    for name in names:
        share = name in SHARES or (single and name == "f1_micro")  # micro-F1 of single labels is accuracy
        low, high = (
            wilson(values[name] * n, n)
            if share
            else interval(resampled[name], values[name], bounds=BOUNDS.get(name, (0.0, 1.0)))
        )
        known = not np.isnan(values[name])
        estimates[name] = Estimate(value=values[name], low=low, high=high, n=n) if known else Estimate(value=None, n=n)
    parts: dict[str, Any] = {}
    if kind_of(spec) == "regression":
        parts["scatter"] = _scatter(np.asarray(scores).reshape(n), targets, seed)
    else:
        parts = _class_parts(spec, np.asarray(scores), targets)
    return Evaluation(split=split, metric=metric, metrics=estimates, n=n, labels=spec.labels, **parts)


def confusion_matrix(predicted: np.ndarray, targets: np.ndarray, n_classes: int) -> np.ndarray:
    """(C, C) counts, [true][predicted]."""
    cells = np.asarray(targets) * n_classes + predicted
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def _class_parts(spec: Any, scores: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    answers, n_classes = decide(spec, scores), len(spec.labels)
    if spec.multi_label:
        truth = targets > 0
        hits, support, predicted = (m.sum(axis=0) for m in (truth & answers, truth, answers))
        return {
            "per_class": _per_class(spec.labels, hits, support, predicted),
            "calibration": reliability(scores.ravel(), truth.ravel()),
        }
    right = answers == targets
    hits, support, predicted = (np.bincount(x, minlength=n_classes) for x in (targets[right], targets, answers))
    confusion = confusion_matrix(answers, targets, n_classes).tolist() if n_classes <= CONFUSION_CLASSES else ()
    bins: tuple[CalibrationBin, ...] = reliability(scores[np.arange(len(scores)), answers], right)
    return {
        "confusion": tuple(tuple(row) for row in confusion),
        "per_class": _per_class(spec.labels, hits, support, predicted),
        "calibration": bins,
    }


def _per_class(
    labels: tuple[str, ...], hits: np.ndarray, support: np.ndarray, predicted: np.ndarray
) -> tuple[PerClass, ...]:
    """Precision, recall and F1 of each class; 0 where one is undefined, as `support` and `predicted` show."""
    return tuple(
        PerClass(
            label=label,
            precision=float(h / p) if p else 0.0,
            recall=float(h / s) if s else 0.0,
            f1=float(2 * h / (s + p)) if s + p else 0.0,
            support=int(s),
            predicted=int(p),
        )
        for label, h, s, p in zip(labels, hits, support, predicted, strict=True)
    )


def _scatter(scores: np.ndarray, targets: np.ndarray, seed: int) -> tuple[tuple[float, float], ...]:
    rows = np.arange(len(targets))
    if len(rows) > SCATTER_POINTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, SCATTER_POINTS, replace=False))
    return tuple((float(t), float(p)) for t, p in zip(targets[rows], scores[rows], strict=True))


def _no_rows(split: str) -> DataError:
    return DataError(
        f"no rows to evaluate in the {split} split",
        where="evaluation",
        expected="at least one labelled row",
        remedy="a larger file, or a larger validation_size or test_size",
    )
