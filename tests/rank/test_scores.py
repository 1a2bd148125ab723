"""Each score against its definition: a closed form, a case worked by hand, or another library."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tunewell.rank.scores import hscore, leep, logme, nce, probe_scores, shrunken_hscore, transrate
from tunewell.rank.scores.linear_probe import ALPHAS, folds_of, ridge_path
from tunewell.tasks import TaskSpec

CLASSES = TaskSpec("text-classification", ("a", "b", "c"), metric="accuracy")
VALUES = TaskSpec("text-regression", metric="r2")


def data(n: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features and a target that they tell something of."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)) @ np.diag(np.linspace(0.5, 2, width))
    return x, x[:, 0] - 0.5 * x[:, -1] + rng.normal(size=n)


def evidence(x: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> float:
    """log N(y; 0, I/beta + x x'/alpha): the marginal likelihood of the Bayesian linear model."""
    covariance = np.eye(len(y)) / beta + x @ x.T / alpha
    distance = y @ np.linalg.solve(covariance, y)
    return -0.5 * (len(y) * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1] + distance)


@pytest.mark.parametrize(("n", "width"), [(60, 5), (25, 40)])
def test_logme_is_the_highest_marginal_likelihood(n: int, width: int) -> None:
    from scipy.optimize import minimize

    x, y = data(n, width)
    best = min(
        (
            minimize(lambda p: -evidence(x, y, *np.exp(p)), start, method="Nelder-Mead", options={"xatol": 1e-6})
            for start in ([0.0, 0.0], [2.0, 1.0])
        ),
        key=lambda found: found.fun,
    )
    assert logme(x, y) == pytest.approx(-best.fun / n, abs=2e-4)


def test_logme_of_features_that_say_nothing_is_that_of_noise_alone() -> None:
    _, y = data(30, 3)
    want = 0.5 * (math.log(30 / (y @ y)) - 1 - math.log(2 * math.pi))
    assert logme(np.zeros((30, 4)), y) == pytest.approx(want)
    x, _ = data(30, 4)
    assert logme(np.column_stack([x, x[:, 0] * 2, np.zeros(30)]), y) < logme(np.column_stack([x, y]), y)


def test_logme_of_classes_is_the_mean_over_their_indicators() -> None:
    x, y = data(50, 6)
    onehot = np.eye(3)[np.digitize(y, [-0.5, 0.5])]
    assert logme(x, onehot) == pytest.approx(np.mean([logme(x, column) for column in onehot.T]))


def test_logme_does_not_depend_on_the_axes() -> None:
    x, y = data(50, 6)
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    assert logme(x @ turned, y) == pytest.approx(logme(x, y))


def test_hscore_of_features_that_are_the_classes_is_one_less_than_their_number() -> None:
    y = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2])
    assert hscore(np.eye(3)[y], y) == pytest.approx(2.0)
    assert hscore(np.ones((9, 4)), y) == pytest.approx(0.0)


def test_hscore_of_one_feature_is_the_share_of_variance_between_classes() -> None:
    x, y = np.array([1.0, 3.0, 6.0, 10.0]), np.array([0, 0, 1, 1])
    # mean 5, class means 2 and 8: variance between 9, variance in all (16 + 4 + 1 + 25) / 4 = 11.5
    assert hscore(x[:, None], y) == pytest.approx(9 / 11.5)


def test_shrunken_hscore_by_its_formula() -> None:
    from sklearn.covariance import LedoitWolf

    x, y = data(30, 45)
    classes = np.digitize(y, [0.0])
    fitted = LedoitWolf().fit(x)
    centred = x - x.mean(axis=0)
    means = np.stack([centred[classes == c].mean(axis=0) for c in classes])
    between = sum(np.outer(m, m) for m in means) / len(x)
    want = (1 - fitted.shrinkage_) * np.trace(np.linalg.inv(fitted.covariance_) @ between)
    assert 0.0 < fitted.shrinkage_ < 1.0
    assert shrunken_hscore(x, classes) == pytest.approx(want)
    assert shrunken_hscore(np.ones((30, 3)), classes) == 0.0


