"""Prediction sets: the exact quantile, coverage by its exact law, sets by hand; abstention by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import betabinom

from tunewell.errors import DataError, RecipeError
from tunewell.evaluate.abstention import abstention, aurc, best_aurc, risks
from tunewell.evaluate.conformal import check_coverage, fewest, label_scores, quantile, sets, threshold_of, true_scores


@pytest.mark.parametrize("n", [1, 9, 10, 19, 100])
@pytest.mark.parametrize("coverage", ["0.5", "0.8", "0.9", "0.95"])
def test_the_quantile_is_the_smallest_that_keeps_the_promise(n: int, coverage: str) -> None:
    """The k-th smallest of n exchangeable scores covers a new one with probability k / (n + 1), exactly."""
    ranks = np.arange(1, n + 1, dtype=float)
    found = quantile(ranks, float(coverage))
    wanted = Fraction(coverage)
    if found == float("inf"):
        assert Fraction(n, n + 1) < wanted
        assert n < fewest(float(coverage))
    else:
        k = int(found)
        assert Fraction(k, n + 1) >= wanted
        assert Fraction(k - 1, n + 1) < wanted


def test_coverage_of_exchangeable_scores_over_every_order() -> None:
    """Which of n + 1 scores is the new one is equally likely: counted over all of them, not drawn."""
    scores = np.random.default_rng(0).normal(size=20)
    held = [scores[i] <= quantile(np.delete(scores, i), 0.9) for i in range(20)]
    assert np.mean(held) == 18 / 20  # k / (n + 1) with n = 19 and k = ⌈20 · 0.9⌉


def test_coverage_follows_its_law_on_synthetic_data() -> None:
    """Hits among m new rows are beta-binomial(m, k, n + 1 − k); their total over repeats is tested against it."""
    n, m, repeats, coverage = 99, 200, 60, 0.9
    k = 90
    for method, randomised in (("lac", False), ("aps", True)):
        hits = []
        for seed in range(repeats):
            rng = np.random.default_rng(seed)
            p = softmax(rng.normal(0, 2, size=(n + m, 5)), axis=1)
            y = (rng.random((n + m, 1)) > np.cumsum(p, axis=1)).sum(axis=1).clip(max=4)
            draws = rng.random(n + m) if randomised else None
            known = true_scores(p[:n], y[:n], method, None if draws is None else draws[:n])
            inside = sets(p[n:], quantile(known, coverage), method, None if draws is None else draws[n:])
            hits.append(inside[np.arange(m), y[n:]].sum())
        law = betabinom(m, k, n + 1 - k)
        assert np.mean(hits) == pytest.approx(law.mean(), abs=4 * law.std() / np.sqrt(repeats))
        assert law.mean() / m == pytest.approx(0.9)


def test_sets_by_hand() -> None:
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.45, 0.35]])
    assert label_scores(p, "lac") == pytest.approx(1 - p)
    assert label_scores(p, "aps") == pytest.approx(np.array([[0.6, 0.9, 1.0], [1.0, 0.45, 0.8]]))
    half = label_scores(p, "aps", np.array([0.5, 0.0]))
    assert half == pytest.approx(np.array([[0.3, 0.75, 0.95], [0.8, 0.0, 0.45]]))
    assert sets(p, 0.62, "lac").tolist() == [[True, False, False], [False, True, False]]
    assert sets(p, 0.5, "lac").tolist() == [[True, False, False], [False, False, False]]  # empty: nothing fits
    assert sets(p, 0.85, "aps").tolist() == [[True, False, False], [False, True, True]]
    assert sets(p, 0.1, "aps").tolist() == [[True, False, False], [False, True, False]]  # the answer always
    assert true_scores(p, np.array([1, 2]), "aps") == pytest.approx([0.9, 0.8])
    assert true_scores(np.array([1.0, 4.0]), np.array([2.0, 1.5]), "distance").tolist() == [1.0, 2.5]


def test_intervals_of_scores_cover_by_the_same_law() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        noise = rng.standard_t(3, size=20)
        hits += abs(noise[-1]) <= quantile(np.abs(noise[:19]), 0.9)
    assert hits / 300 == pytest.approx(18 / 20, abs=4 * np.sqrt(0.9 * 0.1 / 300))


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1, 1.5])
def test_coverage_is_between_0_and_1(wrong: float) -> None:
    with pytest.raises(RecipeError, match="above 0 and below 1"):
        check_coverage(wrong)


def test_ninety_is_taken_for_a_percentage() -> None:
    with pytest.raises(RecipeError, match="did you mean 0.9"):
        check_coverage(90)


def test_too_few_rows_for_a_promise() -> None:
    with pytest.raises(DataError, match="12 validation rows are too few to promise a coverage of 0.95") as told:
        threshold_of(np.arange(12.0), 0.95)
    assert "at least 19" in told.value.expected
    assert threshold_of(np.arange(12.0), 0.9) == 11.0
    with pytest.raises(RecipeError, match="no kind of set `raps`"):
        label_scores(np.ones((1, 2)) / 2, "raps")


# ---------------------------------------------------------------- abstention


def test_risks_by_hand() -> None:
    sure, wrong = np.array([0.9, 0.5, 0.7, 0.6]), np.array([0, 1, 1, 0])
    assert risks(sure, wrong).tolist() == [0.0, 0.5, 1 / 3, 0.5]
    assert aurc(sure, wrong) == pytest.approx((0 + 0.5 + 1 / 3 + 0.5) / 4)
    assert best_aurc(2, 4) == pytest.approx((0 + 0 + 1 / 3 + 0.5) / 4)


def test_equal_sureness_says_nothing() -> None:
    wrong = np.array([1, 0, 0, 1, 0])
    assert risks(np.full(5, 0.8), wrong) == pytest.approx(np.full(5, 0.4))


def test_abstention_record() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 400)
    wrong = (rng.random(400) > sure).astype(int)
    found = abstention(sure, wrong)
    assert found.aurc.low <= found.aurc.value <= found.aurc.high
    assert found.best < found.aurc.value < found.error
    whole, half = found.points[0], next(p for p in found.points if p.coverage == 0.5)
    assert whole.risk.value == pytest.approx(wrong.mean())
    assert half.risk.n == 200
    assert half.risk.value == pytest.approx(wrong[np.argsort(-sure)[:200]].mean())
    assert half.threshold == np.sort(sure)[::-1][199]
    assert found.curve[-1] == (1.0, pytest.approx(wrong.mean()))
