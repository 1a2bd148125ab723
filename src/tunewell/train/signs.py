"""What a loss curve says of its learning rate: too high, too low, or nothing.

Two tests on the task's loss by step, each after Student, on batch means that are taken as independent:

    too high   while the rate is at its height (the steps at 70 % of its peak and more) the loss does not fall, and then
               falls by a clear step as the rate decays: progress came only with smaller steps
    too low    over the last half of the steps the loss falls as steadily as over the first, and at the end is still
               falling: with a larger rate, or more steps, it would be lower

They speak of the training loss. Whether a lower one serves validation is another matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 24  # losses below which nothing is said
SURE = 0.01  # p of a fall that counts
HEIGHT = 0.7  # of the peak rate
STEADY = 0.7  # of the first half's fall


@dataclass(frozen=True)
class Slope:
    """A straight line through losses: `rate`, its fall a step; `p` that it does not fall (one-sided)."""

    rate: float
    p: float

    @property
    def falls(self) -> bool:
        return self.p < SURE

    @property
    def flat(self) -> bool:
        return self.p > 0.2


def slope(losses: Sequence[float]) -> Slope | None:
    """The line through the finite ones of n losses; None for fewer than 8.

    >>> s = slope([10.0 - i + (i % 2) for i in range(20)])
    >>> round(s.rate, 2), s.falls, s.flat
    (0.99, True, False)
    """
    from scipy.stats import linregress

    y = np.asarray(losses, dtype=float)
    x = np.arange(len(y))[np.isfinite(y)]
    y = y[np.isfinite(y)]
    if len(y) < 8:
        return None
    if np.ptp(y) == 0:
        return Slope(0.0, 1.0)
    found = linregress(x, y, alternative="less")
    p = float(found.pvalue)
    return Slope(-float(found.slope), p if math.isfinite(p) else 0.0)


def signs(losses: Sequence[float], rates: Sequence[float], *, warmup: int, thrown: bool = False) -> tuple[str, ...]:
    """Any of "too high" and "too low".

    Args:
        losses, rates: of each step, nan for a dropped one. warmup: steps of it.
        thrown: the guard had to take the tuning back.
    """
    if thrown:
        return ("too high",)
    y, r = np.asarray(losses, dtype=float)[warmup:], np.asarray(rates, dtype=float)[warmup:]
    good = np.isfinite(y)
    y, r = y[good], r[good]
    if len(y) < LEAST:
        return ()
    high = r >= HEIGHT * r.max()
    above, below = y[high], y[~high]
    if len(above) >= LEAST // 2 and len(below) >= LEAST // 2:
        there, later = slope(above), slope(below)
        if there is not None and later is not None and there.flat and later.falls and _lower(below, above):
            return ("too high",)
    half = len(y) // 2
    first, last, end = slope(y[:half]), slope(y[half:]), slope(y[-len(y) // 4 :])
    if first is None or last is None or end is None:
        return ()
    if first.falls and last.falls and end.falls and last.rate >= STEADY * first.rate:
        return ("too low",)
    return ()


def _lower(later: np.ndarray, before: np.ndarray) -> bool:
    from scipy.stats import ttest_ind

    return bool(ttest_ind(later, before, equal_var=False, alternative="less").pvalue < SURE)
