"""Every metric as a function of row weights: one formula gives the value, its bootstrap and a paired difference.

Column b of the weights says how often each row occurs in resample b; all ones are the data as they are.
Since nothing is recomputed row by row, 2,000 resamples of all metrics take a second or two.

Shapes: n rows, C classes, B resamples, K distinct (true, predicted) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tunewell.errors import TrainingError
from tunewell.evaluate.calibration import BINS, bin_index

THRESHOLD = 0.5  # multi-label: a label is predicted from this probability on
EPS = float(np.finfo(np.float32).eps)  # log loss clips probabilities here, as scikit-learn does for float32

Measure = Callable[[np.ndarray], dict[str, np.ndarray]]
"""(n, B) weights -> metric name -> (B,) values, nan where a value is undefined."""


def measure_of(spec: Any, scores: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> Measure:
    """The metrics `names` of one model on n rows, as a function of row weights.

    Args:
        spec: a TaskSpec.
        scores: (n, C) probabilities, or (n,) predicted values for regression.
        targets: (n,) class ids, (n, C) of 0 and 1 for multi-label, (n,) values for regression.

    Raises:
        TrainingError: scores are not finite.
        ValueError: the shapes do not fit each other (a fault of ours).
    """
    scores, targets = np.asarray(scores, np.float64), np.asarray(targets)
    if len(scores) != len(targets):
        raise ValueError(f"{len(scores)} scores for {len(targets)} targets")
    if bad := int(np.sum(~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1))):
        raise TrainingError(
            f"the model's outputs are not finite numbers in {bad:,} of {len(scores):,} rows",
            where="evaluation",
            expected="finite probabilities or values",
            remedy="a lower learning_rate, or bf16: false",
        )
    if spec.name == "text-regression":
        return _regression(scores.reshape(len(scores)), targets, names)
    if scores.shape[1:] != (len(spec.labels),):
        raise ValueError(f"scores of shape {scores.shape} for {len(spec.labels)} labels")
    return (_multi_label if spec.multi_label else _single_label)(scores, targets, names)


def decide(spec: Any, scores: np.ndarray) -> np.ndarray:
    """Answers of scores: (n,) class ids, (n, C) booleans for multi-label, the values themselves for regression."""
    if spec.name == "text-regression":
        return np.asarray(scores).reshape(len(scores))
    return np.asarray(scores) >= THRESHOLD if spec.multi_label else np.argmax(scores, axis=1)


# ---------------------------------------------------------------- classes


def _single_label(scores: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> Measure:
    n, n_classes = scores.shape
    predicted = scores.argmax(axis=1)
    cells, cell_of_row = np.unique(targets * n_classes + predicted, return_inverse=True)
    to_cells = _indicator(cell_of_row, len(cells))  # (K, n)
    to_true = _indicator(cells // n_classes, n_classes)  # (C, K)
    to_predicted = _indicator(cells % n_classes, n_classes)  # (C, K)
    on_diagonal = cells // n_classes == cells % n_classes
    log_loss = -np.log(np.clip(scores[np.arange(n), targets], EPS, 1 - EPS))
    confidence = scores[np.arange(n), predicted]
    gaps = _indicator(bin_index(confidence), BINS) @ _diagonal(confidence - (predicted == targets))  # (BINS, n)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(axis=0)
        out = {}
        if "log_loss" in names:
            out["log_loss"] = divide(log_loss @ weights, total)
        if "ece" in names:
            out["ece"] = divide(np.abs(gaps @ weights).sum(axis=0), total)
        if set(names) <= out.keys():
            return out
        counts = to_cells @ weights  # (K, B)
        support, guesses = to_true @ counts, to_predicted @ counts  # (C, B)
        hits = to_true @ (counts * on_diagonal[:, None])
        right = hits.sum(axis=0)
        f1 = divide(2 * hits, support + guesses)
        out["accuracy"] = out["f1_micro"] = divide(right, total)
        out["f1_macro"] = _mean_defined(f1)
        out["f1_weighted"] = divide(np.nansum(f1 * support, axis=0), total)
        out["balanced_accuracy"] = _mean_defined(divide(hits, support))
        # Matthews' coefficient for C classes (Gorodkin, 2004); 0 when the answers or the truth are constant
        square = total**2
        spread = (square - (guesses**2).sum(axis=0)) * (square - (support**2).sum(axis=0))
        mcc = divide(right * total - (support * guesses).sum(axis=0), np.sqrt(np.maximum(spread, 0.0)))
        out["mcc"] = np.nan_to_num(mcc, nan=0.0)
        if "mae" in names:
            out["mae"] = divide(np.abs(cells // n_classes - cells % n_classes) @ counts, total)
        if "quadratic_kappa" in names:
            out["quadratic_kappa"] = _quadratic_kappa(cells, n_classes, counts, support, guesses)
        return {name: out[name] for name in names}

    return measure


def _quadratic_kappa(
    cells: np.ndarray, n_classes: int, counts: np.ndarray, support: np.ndarray, guesses: np.ndarray
) -> np.ndarray:
    """Cohen's weighted kappa (1968): 1 − squared distances of truth and answer over those of independent ones.

    Args:
        cells: (K,) true · C + predicted; counts: (K, B); support, guesses: (C, B).
    """
    place = np.arange(n_classes, dtype=np.float64)
    total = support.sum(axis=0)
    seen = ((cells // n_classes - cells % n_classes) ** 2) @ counts
    # the sum over i, j of (i - j)² s_i g_j / total, multiplied out
    by_chance = place**2 @ (support + guesses) - 2 * divide((place @ support) * (place @ guesses), total)
    return 1.0 - divide(seen, np.where(by_chance > 1e-9 * np.maximum(total, 1.0), by_chance, 0.0))


# ---------------------------------------------------------------- several labels a row


def _multi_label(scores: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> Measure:
    from scipy.sparse import csr_array

    truth, predicted = targets > 0, scores >= THRESHOLD
    per_label = {
        k: csr_array(m.T.astype(np.float64))
        for k, m in (("hit", truth & predicted), ("true", truth), ("guess", predicted))
    }  # each (C, n)
    wrong = (truth != predicted).mean(axis=1)
    exact = (wrong == 0).astype(np.float64)
    precision, slope = np.nan, np.zeros(len(scores))
    if "average_precision" in names:
        precision, slope = average_precision(scores, truth)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(axis=0)
        out = {"subset_accuracy": divide(exact @ weights, total), "hamming_loss": divide(wrong @ weights, total)}
        if "average_precision" in names:
            out["average_precision"] = np.clip(precision + slope @ (weights - 1.0), 0.0, 1.0)
        if {"f1_micro", "f1_macro"} & set(names):
            hits, support, guesses = (per_label[k] @ weights for k in ("hit", "true", "guess"))  # (C, B)
            out["f1_micro"] = divide(2 * hits.sum(axis=0), support.sum(axis=0) + guesses.sum(axis=0))
            out["f1_macro"] = _mean_defined(divide(2 * hits, support + guesses))
        return {name: out[name] for name in names}

    return measure


def average_precision(scores: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Average precision, averaged over the labels that occur, and its derivative in each row's weight.

    The derivative gives all resamples at once, to first order (the infinitesimal jackknife; Efron, 1982);
    ranking 1,000 labels anew for each of 2,000 resamples would take minutes.

    Args:
        scores, truth: (n, C).

    Returns:
        The value, nan when no label occurs; the derivative (n,).
    """
    occurring = np.flatnonzero(truth.any(axis=0))
    if not len(occurring):
        return np.nan, np.zeros(len(scores))
    value, slope = 0.0, np.zeros(len(scores))
    for c in occurring:
        order = np.argsort(-scores[:, c], kind="stable")
        ranked, hit = scores[order, c], truth[order, c].astype(np.float64)
        last = np.searchsorted(-ranked, -ranked, side="right") - 1  # rows that tie share one threshold
        first = np.searchsorted(-ranked, -ranked, side="left")
        seen = last + 1.0  # rows at or above each row's threshold
        precision = np.cumsum(hit)[last] / seen
        positives = hit.sum()
        ap = float(hit @ precision / positives)
        # Row j's weight moves the precision of every hit i at or below its threshold by (hit_j - precision_i) / seen_i.
        below = np.cumsum((hit / seen)[::-1])[::-1][first]
        below_precision = np.cumsum((hit * precision / seen)[::-1])[::-1][first]
        slope[order] += (hit * (precision - ap) + hit * below - below_precision) / positives
        value += ap
    return value / len(occurring), slope / len(occurring)


