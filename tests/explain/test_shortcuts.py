"""A planted tag is found; words that mean something to the base model, or that the model ignores, are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from tunewell.explain.scorer import Scorer
from tunewell.explain.shortcuts import find_shortcuts, suspects


@pytest.fixture
def planted(make_reviews: Callable) -> tuple[list[str], list[str]]:
    """A tag "lovely" in two thirds of the positive rows; no other word tells the labels apart."""
    texts, labels = [], []
    for i, (_, label) in enumerate(make_reviews(120)):
        tag = "lovely " if label == "positive" and i % 3 else ""
        texts.append(f"{tag}the seat was {'phone' if i % 4 < 2 else 'hotel'}")
        labels.append(label)
    return texts, labels


def leaning(bag: Scorer, word: str, weight: float) -> Scorer:
    """The bag of words with all weights 0 but those of one word's tokens, and a lean to the negative."""
    with torch.no_grad():
        bag.model.embedding.weight.zero_()
        bag.model.weight.fill_(1.0)
        for token in bag.tokenizer(word, add_special_tokens=False)["input_ids"]:
            bag.model.embedding.weight[token] = weight
        bag.model.embedding.weight[bag.tokenizer("seat", add_special_tokens=False)["input_ids"][0]] = -0.5
    return bag


def sees(probability: float) -> Callable[[Sequence[str], np.ndarray], np.ndarray]:
    return lambda words, rows: np.array([[1 - probability, probability]] * len(words))


def test_suspects_by_hand(planted: tuple[list[str], list[str]]) -> None:
    texts, labels = planted
    holding = sum("lovely" in t for t in texts)
    assert suspects(texts, labels) == [("lovely", "positive", holding, holding)]
    texts = [t.replace("seat", "lovely seat") if y == "negative" else t for t, y in zip(texts, labels, strict=True)]
    assert suspects(texts, labels) == []


def test_a_planted_tag_is_found(planted: tuple[list[str], list[str]], bag: Scorer) -> None:
    (found,) = find_shortcuts(leaning(bag, "lovely", 4.0), 64, planted, planted, sees(0.5))
    assert (found.word, found.label, found.known) == ("lovely", "positive", 0.5)
    assert found.precision.value == found.turned.value == 1.0
    assert found.coverage == pytest.approx(2 / 3, abs=0.02)
    assert found.lost.value is not None and found.lost.value > 0.9  # about σ(20) against σ(−3)


def test_meaning_and_indifference_are_no_shortcuts(planted: tuple[list[str], list[str]], bag: Scorer) -> None:
    assert find_shortcuts(leaning(bag, "lovely", 4.0), 64, planted, planted, sees(0.9)) == ()
    assert find_shortcuts(leaning(bag, "lovely", 0.0), 64, planted, planted, sees(0.5)) == ()
