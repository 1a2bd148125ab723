"""Each method against its published definition: by hand, in closed form, or by scikit-learn's answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tunewell.results import Comparison, Estimate
from tunewell.tasks import TaskSpec
from tunewell.unlabelled.decide import folds, judge, likely
from tunewell.unlabelled.guess import guesses, temperature_for
from tunewell.unlabelled.propagation import graph, spread

SPEC = TaskSpec("text-classification", ("a", "b"), metric="accuracy")


# ---------------------------------------------------------------- guessed labels


def test_guesses_are_the_surest_of_each_class_within_its_share():
    """Labelled 3 : 1. Seven rows are at 0.6 or surer: four of class 0, three of class 1, which may have 1/4 of 7."""
    p = [0.99, 0.95, 0.9, 0.65, 0.55]  # of class 0
    q = [0.98, 0.8, 0.7, 0.52]  # of class 1
    scores = np.array([[x, 1 - x] for x in p] + [[1 - x, x] for x in q])
    found = guesses(scores, np.array([30, 10]), threshold=0.6)
    assert found.places.tolist() == [0, 1, 2, 3, 5, 6]  # ceil(7 · 3/4) = 6 ≥ 4 of class 0, ceil(7/4) = 2 of class 1
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert found.confidence == pytest.approx([0.99, 0.95, 0.9, 0.65, 0.98, 0.8])
    half = guesses(scores, np.array([10, 10]))
    assert half.places.tolist() == [0, 1, 2, 5, 6]  # the surer half: 3 of 5, 2 of 4; at most ceil(5/2) = 3 of a class


def test_a_threshold_is_one_of_calibrated_confidence():
    """Logits 2 apart: 0.881 as it is, 0.731 after a temperature of 2."""
    z = 1 / (1 + math.exp(-2))
    scores = np.array([[z, 1 - z], [1 - z, z]])
    assert len(guesses(scores, np.array([1, 1]), threshold=0.8)) == 2
    cooled = guesses(scores, np.array([1, 1]), temperature=2.0, threshold=0.7)
    assert cooled.confidence == pytest.approx([1 / (1 + math.exp(-1))] * 2, abs=1e-6)
    assert not len(guesses(scores, np.array([1, 1]), temperature=2.0, threshold=0.8))


def test_the_temperature_is_that_of_validation():
    """A teacher that says 0.9 and is right in 7 of 10: log odds 2.197 over 0.847 is a temperature of 2.593."""
    scores, targets = np.array([[0.9, 0.1]] * 10), np.array([0] * 7 + [1] * 3)
    assert temperature_for(scores, targets) == pytest.approx(math.log(9) / math.log(7 / 3), abs=1e-3)
    assert temperature_for(np.empty((0, 2)), np.empty(0, int)) == 1.0


# ---------------------------------------------------------------- propagation


@pytest.fixture
def cloud():
    rng = np.random.default_rng(3)
    vectors = np.concatenate([rng.normal(m, 0.6, (20, 5)) for m in (-1, 1)])
    labels = np.full(40, -1)
    labels[[0, 1, 20]] = [0, 0, 1]
    return vectors, labels


def test_spread_is_the_closed_form(cloud):
    """F* = (1 − α) (I − α S)⁻¹ Y of Zhou et al. (2004), rows made to sum to 1."""
    vectors, labels = cloud
    w = graph(vectors, neighbours=6).toarray()
    d = w.sum(1)
    s = w / np.sqrt(np.outer(d, d))
    y = np.zeros((40, 2))
    y[[0, 1, 20], [0, 0, 1]] = 1
    f = 0.2 * np.linalg.inv(np.eye(40) - 0.8 * s) @ y
    assert spread(w, labels, 2, alpha=0.8) == pytest.approx(f / f.sum(1, keepdims=True), abs=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.9])
def test_spread_agrees_with_scikit_learn(cloud, alpha):
    from sklearn.semi_supervised import LabelSpreading

    vectors, labels = cloud
    w = graph(vectors, neighbours=6).toarray()
    theirs = LabelSpreading(kernel=lambda a, b: w, alpha=alpha, max_iter=5000, tol=1e-12).fit(vectors, labels)
    assert spread(w, labels, 2, alpha=alpha) == pytest.approx(theirs.label_distributions_, abs=1e-5)


def test_the_graph_by_hand():
    """Three directions; the nearest of the first two are each other, that of the third is the second."""
    v = np.array([[1.0, 0.0], [2.0, 2.0], [0.0, 3.0]])
    w = graph(v, neighbours=1).toarray()
    near = math.exp((math.sqrt(0.5) - 1) / 0.1)
    assert w == pytest.approx(np.array([[0, near, 0], [near, 0, near], [0, near, 0]]), rel=1e-4)


def test_a_node_that_no_label_reaches_stays_even():
    w = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    f = spread(w, np.array([1, -1, -1, -1]), 2)
    assert f[1] == pytest.approx([0, 1])
    assert f[2:] == pytest.approx(0.5)


# ---------------------------------------------------------------- the guard


def comparison(value: float | None, low: float | None, high: float | None) -> Comparison:
    difference = Estimate(value=value, low=low, high=high, n=100)
    return Comparison(metric="accuracy", difference=difference, test="", p_value=0.2, better=None)


def test_likely_is_better_by_a_standard_error():
    """An interval of 0.0784 is 1.96 standard errors of 0.02 to each side."""
    assert likely(comparison(0.021, -0.0182, 0.0602))
    assert not likely(comparison(0.019, -0.0202, 0.0582))
    assert not likely(comparison(-0.1, -0.14, -0.06))
    assert not likely(comparison(0.0, None, None))  # the same answers


def answers(right: np.ndarray) -> np.ndarray:
    """Scores (n, 2) for targets that are all 0."""
    return np.where(right[:, None], [[0.9, 0.1]], [[0.2, 0.8]])


def test_the_guard_lets_through_what_helps_and_nothing_else():
    targets = np.zeros(100, int)
    base = np.arange(100) < 70
    better, same, worse = np.arange(100) < 85, base.copy(), np.arange(100) < 60
    scores = {"better": answers(better), "same": answers(same), "worse": answers(worse)}
    for rule in ("likely", "sure"):
        found = judge(SPEC, answers(base), scores, targets, rule=rule, seed=1)
        assert [name for name, (_, helps) in found.items() if helps] == ["better"]
        assert found["better"][0].difference.value == pytest.approx(0.15)
        assert found["worse"][0].difference.value == pytest.approx(-0.1)


def test_sure_asks_for_more_than_likely():
    """Three rows won and none lost: a standard error, and p = 0.25."""
    targets, base, three = np.zeros(40, int), np.arange(40) < 30, np.arange(40) < 33
    assert judge(SPEC, answers(base), {"m": answers(three)}, targets, rule="likely", seed=1)["m"][1]
    found, helps = judge(SPEC, answers(base), {"m": answers(three)}, targets, rule="sure", seed=1)["m"]
    assert not helps
    assert found.p_value == pytest.approx(0.25)


def test_sure_is_adjusted_for_the_number_of_methods():
    """Six rows won and none lost: p = 2 / 2^6 = 0.031, which is enough for one method and not for two."""
    targets, base, six = np.zeros(60, int), np.arange(60) < 40, np.arange(60) < 46
    alone = judge(SPEC, answers(base), {"m": answers(six)}, targets, rule="sure", seed=1)
    assert alone["m"][0].p_value == pytest.approx(2 / 2**6)
    assert alone["m"][1]
    both = judge(SPEC, answers(base), {"m": answers(six), "n": answers(six)}, targets, rule="sure", seed=1)
    assert not both["m"][1]


def test_folds_spread_each_class():
    labels = np.array([0] * 9 + [1] * 6 + [2])
    found = folds(labels, seed=4)
    assert np.bincount(found).tolist() == [4, 4, 4, 4]
    for c in (0, 1):
        counts = np.bincount(found[labels == c], minlength=4)
        assert counts.max() - counts.min() <= 1
    assert (found == folds(labels, seed=4)).all()


# ---------------------------------------------------------------- consistency and pretraining


def test_consistency_loss_by_hand():
    """Two of three texts are sure: −log of what the strong view gives to the guess, over all three."""
    import torch

    from tunewell.unlabelled.consistency import consistency_loss

    weak = torch.tensor([[4.0, 0.0], [0.0, 5.0], [0.3, 0.0]], requires_grad=True)
    strong = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 9.0]], requires_grad=True)
    loss, counts = consistency_loss(weak, strong, 0.95)
    assert counts.tolist() == [True, True, False]
    by_hand = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 3
    assert loss.item() == pytest.approx(by_hand, abs=1e-6)
    loss.backward()
    assert weak.grad is None
    assert strong.grad is not None
    assert strong.grad[2].abs().sum() == 0


def test_soft_loss_by_hand():
    """Weak (0.8, 0.2), (0.1, 0.9) and (0.6, 0.4) at β = 0.7; a temperature of 0.4 raises the odds to the power 2.5."""
    import torch

    from tunewell.unlabelled.uda import soft_loss

    weak = torch.tensor([[0.8, 0.2], [0.1, 0.9], [0.6, 0.4]]).log().requires_grad_()
    strong = torch.tensor([[0.5, 0.5], [0.3, 0.7], [0.9, 0.1]]).log().requires_grad_()
    loss, counts = soft_loss(weak, strong, 0.7)
    assert counts.tolist() == [True, True, False]
    first, second = 4**2.5 / (1 + 4**2.5), 9**2.5 / (1 + 9**2.5)  # 32/33 and 243/244
    assert (first, second) == (pytest.approx(32 / 33), pytest.approx(243 / 244))

    def kl(p, q):
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    assert loss.item() == pytest.approx((kl(first, 0.5) + kl(second, 0.7)) / 3, abs=1e-6)
    loss.backward()
    assert weak.grad is None
    assert strong.grad is not None
    # the gradient of a divergence by the logits is p − q̃, here over three texts
    assert strong.grad[0].tolist() == pytest.approx([(0.5 - first) / 3, (first - 0.5) / 3], abs=1e-6)
    assert strong.grad[2].abs().sum() == 0


def test_soft_loss_is_zero_where_the_views_agree_after_sharpening():
    import torch

    from tunewell.unlabelled.uda import TEMPERATURE, soft_loss

    weak = torch.tensor([[1.0, 0.0, -0.5]])
    assert soft_loss(weak, weak / TEMPERATURE, 0.0)[0].item() == pytest.approx(0.0, abs=1e-6)
    assert soft_loss(weak, weak, 0.0)[0].item() > 0.01


@pytest.mark.parametrize(
    ("schedule", "alphas"),
    [("linear", (0.0, 0.25, 1.0)),
     ("exp", (math.exp(-5), math.exp(-3.75), 1.0)),
     ("log", (0.0, 1 - math.exp(-1.25), 1 - math.exp(-5)))],
)  # fmt: skip
def test_thresholds_of_annealing_by_hand(schedule, alphas):
    """At none, a quarter and all of 40 steps, for four classes: from a quarter to 1."""
    from tunewell.unlabelled.uda import tsa_threshold

    for step, alpha in zip((0, 10, 40), alphas, strict=True):
        assert tsa_threshold(schedule, step, 40, 4) == pytest.approx(alpha * 0.75 + 0.25)


def test_annealed_losses_by_hand():
    """Of (0.9, 0.6, 0.3) for the rows' own classes, two are within 0.7: their losses count for three."""
    import torch

    from tunewell.unlabelled.uda import annealed

    logits = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]]).log()
    losses, counts = annealed(torch.tensor([1.0, 2.0, 4.0]), logits, torch.tensor([0, 1, 0]), 0.7)
    assert counts.tolist() == [False, True, True]
    assert losses.tolist() == pytest.approx([0.0, 3.0, 6.0])
    assert losses.mean().item() == pytest.approx((2 + 4) / 2)  # the mean of the rows that count
    none, counts = annealed(torch.tensor([1.0]), logits[:1], torch.tensor([0]), 0.5)
    assert (none.tolist(), counts.tolist()) == ([0.0], [False])


