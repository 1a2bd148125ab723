"""Transfer and forgetting against hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest

from tunewell.sequence.figures import (
    accuracies,
    average_accuracy,
    backward_transfer,
    figures,
    forgetting,
    forward_transfer,
)

R = [[0.9, 0.4, 0.3], [0.7, 0.8, 0.5], [0.8, 0.6, 0.9]]


def test_the_four_figures_by_hand():
    assert average_accuracy(R) == pytest.approx((0.8 + 0.6 + 0.9) / 3)
    assert backward_transfer(R) == pytest.approx(((0.8 - 0.9) + (0.6 - 0.8)) / 2)
    assert forward_transfer(R, [0.5, 0.3, 0.6]) == pytest.approx(((0.4 - 0.3) + (0.5 - 0.6)) / 2)
    # the best of task 0 before the end is 0.9, of task 1 0.8
    assert forgetting(R) == pytest.approx(((0.9 - 0.8) + (0.8 - 0.6)) / 2)


def test_forgetting_takes_the_best_entry_of_the_own_head_not_the_first():
    matrix = [[0.5, 0.99, 0.0], [0.7, 0.6, 0.0], [0.4, 0.6, 0.8]]
    assert forgetting(matrix) == pytest.approx(((0.7 - 0.4) + 0.0) / 2)
    assert backward_transfer(matrix) == pytest.approx(((0.4 - 0.5) + 0.0) / 2)


def test_values_and_intervals_from_rows():
    rng = np.random.default_rng(0)
    right = [[rng.random(400) < p for p in row] for row in R]
    base = [rng.random(400) < p for p in (0.5, 0.3, 0.6)]
    found, matrix = figures(right, base), accuracies(right)
    assert found["average_accuracy"].value == pytest.approx(np.mean(matrix[2]))
    assert found["backward_transfer"].value == pytest.approx(backward_transfer(matrix))
    assert found["forward_transfer"].value == pytest.approx(forward_transfer(matrix, [b.mean() for b in base]))
    assert found["forgetting"].value == pytest.approx(forgetting(matrix))
    for e in found.values():
        assert e.low < e.value < e.high
    # the mean of three independent shares: ± 1.96 · sqrt(Σ p (1 − p) / n) / 3
    p = np.array(matrix[2])
    half = 1.96 * np.sqrt((p * (1 - p) / 400).sum()) / 3
    assert found["average_accuracy"].high - found["average_accuracy"].low == pytest.approx(2 * half, rel=0.1)


def test_what_is_not_measured_is_none():
    right = [[np.ones(5, bool), None], [np.ones(5, bool), np.zeros(5, bool)]]
    found = figures(right, [None, None])
    assert found["forward_transfer"].value is None
    assert found["backward_transfer"].value == 0.0
    alone = figures([[np.ones(5, bool), np.zeros(5, bool)]], [None, None])  # joint: one row
    assert alone["average_accuracy"].value == 0.5
    assert alone["backward_transfer"].value is alone["forgetting"].value is None
