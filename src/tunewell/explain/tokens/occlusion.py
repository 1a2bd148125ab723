"""Occlusion: what the score loses when a word is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewell.explain.segment import Item
from tunewell.explain.tokens import Attribution

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer

title = "Occlusion (leave one word out)"
paper = (
    "Zeiler and Fergus, 2014; for words Li et al., 2016, Understanding Neural Networks through Representation Erasure"
)
unit = "log-odds of the target lost without the word (units of the label in regression)"


def attribute(scorer: Scorer, items: Sequence[Item], targets: np.ndarray, *, seed: int = 42) -> list[Attribution]:
    """Scores of words: score of the text − score of the text without the word, whose tokens are removed."""
    asked = [(item, keep) for item in items for keep in subsets(len(item.words))]
    logits = iter(scorer.without(asked))
    out = []
    for item, target in zip(items, targets, strict=True):
        scores = scorer.score(np.stack([next(logits) for _ in range(len(item.words) + 1)]), int(target))
        out.append(Attribution(scores[0] - scores[1:], passes=len(scores)))
    return out


def subsets(n: int) -> np.ndarray:
    """(n + 1, n) bool: all words, then all but each in turn."""
    return np.vstack([np.ones((1, n), dtype=bool), ~np.eye(n, dtype=bool)])
