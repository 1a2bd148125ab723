"""Metrics against scikit-learn and scipy, by value and in every resample; wording of errors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewell.errors import DataError, RecipeError, TrainingError
from tunewell.evaluate.metrics import HEADLINE, LOWER_IS_BETTER, METRICS, check_headline, evaluate, score
from tunewell.evaluate.weighted import average_precision, decide, measure_of, spearman_of
from tunewell.results import Evaluation
from tunewell.tasks.spec import TaskSpec

REGRESSION = TaskSpec("text-regression", metric="r2")


def classes(n: int, metric: str = "f1_macro") -> TaskSpec:
    return TaskSpec("text-classification", tuple(f"c{i:03d}" for i in range(n)), metric=metric)


def tags(n: int, metric: str = "f1_micro") -> TaskSpec:
    return TaskSpec("text-classification", tuple(f"t{i:03d}" for i in range(n)), True, metric)


def random_case(spec: TaskSpec, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and targets that have something to do with each other, with ties and classes that do not occur."""
    rng = np.random.default_rng(seed)
    if spec.regression:
        targets = rng.integers(0, 11, n) / 2
        return np.round(targets + rng.normal(0, 1.5, n), 1).astype(np.float32), targets.astype(np.float32)
    shape = (n, len(spec.labels))
    if spec.multi_label:
        truth = rng.random(shape) < rng.uniform(0, 0.6, shape[1])
        return np.round(rng.random(shape) * 0.6 + truth * 0.3, 2).astype(np.float32), truth.astype(np.float32)
    targets = rng.integers(0, max(1, shape[1] - seed % 2), n)
    logits = rng.normal(size=shape) + 1.5 * (np.arange(shape[1]) == targets[:, None])
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return scores.astype(np.float32), targets


def reference(spec: TaskSpec, scores: np.ndarray, targets: np.ndarray, name: str) -> float:
    """The same figure by scikit-learn or scipy."""
    import scipy.stats
    from sklearn import metrics

    answers: Any = decide(spec, scores)
    if spec.regression:
        answers = answers.astype(np.float64)
        return {
            "r2": lambda: metrics.r2_score(targets, answers),
            "pearson": lambda: scipy.stats.pearsonr(targets, answers).statistic,
            "spearman": lambda: scipy.stats.spearmanr(targets, answers).statistic,
            "mae": lambda: metrics.mean_absolute_error(targets, answers),
            "rmse": lambda: metrics.root_mean_squared_error(targets, answers),
        }[name]()
    if spec.multi_label:
        answers, truth = answers.astype(int), targets.astype(int)
        seen, true = np.flatnonzero((truth | answers).any(axis=0)), np.flatnonzero(truth.any(axis=0))
        return {
            "f1_micro": lambda: metrics.f1_score(truth, answers, average="micro"),
            "f1_macro": lambda: metrics.f1_score(truth, answers, labels=seen, average="macro", zero_division=0),
            "subset_accuracy": lambda: metrics.accuracy_score(truth, answers),
            "hamming_loss": lambda: metrics.hamming_loss(truth, answers),
            "average_precision": lambda: metrics.average_precision_score(truth[:, true], scores[:, true]),
        }[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # answers of classes that the truth lacks
        return {
            "accuracy": lambda: metrics.accuracy_score(targets, answers),
            "f1_macro": lambda: metrics.f1_score(targets, answers, average="macro"),
            "f1_micro": lambda: metrics.f1_score(targets, answers, average="micro"),
            "f1_weighted": lambda: metrics.f1_score(targets, answers, average="weighted"),
            "mcc": lambda: metrics.matthews_corrcoef(targets, answers),
            "balanced_accuracy": lambda: metrics.balanced_accuracy_score(targets, answers),
            "log_loss": lambda: metrics.log_loss(targets, scores, labels=range(len(spec.labels))),
            "ece": lambda: ece_by_hand(scores, targets),
        }[name]()


def ece_by_hand(scores: np.ndarray, targets: np.ndarray, bins: int = 15) -> float:
    """Guo et al. (2017), equation 3, bin by bin."""
    confidence, right = scores.max(axis=1).astype(np.float64), scores.argmax(axis=1) == targets
    total = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            total += inside.sum() / len(targets) * abs(right[inside].mean() - confidence[inside].mean())
    return total


CASES = [
    pytest.param(spec, n, id=f"{kind}-{len(spec.labels)}-{n}")
    for kind, spec, n in [
        ("single", classes(2), 50),
        ("single", classes(3), 7),
        ("single", classes(5), 200),
        ("single", classes(150), 300),
        ("multi", tags(2), 40),
        ("multi", tags(7), 100),
        ("multi", tags(200), 60),
        ("regression", REGRESSION, 30),
        ("regression", REGRESSION, 300),
    ]
]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("spec", "n"), CASES)
def test_values_are_those_of_scikit_learn(spec: TaskSpec, n: int, seed: int) -> None:
    scores, targets = random_case(spec, n, seed)
    evaluation = evaluate(spec, scores, targets, split="test", n_boot=20)
    for name, estimate in evaluation.metrics.items():
        assert estimate.value == pytest.approx(reference(spec, scores, targets, name), abs=2e-6), name
        assert estimate.value == score(name, spec, scores, targets)
        assert estimate.n == n
    assert evaluation.headline == evaluation.metrics[spec.metric]


