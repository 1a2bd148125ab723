"""ERASER's figures by hand, and plausibility."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tunewell.explain.faithfulness import measure, order, plausibility, top_sets
from tunewell.explain.scorer import Scorer
from tunewell.explain.segment import Item
from tunewell.explain.show import sentence
from tunewell.tasks import TaskSpec

WEIGHTS = np.array([2.0, -1.0, 0.5, 0.0])
ITEM = Item(np.arange(6), None, np.array([-1, 0, 1, 2, 3, -1]), ("a", "b", "c", "d"), ((0, 1),) * 4, (0,) * 4)


class Known(Scorer):
    """The log-odds of class 1 are the sum of the weights of the words that are there."""

    def __init__(self, regression: bool = False) -> None:
        spec = TaskSpec("text-regression") if regression else TaskSpec("text-classification", ("no", "yes"))
        super().__init__(None, None, spec)

    def without(self, asked: Sequence[tuple[Item, np.ndarray]]) -> list[np.ndarray]:
        sums: list[Any] = [float(WEIGHTS[keep].sum()) for _, keep in asked]
        return [np.array([s]) if self.spec.regression else np.array([0.0, s]) for s in sums]


def sigmoid(x: float) -> float:
    return 1 / (1 + float(np.exp(-x)))


def test_by_hand() -> None:
    """Order a, c, d, b; bins of 25 % (a) and 50 % (a, c)."""
    (f,) = measure(Known(), [ITEM], np.array([1]), [WEIGHTS], bins=(0.25, 0.5))
    whole = sigmoid(1.5)
    assert f.comprehensiveness_by_bin == pytest.approx([whole - sigmoid(-0.5), whole - sigmoid(-1.0)])
    assert f.sufficiency_by_bin == pytest.approx([whole - sigmoid(2.0), whole - sigmoid(2.5)])
    assert f.comprehensiveness == pytest.approx(np.mean(f.comprehensiveness_by_bin))
    # inverse: b, then b and d
    assert f.comprehensiveness_inverse == pytest.approx(whole - sigmoid(2.5))
    assert f.sufficiency_inverse == pytest.approx(whole - sigmoid(-1.0))
    assert f.beats_random
    assert f.comprehensiveness_inverse < f.comprehensiveness_random < f.comprehensiveness
    assert f.sufficiency < f.sufficiency_random < f.sufficiency_inverse


def test_random_is_the_mean_over_orders() -> None:
    """Bins of one word out of four: over many orders, the mean over the four words."""
    (f,) = measure(Known(), [ITEM], np.array([1]), [WEIGHTS], bins=(0.25,), random_orders=4000)
    expected = np.mean([sigmoid(1.5) - sigmoid(1.5 - w) for w in WEIGHTS])
    assert f.comprehensiveness_random == pytest.approx(expected, abs=0.01)


def test_the_other_class_turns_the_signs() -> None:
    (f,) = measure(Known(), [ITEM], np.array([0]), [-WEIGHTS], bins=(0.25,))
    assert f.comprehensiveness == pytest.approx(sigmoid(-1.5) - sigmoid(-2.5))


def test_regression_counts_changes_in_either_direction() -> None:
    """Order by size: a, b, c, d; bin of a and b: f = 1.5, without them 0.5, they alone 1.0."""
    (f,) = measure(Known(regression=True), [ITEM], np.array([0]), [WEIGHTS], bins=(0.5,))
    assert (f.comprehensiveness, f.sufficiency, f.unit) == (pytest.approx(1.0), pytest.approx(0.5), "label")
    assert "the value moves by 1 " in sentence(f)


def test_orders_and_tops() -> None:
    assert order(np.array([0.1, -3.0, 2.0, 2.0]), regression=False).tolist() == [2, 3, 0, 1]
    assert order(np.array([0.1, -3.0, 2.0, 2.0]), regression=True).tolist() == [1, 2, 3, 0]
    sizes = top_sets(np.arange(30)).sum(axis=1)
    assert sizes.tolist() == [1, 2, 3, 6, 15]
    assert top_sets(np.arange(5), (0.2,)).sum() == 1


def test_plain_words_say_when_it_is_no_better_than_random() -> None:
    (f,) = measure(Known(), [ITEM], np.array([1]), [-WEIGHTS])
    assert not f.beats_random
    assert sentence(f).startswith("not faithful, no better than random words: without its top words the probability")


def test_plausibility() -> None:
    found = plausibility(np.array([3.0, 2.0, 1.0, 0.0]), np.array([1, 0, 1, 0]))
    assert found is not None
    assert found.auprc == pytest.approx((1 + 2 / 3) / 2)  # precision at each highlighted word
    assert (found.token_f1, found.prevalence) == (0.5, 0.5)
    assert plausibility(np.ones(2), np.zeros(2)) is None
    assert plausibility(np.ones(2), np.ones(2)) is None