def test_alignment_and_running_confidence_by_hand():
    """Means keep 0.9 of a half each; texts with (0.8, 0.2) and (0.6, 0.4) have the mean (0.7, 0.3). Labelled 1 : 3."""
    import torch

    from tunewell.unlabelled.consistency import Running

    found = Running([0.25, 0.75])
    aligned = found.update(torch.tensor([[0.8, 0.2], [0.6, 0.4]]).log()).softmax(-1)
    means = (0.9 * 0.5 + 0.07, 0.9 * 0.5 + 0.03)  # 0.52 and 0.48
    assert found.means.tolist() == pytest.approx(means)
    by_hand = []
    for p, q in ((0.8, 0.2), (0.6, 0.4)):
        a, b = p * 0.25 / means[0], q * 0.75 / means[1]
        by_hand.append([a / (a + b), b / (a + b)])
    assert aligned.tolist() == [pytest.approx(row, abs=1e-6) for row in by_hand]
    assert found.level == pytest.approx(0.9 * 0.5 + 0.1 * (max(by_hand[0]) + max(by_hand[1])) / 2)
    assert by_hand[1][1] > 0.5  # the second text is taken for the class that is given too seldom


def test_a_model_that_says_one_class_only_is_not_followed():
    """Answers that are the same for every text come out at the labelled shares, whatever class they are for."""
    import torch

    from tunewell.unlabelled.consistency import Running

    found = Running([0.5, 0.5])
    for _ in range(100):
        aligned = found.update(torch.tensor([[3.0, 0.0]] * 4)).softmax(-1)
    assert aligned[0].tolist() == pytest.approx([0.5, 0.5], abs=1e-3)


