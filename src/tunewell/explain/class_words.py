"""Which words speak most for each label, over many texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewell.evaluate.statistics import mean_interval
from tunewell.explain.records import ClassWords, WordInfluence

if TYPE_CHECKING:
    from tunewell.tasks import TaskSpec

LEAST = 3  # texts that must hold a word
SHOWN = 8


def class_words(
    spec: TaskSpec,
    words: Sequence[Sequence[str]],
    scores: Sequence[np.ndarray],
    targets: Sequence[int],
    *,
    least: int = LEAST,
    shown: int = SHOWN,
) -> tuple[ClassWords, ...]:
    """Words by label, those with the highest lower bound first; only words whose interval lies above 0.

    Args:
        words, scores: of n texts. targets: (n,) outputs that the scores speak for. A word that occurs twice in a text
            counts once, with its mean. In a model of two classes, a score for one speaks against the other and counts
            for both; in regression "+" raises and "−" lowers the value.
    """
    labels: tuple[str, ...]
    signs: tuple[tuple[float, float], ...]
    if spec.regression:
        labels, signs = ("+", "−"), ((1.0, -1.0),)
    else:
        labels = spec.labels
        signs = ((1.0, -1.0), (-1.0, 1.0)) if len(labels) == 2 and not spec.multi_label else ()
    found: list[dict[str, list[float]]] = [defaultdict(list) for _ in labels]
    for w, s, target in zip(words, scores, targets, strict=True):
        per_word = _by_word(w, s)
        if signs:
            for label, sign in enumerate(signs[target]):
                for word, value in per_word.items():
                    found[label][word].append(sign * value)
        else:
            for word, value in per_word.items():
                found[target][word].append(value)
    return tuple(
        ClassWords(label, tuple(_ranked(values, least)[:shown])) for label, values in zip(labels, found, strict=True)
    )


def _by_word(words: Sequence[str], scores: np.ndarray) -> dict[str, float]:
    """Mean score by lower-cased word, signs such as full stops left out."""
    sums: dict[str, list[float]] = defaultdict(list)
    for word, score in zip(words, scores, strict=True):
        if any(c.isalnum() for c in word):
            sums[word.lower()].append(float(score))
    return {word: float(np.mean(values)) for word, values in sums.items()}


def _ranked(values: dict[str, list[float]], least: int) -> list[WordInfluence]:
    out = []
    for word, scores in values.items():
        if len(scores) < max(2, least):
            continue
        found = mean_interval(scores)
        if found.low is not None and found.low > 0:
            out.append(WordInfluence(word, found))
    return sorted(out, key=lambda i: (-(i.score.low or 0.0), i.word))
