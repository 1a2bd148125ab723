"""Is another batch worth it? What n more labels, chosen at random, would bring to a linear probe."""

from __future__ import annotations

import numpy as np

from tunewell.results import Record

LEAST = 60  # labels from which a curve can be drawn
REPEATS = 8
HELD_OUT = 0.3


class Advice(Record):
    """What a random batch of `n` more labels brings to the accuracy of a linear probe: median and 90 % interval."""

    labelled: int
    n: int
    accuracy: float
    gain: float
    low: float
    high: float

    def sentence(self) -> str:
        """
        >>> Advice(labelled=100, n=50, accuracy=0.8, gain=0.012, low=-0.004, high=0.03).sentence()
        'with 100 labels a linear probe has 0.800 accuracy; 50 random ones more bring about +1.2 points (−0.4 to +3.0)'
        """
        from tunewell.curve.words import points_of

        worth = "" if self.high >= 0.005 else ": hardly worth it"
        return (
            f"with {self.labelled:,} labels a linear probe has {self.accuracy:.3f} accuracy; {self.n:,} random ones "
            f"more bring about {points_of(self.gain)} points ({points_of(self.low)} to {points_of(self.high)}){worth}"
        )


def advice(vectors: np.ndarray, labels: np.ndarray, n: int, seed: int) -> Advice | None:
    """From nested subsets of the labelled rows (l, H), held-out rows, and the laws of `tunewell.curve`.

    Returns:
        None where there are too few labels, or a class with fewer than four.
    """
    from tunewell.curve.laws import forecast
    from tunewell.curve.measure import nested_order

    if len(labels) < LEAST or np.bincount(labels)[np.unique(labels)].min() < 4:
        return None
    rng = np.random.default_rng(seed)
    train = len(labels) - round(HELD_OUT * len(labels))
    sizes = sorted({max(len(np.unique(labels)), round(train * share)) for share in (0.125, 0.25, 0.5, 0.75, 1.0)})
    if len(sizes) < 3:
        return None
    scores: list[list[float]] = [[] for _ in sizes]
    for _ in range(REPEATS):
        order = nested_order(labels, rng)
        rows, held = order[:train], order[train:]
        for at, size in zip(scores, sizes, strict=True):
            answers = probe(vectors[rows[:size]], labels[rows[:size]]).predict(vectors[held])
            at.append(float((answers == labels[held]).mean()))
    law = forecast(sizes, scores, seed=seed)
    gain, low, high = law.gain(len(labels), n)
    now = float(law.at([len(labels)])[0, 0])
    return Advice(labelled=len(labels), n=n, accuracy=now, gain=gain, low=low, high=high)


def probe(x: np.ndarray, y: np.ndarray):
    """A logistic regression on standardised embeddings, with the penalty of the retention suite's probes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(x, y)