def test_leep_by_hand() -> None:
    source = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    y = np.array([0, 0, 1])
    # sums over rows: P(0, z) = (1.4, 0.6), P(1, z) = (0.1, 0.9), so P(0 | z) = (14/15, 0.4) and P(1 | z) = (1/15, 0.6)
    rows = [0.8 * 14 / 15 + 0.2 * 0.4, 0.6 * 14 / 15 + 0.4 * 0.4, 0.1 / 15 + 0.9 * 0.6]
    assert leep(source, y) == pytest.approx(np.mean(np.log(rows)))


def test_nce_by_hand() -> None:
    source = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.2, 0.8]])
    # z = 0, 0, 0, 1; y = 0, 0, 1, 1: H(y | z) = 3/4 of the entropy of (2/3, 1/3), and 0 for z = 1
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert nce(source, np.array([0, 0, 1, 1])) == pytest.approx(-0.75 * entropy)
    assert nce(source, np.array([5, 5, 5, 9])) == pytest.approx(0.0)


def test_transrate_of_one_feature_by_hand() -> None:
    x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    # the mean is 0; mean squares are 2.5 in all and 2.5 in each class
    assert transrate(x, y, distortion=0.5) == pytest.approx(0.0)
    x = np.array([[-1.0], [-1.0], [3.0], [-1.0]])
    whole, first, second = 3.0, 1.0, 5.0
    rates = [0.5 * math.log(1 + s / 0.5) for s in (whole, first, second)]
    assert transrate(x, y, distortion=0.5) == pytest.approx(rates[0] - (rates[1] + rates[2]) / 2)


def test_transrate_from_either_side_of_the_features() -> None:
    x, y = data(12, 20)
    classes = np.digitize(y, [0.0])
    z = x - x.mean(axis=0)

    def rate(part: np.ndarray) -> float:
        return 0.5 * np.linalg.slogdet(np.eye(20) + part.T @ part / (len(part) * 1e-4))[1]

    want = rate(z) - (rate(z[classes == 0]) + rate(z[classes == 1])) / 2
    assert transrate(x, classes) == pytest.approx(want)


@pytest.mark.parametrize("width", [7, 60])
def test_ridge_path_is_ridge_on_standardised_features(width: int) -> None:
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    x, y = data(40, width)
    train, held, y = x[:30], x[30:], np.stack([y, -(y**2)], axis=1)[:30]
    scaler = StandardScaler().fit(train)
    answers = ridge_path(train, y, held)
    for alpha, answer in zip(ALPHAS, answers, strict=True):
        model = Ridge(alpha=alpha * 30).fit(scaler.transform(train), y)
        np.testing.assert_allclose(answer, model.predict(scaler.transform(held)), rtol=1e-6, atol=1e-8)


def test_ridge_path_leaves_out_features_that_do_not_vary() -> None:
    x, y = data(40, 4)
    with_constant = np.column_stack([x, np.full(40, 3.0)])
    np.testing.assert_allclose(
        ridge_path(with_constant[:30], y[:30, None], with_constant[30:]), ridge_path(x[:30], y[:30, None], x[30:])
    )


def test_probe_scores_are_of_rows_not_seen() -> None:
    y = np.repeat([0, 1, 2], 20)
    rng = np.random.default_rng(0)
    assert probe_scores(CLASSES, np.eye(3)[y] + 0.01 * rng.normal(size=(60, 3)), y, seed=1) == 1.0
    noise = rng.normal(size=(60, 200))  # could be fitted without error, and says nothing
    assert probe_scores(CLASSES, noise, y, seed=1) < 0.6
    x, values = data(80, 3)
    assert probe_scores(VALUES, np.column_stack([x, values]), values.astype(np.float32), seed=1) > 0.95


def test_probe_of_several_labels_a_row() -> None:
    spec = TaskSpec("text-classification", ("a", "b"), multi_label=True, metric="f1_micro")
    y = np.array([[0, 1], [1, 0], [1, 1], [0, 0]] * 10, dtype=np.float32)
    assert probe_scores(spec, y + 0.0, y, seed=0) == 1.0


def test_folds_hold_every_class() -> None:
    y = np.repeat([0, 1, 2], [25, 10, 5])
    fold = folds_of(CLASSES, y, seed=3)
    assert np.bincount(fold).tolist() == [8] * 5
    for k in range(5):
        assert set(y[fold == k]) == {0, 1, 2}
    assert fold.tolist() == folds_of(CLASSES, y, seed=3).tolist()
