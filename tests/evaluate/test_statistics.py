"""Intervals that hold the truth as often as they say; tests against hand-worked cases and scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewell.evaluate import statistics
from tunewell.evaluate.statistics import (
    bootstrap,
    bootstrap_difference,
    bootstrap_weights,
    compare,
    holm,
    interval,
    mcnemar,
    paired_permutation,
    replicates,
    wilson,
)
from tunewell.evaluate.weighted import measure_of
from tunewell.tasks.spec import TaskSpec

TWO = TaskSpec("text-classification", ("no", "yes"), metric="accuracy")
TAGS = TaskSpec("text-classification", ("a", "b", "c"), True, "f1_micro")
REGRESSION = TaskSpec("text-regression", metric="r2")


def one_hot(answers: np.ndarray, n_classes: int = 2) -> np.ndarray:
    return (np.eye(n_classes)[answers] * 0.8 + 0.2 / n_classes).astype(np.float32)


# ---------------------------------------------------------------- bootstrap


def test_weights_are_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CELLS", 1000)
    blocks = list(bootstrap_weights(30, 100, seed=0))
    assert [b.shape for b in blocks] == [(30, 33)] * 3 + [(30, 1)]
    weights = np.concatenate(blocks, axis=1)
    assert (weights.sum(axis=0) == 30).all()
    assert weights.mean() == 1.0
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 30) ** 30, abs=0.02)  # rows left out


def test_very_many_rows_are_drawn_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 10_000)
    monkeypatch.setattr(statistics, "LEAST", 5)
    assert sum(b.shape[1] for b in bootstrap_weights(100, 2000)) == 100
    assert sum(b.shape[1] for b in bootstrap_weights(5000, 2000)) == 5
    assert sum(b.shape[1] for b in bootstrap_weights(10, 20)) == 20


def test_standard_error_of_a_mean() -> None:
    """The bootstrap's spread of a mean is known: sd / √n."""
    x = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap(lambda rows: float(x[rows].mean()), 400, 4000, seed=1)
    assert low is not None
    assert high is not None
    assert (high - low) / 2 == pytest.approx(1.96 * x.std() / 20, rel=0.05)
    assert (high + low) / 2 == pytest.approx(x.mean(), abs=0.01)


def test_intervals_cover_the_truth() -> None:
    """200 simulated test sets of 150 rows with a correlation of 0.6: 95 % intervals hold it about 95 % of the time."""
    rng, hits = np.random.default_rng(0), {"pearson": 0, "rmse": 0}
    for seed in range(200):
        x = rng.normal(size=150)
        y = 0.6 * x + 0.8 * rng.normal(size=150)
        measure = measure_of(REGRESSION, y, x, ["pearson", "rmse"])
        value = measure(np.ones((150, 1)))
        for name, values in replicates(measure, 150, 300, seed).items():
            low, high = interval(values, float(value[name][0]))
            truth = {"pearson": 0.6, "rmse": np.sqrt(0.4**2 + 0.8**2)}[name]
            assert low is not None
            assert high is not None
            hits[name] += low <= truth <= high
    for name, count in hits.items():
        assert 0.905 <= count / 200 <= 0.985, name


def test_paired_intervals_cover_the_truth_and_are_narrower() -> None:
    """Two models share 85 % luck per row: right with 0.8 and 0.7; the paired interval knows, unpaired ones do not."""
    rng, hits, narrower = np.random.default_rng(1), 0, 0
    targets = np.zeros(300, dtype=int)
    for seed in range(150):
        luck = np.where(rng.random(300) < 0.85, rng.random(300), np.nan)
        own = rng.random((2, 300))
        answers = [
            (np.where(np.isnan(luck), o, luck) > share).astype(int) for o, share in zip(own, (0.8, 0.7), strict=True)
        ]
        result = compare(TWO, one_hot(answers[0]), one_hot(answers[1]), targets, seed=seed, n_boot=300).difference
        assert result.low is not None
        assert result.high is not None
        hits += result.low <= 0.1 <= result.high
        narrower += result.high - result.low < 2 * 1.96 * np.sqrt((0.16 + 0.21) / 300)
    assert 0.90 <= hits / 150 <= 0.99
    assert narrower == 150


