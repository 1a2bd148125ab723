"""How sure a figure is: bootstrap intervals, paired tests, and the verdict on two models.

Intervals are 95 % percentile bootstrap intervals (Efron and Tibshirani, 1993), shifted so that the
resamples' mean falls on the figure: rows are drawn with replacement and the figure is taken anew. The
shift takes out the bootstrap's own bias: a resample loses rows of small classes, so that unshifted
intervals of macro-F1 lie too low (150 classes, 10 rows each: they held the truth in 75 % of 100
simulated test sets, shifted ones in 93 %; with few classes there is no difference). Two models are
always drawn with the same rows. Shares of right answers (accuracy) have Wilson's interval (1927),
which also holds when every answer is right.

Shapes: n rows, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tunewell.evaluate.weighted import Measure, decide, measure_of
from tunewell.results import Comparison, Estimate

LEVEL = 0.95
N_BOOT = 2000
CELLS = 4_000_000  # entries of one block of weights: 32 MB
DRAWS = 50_000_000  # rows drawn in all: above, fewer resamples, but never fewer than LEAST
LEAST = 500
PERMUTATIONS = 10_000
EXACT_ROWS = 12  # up to here all 2^n sign flips are tried
SAMPLED_ROWS = 20_000  # up to here flips are sampled; beyond, their sum is taken as normal


def mean_interval(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of n values with Student's 95 % interval; without one below two, without a value below one.

    >>> e = mean_interval([1.0, 2.0, 3.0])
    >>> round(e.value, 3), round(e.low, 3), round(e.high, 3), e.n
    (2.0, -0.484, 4.484, 3)
    """
    from scipy import stats

    n = len(values)
    if not n:
        return Estimate(value=None)
    mean = float(np.mean(values))
    if n < 2:
        return Estimate(value=mean, n=n)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(value=mean, low=mean - half, high=mean + half, n=n)


# ---------------------------------------------------------------- bootstrap


def bootstrap_weights(n: int, n_boot: int = N_BOOT, seed: int = 42) -> Iterator[np.ndarray]:
    """Blocks (n, b) of float64: column by column, how often each of n rows occurs in a resample of n.

    With very many rows there are fewer resamples (2,000 up to 25,000 rows, 500 from 100,000 rows): their
    percentiles are less exact, but of an interval that is narrow.
    """
    rng = np.random.default_rng(seed)
    left = min(n_boot, max(LEAST, DRAWS // n))
    block = max(1, CELLS // n)
    while left > 0:
        b = min(block, left)
        drawn = rng.integers(0, n, size=(n, b))
        drawn *= b
        drawn += np.arange(b)
        yield np.bincount(drawn.ravel(), minlength=n * b).reshape(n, b).astype(np.float64)
        left -= b


def replicates(measure: Measure, n: int, n_boot: int = N_BOOT, seed: int = 42) -> dict[str, np.ndarray]:
    """Bootstrap values (B,) of every metric of a measure; nan where a resample leaves one undefined."""
    blocks = [measure(weights) for weights in bootstrap_weights(n, n_boot, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def interval(
    values: np.ndarray, value: float, *, bounds: tuple[float, float] = (-math.inf, math.inf), level: float = LEVEL
) -> tuple[float | None, float | None]:
    """Interval of a figure from its bootstrap values; (None, None) where they say nothing.

    That is so when the resamples never differ (n = 1, or every answer right: no sign that the figure
    is exact, only that the rows cannot tell), or when over half of them leave the figure undefined.

    Args:
        values: (B,) the figure in each resample, nan where undefined.
        value: the figure itself; the interval is shifted by value − mean(values).
        bounds: what the figure can be at all; the interval ends there.
    """
    known = values[~np.isnan(values)]
    if math.isnan(value) or len(known) < 2 or 2 * len(known) < len(values):
        return None, None
    if np.ptp(known) <= 1e-12 * max(1.0, float(np.max(np.abs(known)))):
        return None, None
    shift = value - known.mean()
    low, high = np.clip(np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) + shift, *bounds)
    return float(low), float(high)


def bootstrap(
    statistic: Callable[[np.ndarray], float], n: int, n_boot: int = N_BOOT, seed: int = 42
) -> tuple[float | None, float | None]:
    """95 % interval of any statistic of rows.

    Args:
        statistic: called with (n,) row numbers, drawn with replacement; may return nan.
        n: rows. n_boot: resamples. seed: of the draws; the same seed draws the same rows.

    Returns:
        low and high, or (None, None): see `interval`.
    """
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(0, n, size=n)) for _ in range(n_boot)], dtype=np.float64)
    return interval(values, statistic(np.arange(n)))


def bootstrap_difference(
    statistic_a: Callable[[np.ndarray], float],
    statistic_b: Callable[[np.ndarray], float],
    n: int,
    n_boot: int = N_BOOT,
    seed: int = 42,
) -> tuple[float | None, float | None]:
    """95 % interval of a − b, both on the same resampled rows; see `bootstrap`."""
    return bootstrap(lambda rows: statistic_a(rows) - statistic_b(rows), n, n_boot, seed)


def wilson(successes: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of a share (Wilson, 1927; recommended by Brown, Cai and DasGupta, 2001).

    >>> tuple(round(x, 4) for x in wilson(10, 10))
    (0.7225, 1.0)
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))
    share = successes / n
    centre, scale = share + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


