"""How far probabilities are from what happens, as one figure with an interval.

Three estimates, since none is beyond doubt: bins of equal width (the usual one; most rows fall in the last bin),
bins of equal mass (each holds the same number of rows), and the latter with its bias taken out. In a bin of few
rows the share that came true misses its expectation by chance alone, and |claimed − true| counts that as error: a
perfectly calibrated model gets 0.03 on 500 rows. The debiased figure subtracts what chance adds, which is known
since the share of n rows is nearly normal with variance a (1 − a) / n.

Shapes: n rows, M bins, B resamples.
"""

from __future__ import annotations

import numpy as np

from tunewell.evaluate.calibration import BINS, bin_index
from tunewell.evaluate.statistics import bootstrap_weights, interval
from tunewell.results import CalibrationBin, Estimate

N_BOOT = 1000


def equal_mass(probability: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Number of the bin of each probability (n,), so that bins hold as equally many rows as ties allow.

    Equal probabilities share a bin (Nixon et al., 2019, Measuring Calibration in Deep Learning).

    >>> equal_mass(np.array([0.9, 0.5, 0.6, 0.8]), 2)
    array([1, 0, 0, 1])
    """
    p = np.asarray(probability, np.float64)
    found, first = np.unique(p, return_inverse=True)
    before = np.concatenate([[0], np.cumsum(np.bincount(first, minlength=len(found)))[:-1]])
    return (before * bins // max(len(p), 1))[first]


def ece_equal_mass(probability: np.ndarray, happened: np.ndarray, bins: int = BINS) -> float:
    """Mean |claimed − true| over bins of equal mass, weighted by their rows.

    Args:
        probability: (n,) what the model claimed. happened: (n,) 1 where it came true, else 0.
    """
    return _errors(probability, happened, equal_mass(probability, bins), np.ones((len(probability), 1)))[0].item()


def ece_debiased(probability: np.ndarray, happened: np.ndarray, bins: int = BINS) -> float:
    """`ece_equal_mass` less what chance adds to it; not below 0 (Kumar et al., 2019, Verified Uncertainty Calibration).

    In a bin of n rows with gap d = |claimed − true| the share is taken as normal with s² = true (1 − true) / n, and
    E|N(d, s)| − d is subtracted, by its closed form, where the paper's library draws samples.
    """
    return _errors(probability, happened, equal_mass(probability, bins), np.ones((len(probability), 1)))[1].item()


def folded_normal_mean(d: np.ndarray, s: np.ndarray) -> np.ndarray:
    """E|X| of X ~ N(d, s²), element by element; |d| where s is 0."""
    from scipy.special import ndtr

    safe = np.where(s > 0, s, 1.0)
    spread = safe * np.sqrt(2 / np.pi) * np.exp(-0.5 * (d / safe) ** 2) + d * (1 - 2 * ndtr(-d / safe))
    return np.where(s > 0, spread, np.abs(d))


def _errors(
    probability: np.ndarray, happened: np.ndarray, index: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Plain and debiased error (B,) of rows in the bins `index` (n,) under weights (n, B)."""
    p, y = np.asarray(probability, np.float64), np.asarray(happened, np.float64)
    members = np.zeros((int(index.max(initial=0)) + 1, len(p)))
    members[index, np.arange(len(p))] = 1.0
    rows = members @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        claimed, true = (members * p) @ weights / rows, (members * y) @ weights / rows
        gap = np.abs(claimed - true)
        spread = np.sqrt(np.clip(true * (1 - true), 0.0, None) / rows)
    share = rows / rows.sum(axis=0)
    gap, spread = np.nan_to_num(gap), np.nan_to_num(spread)
    plain = (share * gap).sum(axis=0)
    fair = (share * (2 * gap - folded_normal_mean(gap, spread))).sum(axis=0)
    return plain, np.clip(fair, 0.0, None)


def calibration_errors(
    probability: np.ndarray, happened: np.ndarray, *, bins: int = BINS, n_boot: int = N_BOOT, seed: int = 42
) -> dict[str, Estimate]:
    """`ece`, `ece_equal_mass` and `ece_debiased`, each with its bootstrap interval; bins stay those of all rows."""
    p, y = np.asarray(probability, np.float64), np.asarray(happened, np.float64)
    n, whole = len(p), np.ones((len(p), 1))
    index = {"width": bin_index(p, bins), "mass": equal_mass(p, bins)}
    drawn: dict[str, list[np.ndarray]] = {"ece": [], "ece_equal_mass": [], "ece_debiased": []}
    for weights in bootstrap_weights(n, n_boot, seed):
        drawn["ece"].append(_errors(p, y, index["width"], weights)[0])
        plain, fair = _errors(p, y, index["mass"], weights)
        drawn["ece_equal_mass"].append(plain)
        drawn["ece_debiased"].append(fair)
    plain, fair = _errors(p, y, index["mass"], whole)
    values = {"ece": _errors(p, y, index["width"], whole)[0], "ece_equal_mass": plain, "ece_debiased": fair}
    out = {}
    for name, value in values.items():
        low, high = interval(np.concatenate(drawn[name]), value.item(), bounds=(0.0, 1.0))
        out[name] = Estimate(value=value.item(), low=low, high=high, n=n)
    return out


def mass_bins(probability: np.ndarray, happened: np.ndarray, bins: int = BINS) -> tuple[CalibrationBin, ...]:
    """The bins of a reliability diagram with equally many rows each, lowest first."""
    p, y = np.asarray(probability, np.float64), np.asarray(happened, np.float64)
    index = equal_mass(p, bins)
    return tuple(
        CalibrationBin(
            low=float(p[here].min()),
            high=float(p[here].max()),
            confidence=float(p[here].mean()),
            accuracy=float(y[here].mean()),
            n=int(here.sum()),
        )
        for here in (index == m for m in np.unique(index))
    )