# ---------------------------------------------------------------- scores


def _regression(scores: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> Measure:
    truth = np.asarray(targets, np.float64)
    error = scores - truth
    x, y = truth - truth.mean(), scores - scores.mean()
    columns = np.stack([x, x**2, y, y**2, x * y, error**2, np.abs(error)])  # (7, n)
    least_x, least_y = _least_spread(truth), _least_spread(scores)
    rank = _spearman(truth, scores) if "spearman" in names else None

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        mx, mxx, my, myy, mxy, squared, absolute = divide(columns @ weights, weights.sum(axis=0))
        spread_x, spread_y = mxx - mx**2, myy - my**2
        known_x, known_y = spread_x > least_x, spread_y > least_y
        out = {"mae": absolute, "rmse": np.sqrt(squared)}
        out["r2"] = 1.0 - divide(squared, np.where(known_x, spread_x, 0.0))
        out["pearson"] = _correlation(mxy - mx * my, np.where(known_x & known_y, spread_x * spread_y, 0.0))
        if rank is not None:
            out["spearman"] = rank(weights)
        return {name: out[name] for name in names}

    return measure


def spearman_of(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Spearman's rank correlation of x and y (n,) as a function of row weights (n, B) -> (B,).

    Rows are ranked anew in each resample, ties by their mean rank; nan when x or y is constant.
    """
    return _spearman(np.asarray(x, np.float64), np.asarray(y, np.float64))


def _spearman(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    (x_values, x_index), (y_values, y_index) = (np.unique(v, return_inverse=True) for v in (x, y))
    x_sum, y_sum = _indicator(x_index, len(x_values)), _indicator(y_index, len(y_values))

    def correlation(weights: np.ndarray) -> np.ndarray:
        x_rank, x_spread = _midranks(x_sum @ weights)
        y_rank, y_spread = _midranks(y_sum @ weights)
        together = (weights * x_rank[x_index] * y_rank[y_index]).sum(axis=0)
        return _correlation(together, x_spread * y_spread)

    return correlation


def _midranks(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred mean ranks of distinct values, lowest first, that occur `counts` (U, B) times; their sum of squares."""
    cumulative = np.cumsum(counts, axis=0)
    ranks = cumulative - counts / 2.0 - cumulative[-1] / 2.0
    return ranks, (counts * ranks**2).sum(axis=0)


def _correlation(together: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    return np.clip(divide(together, np.sqrt(np.maximum(spreads, 0.0))), -1.0, 1.0)


def _least_spread(values: np.ndarray) -> float:
    """Below this a variance is rounding error, and the values are constant."""
    return 1e-14 * float(np.max(np.abs(values), initial=0.0)) ** 2


# ---------------------------------------------------------------- arithmetic


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, nan where the denominator is 0, without a warning."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def _mean_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the classes (C, B) whose value is defined: those that occur in the truth or in the answers."""
    return divide(np.nansum(values, axis=0), np.sum(~np.isnan(values), axis=0))


def _indicator(group: np.ndarray, groups: int) -> Any:
    """Sparse (groups, n) matrix that sums rows by group."""
    from scipy.sparse import csr_array

    n = len(group)
    return csr_array((np.ones(n), (np.asarray(group).reshape(n), np.arange(n))), shape=(groups, n))


def _diagonal(values: np.ndarray) -> Any:
    from scipy.sparse import dia_array

    return dia_array((values[None, :], [0]), shape=(len(values), len(values))).tocsr()
