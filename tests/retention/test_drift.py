"""Neighbour overlap and debiased CKA against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tunewell.retention.probes.drift import debiased_cka, nearest, overlap


def test_nearest_by_hand():
    angles = np.deg2rad([0, 10, 30, 90, 100])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert nearest(points, 1)[:, 0].tolist() == [1, 0, 1, 4, 3]
    assert nearest(points, 2).tolist() == [[1, 2], [0, 2], [1, 0], [4, 2], [3, 2]]


def test_overlap_by_hand():
    before, after = (
        np.stack([np.cos(a), np.sin(a)], axis=1)
        for a in (np.deg2rad([0, 10, 30, 90, 100]), np.deg2rad([0, 80, 30, 90, 100]))
    )
    # after the move the nearest of each is: 0->2, 1->3, 2->0, 3->1 or 4 (10 degrees both, the first wins), 4->3
    kept = overlap(before, after, 1)
    assert kept.tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert overlap(before, before, 2).tolist() == [1.0] * 5


def reference_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """The unbiased estimator as Song et al. (2012) write it, term by term."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    ones = np.ones(n)
    total = (
        np.trace(k @ m)
        + ones @ k @ ones * (ones @ m @ ones) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (ones @ k @ m @ ones)
    )
    return float(total / (n * (n - 3)))


def test_cka_is_the_published_estimator():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 6)), rng.normal(size=(30, 4))
    y[:, 0] = x[:, 0]
    k, m = x @ x.T, y @ y.T
    expected = reference_hsic(k, m) / np.sqrt(reference_hsic(k, k) * reference_hsic(m, m))
    assert debiased_cka(x, y) == pytest.approx(expected, abs=1e-10)


def test_cka_ignores_rotation_scale_and_shift():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 5))
    q, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert debiased_cka(x, 3.0 * x @ q + 2.0) == pytest.approx(1.0)


def test_cka_of_unrelated_embeddings_is_about_zero_though_the_texts_are_few():
    values = [debiased_cka(*np.random.default_rng(s).normal(size=(2, 25, 50))) for s in range(40)]
    assert abs(np.mean(values)) < 0.03
