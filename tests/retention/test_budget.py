"""Choices inside the budget, by hand."""

from __future__ import annotations

import pytest

from tunewell.results import Candidate, Estimate
from tunewell.retention.budget import choose, frontier, safely


def candidate(name: str, score: float | None, mean: float | None, worst: float | None = None) -> Candidate:
    kept = None if mean is None else Estimate(value=mean)
    least = Estimate(value=worst if worst is not None else mean)
    return Candidate(
        name=name,
        strategy=("average",),
        parameters={},
        score=Estimate(value=score),
        retention_mean=kept,
        retention_worst=least,
        meets=None,
    )


MODELS = [
    candidate("tuned", 0.80, 0.94, 0.85),
    candidate("0.9", 0.79, 0.985, 0.95),
    candidate("0.5", 0.70, 0.999, 0.99),
]


def chosen(choice) -> str:
    return next(c.name for c in choice.candidates if c.chosen)


@pytest.mark.parametrize(
    ("keep", "keep_worst", "name", "met"),
    [
        (None, None, "tuned", None),
        (0.9, None, "tuned", True),
        (0.98, None, "0.9", True),
        (0.98, 0.97, "0.5", True),
        (1.0, None, "0.5", False),
        (None, 0.9, "0.9", True),
    ],
)
def test_best_score_inside(keep, keep_worst, name, met):
    choice = choose(MODELS, keep=keep, keep_worst=keep_worst)
    assert (chosen(choice), choice.met) == (name, met)
    assert sum(c.chosen for c in choice.candidates) == 1


def test_equal_scores_go_to_the_one_that_keeps_more():
    assert chosen(choose([candidate("a", 0.8, 0.98), candidate("b", 0.7998, 0.99)], keep=0.9, keep_worst=None)) == "b"


def test_unknown_score_loses():
    assert chosen(choose([candidate("a", None, 0.99), candidate("b", 0.1, 0.99)], keep=0.9, keep_worst=None)) == "b"


def test_nothing_measured_meets_no_budget():
    choice = choose([candidate("a", 0.8, None)], keep=0.9, keep_worst=None)
    assert choice.met is False and "none of the 1" in choice.reason


def test_no_candidates():
    with pytest.raises(ValueError, match="no candidates"):
        choose([], keep=None, keep_worst=None)


def test_frontier():
    beaten = candidate("beaten", 0.75, 0.98)
    assert [c.name for c in frontier([*MODELS, beaten])] == ["tuned", "0.9", "0.5"]


def with_interval(name: str, score: float, mean: float, half: float, alpha: float | None) -> Candidate:
    made = candidate(name, score, mean)
    score_of = Estimate(value=score, low=score - half, high=score + half)
    return made.model_copy(update={"score": score_of, "parameters": {} if alpha is None else {"alpha": alpha}})


@pytest.mark.parametrize(("half", "name"), [(0.0392, "tuned"), (0.0098, "average")])
def test_an_average_must_be_better_than_the_tuned_model_by_a_standard_error(half, name):
    """0.81 against 0.80: standard errors of 0.02 and 0.005."""
    models = [with_interval("tuned", 0.80, 0.985, half, None), with_interval("average", 0.81, 0.99, half, 0.75)]
    assert chosen(choose(models, keep=0.98, keep_worst=None)) == name
    assert chosen(choose(models, keep=0.987, keep_worst=None)) == "average"  # the tuned one is outside the budget


def kept_about(name: str, score: float, mean: float, error: float) -> Candidate:
    """A candidate whose retention has a standard error."""
    made = candidate(name, score, mean)
    return made.model_copy(
        update={"retention_mean": Estimate(value=mean, low=mean - 1.96 * error, high=mean + 1.96 * error)}
    )


def test_what_is_inside_by_a_standard_error_goes_before_what_is_just_inside():
    just, safe = kept_about("just", 0.85, 0.982, 0.004), kept_about("safe", 0.80, 0.99, 0.004)
    assert (safely(just, 0.98, None), safely(safe, 0.98, None)) == (False, True)
    choice = choose([just, safe], keep=0.98, keep_worst=None)
    assert chosen(choice) == "safe" and "1 of 2 candidates inside the budget by a standard error (2 in all)" in (
        choice.reason
    )
    alone = choose([just, kept_about("out", 0.9, 0.95, 0.001)], keep=0.98, keep_worst=None)
    assert (chosen(alone), alone.met) == ("just", True) and "just inside" in alone.reason


def test_the_least_probe_has_a_standard_error_too():
    worst = Estimate(value=0.97, low=0.93, high=1.0)
    assert not safely(candidate("a", 0.8, 0.99).model_copy(update={"retention_worst": worst}), 0.98, 0.96)
    assert safely(candidate("a", 0.8, 0.99), None, None)
