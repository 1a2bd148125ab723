"""Prediction sets that hold the truth as often as promised, whatever the model (split conformal prediction).

A score says how badly a label fits a row. The set of a new row holds all labels whose score is at most the
⌈(n + 1) c⌉-th smallest score among n calibration rows with their true labels. If calibration and new rows are
exchangeable, the truth is in it with probability at least c, and at most c + 1 / (n + 1) where scores never tie.

LAC: 1 − p(label), the smallest sets on average (Sadinle, Lei and Wasserman, 2019). APS: the summed probability of
all labels at least as likely, which adapts the size to hard and easy rows (Romano, Sesia and Candès, 2020). For
regression the distance from the prediction, so that the set is an interval (Lei et al., 2018).

Shapes: n rows, C classes.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from tunewell.errors import DataError, RecipeError

METHODS = ("lac", "aps")
TITLES = {
    "lac": "LAC (smallest sets)",
    "aps": "APS (sets that adapt to the row)",
    "distance": "interval of equal width",
}


def check_coverage(coverage: float) -> None:
    """Raise RecipeError unless 0 < coverage < 1."""
    if not 0 < coverage < 1:
        hint = f"did you mean {coverage / 100:g}?" if 1 < coverage < 100 else ""
        raise RecipeError(f"`coverage: {coverage:g}`", where="coverage", expected="above 0 and below 1", remedy=hint)


def quantile(scores: np.ndarray, coverage: float) -> float:
    """The ⌈(n + 1) · coverage⌉-th smallest score; infinity where there is none: too few rows for such a promise.

    >>> quantile(np.array([0.1, 0.2, 0.3, 0.4]), 0.75)   # ⌈5 · 0.75⌉ = 4
    0.4
    >>> quantile(np.array([0.1, 0.2, 0.3, 0.4]), 0.9)
    inf
    """
    n = len(scores)
    k = ceil(round((n + 1) * coverage, 9))
    return float("inf") if k > n else float(np.sort(scores)[k - 1])


def fewest(coverage: float) -> int:
    """How many calibration rows a coverage needs before sets can leave anything out.

    >>> fewest(0.9), fewest(0.99)
    (9, 99)
    """
    return ceil(round(coverage / (1 - coverage), 9))


def label_scores(scores: np.ndarray, method: str = "lac", draws: np.ndarray | None = None) -> np.ndarray:
    """How badly each label fits each row.

    Args:
        scores: (n, C) probabilities. method: "lac" or "aps".
        draws: (n,) uniform numbers of APS's randomised form, which covers exactly; by default none are drawn and
            the label itself counts fully: the same text always gets the same set, covering a little more.

    Returns:
        (n, C); a label is in the set when its value is at most the quantile.
    """
    p = np.asarray(scores, np.float64)
    if method == "lac":
        return 1.0 - p
    if method != "aps":
        raise RecipeError(f"no kind of set `{method}`", where="conformal", expected=" or ".join(METHODS))
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    summed = np.cumsum(ranked, axis=1)
    if draws is not None:
        summed -= (1.0 - np.asarray(draws)[:, None]) * ranked
    out = np.empty_like(summed)
    np.put_along_axis(out, order, summed, axis=1)
    return out


def true_scores(scores: np.ndarray, targets: np.ndarray, method: str, draws: np.ndarray | None = None) -> np.ndarray:
    """Scores (n,) of the true labels; for "distance" |prediction − truth|."""
    if method == "distance":
        return np.abs(np.asarray(scores, np.float64) - np.asarray(targets, np.float64))
    return label_scores(scores, method, draws)[np.arange(len(targets)), targets]


def sets(scores: np.ndarray, threshold: float, method: str = "lac", draws: np.ndarray | None = None) -> np.ndarray:
    """(n, C) bool: which labels are in each row's set. The likeliest is always in an APS set, not in a LAC one."""
    found = label_scores(scores, method, draws) <= threshold
    if method == "aps" and draws is None:
        found[np.arange(len(found)), np.asarray(scores).argmax(axis=1)] = True
    return found


def threshold_of(known: np.ndarray, coverage: float, *, where: str = "") -> float:
    """`quantile` for a stored sample, refusing a coverage that it cannot promise.

    Raises:
        DataError: too few calibration rows. RecipeError: not between 0 and 1.
    """
    check_coverage(coverage)
    found = quantile(known, coverage)
    if found == float("inf"):
        raise DataError(
            f"{len(known):,} validation rows are too few to promise a coverage of {coverage:g}",
            where=where,
            expected=f"at least {fewest(coverage):,} validation rows",
            remedy=f"ask for {len(known) / (len(known) + 1):.3g} at the most, or tune with more validation rows",
        )
    return found
