"""Laws of learning curves: fitted, compared by how well they foresee, extrapolated with intervals.

Each law is a score s(n) = c − a · φ(n) of n labels, with φ falling from the shape that gives the law its
name, a ≥ 0, and c at most the metric's ceiling:

| law | φ(n) |
| --- | --- |
| power | n^−b |
| exponential | exp(−b n / N), N the largest size |
| mmf (Morgan–Mercer–Flodin) | 1 / (1 + n^d / b) |
| inverse-log | 1 / log(n + 1) |

For a given shape the best c and a are a weighted linear regression in closed form, so a fit is exact over
a grid of shapes and can be repeated for every bootstrap replicate. Which law holds is not decided once:
laws weigh by how well, fitted on the smaller sizes, they foresaw the next larger ones. The laws are those
that did best on many learning curves in Viering & Loog, 2021, The shape of learning curves; power laws for
language models and data: Hestness et al., 2017.

An interval has three parts: the luck of subset and seed, the choice of law and its shape, and what laws got
wrong when they foresaw the larger sizes measured, which grows with the logarithm of the distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 600  # replicates behind an interval
LEVEL = 0.9  # of the intervals
DISCREPANCY = 0.01  # what a law is off by, an e-fold beyond the largest size, as far as is known beforehand
PRIOR = 3.0  # measured errors that this knowledge is worth
LEAST_NOISE = 0.002  # of a mean score


def shapes(law: str, sizes: np.ndarray, largest: float) -> np.ndarray:
    """(G, K) values of φ at K sizes for each shape on the law's grid.

    Raises:
        KeyError: unknown law.
    """
    n = np.asarray(sizes, dtype=np.float64)[None, :]
    return _SHAPES[law](n, largest)


def _power(n: np.ndarray, largest: float) -> np.ndarray:
    return n ** -np.geomspace(0.02, 2.5, 80)[:, None]


def _exponential(n: np.ndarray, largest: float) -> np.ndarray:
    return np.exp(-np.geomspace(0.1, 40, 80)[:, None] * n / largest)


def _mmf(n: np.ndarray, largest: float) -> np.ndarray:
    half, d = np.meshgrid(largest * np.geomspace(0.005, 2, 50), np.geomspace(0.3, 4, 28), indexing="ij")
    return 1 / (1 + (n / half.reshape(-1, 1)) ** d.reshape(-1, 1))  # b = half^d: half of the way is made at `half`


def _inverse_log(n: np.ndarray, largest: float) -> np.ndarray:
    return 1 / np.log(n + 1)


_SHAPES = {"power": _power, "exponential": _exponential, "mmf": _mmf, "inverse-log": _inverse_log}
LAWS = tuple(_SHAPES)
PARAMETERS = {"power": 3, "exponential": 3, "mmf": 4, "inverse-log": 2}


@dataclass(frozen=True)
class Fit:
    """The best member of a law for each of B score vectors: shape number, c, a (B,), weighted squared error (B,)."""

    law: str
    shape: np.ndarray
    c: np.ndarray
    a: np.ndarray
    error: np.ndarray
    largest: float

    def at(self, sizes: Sequence[float] | np.ndarray) -> np.ndarray:
        """(B, M) scores at M sizes."""
        phi = shapes(self.law, np.asarray(sizes, dtype=np.float64), self.largest)[self.shape]
        return self.c[:, None] - self.a[:, None] * phi


def fit(law: str, sizes: np.ndarray, scores: np.ndarray, weights: np.ndarray, *, ceiling: float, largest: float) -> Fit:
    """Weighted least squares over the law's shapes, exact in c and a.

    Args:
        sizes: (K,) labels. scores: (B, K). weights: (K,) inverse variances. largest: N, the scale of the shapes.
    """
    y = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    w = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    phi = shapes(law, sizes, largest)
    phi_mean, y_mean = phi @ w, y @ w
    spread = (phi - phi_mean[:, None]) * w
    variance = np.maximum((spread * (phi - phi_mean[:, None])).sum(1), 1e-18)
    a = np.maximum(-(y @ spread.T) / variance, 0)  # (B, G)
    c = y_mean[:, None] + a * phi_mean
    over = c > ceiling  # hold c at the ceiling, and fit a alone
    held = np.maximum(((ceiling - y) * w) @ phi.T / np.maximum((phi * phi) @ w, 1e-18), 0)
    a, c = np.where(over, held, a), np.where(over, ceiling, c)
    error = np.zeros_like(a)
    for k, weight in enumerate(np.asarray(weights, dtype=np.float64)):
        error += weight * (c - a * phi[:, k] - y[:, k : k + 1]) ** 2
    best = error.argmin(1)
    rows = np.arange(len(y))
    return Fit(law, best, c[rows, best], a[rows, best], error[rows, best], largest)


@dataclass(frozen=True)
class Forecast:
    """What laws say of a learning curve.

    Attributes:
        weights: law -> weight, summing to 1.
        draws: for each replicate the law's fit and the error an e-fold beyond the largest size.
        noise: (K,) standard error of the mean score at each measured size.
        discrepancy: typical error of a law, an e-fold beyond the largest measured size.
    """

    sizes: np.ndarray
    means: np.ndarray
    noise: np.ndarray
    weights: dict[str, float]
    discrepancy: float
    ceiling: float
    _fits: dict[str, Fit]
    _law: np.ndarray  # (draws,) number of the law in LAWS
    _off: np.ndarray  # (draws,) standard normal

    @property
    def law(self) -> str:
        """The heaviest law."""
        return max(self.weights, key=lambda name: self.weights[name])

    def draws_at(self, sizes: Sequence[float] | np.ndarray) -> np.ndarray:
        """(draws, M) possible mean scores at M sizes."""
        at = np.asarray(sizes, dtype=np.float64)
        every = np.stack([self._fits[name].at(at) for name in LAWS])
        out = every[self._law, np.arange(len(self._law))]
        beyond = np.maximum(np.log(at / self.sizes[-1]), 0)
        return np.minimum(out + self._off[:, None] * self.discrepancy * beyond[None, :], self.ceiling)

    def at(self, sizes: Sequence[float] | np.ndarray) -> np.ndarray:
        """(M, 3) median, low and high end of the 90 % interval of the mean score at M sizes."""
        tail = (1 - LEVEL) / 2
        return np.quantile(self.draws_at(sizes), [0.5, tail, 1 - tail], axis=0).T

    def gain(self, n: float, more: float) -> tuple[float, float, float]:
        """What `more` labels beyond n bring: median, low, high."""
        both = self.draws_at([n, n + more])
        tail = (1 - LEVEL) / 2
        value, low, high = np.quantile(both[:, 1] - both[:, 0], [0.5, tail, 1 - tail])
        return float(value), float(low), float(high)

    def needed(self, target: float, most: float) -> tuple[float | None, float | None, float | None, float]:
        """Labels at which the mean score reaches a target: median, low, high, and the share of draws that reach it.

        None stands for more than `most`.
        """
        grid = np.geomspace(max(2.0, self.sizes[0] / 2), most, 400)
        # a draw may fall again where its error pulls it down; what counts is where it first arrives
        reached = self.draws_at(grid) >= target
        arrives = reached.any(1)
        first = np.where(arrives, grid[reached.argmax(1)], np.inf)
        tail = (1 - LEVEL) / 2
        found = np.quantile(first, [0.5, tail, 1 - tail], method="higher")
        median, low, high = (None if np.isinf(v) else float(v) for v in found)
        return median, low, high, float(arrives.mean())


def standard_errors(scores: Sequence[np.ndarray], sizes: np.ndarray) -> np.ndarray:
    """(K,) standard error of the mean at each size, from repeats at all sizes.

    Few repeats say little of one size's spread, so that one scale is fitted to all: variance ∝ n^−1 in part
    and constant in part, whichever of the two explains the repeats better, and never below a floor.
    """
    counts = np.array([len(s) for s in scores])
    if (counts < 2).all():
        return np.full(len(sizes), 0.01)  # one repeat each: nothing is known, so a usual value
    variances = np.array([np.var(s, ddof=1) if len(s) > 1 else np.nan for s in scores])
    known = counts > 1
    degrees = (counts - 1)[known]
    best, chosen = np.inf, np.full(len(sizes), np.nan)
    for power in (0.0, 0.5, 1.0):
        scale = (sizes / sizes[-1]) ** -power
        base = float((degrees * variances[known] / scale[known]).sum() / degrees.sum())
        model = np.maximum(base * scale, LEAST_NOISE**2)
        deviance = float((degrees * (np.log(model[known]) + variances[known] / model[known])).sum())
        if deviance < best:
            best, chosen = deviance, model
    return np.maximum(np.sqrt(chosen / counts), LEAST_NOISE)


def forecast(
    sizes: Sequence[float], scores: Sequence[Sequence[float]], *, ceiling: float = 1.0, seed: int = 0
) -> Forecast:
    """Fit all laws to a measured curve.

    Args:
        sizes: (K,) labels, ascending, K ≥ 3. scores: for each size the scores of its repeats.
        ceiling: what no score can pass (1 for accuracy, F1, R²).

    Raises:
        ValueError: fewer than three sizes, sizes not ascending, or a size without a score.
    """
    n = np.asarray(sizes, dtype=np.float64)
    repeats = [np.asarray(s, dtype=np.float64) for s in scores]
    if len(n) < 3 or (np.diff(n) <= 0).any() or len(repeats) != len(n) or any(len(s) == 0 for s in repeats):
        raise ValueError("a learning curve needs three ascending sizes or more, each with a score")
    means = np.array([s.mean() for s in repeats])
    noise = standard_errors(repeats, n)
    inverse = 1 / noise**2
    largest = float(n[-1])
    rng = np.random.default_rng(seed)
    replicates = means + noise * rng.standard_normal((DRAWS, len(n)))

    errors: dict[str, list[tuple[float, float, float]]] = {name: [] for name in LAWS}  # error, its noise, distance
    for j in range(2, len(n)):
        for name in LAWS:
            if j < min(PARAMETERS[name], 3):
                continue
            foreseen = fit(name, n[:j], means[None, :j], inverse[:j], ceiling=ceiling, largest=float(n[j - 1]))
            ahead = foreseen.at(n[j:])[0]
            for k in range(j, len(n)):
                spread = float(np.hypot(noise[k], noise[j - 1]))
                errors[name].append((float(means[k] - ahead[k - j]), spread, float(np.log(n[k] / n[j - 1]))))
    weights = _weigh(errors)
    fits = {name: fit(name, n, replicates, inverse, ceiling=ceiling, largest=largest) for name in LAWS}
    law = rng.choice(len(LAWS), size=DRAWS, p=[weights[name] for name in LAWS])
    off = _discrepancy(errors, weights)
    return Forecast(n, means, noise, weights, off, ceiling, fits, law, rng.standard_normal(DRAWS))


def _weigh(errors: dict[str, list[tuple[float, float, float]]]) -> dict[str, float]:
    """Weights of the laws by the mean likelihood of what they foresaw."""
    logs = {}
    for name, found in errors.items():
        terms = [
            -0.5 * e**2 / (s**2 + (DISCREPANCY * d) ** 2) - 0.5 * np.log(s**2 + (DISCREPANCY * d) ** 2)
            for e, s, d in found
        ]
        logs[name] = float(np.mean(terms)) if terms else 0.0
    top = max(logs.values())
    total = {name: float(np.exp(value - top)) for name, value in logs.items()}
    return {name: value / sum(total.values()) for name, value in total.items()}


def _discrepancy(errors: dict[str, list[tuple[float, float, float]]], weights: dict[str, float]) -> float:
    """Error of the laws an e-fold beyond the data, from what they got wrong, beside what is known beforehand."""
    total, mass = PRIOR * DISCREPANCY**2, PRIOR
    for name, found in errors.items():
        for e, s, d in found:
            share = weights[name] / max(1, len(found)) * 2
            total += share * max(e**2 - s**2, 0.0) / d**2
            mass += share
    return float(np.sqrt(total / mass))
