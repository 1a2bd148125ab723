"""Whether probabilities mean what they say: reliability bins, calibration error, Brier score, temperature.

Shapes: n rows, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tunewell.results import CalibrationBin

BINS = 15
TEMPERATURES = (0.05, 20.0)  # where a temperature is sought


def bin_index(probability: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Number of the equal-width bin of each probability: bin m holds (m / bins, (m + 1) / bins], bin 0 also 0."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, bins - 1)


def reliability(probability: np.ndarray, happened: np.ndarray, bins: int = BINS) -> tuple[CalibrationBin, ...]:
    """The bins of a reliability diagram (Guo et al., 2017, On Calibration of Modern Neural Networks).

    Args:
        probability: (n,) what the model claimed, 0 to 1.
        happened: (n,) 1 where the claim came true (the answer was right), else 0.
        bins: how many bins of equal width.

    Returns:
        The bins that hold rows, lowest first.
    """
    probability, happened = np.asarray(probability, np.float64), np.asarray(happened, np.float64)
    index = bin_index(probability, bins)
    rows = np.bincount(index, minlength=bins)
    claimed = np.bincount(index, weights=probability, minlength=bins)
    true = np.bincount(index, weights=happened, minlength=bins)
    return tuple(
        CalibrationBin(
            low=m / bins,
            high=(m + 1) / bins,
            confidence=float(claimed[m] / rows[m]),
            accuracy=float(true[m] / rows[m]),
            n=int(rows[m]),
        )
        for m in range(bins)
        if rows[m]
    )


def ece(probability: np.ndarray, happened: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean |claimed − true| over bins, weighted by their rows (Guo et al., 2017).

    >>> round(ece([0.9, 0.9, 0.9, 0.9], [1, 1, 1, 0]), 3)
    0.15
    """
    n = len(probability)
    return sum(b.n * abs(b.confidence - b.accuracy) for b in reliability(probability, happened, bins)) / n


def brier(scores: np.ndarray, targets: np.ndarray) -> float:
    """Brier score (Brier, 1950): mean squared distance of the probabilities from what happened; 0 is best.

    Args:
        scores: (n, C) probabilities.
        targets: (n,) class ids: squared distances are summed over the classes, so 2 is worst.
            (n, C) of 0 and 1 (multi-label): they are averaged over the labels, so 1 is worst.
    """
    scores = np.asarray(scores, np.float64)
    if np.ndim(targets) == 2:
        return float(np.mean((scores - targets) ** 2))
    truth = np.zeros_like(scores)
    truth[np.arange(len(scores)), targets] = 1.0
    return float(np.mean(np.sum((scores - truth) ** 2, axis=1)))


def apply_temperature(scores: np.ndarray, temperature: float, *, multi_label: bool = False) -> np.ndarray:
    """Probabilities (n, C) that the same logits give when divided by `temperature`: above 1 is less sure.

    Logits are recovered from the probabilities (up to a constant a row, which softmax ignores).
    """
    from scipy.special import expit, softmax

    logits = _logits(scores, multi_label) / temperature
    return (expit(logits) if multi_label else softmax(logits, axis=1)).astype(np.float32)


def fit_temperature(scores: np.ndarray, targets: np.ndarray) -> float:
    """The temperature with the least log loss on these rows (validation, never test; Guo et al., 2017).

    Args:
        scores: (n, C) probabilities.
        targets: (n,) class ids, or (n, C) of 0 and 1 for multi-label.

    Returns:
        A temperature from 0.05 to 20; 1 leaves the model as it is, above 1 means it was too sure.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    multi_label = np.ndim(targets) == 2
    logits, targets = _logits(scores, multi_label), np.asarray(targets)

    def loss(log_temperature: float) -> float:
        scaled = logits * np.exp(-log_temperature)
        if multi_label:
            return float(np.mean(np.logaddexp(0.0, scaled) - targets * scaled))
        return float(-np.mean(log_softmax(scaled, axis=1)[np.arange(len(scaled)), targets]))

    bounds: Any = tuple(np.log(TEMPERATURES))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def _logits(scores: np.ndarray, multi_label: bool) -> np.ndarray:
    tiny = float(np.finfo(np.float32).tiny)
    if not multi_label:
        return np.log(np.clip(np.asarray(scores, np.float64), tiny, 1.0))
    p = np.clip(np.asarray(scores, np.float64), 1e-7, 1 - 1e-7)
    return np.log(p) - np.log1p(-p)
