"""The learning curve of a data set, as it is stored: measured points, laws, and what is asked of them."""

from __future__ import annotations

from typing import Literal

from tunewell.results import Record


class CurvePoint(Record):
    """One measurement: the score on the test rows of a model that learned from `size` labels."""

    size: int
    repeat: int
    score: float
    seconds: float


class Foreseen(Record):
    """The mean score at a number of labels: median and 90 % interval; `measured` where it is within the data."""

    size: int
    value: float
    low: float
    high: float
    measured: bool = False


class More(Record):
    """What `labels` more bring beyond all that are there: median and 90 % interval, in units of the metric."""

    labels: int
    gain: float
    low: float
    high: float
    money: float | None = None
    hours: float | None = None


class Needed(Record):
    """Labels in all at which the mean score reaches `target`: median and 90 % interval.

    None: more than `most`. `share` is the weight of forecasts that reach the target at all.
    """

    target: float
    value: int | None
    low: int | None
    high: int | None
    share: float
    most: int
    money: float | None = None
    hours: float | None = None


class Worth(Record):
    """A finished run on the curve: its score on the curve's test rows, and the labels that the curve takes to it.

    Attributes:
        labels: training rows of the run. needed: by the curve's recipe, for `needed.target`, the run's score.
    """

    run: str
    strategy: tuple[str, ...]
    labels: int
    score: float
    needed: Needed


class LearningCurve(Record):
    """`curve.json`.

    Attributes:
        by: tune, or probe for a linear probe on frozen embeddings.
        metric: of the scores; n_test: rows they are measured on; n_train: labels that there are.
        laws: law -> weight. discrepancy: what laws are off by, an e-fold beyond the data.
        curve: the law along a grid of sizes, for the plot; asymptote: its end, as far as the law knows.
    """

    task: str
    metric: str
    model: str
    strategy: tuple[str, ...]
    by: Literal["tune", "probe"]
    seed: int
    n_train: int
    n_test: int
    points: tuple[CurvePoint, ...]
    laws: dict[str, float]
    discrepancy: float
    curve: tuple[Foreseen, ...]
    more: tuple[More, ...]
    needed: Needed | None = None
    worth: tuple[Worth, ...] = ()
    cost_per_label: float | None = None
    labels_per_hour: float | None = None
    seconds: float = 0.0

    def means(self) -> dict[int, float]:
        """size -> mean score over its repeats."""
        found: dict[int, list[float]] = {}
        for p in self.points:
            found.setdefault(p.size, []).append(p.score)
        return {size: sum(s) / len(s) for size, s in sorted(found.items())}
