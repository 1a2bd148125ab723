"""Classes told by the likelihood of their names: words are taken out of the text, and the question is asked anew."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewell.explain.scorer import Scorer
from tunewell.explain.segment import Item

if TYPE_CHECKING:
    from tunewell.predict import Predictor


class LikelihoodScorer(Scorer):
    """A decoder that classifies without a head; its outputs are the log-probabilities of the classes (C)."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor.model, predictor.tokenizer, predictor.spec)
        self.predictor = predictor

    @property
    def width(self) -> int:
        return len(self.spec.labels)

    def fresh(self, asked: Sequence[tuple[Item, np.ndarray]]) -> np.ndarray:
        if not asked:
            return np.empty((0, self.width))
        left = [without(item, keep) for item, keep in asked]
        second = [pair for _, pair in left]
        with self.at_rest():
            found = self.predictor.scorer.scores([text for text, _ in left], second if second[0] is not None else None)
        self.forwards += len(left)
        return np.log(np.maximum(found.astype(np.float64), 1e-12))


def without(item: Item, keep: np.ndarray) -> tuple[str, str | None]:
    """A text (and its second one) as it is written without some words: one space where words were.

    Args:
        keep: (W,) True for the words that stay.
    """
    out = []
    for side, text in enumerate(item.texts):
        at, pieces = 0, []
        for (start, end), part, stays in zip(item.spans, item.part, keep, strict=True):
            if part == side and not stays:
                pieces += [text[at:start]]
                at = end
        joined = re.sub(r"\s+", " ", "".join([*pieces, text[at:]])).strip()
        out.append(text if not pieces else joined)
    return out[0], out[1] if len(out) > 1 else None