def test_the_texts_of_a_step_go_through_the_pool():
    from types import SimpleNamespace

    from tunewell.unlabelled.consistency import Consistency

    hook = Consistency([str(i) for i in range(10)], None, shares=[0.5, 0.5], max_length=16, threshold=0.9, weight=1.0)
    hook.prepare(SimpleNamespace(rows=2, seed=5, echo=lambda line: None))
    drawn = [hook.chosen(step).tolist() for step in range(5)]
    assert sorted([*drawn[0], *drawn[1], *drawn[2][:2]]) == list(range(10))  # the first pass: 4 + 4 + 2
    assert sorted([*drawn[2][2:], *drawn[3], *drawn[4]]) == list(range(10))  # the second, in another order
    assert drawn[0] != drawn[2][2:] + drawn[3][:2]


def test_the_strong_view_changes_words_and_keeps_most():
    from tunewell.unlabelled.consistency import changed

    text = "the crew was lovely and the meal was served hot and early today"
    made = {changed(text, np.random.default_rng(i)) for i in range(8)}
    assert len(made) > 5
    assert text not in made
    for other in made:
        assert len(set(other.split()) & set(text.split())) >= 5


def test_simcse_loss_by_hand():
    """Two texts. First readings (1, 0) and (0, 1), second ones (1, 0) and (1, 1)/√2; padding is not read."""
    import torch

    from tunewell.unlabelled.pretraining import simcse_loss

    r = math.sqrt(0.5)
    read = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [r, r]]
    hidden = torch.tensor(
        [[[2 * x, 2 * y], [0.0, 0.0], [7.0, -3.0]] for x, y in read]
    )  # mean of two; the third is padding
    mask = torch.tensor([[1, 1, 0]] * 4)
    cos = [[1.0, r], [0.0, r]]  # of first i and second j
    by_hand = [-math.log(math.exp(row[i] / 0.05) / sum(math.exp(c / 0.05) for c in row)) for i, row in enumerate(cos)]
    assert simcse_loss(hidden, mask).tolist() == pytest.approx(by_hand, abs=1e-5)


