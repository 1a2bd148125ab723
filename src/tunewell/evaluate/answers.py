"""Figures of tasks whose answers are texts: every metric as a function of row weights, so that one formula
gives the value, its bootstrap and a paired difference (as `weighted` does for classes).

Shapes: n rows, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tunewell.errors import RecipeError, nearest
from tunewell.evaluate.statistics import LEVEL, N_BOOT, interval, paired_permutation, replicates
from tunewell.evaluate.weighted import Measure
from tunewell.results import Comparison, Estimate, Evaluation

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Figures:
    """What one model's answers to n rows are worth.

    Attributes:
        measure: (n, B) weights -> metric -> (B,) values, nan where undefined.
        rows: n. counts: metric -> rows that it is on, where not all.
        points: (n,) row-wise score, higher is better, for the permutation test; nan for rows without one.
        about: what `points` is, for the name of the test.
        bounds: what a metric can be at all; 0 to 1 where not said.
    """

    measure: Measure
    rows: int
    points: np.ndarray
    about: str
    counts: dict[str, int] = field(default_factory=dict)
    bounds: dict[str, Bounds] = field(default_factory=dict)


def ratio(top: np.ndarray, bottom: np.ndarray | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Σ w · top / Σ w · bottom for weights (n, B); without `bottom`, the weighted mean of `top`.

    Rows where `top` is nan do not count.

    >>> float(ratio(np.array([1.0, np.nan, 0.0]))(np.ones((3, 1)))[0])
    0.5
    """
    known = ~np.isnan(top)
    above = np.where(known, top, 0.0)
    below = np.where(known, 1.0 if bottom is None else bottom, 0.0)

    def of(weights: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (above @ weights) / (below @ weights)

    return of


def evaluation(figures: Figures, *, split: str, metric: str, seed: int, n_boot: int = N_BOOT) -> Evaluation:
    """All metrics with 95 % bootstrap intervals over rows."""
    n = figures.rows
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {name: float(v[0]) for name, v in figures.measure(np.ones((n, 1))).items()}
        drawn = replicates(figures.measure, n, n_boot, seed)
    metrics = {}
    for name, value in values.items():
        count = figures.counts.get(name, n)
        if math.isnan(value):
            metrics[name] = Estimate(value=None, n=count)
            continue
        low, high = interval(drawn[name], value, bounds=figures.bounds.get(name, (0.0, 1.0)))
        metrics[name] = Estimate(value=value, low=low, high=high, n=count)
    return Evaluation(split=split, metric=metric, metrics=metrics, n=n)


def compare(tuned: Figures, other: Figures, *, metric: str, seed: int, n_boot: int = N_BOOT) -> Comparison | None:
    """The tuned model against another on the same rows: paired bootstrap of the difference, and the paired
    permutation test of the row-wise points; None where the other has no such figure.

    `better` is True or False only where the interval leaves 0 out, p < 0.05, and the two agree.
    """

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {metric: tuned.measure(weights)[metric] - other.measure(weights)[metric]}

    n = tuned.rows
    value = float(difference(np.ones((n, 1)))[metric][0])
    if math.isnan(value):
        return None
    low, high = interval(replicates(difference, n, n_boot, seed)[metric], value)
    gained = tuned.points - other.points
    gained = gained[~np.isnan(gained)]
    p_value = paired_permutation(gained, seed=seed)
    better = None
    if low is not None and high is not None and low * high > 0 and p_value < 1 - LEVEL and low * gained.sum() > 0:
        better = low > 0
    estimate = Estimate(value=value, low=low, high=high, n=tuned.counts.get(metric, n))
    test = f"paired permutation of {tuned.about}"
    return Comparison(metric=metric, difference=estimate, test=test, p_value=p_value, better=better)


def headline(wanted: str, known: tuple[str, ...], task: str, lower: tuple[str, ...] = ()) -> str:
    """The headline metric of a recipe; the first of `known` for `auto`.

    Raises:
        RecipeError: no such metric, or one of which lower is better.
    """
    if wanted == "auto":
        return known[0]
    if wanted in known:
        return wanted
    if wanted in lower:
        raise RecipeError(
            f"`metric: {wanted}` cannot be the headline metric: lower is better",
            where="recipe",
            expected=f"one of {', '.join(known)}",
            remedy=f"`metric: {known[0]}`; `{wanted}` is reported all the same",
        )
    raise RecipeError(
        f"unknown metric `{wanted}` for {task}",
        where="recipe",
        expected=f"one of {', '.join(known)}",
        remedy=nearest(wanted, known),
    )
