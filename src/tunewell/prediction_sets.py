"""Predicting with a promise: sets of labels (or intervals of values) that hold the truth as often as asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.data.write_rows import Columns
from tunewell.errors import DamagedRecordError, RecipeError, RunFolderError, nearest
from tunewell.evaluate.conformal import METHODS, check_coverage, sets, threshold_of
from tunewell.predict import CONFORMAL, Predictor, decide
from tunewell.seal import DAMAGED_ARRAYS


class SetPredictor:
    """A run's predictor whose answers carry a prediction set; see `evaluate.conformal`.

    Args:
        predictor: of a run folder for classes (one a row) or scores.
        coverage: how often the truth is to be in the set, such as 0.9: on average over rows like those that the
            run was validated on.
        method: "lac" for the smallest sets, "aps" for sets that adapt to the row; regression has one kind only.

    Raises:
        RecipeError: a coverage that is none, an unknown method, several labels a row.
        RunFolderError: a plain model folder, or a run without calibration scores. DataError: too few of them.
    """

    def __init__(self, predictor: Any, coverage: float, method: str = "lac") -> None:
        check_coverage(coverage)
        if method not in METHODS:
            raise RecipeError(
                f"no kind of set `{method}`",
                where="conformal",
                expected=" or ".join(METHODS),
                remedy=nearest(method, METHODS),
            )
        if not isinstance(predictor, Predictor) or predictor.spec.multi_label:
            raise RecipeError(
                "prediction sets are for one label a row, or for scores",
                where="coverage",
                expected="a text-classification or text-regression run with one label a row",
                remedy="leave --coverage out",
            )
        path = predictor.run / CONFORMAL if predictor.run is not None else None
        if path is None or not path.is_file():
            raise RunFolderError(
                "has no calibration scores, from which a coverage could be promised",
                where=str(predictor.run or predictor.source),
                expected=f"a run folder with {CONFORMAL}, as `tunewell run` writes it",
                remedy="run the recipe again (finished stages are not repeated), or leave --coverage out",
            )
        self.predictor, self.coverage = predictor, coverage
        self.method = "distance" if predictor.spec.regression else method
        self.threshold = threshold_of(_known(path, self.method), coverage, where=str(path.parent))
        self.pair, self.labels = predictor.pair, predictor.labels
        self.text_column, self.text_pair_column = predictor.text_column, predictor.text_pair_column
        self.usual, self.usual_pair = predictor.usual, predictor.usual_pair

    def added(self, taken: Sequence[str]) -> Columns:
        """The columns that predictions add to rows with the columns `taken`."""
        spec = self.predictor.spec
        return SetColumns(taken, self.labels, regression=spec.regression, multi_label=False)

    def predict_batch(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One dict a text: `prediction`, `probabilities`, and `prediction_set`: labels, the likeliest first (none of
        them where all fit too badly: such a text is unlike those seen); for regression [low, high]."""
        scores = self.predictor.scores(texts, pairs)
        decided = decide(self.predictor.spec, scores)
        if self.predictor.spec.regression:
            return [
                {"prediction": v, "probabilities": None, "prediction_set": [v - self.threshold, v + self.threshold]}
                for v in decided
            ]
        found, order = sets(scores, self.threshold, self.method), np.argsort(-scores, axis=1, kind="stable")
        return [
            {
                "prediction": answer,
                "probabilities": dict(zip(self.labels, map(float, row), strict=True)),
                "prediction_set": [self.labels[j] for j in ranked if inside[j]],
            }
            for answer, row, inside, ranked in zip(decided, scores, found, order, strict=True)
        ]


class SetColumns(Columns):
    """`Columns` with the prediction set after the prediction; for regression its two ends."""

    @property
    def flat(self) -> list[str]:
        """As columns of a table."""
        first, *others = super().flat
        names = ["prediction_low", "prediction_high"] if self.regression else ["prediction_set"]
        return [first, *(name + self.suffix for name in names), *others]

    def types(self) -> list[Any]:
        """Of `flat`, as pyarrow types."""
        import pyarrow as pa

        if self.regression:
            return [pa.float64()] * 3
        return [pa.string(), pa.list_(pa.string()), *[pa.float32()] * (len(self.flat) - 2)]

    def cells(self, answer: dict[str, Any] | None) -> list[Any]:
        """Values for `flat`; None throughout for a row without a prediction."""
        if answer is None:
            return [None] * len(self.flat)
        first, *others = super().cells(answer)
        return [first, *(answer["prediction_set"] if self.regression else [answer["prediction_set"]]), *others]

    def nested(self, answer: dict[str, Any] | None) -> dict[str, Any]:
        """As members of a JSON object."""
        out = super().nested(answer)
        first = "prediction" + self.suffix
        found = {"prediction_set" + self.suffix: None if answer is None else answer["prediction_set"]}
        return {first: out.pop(first)} | found | out


def _known(path: Path, method: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[method]
    except DAMAGED_ARRAYS as error:
        raise DamagedRecordError(
            f"is damaged: {error}",
            where=str(path),
            expected="calibration scores as `tunewell run` writes them",
            remedy="delete it; the same `tunewell run` makes it again",
        ) from error