def test_mlm_loss_by_hand():
    """A text with two tokens asked for, and one with none."""
    import torch

    from tunewell.unlabelled.pretraining import mlm_loss

    logits = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [5.0, 1.0]], [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]])
    labels = torch.tensor([[0, 1, -100], [-100, -100, -100]])
    by_hand = (math.log(1 + math.exp(-1)) + math.log(2)) / 2
    assert mlm_loss(logits, labels).tolist() == pytest.approx([by_hand, 0.0], abs=1e-6)


def test_tokens_are_hidden_as_bert_does():
    """15 % asked for; of those 80 % hidden, 10 % another, 10 % as they are; never a special token."""
    from tunewell.unlabelled.pretraining import mask_tokens

    n = 40_000
    ids = np.full(n, 7)
    special = np.arange(n) % 4 == 0
    out, labels = mask_tokens(ids, special, 4, 1000, np.random.default_rng(0))
    asked = labels != -100
    assert not (asked & special).any()
    assert (labels[asked] == 7).all()
    assert (out[~asked] == 7).all()
    assert asked.sum() / (~special).sum() == pytest.approx(0.15, abs=0.01)
    assert (out[asked] == 4).mean() == pytest.approx(0.8, abs=0.02)
    assert (out[asked] == 7).mean() == pytest.approx(0.1, abs=0.02)
    one, alone = mask_tokens(np.array([1, 7, 2]), np.array([True, False, True]), 4, 1000, np.random.default_rng(3))
    assert (alone != -100).tolist() == [False, True, False]  # at least one token is asked for
    assert one[[0, 2]].tolist() == [1, 2]