def test_many_classes_do_not_push_the_interval_off_the_figure() -> None:
    """200 classes with 5 rows each: resamples lose classes and score lower; the interval is shifted back."""
    rng = np.random.default_rng(0)
    spec = TaskSpec("text-classification", tuple(map(str, range(200))), metric="f1_macro")
    targets = np.repeat(np.arange(200), 5)
    answers = np.where(rng.random(1000) < 0.6, targets, rng.integers(0, 200, 1000))
    measure = measure_of(spec, one_hot(answers, 200), targets, ["f1_macro"])
    value = float(measure(np.ones((1000, 1)))["f1_macro"][0])
    values = replicates(measure, 1000, 500)["f1_macro"]
    low, high = interval(values, value)
    assert values.mean() < value - 0.005
    assert low is not None
    assert high is not None
    assert low < value < high
    assert (low + high) / 2 == pytest.approx(value, abs=0.003)


def test_intervals_that_say_nothing() -> None:
    assert interval(np.full(100, 0.3), 0.3) == (None, None)
    assert interval(np.array([np.nan] * 60 + [0.1, 0.2] * 20), 0.15) == (None, None)
    assert interval(np.array([0.1, 0.2] * 20), float("nan")) == (None, None)
    assert bootstrap(lambda rows: 1.0, 1, 50) == (None, None)


def test_intervals_stay_within_bounds() -> None:
    low, high = interval(np.linspace(0.5, 1.0, 101), 0.95, bounds=(0.0, 1.0))
    assert (low, high) == pytest.approx((0.5125 + 0.2, 1.0))


def test_difference_of_a_statistic_with_itself_plus_a_constant() -> None:
    x = np.random.default_rng(0).normal(size=50)
    assert bootstrap_difference(lambda r: float(x[r].mean()) + 1, lambda r: float(x[r].mean()), 50, 50) == (None, None)
    y = x + np.random.default_rng(1).normal(1.0, 0.1, size=50)
    low, high = bootstrap_difference(lambda r: float(y[r].mean()), lambda r: float(x[r].mean()), 50, 500)
    assert (low, high) == pytest.approx((np.mean(y - x) - 0.028, np.mean(y - x) + 0.028), abs=0.01)


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (7, 10), (81, 263), (999, 1000)])
def test_wilson_is_scipys(k: int, n: int) -> None:
    expected = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


# ---------------------------------------------------------------- tests


def test_mcnemar_by_hand() -> None:
    """9 rows only a gets right, 1 only b: 2 · (1 + 10) / 2^10."""
    a = np.array([True] * 9 + [False] + [True] * 20 + [False] * 5)
    b = np.array([False] * 9 + [True] + [True] * 20 + [False] * 5)
    assert mcnemar(a, b) == pytest.approx(22 / 1024)
    assert mcnemar(b, a) == mcnemar(a, b)
    assert mcnemar(a, a) == 1.0


@given(a=st.integers(0, 40), b=st.integers(0, 40))
def test_mcnemar_is_the_binomial_test(a: int, b: int) -> None:
    right_a = np.array([True] * a + [False] * b + [True])
    right_b = np.array([False] * a + [True] * b + [True])
    expected = scipy.stats.binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(right_a, right_b) == pytest.approx(expected, rel=1e-9)


