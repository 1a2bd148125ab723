"""From texts to the training rows behind their predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.errors import DataError, RecipeError, nearest
from tunewell.explain.influence.index import Echo, Index, build, query
from tunewell.explain.influence.records import Behind
from tunewell.explain.influence.rows import FileRows, read_rows
from tunewell.explain.segment import need_words
from tunewell.predict import Predictor, decide
from tunewell.tasks.spec import scores_of

QUERIES_A_TIME = 64


@dataclass(frozen=True)
class Attribution:
    """One prediction and the training rows that push it up and down, strongest first.

    Attributes:
        prediction: as `Predictor.predict` gives it. explained: the label that is explained; None for regression.
        value: probability of `explained`, or the predicted value.
        supports, opposes: at most `top` rows each.
    """

    text: str
    text_pair: str | None
    prediction: Any
    explained: str | None
    value: float
    method: str
    supports: tuple[Behind, ...]
    opposes: tuple[Behind, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


class Influence:
    """A run whose predictions can be traced to its training rows.

    >>> influence = Influence("runs/reviews")   # doctest: +SKIP
    >>> influence.explain(["what a lovely day"])[0].supports[0].row   # doctest: +SKIP

    Args:
        run: a finished run folder. train: where its training file is now, if it was moved.
        echo: told what takes time. progress: show bars.

    Raises:
        RunFolderError, DataError, ModelError: no such run; its training file is gone or has changed.
    """

    def __init__(
        self, run: str | Path, *, train: str | None = None, echo: Echo = lambda line: None, progress: bool = False
    ) -> None:
        self.file: FileRows = read_rows(run, train)
        self.predictor = Predictor.load(run)
        self._echo, self._progress = echo, progress
        self._place = {int(row): i for i, row in enumerate(self.file.rows)}

    @cached_property
    def index(self) -> Index:
        """The index of the training rows; built when it is first needed."""
        return build(self.file, self.predictor, echo=self._echo, progress=self._progress)

    def explain(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        label: str | None = None,
        method: str = "auto",
        top: int = 5,
    ) -> list[Attribution]:
        """The training rows behind the predictions for some texts.

        Args:
            label: explain the output of this label; by default of the predicted one (of the likeliest one for
                several labels a row).
            method: a name in `METHODS`, or "auto".
            top: rows each way.

        Raises:
            DataError: an empty text, pairs missing. RecipeError: an unknown method or label.
        """
        spec = self.predictor.spec
        score_rows, name = _method(method)
        self._check(texts, text_pairs)
        which = None
        if label is not None:
            which = [_label(label, spec.labels)] * len(texts)
        out = []
        for start in range(0, len(texts), QUERIES_A_TIME):
            part = slice(start, start + QUERIES_A_TIME)
            pairs = text_pairs[part] if text_pairs is not None else None
            asked = query(self.predictor, texts[part], pairs, None if which is None else which[part])
            scores, near = score_rows(self.index, asked), self._similarity(asked.features)
            values = scores_of(spec, asked.logits)
            answers = decide(spec, values)
            for i, text in enumerate(texts[part]):
                strength = float(np.abs(scores[i]).max()) or 1.0
                up, down = strongest(scores[i], top)
                out.append(
                    Attribution(
                        text,
                        pairs[i] if pairs is not None and spec.pair else None,
                        answers[i],
                        None if spec.regression else spec.labels[asked.which[i]],
                        float(values[i] if spec.regression else values[i, asked.which[i]]),
                        name,
                        tuple(self._behind(j, scores[i, j] / strength, near[i, j]) for j in up),
                        tuple(self._behind(j, scores[i, j] / strength, near[i, j]) for j in down),
                    )
                )
        return out

    def _similarity(self, features: np.ndarray) -> np.ndarray:
        from tunewell.explain.influence.neighbours import similarity

        return similarity(self.index.features, features)

    def _behind(self, j: int, score: float, near: float) -> Behind:
        row = int(self.index.rows[j])
        cell = self.file.dataset[self._place[row]]
        return Behind(
            row, cell["text"], cell.get("text_pair"), cell["label"], round(float(score), 6), round(float(near), 6)
        )

    def _check(self, texts: Sequence[str], pairs: Sequence[str] | None) -> None:
        for number, text in enumerate(texts, 1):
            if not text.strip():
                raise DataError("is empty", where=f"text {number}", expected="a text with at least one word")
            pair = pairs[number - 1] if pairs is not None and len(pairs) == len(texts) else None
            need_words(self.predictor.tokenizer, text, where=f"text {number}", pair=pair)
        if self.predictor.spec.pair and pairs is None:
            raise DataError(
                "this run was tuned on pairs of texts", where="text_pair", expected="a second text for each text"
            )
        if pairs is not None and len(pairs) != len(texts):
            raise DataError(
                f"{len(texts)} texts but {len(pairs)} second texts", where="text_pair", expected="one for each text"
            )


def strongest(scores: np.ndarray, top: int) -> tuple[list[int], list[int]]:
    """Places of at most `top` rows with the largest positive and with the most negative scores (n,), strongest first.

    >>> strongest(np.array([0.5, -1.0, 0.0, 2.0]), 2)
    ([3, 0], [1])
    """
    order = [int(i) for i in np.argsort(-scores, kind="stable")]
    return [j for j in order[:top] if scores[j] > 0], [j for j in order[::-1][:top] if scores[j] < 0]


def _method(name: str) -> tuple[Callable[..., np.ndarray], str]:
    from tunewell.explain.influence import DEFAULT, METHODS

    name = DEFAULT if name == "auto" else name
    if name not in METHODS:
        raise RecipeError(
            f"no method `{name}`",
            where="method",
            expected="auto, " + ", ".join(METHODS),
            remedy=nearest(name, METHODS),
        )
    return METHODS[name].scores, name


def _label(label: str, labels: Sequence[str]) -> int:
    if not labels:
        raise RecipeError("a regression has no labels to choose from", where="label", remedy="leave out --label")
    if label not in labels:
        raise RecipeError(
            f"no label {label!r}",
            where="label",
            expected="one of " + ", ".join(list(labels)[:20]) + (", …" if len(labels) > 20 else ""),
            remedy=nearest(label, labels),
        )
    return list(labels).index(label)