# ---------------------------------------------------------------- tests


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """Two-sided p-value of McNemar's test (1947) in its exact binomial form.

    Only rows that one model gets right and the other wrong count; if the models are equally good,
    such a row is as likely to go either way.

    Args:
        right_a, right_b: (n,) booleans.

    >>> mcnemar([True] * 5 + [False], [False] * 5 + [True])   # 5 against 1: 2 · (1 + 6) / 2^6
    0.21875
    """
    from scipy.stats import binom

    a, b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(~a & b))
    return min(1.0, float(2 * binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_permutation(differences: np.ndarray, *, seed: int = 42, n_permutations: int = PERMUTATIONS) -> float:
    """Two-sided p-value of the paired permutation test: is the mean difference 0?

    If it is, each row's difference may as well have the other sign. All 2^n signs are tried for up to
    12 rows that differ; up to 20,000 a sample is drawn and counted with itself, (b + 1) / (m + 1), as
    Phipson and Smyth (2010) show it must be; beyond, the sum under flips is taken as normal.

    Args:
        differences: (n,) loss of one model less loss of the other, row by row.
    """
    d = np.asarray(differences, np.float64)
    d = d[d != 0]  # flipping a zero changes nothing
    if not len(d):
        return 1.0
    observed = abs(float(d.sum())) * (1 - 1e-12)  # so that rounding does not part equal sums
    if len(d) <= EXACT_ROWS:
        signs = 1.0 - 2.0 * ((np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1)
        return float(np.mean(np.abs(signs @ d) >= observed))
    if len(d) > SAMPLED_ROWS:
        return math.erfc(observed / math.sqrt(2 * float(d @ d)))
    rng = np.random.default_rng(seed)
    extreme, left, block = 0, n_permutations, max(1, CELLS // len(d))
    while left > 0:
        b = min(block, left)
        bits = np.unpackbits(np.frombuffer(rng.bytes(b * ((len(d) + 7) // 8)), np.uint8).reshape(b, -1), axis=1)
        flipped = d.sum() - 2.0 * (bits[:, : len(d)].astype(np.float64) @ d)
        extreme += int(np.sum(np.abs(flipped) >= observed))
        left -= b
    return (extreme + 1) / (n_permutations + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm, 1979): below 0.05 still means 5 % for the whole family.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


# ---------------------------------------------------------------- two models


def compare(
    spec: Any,
    scores_tuned: np.ndarray,
    scores_other: np.ndarray,
    targets: np.ndarray,
    *,
    metric: str | None = None,
    seed: int = 42,
    n_boot: int = N_BOOT,
) -> Comparison:
    """The tuned model against another on the same rows.

    McNemar's exact test for single-label classes; the paired permutation test on the share of wrong
    labels a row (multi-label) or on squared errors (regression).

    Args:
        spec: a TaskSpec; scores and targets as in `weighted.measure_of`.
        metric: of the difference; by default the headline metric.

    Returns:
        `difference` is tuned − other with its paired bootstrap interval. `better` is True (False) when
        the interval excludes 0 in favour of the tuned (other) model, the test gives p < 0.05, and the
        two agree in direction; else None: these rows cannot tell.
    """
    from tunewell.evaluate.metrics import LOWER_IS_BETTER, check_metric

    metric = metric or spec.metric
    check_metric(spec, metric)
    tuned, other = (measure_of(spec, scores, targets, [metric]) for scores in (scores_tuned, scores_other))

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {metric: tuned(weights)[metric] - other(weights)[metric]}

    n = len(targets)
    value = float(difference(np.ones((n, 1)))[metric][0])
    low, high = interval(replicates(difference, n, n_boot, seed)[metric], value)
    p_value, test, gain = paired_test(spec, scores_tuned, scores_other, np.asarray(targets), seed)
    sign = -1 if metric in LOWER_IS_BETTER else 1
    better = None
    if low is not None and high is not None and low * high > 0 and p_value < 1 - LEVEL and gain * sign * low > 0:
        better = sign * low > 0
    estimate = Estimate(value=None if math.isnan(value) else value, low=low, high=high, n=n)
    return Comparison(metric=metric, difference=estimate, test=test, p_value=p_value, better=better)


def paired_test(
    spec: Any, tuned: np.ndarray, other: np.ndarray, targets: np.ndarray, seed: int
) -> tuple[float, str, float]:
    """p-value, name of the test, and how much better the tuned model is by what the test counts."""
    if spec.name != "text-regression" and not spec.multi_label:
        right_tuned, right_other = decide(spec, tuned) == targets, decide(spec, other) == targets
        return mcnemar(right_tuned, right_other), "McNemar, exact", float(right_tuned.sum() - right_other.sum())
    if spec.name == "text-regression":
        loss_tuned, loss_other = ((decide(spec, s).astype(np.float64) - targets) ** 2 for s in (tuned, other))
        name = "paired permutation of squared errors"
    else:
        loss_tuned, loss_other = ((decide(spec, s) != (targets > 0)).mean(axis=1) for s in (tuned, other))
        name = "paired permutation of wrong labels a row"
    lost = loss_other - loss_tuned
    return paired_permutation(lost, seed=seed), name, float(lost.sum())
