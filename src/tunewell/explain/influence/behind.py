"""The training rows behind some predictions by the head alone: one pass forward over them, and no index on disk.

The head's influence functions come close to those of all layers in the linear datamodelling score
(docs/concepts/influence.md), at a third of the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.explain.influence import head
from tunewell.explain.influence.attribute import strongest
from tunewell.explain.influence.index import in_memory, query
from tunewell.explain.influence.neighbours import similarity
from tunewell.explain.influence.records import Behind, Sides
from tunewell.shown import cut

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.predict import Predictor

CHARACTERS = 240  # of a training text that are kept; its row number leads to the whole


def behind(
    predictor: Predictor,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    train: Dataset,
    targets: np.ndarray,
    *,
    top: int = 5,
) -> list[Sides]:
    """For each text the `top` training rows that push the predicted output up most, and down most.

    Args:
        train: rows that the model was tuned on, with text, label and row. targets: theirs, in the task's form.

    Raises:
        ModelError: the head is not linear, or answers for each token.
    """
    second = list(train["text_pair"]) if predictor.spec.pair else None
    index = in_memory(predictor, list(train["text"]), second, targets, gradients=False)
    asked = query(predictor, texts, pairs, gradients=False)
    scores, near = head.scores(index, asked), similarity(index.features, asked.features)
    out = []
    for i, own in enumerate(scores):
        strength = float(np.abs(own).max()) or 1.0
        sides = (
            tuple(_row(train[j], float(own[j]) / strength, float(near[i, j]), predictor.spec.pair) for j in side)
            for side in strongest(own, top)
        )
        out.append(Sides(*sides))
    return out


def _row(cell: dict[str, Any], score: float, near: float, pair: bool) -> Behind:
    return Behind(
        int(cell["row"]),
        cut(cell["text"], CHARACTERS),
        cut(cell["text_pair"], CHARACTERS) if pair else None,
        cell["label"],
        round(score, 4),
        round(near, 4),
    )