def test_permutation_by_hand() -> None:
    """Signs of (1, 2, 3): only + + + and − − − reach a sum of 6, so 2 of 8; (1, 2, −3) sums to 0: always reached."""
    assert paired_permutation(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert paired_permutation(np.array([1.0, 2.0, -3.0])) == 1.0
    assert paired_permutation(np.array([0.0, 1.0, 0.0, 2.0, 3.0])) == 2 / 8  # rows without a difference do not count
    assert paired_permutation(np.zeros(5)) == 1.0


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
@settings(max_examples=50)
def test_exact_permutation_tries_all_signs(d: list[int]) -> None:
    sums = [
        abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in itertools.product((1, -1), repeat=len(d))
    ]
    expected = np.mean([s >= abs(sum(d)) for s in sums])
    assert paired_permutation(np.array(d, dtype=float)) == pytest.approx(expected)


def test_sampled_permutation_nears_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    d = np.random.default_rng(3).normal(0.4, 1.0, size=12)
    exact = paired_permutation(d)
    monkeypatch.setattr(statistics, "EXACT_ROWS", 0)
    sampled = paired_permutation(d, seed=1)
    assert sampled == pytest.approx(exact, abs=3 * np.sqrt(exact * (1 - exact) / 10_000))
    assert paired_permutation(d, seed=1) == sampled
    monkeypatch.setattr(statistics, "SAMPLED_ROWS", 0)
    assert paired_permutation(d) == pytest.approx(exact, abs=0.05)  # the normal limit, far from its home


def test_sampled_permutation_is_never_zero() -> None:
    assert paired_permutation(np.ones(100), n_permutations=99) == 1 / 100  # Phipson and Smyth (2010)


def test_permutation_agrees_with_scipy() -> None:
    d = np.random.default_rng(0).normal(0.25, 1.0, size=60)
    expected = scipy.stats.permutation_test(
        (d,), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(0)
    ).pvalue
    assert paired_permutation(d) == pytest.approx(expected, abs=0.012)


def test_permutation_holds_its_level() -> None:
    """Without a difference, p < 0.05 turns up in about 5 % of 400 cases."""
    rng = np.random.default_rng(0)
    found = sum(paired_permutation(rng.normal(size=40), seed=i, n_permutations=199) <= 0.05 for i in range(400))
    assert 8 <= found <= 34


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


# ---------------------------------------------------------------- two models


def test_compare_classes_by_hand() -> None:
    targets = np.array([0] * 50 + [1] * 50)
    tuned, other = targets.copy(), targets.copy()
    tuned[:4] = 1  # 4 wrong
    other[10:40] = 1  # 30 wrong, none in common
    result = compare(TWO, one_hot(tuned), one_hot(other), targets)
    assert result.test == "McNemar, exact"
    assert result.p_value == pytest.approx(scipy.stats.binomtest(4, 34).pvalue)
    assert result.difference.value == pytest.approx(0.26)
    assert result.difference.n == 100
    assert result.better is True
    back = compare(TWO, one_hot(other), one_hot(tuned), targets)
    assert back.better is False
    assert back.difference.value == pytest.approx(-0.26)
    assert (back.difference.low, back.difference.high) == pytest.approx(
        (-result.difference.high, -result.difference.low)
    )  # type: ignore[operator]


def test_compare_cannot_tell() -> None:
    targets = np.array([0, 1] * 20)
    tuned, other = targets.copy(), targets.copy()
    tuned[:2], other[2:5] = 1 - tuned[:2], 1 - other[2:5]
    assert compare(TWO, one_hot(tuned), one_hot(other), targets).better is None
    same = compare(TWO, one_hot(tuned), one_hot(tuned), targets)
    assert (same.better, same.p_value, same.difference.value, same.difference.low) == (None, 1.0, 0.0, None)


def test_compare_needs_interval_and_test_to_agree() -> None:
    """More rows right but a lower macro-F1: each beyond chance, in opposite directions, so no verdict."""
    targets = np.array([0] * 950 + [1] * 50)
    spec = TaskSpec("text-classification", ("no", "yes"), metric="balanced_accuracy")
    all_no = np.zeros(1000, dtype=int)
    finds = targets.copy()
    finds[:150] = 1  # 150 false alarms, every yes found
    result = compare(spec, one_hot(all_no), one_hot(finds), targets)
    assert result.difference.high is not None
    assert result.difference.high < 0
    assert result.p_value is not None
    assert result.p_value < 1e-6
    assert result.better is None


def test_compare_scores() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=200)
    good, poor = targets + rng.normal(0, 0.3, 200), targets + rng.normal(0, 0.9, 200)
    for metric, sign in (("r2", 1), ("rmse", -1), ("spearman", 1)):
        result = compare(REGRESSION, good, poor, targets, metric=metric)
        assert result.test == "paired permutation of squared errors"
        assert result.difference.value is not None
        assert np.sign(result.difference.value) == sign
        assert result.better is True, metric
        assert compare(REGRESSION, poor, good, targets, metric=metric).better is False
    assert compare(REGRESSION, good, np.full(200, 0.0), targets, metric="pearson").difference.value is None


def test_compare_several_labels() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((150, 3)) < 0.4).astype(np.float32)
    good = np.abs(targets - (rng.random((150, 3)) < 0.05) * 0.9)
    poor = np.abs(targets - (rng.random((150, 3)) < 0.35) * 0.9)
    result = compare(TAGS, good, poor, targets, n_boot=300)
    assert result.test == "paired permutation of wrong labels a row"
    assert result.better is True
    assert compare(TAGS, good, good, targets, n_boot=50).better is None
