"""Selection methods against their definitions, worked by hand or by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from tunewell.selection.candidates import Candidates, distances, unit
from tunewell.selection.methods import METHODS, entropy_of, margin_of, settle

P = np.array([[0.5, 0.5, 0.0], [0.98, 0.01, 0.01], [0.4, 0.3, 0.3], [0.7, 0.3, 0.0]])


def choose(name, c, n, seed=0):
    places, scores = METHODS[name].choose(c, n, np.random.default_rng(seed))
    assert len(places) == len(scores) == n
    assert len(set(places.tolist())) == n
    return places.tolist()


@pytest.fixture
def pool():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(3), 30)
    return Candidates(
        rng.standard_normal((30, 5)), rng.standard_normal((9, 5)), p, rng.dirichlet(np.ones(3), 9),
        rng.dirichlet(np.ones(3), (4, 30)), np.array([3, 3, 3]),
    )  # fmt: skip


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_gives_different_rows_and_the_same_again(pool, name):
    assert choose(name, pool, 12) == choose(name, pool, 12)
    assert sorted(choose(name, pool, 30)) == list(range(30))


@pytest.mark.parametrize(
    ("name", "order"), [("entropy", [2, 0, 3, 1]), ("margin", [0, 2, 3, 1]), ("least_confidence", [2, 0, 3, 1])]
)
def test_uncertainty_by_hand(name, order):
    c = Candidates(np.zeros((4, 2)), np.zeros((0, 2)), P)
    assert choose(name, c, 4) == order
    assert entropy_of(P)[0] == pytest.approx(np.log(2))
    assert margin_of(P) == pytest.approx([0, 0.97, 0.1, 0.4])


def test_bald_asks_where_passes_disagree():
    """Two passes sure of opposite classes carry log 2; two that are both torn carry nothing."""
    passes = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])
    c = Candidates(np.zeros((2, 2)), np.zeros((0, 2)), passes.mean(0), None, passes)
    places, scores = METHODS["bald"].choose(c, 2, np.random.default_rng(0))
    assert places.tolist() == [0, 1]
    assert scores == pytest.approx([np.log(2), 0], abs=1e-9)


def test_badge_is_k_means_plus_plus_on_gradients(pool):
    p = pool.probabilities
    a = p - np.eye(3)[p.argmax(1)]
    gradients = (a[:, :, None] * unit(pool.vectors)[:, None, :]).reshape(30, -1)
    rng = np.random.default_rng(0)
    wanted = [int((gradients**2).sum(1).argmax())]
    while len(wanted) < 6:
        nearest = distances(gradients, gradients[wanted]).min(1)
        nearest[wanted] = 0
        wanted.append(int(rng.choice(30, p=nearest / nearest.sum())))
    assert choose("badge", pool, 6) == wanted


def test_cal_is_the_divergence_from_labelled_neighbours(pool):
    from scipy.stats import entropy

    x, labelled = unit(pool.vectors), unit(pool.labelled)
    wanted = []
    for i in range(30):
        near = np.argsort(((x[i] - labelled) ** 2).sum(1))[:10]
        wanted.append(np.mean([entropy(pool.labelled_probabilities[j], pool.probabilities[i]) for j in near]))
    places, scores = METHODS["cal"].choose(pool, 30, np.random.default_rng(0))
    assert places.tolist() == np.argsort(-np.array(wanted), kind="stable").tolist()
    assert scores == pytest.approx(sorted(wanted, reverse=True))


def test_coreset_goes_to_the_farthest():
    angles = np.deg2rad([0, 10, 90, 100, 180])
    points = np.stack([np.cos(angles), np.sin(angles)], 1)
    c = Candidates(points[1:], points[:1])
    assert choose("coreset", c, 2) == [3, 1]  # 180°, then 90°, which is farther from both than 100°


def blobs(seed=0, sizes=(60, 30, 10)):
    rng = np.random.default_rng(seed)
    centres = np.eye(3) * 5
    return np.concatenate([c + 0.2 * rng.standard_normal((n, 3)) for c, n in zip(centres, sizes, strict=True)])


def test_typiclust_takes_a_typical_row_of_each_cluster_the_largest_first():
    x = blobs()
    places = choose("typiclust", Candidates(x, np.zeros((0, 3))), 3)
    assert [0 if i < 60 else 1 if i < 90 else 2 for i in places] == [0, 1, 2]
    for place, rows in zip(places, (range(60), range(60, 90), range(90, 100)), strict=True):
        mean = {i: np.sort(np.linalg.norm(unit(x)[list(rows)] - unit(x)[i], axis=1))[1:21].mean() for i in rows}
        assert place == min(mean, key=lambda i: mean[i])
    labelled = Candidates(x, blobs(1)[[0, 70]])  # two of the three are known already
    assert choose("typiclust", labelled, 1)[0] >= 90


def test_kmeans_takes_central_rows():
    x = blobs()
    places = choose("kmeans", Candidates(x, np.zeros((0, 3))), 3)
    assert sorted(0 if i < 60 else 1 if i < 90 else 2 for i in places) == [0, 1, 2]


def test_diverse_margin_spreads_over_uncertain_rows_and_turns_to_rare_classes():
    x = np.concatenate([blobs(), blobs(1)])
    p = np.tile([0.97, 0.03], (200, 1))
    p[100:] = [0.52, 0.48]  # the second hundred is uncertain
    c = Candidates(x, np.zeros((0, 3)), p, None, None, np.array([50, 50]))
    places = choose("diverse_margin", c, 10)
    assert min(places) >= 100
    assert {0 if i < 160 else 1 if i < 190 else 2 for i in places} == {0, 1, 2}
    rare = p.copy()
    rare[:4] = [0.45, 0.55]  # a little surer than the rest, but of the class that has few labels
    c = Candidates(x, np.zeros((0, 3)), rare, None, None, np.array([90, 10]))
    places, scores = METHODS["diverse_margin"].choose(c, 200, np.random.default_rng(0))
    assert set(places[:4].tolist()) == {0, 1, 2, 3}
    assert scores[:4] == pytest.approx(np.full(4, 0.9 * 3))


def test_auto_begins_with_typical_rows():
    x = blobs()
    cold = Candidates(x, x[:3], np.full((100, 2), 0.5), None, None, np.array([2, 1]))
    warm = Candidates(x, x[:4], np.full((100, 2), 0.5), None, None, np.array([2, 2]))
    assert (settle("auto", cold), settle("auto", warm)) == ("typiclust", "diverse_margin")
    assert settle("auto", Candidates(x, x[:90])) == "typiclust"
    assert settle("margin", cold) == "margin"
