"""Calibration figures by hand, and a temperature that is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import brier_score_loss

from tunewell.evaluate.calibration import apply_temperature, bin_index, brier, ece, fit_temperature, reliability


def test_bins_close_at_their_upper_end() -> None:
    assert bin_index(np.array([0.0, 0.1, 0.25, 0.26, 0.5, 1.0]), bins=4).tolist() == [0, 0, 0, 1, 1, 3]


def test_reliability_by_hand() -> None:
    bins = reliability(np.array([0.1, 0.2, 0.8, 0.9, 0.9]), np.array([0, 1, 1, 1, 0]), bins=2)
    assert [(b.low, b.high, b.n) for b in bins] == [(0.0, 0.5, 2), (0.5, 1.0, 3)]
    assert [b.confidence for b in bins] == pytest.approx([0.15, 2.6 / 3])
    assert [b.accuracy for b in bins] == pytest.approx([0.5, 2 / 3])
    assert ece(np.array([0.1, 0.2, 0.8, 0.9, 0.9]), np.array([0, 1, 1, 1, 0]), bins=2) == pytest.approx(
        0.4 * 0.35 + 0.6 * 0.2
    )


def test_empty_bins_are_left_out() -> None:
    assert [b.n for b in reliability(np.array([0.99, 0.01]), np.array([1, 0]))] == [1, 1]


def test_brier_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    scores, targets = softmax(rng.normal(size=(50, 3)), axis=1), rng.integers(0, 3, 50)
    assert brier(scores, targets) == pytest.approx(brier_score_loss(targets, scores, labels=[0, 1, 2]))
    truth = (rng.random((50, 3)) < 0.5).astype(float)
    per_label = [brier_score_loss(truth[:, c], scores[:, c]) for c in range(3)]
    assert brier(scores, truth) == pytest.approx(np.mean(per_label))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_is_found_again(temperature: float) -> None:
    """Targets are drawn from the true probabilities; the scores are those sharpened by a known temperature."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, size=(20_000, 4))
    true = softmax(logits, axis=1)
    targets = (rng.random((20_000, 1)) > np.cumsum(true, axis=1)).sum(axis=1).clip(max=3)
    scores = softmax(logits * temperature, axis=1).astype(np.float32)
    assert fit_temperature(scores, targets) == pytest.approx(temperature, rel=0.05)
    assert apply_temperature(scores, temperature) == pytest.approx(true, abs=1e-5)


def test_temperature_of_several_labels() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, size=(20_000, 2))
    targets = (rng.random(logits.shape) < expit(logits)).astype(np.float32)
    scores = expit(logits * 3).astype(np.float32)
    assert fit_temperature(scores, targets) == pytest.approx(3, rel=0.05)
    assert apply_temperature(scores, 3.0, multi_label=True) == pytest.approx(expit(logits), abs=0.01)


def test_temperature_of_certain_answers() -> None:
    """Probabilities of exactly 0 and 1, all right: finite, and as sure as the bounds allow."""
    temperature = fit_temperature(np.eye(3)[[0, 1, 2]], np.array([0, 1, 2]))
    assert 0.05 <= temperature <= 20
    assert np.isfinite(apply_temperature(np.eye(3), temperature)).all()