@pytest.mark.parametrize(("spec", "n"), [(classes(4), 30), (tags(5), 25), (REGRESSION, 25)])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_weight_is_a_row_repeated(spec: TaskSpec, n: int, seed: int) -> None:
    """What makes the bootstrap right: weights give the same figures as the rows drawn that often."""
    scores, targets = random_case(spec, n, seed)
    names = [name for name in METRICS["regression" if spec.regression else "multi-label" if spec.multi_label
             else "single-label"] if name != "average_precision"]  # fmt: skip
    rows = np.random.default_rng(seed).integers(0, n, size=(n, 3))
    weights = np.stack([np.bincount(rows[:, b], minlength=n) for b in range(3)], axis=1).astype(np.float64)
    weighted = measure_of(spec, scores, targets, names)(weights)
    for b in range(3):
        drawn = rows[:, b]
        repeated = measure_of(spec, scores[drawn], targets[drawn], names)(np.ones((n, 1)))
        for name in names:
            assert weighted[name][b] == pytest.approx(repeated[name][0], abs=1e-9, nan_ok=True), name


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_spearman_of_weights_ranks_anew(seed: int) -> None:
    import scipy.stats

    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, 20), np.round(rng.normal(size=20), 1)
    rows = rng.integers(0, 20, 20)
    weights = np.bincount(rows, minlength=20).astype(np.float64)[:, None]
    assert spearman_of(x, y)(weights)[0] == pytest.approx(scipy.stats.spearmanr(x[rows], y[rows]).statistic, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_derivative_of_average_precision(seed: int) -> None:
    """The derivative in a row's weight against a difference quotient of scikit-learn, ties included."""
    from sklearn.metrics import average_precision_score

    scores, targets = random_case(tags(3), 30, seed)
    scores = np.round(scores, 1)
    truth = targets > 0
    truth = truth[:, truth.any(axis=0)]
    scores = scores[:, : truth.shape[1]]
    value, slope = average_precision(scores, truth)
    assert value == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
    for row in range(0, 30, 5):
        step, around = 1e-5, []
        for sign in (1, -1):
            weights = np.ones(30)
            weights[row] += sign * step
            around.append(average_precision_score(truth, scores, sample_weight=weights))
        assert slope[row] == pytest.approx((around[0] - around[1]) / (2 * step), abs=1e-6)
    assert slope.sum() == pytest.approx(0, abs=1e-9)  # all weights doubled change nothing


def test_by_hand() -> None:
    """Six rows, worked on paper: the confusion matrix is [[2, 1, 0], [0, 1, 1], [0, 0, 1]]."""
    targets = np.array([0, 0, 0, 1, 1, 2])
    scores = np.eye(3)[[0, 0, 1, 1, 2, 2]] * 0.7 + 0.1
    result = evaluate(classes(3), scores, targets, split="validation")
    assert result.confusion == ((2, 1, 0), (0, 1, 1), (0, 0, 1))
    f1 = [2 * 2 / 5, 2 * 1 / 4, 2 * 1 / 3]
    assert [c.f1 for c in result.per_class] == pytest.approx(f1)
    assert [c.precision for c in result.per_class] == pytest.approx([1, 0.5, 0.5])
    assert [c.recall for c in result.per_class] == pytest.approx([2 / 3, 0.5, 1])
    assert [(c.support, c.predicted) for c in result.per_class] == [(3, 2), (2, 2), (1, 2)]
    assert result.metrics["f1_macro"].value == pytest.approx(sum(f1) / 3)
    assert result.metrics["accuracy"].value == pytest.approx(4 / 6)
    assert result.metrics["balanced_accuracy"].value == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert result.metrics["log_loss"].value == pytest.approx(-(4 * np.log(0.8) + 2 * np.log(0.1)) / 6)
    assert result.metrics["ece"].value == pytest.approx(0.8 - 4 / 6)
    (bar,) = result.calibration
    assert (bar.confidence, bar.accuracy, bar.n) == pytest.approx((0.8, 4 / 6, 6))
    assert result.split == "validation"


@pytest.mark.parametrize(("spec", "n"), CASES)
def test_intervals_hold_the_figure_and_repeat(spec: TaskSpec, n: int) -> None:
    scores, targets = random_case(spec, n, 5)
    first, again = (evaluate(spec, scores, targets, split="test", n_boot=200, seed=3) for _ in range(2))
    assert first == again
    other = evaluate(spec, scores, targets, split="test", n_boot=200, seed=4)
    assert first.metrics != other.metrics
    for name, e in first.metrics.items():
        if e.low is not None:
            assert e.value is not None
            assert e.high is not None
            assert e.low <= e.value <= e.high, name
    assert Evaluation.model_validate_json(first.model_dump_json()) == first


def test_more_rows_narrow_the_interval() -> None:
    widths = []
    for n in (100, 1600):
        scores, targets = random_case(classes(3), n, 0)
        e = evaluate(classes(3), scores, targets, split="test", n_boot=500).headline
        assert e.low is not None
        assert e.high is not None
        widths.append(e.high - e.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)  # the square root of 16


def test_every_answer_right() -> None:
    """No spread to resample: no interval, but for the share of right answers, which has Wilson's."""
    scores = np.eye(2)[[0, 1] * 5]
    metrics = evaluate(classes(2), scores, np.array([0, 1] * 5), split="test").metrics
    assert (metrics["f1_macro"].value, metrics["f1_macro"].low, metrics["f1_macro"].high) == (1.0, None, None)
    assert metrics["accuracy"].low == pytest.approx(0.7225, abs=1e-4)
    assert metrics["f1_micro"] == metrics["accuracy"]


def test_constant_answers() -> None:
    """As a majority baseline gives: chance level where one is agreed on, None where nothing is defined."""
    targets = np.array([0, 0, 0, 1])
    metrics = evaluate(classes(3), np.tile([0.6, 0.3, 0.1], (4, 1)), targets, split="test").metrics
    assert metrics["mcc"].value == 0.0
    assert metrics["balanced_accuracy"].value == 0.5
    assert metrics["f1_macro"].value == pytest.approx((6 / 7) / 2)  # the third class occurs nowhere
    constant = evaluate(REGRESSION, np.full(4, 2.0), np.array([1.0, 2, 3, 4]), split="test").metrics
    assert constant["pearson"].model_dump() == {"value": None, "low": None, "high": None, "n": 4}
    assert constant["spearman"].value is None
    assert constant["r2"].value == pytest.approx(-0.2)
    assert score("pearson", REGRESSION, np.full(4, 2.0), np.array([1.0, 2, 3, 4])) == 0.0


def test_constant_targets_and_single_rows() -> None:
    metrics = evaluate(REGRESSION, np.array([1.0, 2.0]), np.array([3.0, 3.0]), split="test").metrics
    assert metrics["r2"].value is None
    assert metrics["mae"].value == 1.5
    one = evaluate(classes(2), np.array([[0.3, 0.7]]), np.array([1]), split="test").metrics
    assert (one["f1_macro"].value, one["f1_macro"].low) == (1.0, None)
    alone = evaluate(REGRESSION, np.array([1.0]), np.array([1.5]), split="test").metrics
    assert (alone["r2"].value, alone["mae"].value) == (None, 0.5)


def test_multi_label_without_any_label() -> None:
    metrics = evaluate(tags(3), np.full((4, 3), 0.2), np.zeros((4, 3)), split="test").metrics
    assert metrics["f1_micro"].value is None
    assert metrics["f1_macro"].value is None
    assert metrics["average_precision"].value is None
    assert metrics["subset_accuracy"].value == 1.0
    assert metrics["hamming_loss"].value == 0.0


def test_large_label_sets() -> None:
    scores, targets = random_case(tags(1000), 50, 0)
    many = evaluate(tags(1000), scores, targets, split="test", n_boot=100)
    assert len(many.per_class) == 1000
    assert many.confusion == ()
    scores, targets = random_case(classes(400), 500, 0)
    wide = evaluate(classes(400), scores, targets, split="test", n_boot=100)
    assert wide.confusion == ()  # beyond 300 classes nobody could read it
    assert len(wide.per_class) == 400


def test_scatter_is_a_seeded_sample() -> None:
    scores, targets = random_case(REGRESSION, 900, 0)
    result = evaluate(REGRESSION, scores, targets, split="test", n_boot=50, seed=1)
    assert len(result.scatter) == 500
    assert set(result.scatter) <= {(float(t), float(p)) for t, p in zip(targets, scores, strict=True)}
    assert result.calibration == ()


def test_headline_metrics_are_higher_is_better() -> None:
    for kind, names in HEADLINE.items():
        assert set(names) == set(METRICS[kind]) - LOWER_IS_BETTER


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            classes(2, "f1_marco"),
            "recipe: unknown metric `f1_marco`\n"
            "  expected: one of f1_macro, accuracy, f1_micro, f1_weighted, mcc, balanced_accuracy\n"
            "  try: did you mean `f1_macro`?",
        ),
        (
            classes(2, "log_loss"),
            "recipe: `metric: log_loss` cannot be the headline metric: lower is better\n"
            "  expected: one of f1_macro, accuracy, f1_micro, f1_weighted, mcc, balanced_accuracy\n"
            "  try: `metric: f1_macro`; `log_loss` is reported all the same",
        ),
        (
            TaskSpec("text-regression", metric="accuracy"),
            "recipe: `metric: accuracy` is for single-label tasks, this is a regression task\n"
            "  expected: one of r2, pearson, spearman",
        ),
    ],
)
def test_wrong_headline_metric(spec: TaskSpec, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_headline(spec)
    assert str(caught.value) == sentence


def test_good_headline_metrics_pass() -> None:
    for spec in (classes(2), tags(2), REGRESSION):
        check_headline(spec)


def test_no_rows() -> None:
    with pytest.raises(DataError, match="evaluation: no rows to evaluate in the test split"):
        evaluate(classes(2), np.empty((0, 2)), np.empty(0, dtype=int), split="test")


def test_outputs_that_are_not_finite() -> None:
    scores = np.array([[0.5, 0.5], [np.nan, 1.0], [np.inf, 0.0]])
    with pytest.raises(TrainingError) as caught:
        score("accuracy", classes(2), scores, np.array([0, 1, 0]))
    assert str(caught.value) == (
        "evaluation: the model's outputs are not finite numbers in 2 of 3 rows\n"
        "  expected: finite probabilities or values\n"
        "  try: a lower learning_rate, or bf16: false"
    )


@pytest.mark.parametrize(("scores", "sentence"), [(np.ones((2, 2)), "2 scores for 3 targets"),
                                                  (np.ones((3, 3)), r"shape \(3, 3\) for 2 labels")])  # fmt: skip
def test_shapes_that_do_not_fit(scores: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        score("accuracy", classes(2), scores, np.array([0, 1, 0]))
