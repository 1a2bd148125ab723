"""Calibration maps and errors against scikit-learn, closed forms and cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

from tunewell.evaluate.calibration_error import (
    calibration_errors,
    ece_debiased,
    ece_equal_mass,
    equal_mass,
    folded_normal_mean,
    mass_bins,
)
from tunewell.evaluate.calibrators import calibrated, choose, cross_validated, fit, log_losses
from tunewell.results import Calibrator


def drawn(n: int, classes: int = 3, sharpened: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores sharpened by a known temperature, and targets drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, size=(n, classes))
    true = softmax(logits, axis=1)
    targets = (rng.random((n, 1)) > np.cumsum(true, axis=1)).sum(axis=1).clip(max=classes - 1)
    return softmax(logits * sharpened, axis=1).astype(np.float32), targets


def test_bins_of_equal_mass_by_hand() -> None:
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.8])
    assert equal_mass(p, 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert equal_mass(np.array([0.5, 0.5, 0.5, 0.9]), 2).tolist() == [0, 0, 0, 1]  # ties stay together
    bins = mass_bins(p, np.array([0, 0, 1, 0, 1, 1]), 3)
    assert [(b.low, b.high, b.n) for b in bins] == [(0.1, 0.2, 2), (0.3, 0.4, 2), (0.8, 0.9, 2)]
    assert [b.accuracy for b in bins] == [0.0, 0.5, 1.0]
    assert ece_equal_mass(p, [0, 0, 1, 0, 1, 1], 3) == pytest.approx((0.15 + 0.15 + 0.15) / 3)


def test_bins_of_equal_mass_are_scikit_learns_quantiles() -> None:
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(0)
    p, y = rng.random(300), rng.integers(0, 2, 300)
    true, claimed = calibration_curve(y, p, n_bins=10, strategy="quantile")
    bins = mass_bins(p, y, 10)
    assert [b.accuracy for b in bins] == pytest.approx(true)
    assert [b.confidence for b in bins] == pytest.approx(claimed)


def test_folded_normal_is_the_integral() -> None:
    for d, s in ((0.0, 1.0), (0.3, 0.2), (1.0, 0.1)):
        x = np.linspace(d - 12 * s, d + 12 * s, 200_001)
        assert folded_normal_mean(np.array([d]), np.array([s]))[0] == pytest.approx(
            float(np.trapezoid(np.abs(x) * norm.pdf(x, d, s), x)), abs=1e-7
        )
    assert folded_normal_mean(np.array([0.2]), np.array([0.0]))[0] == 0.2


def test_debiased_error_by_hand() -> None:
    """One bin of 4 rows: claimed 0.5, true 0.75, s² = 0.75 · 0.25 / 4."""
    d, s = 0.25, np.sqrt(0.75 * 0.25 / 4)
    expected = 2 * d - (s * np.sqrt(2 / np.pi) * np.exp(-(d**2) / (2 * s**2)) + d * (1 - 2 * norm.cdf(-d / s)))
    assert ece_debiased([0.5] * 4, [1, 1, 1, 0], 1) == pytest.approx(expected)


def test_debiasing_takes_most_of_what_chance_adds() -> None:
    plain, fair = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        p = rng.uniform(0.5, 1.0, 400)
        y = rng.random(400) < p  # perfectly calibrated: the error is 0
        plain.append(ece_equal_mass(p, y))
        fair.append(ece_debiased(p, y))
    assert np.mean(plain) > 0.04
    assert np.mean(fair) < 0.6 * np.mean(plain)


def test_errors_have_intervals_that_hold_them() -> None:
    scores, targets = drawn(500, sharpened=2.5)
    right = scores.argmax(axis=1) == targets
    found = calibration_errors(scores.max(axis=1), right, n_boot=200)
    for name, e in found.items():
        assert e.n == 500
        assert e.low <= e.value <= e.high, name
    assert found["ece_debiased"].value <= found["ece_equal_mass"].value
    assert found["ece_equal_mass"].value == pytest.approx(ece_equal_mass(scores.max(axis=1), right))


def test_temperature_is_scikit_learns() -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.frozen import FrozenEstimator

    scores, targets = drawn(2000, sharpened=3.0)

    class Given(ClassifierMixin, BaseEstimator):
        """Answers with the logits that it is given as features."""

        def fit(self, x: np.ndarray, y: np.ndarray) -> Given:
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, x: np.ndarray) -> np.ndarray:
            return x

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x.argmax(axis=1)

    x = np.log(scores.astype(np.float64))
    model = FrozenEstimator(Given().fit(x, targets))
    try:
        theirs = calibration.CalibratedClassifierCV(model, method="temperature").fit(x, targets).predict_proba(x)
    except ValueError:
        pytest.skip("this scikit-learn has no temperature scaling")
    ours = calibrated(fit("temperature", scores, targets), scores)
    assert ours == pytest.approx(theirs, abs=2e-3)


def test_isotonic_is_scikit_learns_and_keeps_every_answer() -> None:
    from sklearn.isotonic import IsotonicRegression

    scores, targets = drawn(600, sharpened=3.0)
    found = fit("isotonic", scores, targets)
    happened = np.eye(3)[targets].ravel()
    theirs = IsotonicRegression(out_of_bounds="clip").fit(scores.ravel().astype(float), happened)
    inner = np.linspace(0.02, 0.98, 50)
    mine = np.interp(inner, found.knots, found.values)
    floor = 1 / (2 * 601)
    assert mine == pytest.approx(np.clip(theirs.predict(inner), floor, 1 - floor), abs=1e-6)
    fresh, _ = drawn(3000, sharpened=3.0, seed=1)
    after = calibrated(found, fresh)
    assert (after.argmax(axis=1) == fresh.argmax(axis=1)).all()
    assert after.sum(axis=1) == pytest.approx(np.ones(3000), abs=1e-5)
    assert (after > 0).all()


def test_maps_lower_the_loss_where_there_is_something_to_mend() -> None:
    scores, targets = drawn(1500, sharpened=3.0)
    fresh, truth = drawn(3000, sharpened=3.0, seed=1)
    before = log_losses(fresh, truth).mean()
    for method in ("temperature", "isotonic"):
        assert log_losses(calibrated(fit(method, scores, targets), fresh), truth).mean() < before - 0.1


def test_auto_takes_what_helps_and_nothing_where_nothing_does() -> None:
    found, table, _ = choose(*drawn(1500, sharpened=3.0))
    assert found.method == "temperature"
    assert found.temperature == pytest.approx(3.0, rel=0.15)
    assert set(table) == {"none", "temperature", "isotonic"}
    assert choose(*drawn(1500))[0].method == "none"
    bent, targets = drawn(3000)
    cubed = bent**3 * 0.4 + 0.2  # no temperature makes up for this
    found, table, reason = choose((cubed / cubed.sum(axis=1, keepdims=True)).astype(np.float32), targets)
    assert found.method != "none"
    assert "lowers the log loss" in reason


def test_few_rows_and_several_labels() -> None:
    scores, targets = drawn(49)
    assert choose(scores, targets)[0] == Calibrator(method="none", n=49)
    assert choose(scores, targets, "temperature")[0].method == "temperature"
    several = (np.random.default_rng(0).random((100, 3)) < 0.5).astype(np.float32)
    tried = choose(np.full((100, 3), 0.5, dtype=np.float32), several)[1]
    assert "isotonic" not in tried


def test_losses_are_those_of_rows_left_out() -> None:
    """With as many folds as rows, each row is judged by a map that never saw it."""
    scores, targets = drawn(20, sharpened=2.0)
    found = cross_validated(scores, targets, ("temperature",), folds=20)["temperature"]
    here = np.arange(20) != 7
    alone = calibrated(fit("temperature", scores[here], targets[here]), scores[[7]])
    assert found[7] == pytest.approx(log_losses(alone, targets[[7]])[0], abs=1e-9)
