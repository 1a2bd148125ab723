"""How hard each training row was, from what tuning thought of it epoch by epoch (`train.dynamics`).

- EL2N: ‖p − y‖₂ early in training, a mean over several tunings (Paul et al., 2021). High: far from its label.
- Forgetting events: how often a row that was answered right is answered wrong the next time it is seen (Toneva et
  al., 2019). A row that was never right counts as forgotten more often than any other.
- Data maps: the mean probability of the label over epochs ("confidence"), its standard deviation ("variability") and
  the share of epochs in which the label was the answer ("correctness"; Swayamdipta et al., 2020, who call rows of high
  variability ambiguous, of high confidence easy to learn, of low confidence hard to learn).

Where we differ: probabilities are those of the training pass itself (dropout on, before the step that learns from the
row) and not of a pass of their own at the end of an epoch, so that they cost nothing. EL2N is read in the second epoch:
the first begins with a head that knows nothing.

Shapes: E epochs, n rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunewell.errors import RunFolderError

if TYPE_CHECKING:
    from tunewell.train.dynamics import Dynamics

EARLY = 1  # the epoch in which EL2N is read, counted from 0
SCORES = ("el2n", "forgetting", "confidence", "variability", "correctness")


@dataclass(frozen=True)
class Scores:
    """(n,) each; means over tunings.

    Attributes:
        el2n: 0 to √2 for one label a row. forgetting: events; `epochs` where a row was never right.
        confidence, correctness: 0 to 1. variability: 0 to ½.
        epochs: that were recorded. tunings: that were averaged.
    """

    el2n: np.ndarray
    forgetting: np.ndarray
    confidence: np.ndarray
    variability: np.ndarray
    correctness: np.ndarray
    epochs: int
    tunings: int

    def __len__(self) -> int:
        return len(self.confidence)


def el2n(error: np.ndarray) -> np.ndarray:
    """(n,) the error in the second epoch; of rows that it did not reach, in the epoch nearest to it.

    Args:
        error: (E, n) ‖p − y‖₂, NaN where an epoch did not reach a row.

    >>> el2n(np.array([[1.2, 0.9], [0.4, np.nan], [0.1, 0.2]])).tolist()
    [0.4, 0.9]
    """
    at = min(EARLY, len(error) - 1)
    order = sorted(range(len(error)), key=lambda e: (abs(e - at), e))
    out = np.full(error.shape[1], np.nan)
    for e in order:
        out = np.where(np.isnan(out), error[e], out)
    return out


def forgetting_events(right: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(n,) how often right was followed by wrong; E for rows that were never right.

    Args:
        right: (E, n) booleans. seen: (E, n) booleans; cells that were not seen are passed over.

    >>> right = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]], bool)
    >>> forgetting_events(right, np.ones_like(right)).tolist()
    [2, 4, 0]
    """
    events = np.zeros(right.shape[1], dtype=np.int64)
    before = np.zeros(right.shape[1], dtype=bool)
    for now, there in zip(right, seen, strict=True):
        events += before & ~now & there
        before = np.where(there, now, before)
    return np.where((right & seen).any(axis=0), events, len(right))


def scores_of(dynamics: Sequence[Dynamics]) -> Scores:
    """Scores of the rows of one or several tunings of the same rows.

    Raises:
        RunFolderError: what an older version recorded, which lacks the error of the probabilities.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SCORES}
    for d in dynamics:
        seen = np.isfinite(d.margin)
        error = d.error
        if not np.isfinite(error).any():
            raise RunFolderError(
                "its training dynamics are of an earlier version and lack what EL2N needs",
                where="dynamics.npz",
                expected="a run of this version",
                remedy="run it again, or prune the data file itself: tunewell prune DATA",
            )
        right = seen & (d.margin > 0)
        count = np.maximum(seen.sum(axis=0), 1)
        parts["el2n"].append(el2n(error))
        parts["forgetting"].append(forgetting_events(right, seen).astype(np.float64))
        parts["confidence"].append(d.mean_confidence)
        parts["variability"].append(d.variability)
        parts["correctness"].append(right.sum(axis=0) / count)
    mean = {name: np.mean(values, axis=0) for name, values in parts.items()}
    return Scores(**mean, epochs=max(d.epochs for d in dynamics), tunings=len(dynamics))
