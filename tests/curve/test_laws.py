"""Laws of learning curves against curves that are known, and intervals against many simulated ones."""

from __future__ import annotations

import numpy as np
import pytest

from tunewell.curve.laws import LAWS, fit, forecast, shapes, standard_errors

SIZES = np.array([31.0, 62, 125, 250, 500, 1000])
TRUTHS = {
    "power": lambda n: 0.93 - 1.5 * n**-0.5,
    "exponential": lambda n: 0.9 - 0.4 * np.exp(-n / 300),
    "mmf": lambda n: (0.3 * 200**1.5 + 0.9 * n**1.5) / (200**1.5 + n**1.5),
    "inverse-log": lambda n: 0.98 - 0.6 / np.log(n + 1),
}


@pytest.mark.parametrize("law", LAWS)
def test_a_law_finds_itself_without_noise(law):
    truth = TRUTHS[law](SIZES)
    found = fit(law, SIZES, truth, np.ones(6), ceiling=1.0, largest=1000)
    ahead = np.array([2000.0, 4000])
    assert np.allclose(found.at(SIZES)[0], truth, atol=3e-3)  # the grid of shapes is fine enough
    assert np.allclose(found.at(ahead)[0], TRUTHS[law](ahead), atol=6e-3)


def test_the_regression_inside_is_numpys():
    """c and a for a fixed shape are those of a weighted straight line through (φ, score)."""
    rng = np.random.default_rng(0)
    scores, weights = 0.9 - 0.5 / np.log(SIZES + 1) + 0.01 * rng.standard_normal(6), rng.uniform(1, 9, 6)
    found = fit("inverse-log", SIZES, scores, weights, ceiling=2.0, largest=1000)
    slope, intercept = np.polyfit(shapes("inverse-log", SIZES, 1000)[0], scores, 1, w=np.sqrt(weights))
    assert found.a[0] == pytest.approx(-slope)
    assert found.c[0] == pytest.approx(intercept)


def test_no_law_passes_the_ceiling_or_falls():
    rising = fit("power", SIZES, np.linspace(0.5, 0.99, 6), np.ones(6), ceiling=1.0, largest=1000)
    assert rising.at([1e9])[0, 0] <= 1.0
    falling = fit("power", SIZES, np.linspace(0.9, 0.5, 6), np.ones(6), ceiling=1.0, largest=1000)
    assert falling.a[0] == 0
    assert falling.c[0] == pytest.approx(0.7)  # the mean


def test_standard_errors_pool_what_few_repeats_say():
    rng = np.random.default_rng(0)
    scores = [rng.normal(0.5, 0.05 * np.sqrt(31 / n), 20) for n in SIZES]
    assert np.allclose(standard_errors(scores, SIZES), np.maximum(0.05 * np.sqrt(31 / SIZES / 20), 0.002), rtol=0.25)
    assert np.allclose(standard_errors([s[:1] for s in scores], SIZES), 0.01)
    flat = standard_errors([np.full(3, 0.5)] * 6, SIZES)
    assert (flat > 0).all()  # equal repeats are no proof of certainty


@pytest.mark.parametrize("law", ["power", "exponential", "mmf"])
def test_intervals_hold_for_simulated_curves(law):
    """Half of the size seen; the 90 % interval at twice the data must hold the truth in most of 60 draws."""
    rng = np.random.default_rng(7)
    truth, hits, off = TRUTHS[law], 0, []
    for _ in range(60):
        repeats = [truth(n) + rng.normal(0, 0.015, 3) for n in SIZES]
        value, low, high = forecast(SIZES, repeats, seed=1).at([2000])[0]
        hits += low <= truth(2000) <= high
        off.append(abs(value - truth(2000)))
    assert hits >= 50
    assert np.mean(off) < 0.02


def test_how_many_labels_reach_a_target():
    truth = TRUTHS["power"]  # 0.9 at n = 2500
    found = forecast(SIZES, [[truth(n)] * 3 for n in SIZES])
    value, low, high, share = found.needed(0.9, 1e5)
    assert low < 2500 < (high or 1e5)
    assert value == pytest.approx(2500, rel=0.35)
    assert 0.5 < share <= 1
    assert found.needed(truth(500), 1e5)[0] == pytest.approx(500, rel=0.2)  # behind us
    assert found.needed(0.999, 1e4)[0] is None
    gain, low, high = found.gain(1000, 1000)
    assert low <= truth(2000) - truth(1000) <= high
    assert gain == pytest.approx(truth(2000) - truth(1000), abs=0.006)
    assert abs(sum(found.weights.values()) - 1) < 1e-9
    assert found.weights["inverse-log"] < found.weights["power"]


@pytest.mark.parametrize(
    ("sizes", "scores"), [([10, 20], [[1], [1]]), ([10, 10, 20], [[1]] * 3), ([1, 2, 3], [[1], [], [1]])]
)
def test_what_is_no_curve(sizes, scores):
    with pytest.raises(ValueError, match="three ascending sizes"):
        forecast(sizes, scores)
