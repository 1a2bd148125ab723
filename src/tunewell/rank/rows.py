"""The rows that candidates are compared on: a seeded sample of the training split, every class in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tunewell.errors import DataError, RecipeError

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.stages.prepare import Prepared
    from tunewell.tasks import TaskSpec

ROWS = 512  # looked at by default
LEAST = 20  # rows below which a ranking would be a guess
A_CLASS = 4  # rows of each class, where there are so many


@dataclass(frozen=True)
class Sample:
    """Rows to compare candidates on.

    Attributes:
        rows: n canonical rows. targets: (n,) or (n, C), empty for written answers.
        place: (n,) where they stand in the training split. of_rows: rows of that split. validation_rows: of that one.
    """

    spec: TaskSpec
    rows: Dataset
    targets: np.ndarray
    place: np.ndarray
    of_rows: int
    validation_rows: int
    prepared: Prepared

    def small(self) -> Prepared:
        """The sample as a data set of its own, for what reads splits."""
        return replace(self.prepared, splits=dict.fromkeys(("train", "validation", "test"), self.rows))


def draw(prepared: Prepared, most: int, seed: int) -> Sample:
    """A sample of at most `most` training rows; more where each of many classes is to have four.

    Raises:
        RecipeError: `most` is too small. DataError: too few rows, fewer than two classes, or one value only.
    """
    from tunewell.rank.candidates import ENCODERS
    from tunewell.tasks import targets

    spec, train = prepared.spec, prepared.splits["train"]
    source = prepared.accounts[0].source if prepared.accounts else "the training rows"
    if most < LEAST:
        raise RecipeError(f"`rows: {most}`", where="rows", expected=f"at least {LEAST}")
    if len(train) < LEAST:
        raise DataError(
            f"has {len(train)} training rows",
            where=source,
            expected=f"at least {LEAST} to compare models on",
            remedy="label more rows, or name a model",
        )
    labelled = spec.name in ENCODERS
    y = targets(spec, train) if labelled else np.empty(0)
    if labelled:
        _check(spec, y, source)
    place = _places(spec, y, len(train), most, seed)
    rows = train.select(place)
    return Sample(
        spec, rows, y[place] if labelled else y, place, len(train), len(prepared.splits["validation"]), prepared
    )


def _check(spec: TaskSpec, y: np.ndarray, source: str) -> None:
    if spec.regression:
        if np.ptp(y) == 0:
            raise DataError(f"all scores are {y[0]:g}", where=source, expected="scores that differ from row to row")
    elif len(spec.labels) < 2:
        raise DataError(
            f"has {len(spec.labels)} class: {', '.join(spec.labels)}",
            where=source,
            expected="two classes or more",
            remedy="name the right column with --label",
        )


def _places(spec: TaskSpec, y: np.ndarray, n: int, most: int, seed: int) -> np.ndarray:
    """(m,) rows of the sample, ascending: for classes in proportion, four of each where there are."""
    order = np.random.default_rng(seed).permutation(n)
    if n <= most:
        return np.arange(n)
    if y.ndim != 1 or not len(y) or spec.regression:
        return np.sort(order[:most])
    turn = np.empty(n, dtype=np.int64)  # how many rows of its class come before a row
    by_class = order[np.argsort(y[order], kind="stable")]
    counts = np.bincount(y, minlength=len(spec.labels))
    turn[by_class] = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    share = turn / np.maximum(counts[y], 1)  # rows in this order are in proportion at every point
    share[turn < A_CLASS] = -1.0
    size = max(most, int((share < 0).sum()))
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    return np.sort(np.lexsort((rank, share))[:size])
