"""Where there are no validation rows: the baselines are chosen by cross-validation, the candidate by what it keeps."""

from __future__ import annotations

import numpy as np
import pytest

from tunewell.evaluate.linear import FOLDS, PROBE_CS, fit_linear_probe, fit_logistic, outputs_of
from tunewell.results import Candidate, Estimate
from tunewell.retention.budget import choose


def test_the_probe_is_the_one_with_the_best_out_of_fold_log_loss():
    """Against folds written out: classes in turn, each value of C fitted to the other folds."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 40)
    x = np.eye(3)[y] + rng.normal(size=(40, 3))
    probe = fit_linear_probe(x, y, x[:0], y[:0], n_classes=3, seed=5)
    order = np.random.default_rng(5).permutation(40)
    order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(40, int)
    fold[order] = np.arange(40) % FOLDS
    scaled, hot = (x - x.mean(0)) / x.std(0), outputs_of("single-label", y, 3)
    losses = []
    for c in PROBE_CS:
        p = np.zeros((40, 3))
        for k in range(FOLDS):
            p[fold == k] = fit_logistic("single-label", scaled[fold != k], hot[fold != k], c).scores(scaled[fold == k])
        losses.append(-np.log(p[np.arange(40), y]).mean())
    assert probe.model.regularisation == PROBE_CS[int(np.argmin(losses))]
    assert min(losses) < max(losses) - 0.05


def test_a_class_with_one_row_and_a_single_row():
    probe = fit_linear_probe(np.eye(3), np.array([0, 0, 1]), np.empty((0, 3)), np.empty(0, int), n_classes=2)
    assert probe.scores(np.eye(3)).shape == (3, 2)
    fit_linear_probe(np.ones((1, 2)), np.array([0]), np.empty((0, 2)), np.empty(0, int), n_classes=2)


def candidate(name: str, kept: float | None, **parameters: float) -> Candidate:
    mean = None if kept is None else Estimate(value=kept)
    return Candidate(
        name=name, strategy=("fewshot", "average"), parameters=parameters, score=Estimate(value=None),
        retention_mean=mean, retention_worst=mean, meets=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("keep", "chosen", "met"),
    [(0.95, "three quarters", True), (0.99, "a half", True), (0.8, "tuned", True), (1.0, "a half", False)],
)
def test_the_furthest_inside_the_budget(keep, chosen, met):
    some = [
        candidate("tuned", 0.9),
        candidate("a half", 0.99, alpha=0.5),
        candidate("three quarters", 0.96, alpha=0.75),
    ]
    choice = choose(some, keep=keep, keep_worst=None)
    assert (choice.chosen.name, choice.met) == (chosen, met)


def test_without_a_budget_it_is_the_tuned_model():
    some = [candidate("tuned", None), candidate("a half", None, alpha=0.5)]
    choice = choose(some, keep=None, keep_worst=None)
    assert choice.chosen.name == "tuned" and choice.reason == "no validation rows: the tuned model"
