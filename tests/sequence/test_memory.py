"""Choices of stored rows against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from tunewell.sequence.memory import Stored, balanced, choose_rows, herd, herding, reservoir, size_of


def test_sizes():
    assert size_of(0.01, 3600, 1) == 36
    assert size_of(0.01, 3601, 1) == 37  # at least the share
    assert size_of(0.001, 90, 1) == 1
    assert size_of(100, 3600, 3) == 33  # 100 in all, shared by three tasks
    assert size_of(100, 20, 1) == 20
    assert size_of(0, 3600, 1) == 0


def test_reservoir_is_uniform():
    """Every row is kept as often as any other, and the first kept row is as likely to be any."""
    counts, first = np.zeros(10), np.zeros(10)
    for seed in range(4000):
        kept = reservoir(10, 3, seed)
        assert len(set(kept.tolist())) == 3
        counts[kept] += 1
        first[kept[0]] += 1
    assert np.abs(counts / 4000 - 0.3).max() < 0.03
    assert np.abs(first / 4000 - 0.1).max() < 0.02


def test_balanced_takes_the_classes_in_turn():
    targets = np.array([0] * 50 + [1] * 5 + [2] * 2)
    order = balanced(targets, 9, seed=0)
    assert targets[order].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 0]
    assert len(set(order.tolist())) == 9


def test_herding_by_hand():
    """One class with mean 3: the nearest row to it is 4, then 2.5 with 4 is nearest, (4 + 2.5) / 2 = 3.25 ..."""
    x = np.array([[0.0], [2.5], [4.0], [5.5]])
    assert x.mean() == 3.0
    # k = 1: |3 − x|: 3, 0.5, 1, 2.5 -> row 1 (2.5)
    # k = 2: |3 − (2.5 + x) / 2|: 1.75, –, 0.25, 1 -> row 2 (4)
    # k = 3: |3 − (6.5 + x) / 3|: 0.83, –, –, 1 -> row 0
    assert herd(x, np.arange(4), 3).tolist() == [1, 2, 0]


def test_herding_beats_chance_at_the_class_mean():
    rng = np.random.default_rng(0)
    vectors, targets = rng.normal(size=(200, 8)), np.repeat([0, 1], 100)
    order = herding(vectors, targets, 10)
    assert targets[order].tolist() == [0, 1] * 5
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    mean = unit[:100].mean(axis=0)
    chosen = np.linalg.norm(unit[order[targets[order] == 0]].mean(axis=0) - mean)
    drawn = [np.linalg.norm(unit[rng.permutation(100)[:5]].mean(axis=0) - mean) for _ in range(200)]
    assert chosen < min(drawn)


@pytest.mark.parametrize("how", ["reservoir", "balanced", "herding"])
def test_same_seed_same_rows(how):
    targets = np.array([0, 1] * 30)
    vectors = np.random.default_rng(0).normal(size=(60, 4))

    def chosen(size):
        return choose_rows(how, n=60, targets=targets, size=size, seed=3, vectors=lambda: vectors).tolist()

    assert chosen(12) == chosen(12)
    if how != "reservoir":  # a memory that shrinks keeps the beginning
        assert chosen(12)[:6] == chosen(6)


def test_stored_rows_come_back(tmp_path):
    stored = Stored(
        "a",
        "a",
        ["x", "ü\ny\u2028z\u0085"],
        ["p", "q"],
        np.array([1, 0]),
        np.array([[0.5, -1], [2, 3]], np.float32),
        [4, 9],
    )
    stored.write(tmp_path / "a.jsonl")
    again = Stored.read(tmp_path / "a.jsonl")
    assert (again.task, again.texts, again.pairs, again.rows) == ("a", ["x", "ü\ny\u2028z\u0085"], ["p", "q"], [4, 9])
    assert again.targets.tolist() == [1, 0]
    assert np.array_equal(again.logits, stored.logits)
    assert again.first(1).texts == ["x"]
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 2
