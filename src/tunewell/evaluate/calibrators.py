"""Maps from a model's probabilities to ones that mean what they say, fitted on validation.

None of them changes an answer: a temperature and a strictly rising function of a probability keep the order of the
labels in every row, so that accuracy and F1 stay what they are. Which one is used is settled by cross-validated log
loss on validation; the map must earn its place by more than one standard error of the gain.

Shapes: n rows, C classes, K knots.
"""

from __future__ import annotations

import numpy as np

from tunewell.errors import DataError
from tunewell.evaluate.calibration import apply_temperature, fit_temperature
from tunewell.results import Calibrator, Estimate

METHODS = ("none", "temperature", "isotonic")
FOLDS = 5
FEWEST = 50  # validation rows that `auto` needs to change anything
ISOTONIC_FEWEST = 200  # a free form needs more
STRICT = 1e-4  # share of the probability itself that keeps an isotonic function rising


def fit(method: str, scores: np.ndarray, targets: np.ndarray) -> Calibrator:
    """Fit one map.

    Args:
        method: one of METHODS. scores: (n, C) probabilities. targets: (n,) class ids, or (n, C) of 0 and 1 for
            multi-label, which takes no isotonic one: it could move a label across 0.5.
    """
    n, multi = len(targets), np.ndim(targets) == 2
    if method == "none":
        return Calibrator(method="none", n=n, multi_label=multi)
    if not n:
        raise DataError("no validation rows to calibrate on", where="validation", expected="at least one")
    if method == "temperature":
        value = fit_temperature(scores, targets)
        return Calibrator(method=method, temperature=value, n=n, multi_label=multi)
    assert method == "isotonic" and not multi, method
    return _isotonic(np.asarray(scores, np.float64), np.asarray(targets))


def _isotonic(scores: np.ndarray, targets: np.ndarray) -> Calibrator:
    """One rising function for the probabilities of all classes (Zhang, Kailkhura and Han, 2020, Mix-n-Match).

    Pool-adjacent-violators (Zadrozny and Elkan, 2002) on the n · C pairs of probability and whether it came true.
    """
    from sklearn.isotonic import IsotonicRegression

    happened = np.zeros_like(scores)
    happened[np.arange(len(scores)), targets] = 1.0
    floor = 1.0 / (2 * (len(scores) + 1))  # nobody has seen a probability of 0 or 1
    fitted = IsotonicRegression(y_min=floor, y_max=1 - floor, out_of_bounds="clip")
    fitted.fit(scores.ravel(), happened.ravel())
    return Calibrator(
        method="isotonic",
        knots=tuple(map(float, fitted.X_thresholds_)),
        values=tuple(map(float, fitted.y_thresholds_)),
        n=len(scores),
    )


def calibrated(found: Calibrator, scores: np.ndarray) -> np.ndarray:
    """Probabilities (n, C) after the map, float32; rows still sum to 1 for one label a row.

    >>> flat = Calibrator(method="temperature", temperature=2.0)
    >>> calibrated(flat, np.array([[0.9, 0.1]])).round(2)
    array([[0.75, 0.25]], dtype=float32)
    """
    if found.method == "none" or not len(scores):
        return scores
    if found.method == "temperature":
        return apply_temperature(scores, found.temperature, multi_label=found.multi_label)
    p = np.asarray(scores, np.float64)
    mapped = (1 - STRICT) * np.interp(p, found.knots, found.values) + STRICT * p
    return (mapped / mapped.sum(axis=1, keepdims=True)).astype(np.float32)


def log_losses(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Log loss of each row (n,); for multi-label the mean over its labels."""
    p = np.clip(np.asarray(scores, np.float64), 1e-12, 1 - 1e-12)
    if np.ndim(targets) == 2:
        return -(targets * np.log(p) + (1 - targets) * np.log1p(-p)).mean(axis=1)
    return -np.log(p[np.arange(len(p)), targets])


def cross_validated(
    scores: np.ndarray, targets: np.ndarray, methods: tuple[str, ...], *, folds: int = FOLDS, seed: int = 42
) -> dict[str, np.ndarray]:
    """method -> log loss (n,) of each row under a map that was fitted on the other folds."""
    n = len(targets)
    fold = np.random.default_rng(seed).permutation(n) % min(folds, n)
    out = {}
    for method in methods:
        losses = np.empty(n)
        for k in range(min(folds, n)):
            here = fold == k
            found = fit(method, scores[~here], targets[~here])
            losses[here] = log_losses(calibrated(found, scores[here]), targets[here])
        out[method] = losses
    return out


def choose(
    scores: np.ndarray, targets: np.ndarray, method: str = "auto", *, seed: int = 42
) -> tuple[Calibrator, dict[str, Estimate], str]:
    """Fit the map that is asked for, or for "auto" the one with the least cross-validated log loss.

    Returns:
        The map, the cross-validated log loss of each method that was tried, and why this one in a sentence.
    """
    n, multi = len(targets), np.ndim(targets) == 2
    tried = [m for m in METHODS if not (m == "isotonic" and (multi or n < ISOTONIC_FEWEST)) or m == method]
    if method == "none":
        return fit("none", scores, targets), {}, "not asked for"
    if n < (FEWEST if method == "auto" else 2 * FOLDS):
        few = f"only {n} validation rows"
        return fit("none" if method == "auto" else method, scores, targets), {}, few
    losses = cross_validated(scores, targets, tuple(tried), seed=seed)
    table = {name: _mean(values) for name, values in losses.items()}
    if method != "auto":
        return fit(method, scores, targets), table, "asked for"
    best = min(losses, key=lambda name: (losses[name].mean(), METHODS.index(name)))
    gain = losses["none"] - losses[best]
    error = float(gain.std(ddof=1) / np.sqrt(n))
    if best == "none" or gain.mean() <= error:
        return fit("none", scores, targets), table, "no map lowers the log loss by more than one standard error"
    return fit(best, scores, targets), table, f"lowers the log loss by {gain.mean():.4f} ± {error:.4f} (1 s.e.)"


def _mean(values: np.ndarray) -> Estimate:
    half = 1.959964 * float(values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(value=float(values.mean()), low=values.mean() - half, high=values.mean() + half, n=len(values))
