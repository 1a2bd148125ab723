"""Margins and confidences by hand; through the loop see test_tune.py."""

from __future__ import annotations

import numpy as np
import torch

from tunewell.train.dynamics import Dynamics, error_norm, judge


def test_margins_by_hand() -> None:
    margin, confidence, other = judge(
        "single_label_classification", torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]]), torch.tensor([2, 1])
    )
    np.testing.assert_allclose(margin, [-1, 3])
    np.testing.assert_allclose(confidence, [np.e / (np.e**2 + 1 + np.e), np.e**3 / (np.e**3 + 2)], rtol=1e-6)
    assert other[0] == 0
    margin, confidence, other = judge(
        "multi_label_classification", torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    )
    np.testing.assert_allclose([margin[0], confidence[0], other[0]], [-1, 1 / (1 + np.e), 1], rtol=1e-6)
    margin, confidence, other = judge("regression", torch.tensor([[2.0]]), torch.tensor([0.5]))
    assert margin[0] == 1.5 and np.isnan(confidence[0]) and other[0] == -1


def test_the_error_vector_by_hand() -> None:
    """p = softmax(0, ln 2, 0) = (¼, ½, ¼), y = the second: √(1/16 + 1/4 + 1/16) = √(3/8)."""
    found = error_norm("single_label_classification", torch.tensor([[0.0, float(np.log(2)), 0.0]]), torch.tensor([1]))
    np.testing.assert_allclose(found, [np.sqrt(3 / 8)], rtol=1e-6)
    found = error_norm("multi_label_classification", torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    np.testing.assert_allclose(found, [np.sqrt(1 / 2)], rtol=1e-6)
    assert error_norm("regression", torch.tensor([[2.0]]), torch.tensor([0.5]))[0] == 1.5


def test_files_of_earlier_versions_lack_the_error(tmp_path) -> None:
    cells = np.zeros((2, 3), np.float32)
    np.savez(tmp_path / "old.npz", margin=cells, confidence=cells, other=cells.astype(np.int32))
    old = Dynamics.load(tmp_path / "old.npz")
    assert old is not None and np.isnan(old.error).all()
    new = Dynamics(cells, cells, cells, cells + 1).first(2)
    new.save(tmp_path / "new.npz")
    again = Dynamics.load(tmp_path / "new.npz")
    assert again is not None and again.error.tolist() == [[1.0, 1.0]] * 2


def test_the_summary_by_hand() -> None:
    dynamics = Dynamics(
        np.array([[1.0, np.nan], [3.0, 2.0]]),
        np.array([[0.2, np.nan], [0.8, 0.5]]),
        np.array([[0, -1], [1, 0]]),
        np.array([[1.0, np.nan], [0.2, 0.6]]),
    )
    np.testing.assert_allclose(dynamics.aum, [2, 2])
    np.testing.assert_allclose(dynamics.mean_confidence, [0.5, 0.5])
    np.testing.assert_allclose(dynamics.variability, [0.3, 0.0])
