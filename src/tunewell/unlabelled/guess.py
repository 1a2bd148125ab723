"""Guessed labels: how sure a teacher is of each text of the pool, and which guesses are learned from.

Self-training (Yarowsky, 1995) lets a model label what it was not taught, and learns from the labels it is surest of.
Two things go wrong: a model that is sure of wrong labels, and one that is sure of one class only. So confidence is
calibrated first, by a temperature fitted on validation (Guo et al., 2017), and rows are taken class by class, surest
first, none beyond its class's share of the labelled rows (Mukherjee & Awadallah, 2020, sample within classes for the
same reason).

Shapes: n labelled rows, m texts of the pool, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SURER = 0.5  # share of a class's guesses that is learned from, where no threshold is set
EVEN = 1e-9  # confidences that differ by less are the same


@dataclass(frozen=True)
class Guesses:
    """Labels that rows of the pool are learned with.

    Attributes:
        places: (k,) rows of the pool, ascending. labels: (k,) class ids. confidence: (k,) calibrated, 0 to 1.
        temperature: that the confidences were divided by; 1 where there were no validation rows to fit it on.
    """

    places: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    temperature: float = 1.0

    def __len__(self) -> int:
        return len(self.places)


def temperature_for(scores: np.ndarray, targets: np.ndarray) -> float:
    """The temperature with the least log loss on validation; 1 without rows. scores: (v, C), targets: (v,)."""
    from tunewell.evaluate.calibration import fit_temperature

    return fit_temperature(scores, targets) if len(targets) else 1.0


def guesses(
    scores: np.ndarray, counts: np.ndarray, *, temperature: float = 1.0, threshold: float | None = None
) -> Guesses:
    """Which rows of the pool are learned from.

    A class may have no more rows than its share of the labelled ones, of all rows that are sure enough; within a class
    the surest come first, and of equals the first.

    Args:
        scores: (m, C) probabilities of the teacher, before the temperature. counts: (C,) labelled rows of each class.
        threshold: least calibrated confidence; None for the surer half of each class's guesses.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.1, 0.9], [0.45, 0.55]])
    >>> guesses(p, np.array([5, 5]), threshold=0.65).places.tolist()   # four are sure; two of a class at most
    [0, 1, 4]
    >>> guesses(p, np.array([5, 5])).places.tolist()   # half of four, half of two
    [0, 1, 4]
    """
    from tunewell.evaluate.calibration import apply_temperature

    p = apply_temperature(scores, temperature) if temperature != 1 else np.asarray(scores)
    labels, confidence = p.argmax(axis=1), p.max(axis=1).astype(np.float64)
    sure = np.ones(len(p), bool) if threshold is None else confidence >= threshold - EVEN
    order = np.lexsort((np.arange(len(p)), -confidence))
    of_class = [order[sure[order] & (labels[order] == c)] for c in range(p.shape[1])]
    if threshold is None:
        of_class = [rows[: int(np.ceil(SURER * len(rows)))] for rows in of_class]
    share = counts / max(1, counts.sum())
    most = np.ceil(share * sum(map(len, of_class)) - EVEN).astype(int)
    places = np.sort(np.concatenate([rows[:k] for rows, k in zip(of_class, most, strict=True)])).astype(np.int64)
    return Guesses(places, labels[places].astype(np.int64), confidence[places], temperature)
