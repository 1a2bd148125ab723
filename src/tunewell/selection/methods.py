"""Methods of active selection: which n rows of a pool are worth a label.

Each takes `Candidates`, n ≤ m and a seeded generator, and gives the places of n different rows, best first, with a
score of each (higher is more wanted; its meaning is the method's own).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunewell.selection.candidates import Candidates, distances, unit

Chosen = tuple[np.ndarray, np.ndarray]
NEIGHBOURS = 20  # of a row's typicality
CAL_NEIGHBOURS = 10
MOST_CLUSTERS = 500
COLD = 2  # labels a class below which uncertainty says little
WIDE = 10  # times n: the uncertain rows among which `auto` spreads


def random(c: Candidates, n: int, rng: np.random.Generator) -> Chosen:
    """Any n rows: what every other method must beat."""
    return rng.permutation(len(c))[:n], np.zeros(n)


def entropy(c: Candidates, n: int, rng: np.random.Generator) -> Chosen:
    """Highest entropy of the prediction (Settles, 2009)."""
    return _top(entropy_of(_known(c)), n)


def least_confidence(c: Candidates, n: int, rng: np.random.Generator) -> Chosen:
    """Lowest probability of the likeliest class (Lewis & Gale, 1994)."""
    return _top(1 - _known(c).max(1), n)


def margin(c: Candidates, n: int, rng: np.random.Generator) -> Chosen:
    """Smallest gap between the two likeliest classes (Scheffer et al., 2001)."""
    return _top(1 - margin_of(_known(c)), n)


def bald(c: Candidates, n: int, rng: np.random.Generator) -> Chosen:
    """Mutual information of prediction and weights (Houlsby et al., 2011), by dropout (Gal et al., 2017)."""
    assert c.passes is not None
    return _top(entropy_of(c.passes.mean(0)) - entropy_of(c.passes).mean(0), n)


def badge(c: Candidates, n: int, rng: np.random.Generator) -> Chosen:
    """k-means++ on the gradients of the last layer under the predicted label (Ash et al., 2020).

    A gradient is the outer product of p − y and the embedding; distances are computed from the two factors.
    """
    p = _known(c)
    a = p - (np.arange(p.shape[1])[None, :] == p.argmax(1)[:, None])
    h = unit(c.vectors)
    length = (a * a).sum(1)  # times 1, the length of h
    first = int(length.argmax())
    chosen, nearest = [first], np.maximum(length + length[first] - 2 * (a @ a[first]) * (h @ h[first]), 0)
    scores = [float(length[first])]
    while len(chosen) < n:
        nearest[chosen] = 0
        total = nearest.sum()
        weights = nearest / total if total > 0 else _left(len(c), chosen)
        pick = int(rng.choice(len(c), p=weights))
        scores.append(float(nearest[pick]))
        chosen.append(pick)
        nearest = np.minimum(nearest, np.maximum(length + length[pick] - 2 * (a @ a[pick]) * (h @ h[pick]), 0))
    return np.array(chosen), np.array(scores)


def cal(c: Candidates, n: int, rng: np.random.Generator) -> Chosen:
    """Rows that are predicted unlike their labelled neighbours (contrastive; Margatina et al., 2021)."""
    p = np.clip(_known(c), 1e-12, 1)
    assert c.labelled_probabilities is not None
    q = np.clip(c.labelled_probabilities, 1e-12, 1)
    k = min(CAL_NEIGHBOURS, len(q))
    near = np.argpartition(distances(unit(c.vectors), unit(c.labelled)), k - 1, axis=1)[:, :k]
    divergence = (q[near] * (np.log(q[near]) - np.log(p)[:, None, :])).sum(2).mean(1)  # KL(neighbour ‖ row)
    return _top(divergence, n)


def coreset(c: Candidates, n: int, rng: np.random.Generator) -> Chosen:
    """k-centre, greedily: always the row farthest from all that is labelled or chosen (Sener & Savarese, 2018)."""
    x = unit(c.vectors)
    known = unit(c.labelled) if len(c.labelled) else x.mean(0, keepdims=True)  # without labels, begin far from the mean
    nearest = distances(x, known).min(1)
    chosen: list[int] = []
    scores: list[float] = []
    for _ in range(n):
        nearest[chosen] = -1
        pick = int(nearest.argmax())
        scores.append(float(np.sqrt(nearest[pick])))
        chosen.append(pick)
        nearest = np.minimum(nearest, distances(x, x[pick : pick + 1])[:, 0])
    return np.array(chosen), np.array(scores)


def kmeans(c: Candidates, n: int, rng: np.random.Generator) -> Chosen:
    """The row nearest to the centre of each of n clusters."""
    return _central(c, np.arange(len(c)), n, rng, None)


def typiclust(c: Candidates, n: int, rng: np.random.Generator) -> Chosen:
    """The most typical row of each cluster, large ones without a label first (TypiClust; Hacohen et al., 2022)."""
    both = unit(np.concatenate([c.labelled, c.vectors])) if len(c.labelled) else unit(c.vectors)
    offset = len(c.labelled)
    clusters = min(len(c.labelled) + n, MOST_CLUSTERS, len(both))
    member = _cluster(both, clusters, rng, None)
    typical = _typicality(both, member)
    sizes = np.bincount(member, minlength=clusters)
    labels = np.bincount(member[:offset], minlength=clusters)
    chosen: list[int] = []
    scores: list[float] = []
    free = [set(np.flatnonzero(member[offset:] == k).tolist()) for k in range(clusters)]
    while len(chosen) < n:
        open_ = [k for k in range(clusters) if free[k]]
        best = min(open_, key=lambda k: (labels[k], -sizes[k]))
        pick = max(free[best], key=lambda i: typical[offset + i])
        free[best].remove(pick)
        labels[best] += 1
        chosen.append(pick)
        scores.append(float(typical[offset + pick]))
    return np.array(chosen), np.array(scores)


def diverse_margin(c: Candidates, n: int, rng: np.random.Generator) -> Chosen:
    """Uncertain rows, spread out: the central row of each of n clusters of the 10 n smallest margins, weighted by
    uncertainty (Zhdanov, 2019). Where the labelled classes are unequal, rows predicted to be of a rare one weigh more.
    """
    p = _known(c)
    wanted = (1 - margin_of(p)) * _rarity(p, c.counts)
    few = np.argsort(-wanted, kind="stable")[: min(len(c), max(WIDE * n, 50))]
    places, _ = _central(c, few, n, rng, wanted[few])
    return places, wanted[places]


def auto(c: Candidates, n: int, rng: np.random.Generator) -> Chosen:
    """`typiclust` while a class has fewer than 2 labels on average or there is no model, then `diverse_margin`."""
    return METHODS[settle("auto", c)].choose(c, n, rng)


def settle(name: str, c: Candidates) -> str:
    """The method that a name stands for here: what `auto` comes to."""
    if name != "auto":
        return name
    cold = c.probabilities is None or len(c.labelled) < COLD * max(1, len(c.counts))
    return "typiclust" if cold else "diverse_margin"


@dataclass(frozen=True)
class Method:
    """A method, and what it cannot do without."""

    choose: Callable[[Candidates, int, np.random.Generator], Chosen]
    score: str  # what its score is
    model: bool = False  # probabilities of one class out of several
    labelled: bool = False
    dropout: bool = False


METHODS: dict[str, Method] = {
    "auto": Method(auto, ""),
    "random": Method(random, "none"),
    "entropy": Method(entropy, "entropy in nats", model=True),
    "margin": Method(margin, "1 − gap of the two likeliest classes", model=True),
    "least_confidence": Method(least_confidence, "1 − probability of the likeliest class", model=True),
    "diverse_margin": Method(diverse_margin, "1 − gap, times the predicted class's rarity", model=True),
    "bald": Method(bald, "mutual information in nats", model=True, dropout=True),
    "badge": Method(badge, "squared distance of gradients to those chosen before", model=True),
    "cal": Method(cal, "divergence from labelled neighbours in nats", model=True, labelled=True),
    "coreset": Method(coreset, "distance to what is labelled or chosen"),
    "kmeans": Method(kmeans, "similarity to the centre of its cluster"),
    "typiclust": Method(typiclust, "typicality: 1 / mean distance to 20 neighbours"),
}


# ---------------------------------------------------------------- parts


def entropy_of(p: np.ndarray) -> np.ndarray:
    """(...) entropy in nats of distributions (..., C)."""
    return -(p * np.log(np.maximum(p, 1e-12))).sum(-1)


def margin_of(p: np.ndarray) -> np.ndarray:
    """(m,) probability of the likeliest class minus that of the second."""
    two = np.partition(p, p.shape[1] - 2, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


def _known(c: Candidates) -> np.ndarray:
    assert c.probabilities is not None
    return c.probabilities


def _top(score: np.ndarray, n: int) -> Chosen:
    order = np.argsort(-score, kind="stable")[:n]
    return order, score[order]


def _left(m: int, chosen: list[int]) -> np.ndarray:
    weights = np.ones(m)
    weights[chosen] = 0
    return weights / weights.sum()


def _rarity(p: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(m,) at least 1: root of the largest class's count over the predicted class's, where one has under half of it."""
    if not len(counts) or counts.min() >= counts.max() / 2:
        return np.ones(len(p))
    return np.sqrt(counts.max() / np.maximum(counts, 1))[p.argmax(1)]


def _cluster(x: np.ndarray, k: int, rng: np.random.Generator, weights: np.ndarray | None) -> np.ndarray:
    """(m,) cluster of each row, by k-means; mini-batches where there are many."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    seed = int(rng.integers(2**31))
    large = len(x) * k > 5_000_000
    kind: Any = MiniBatchKMeans(k, random_state=seed, n_init=3, batch_size=4096) if large else KMeans(
        k, random_state=seed, n_init=1 if k > 50 else 4
    )  # fmt: skip
    return kind.fit_predict(x, sample_weight=weights)


def _central(c: Candidates, few: np.ndarray, n: int, rng: np.random.Generator, weights: np.ndarray | None) -> Chosen:
    """For each of n clusters of the rows `few`, the one nearest to the weighted mean; the largest clusters first."""
    x = unit(c.vectors[few])
    if len(few) <= n:
        return few[:n], np.ones(min(n, len(few)))
    member = _cluster(x, n, rng, None if weights is None else np.maximum(weights, 1e-9))
    w = np.ones(len(few)) if weights is None else np.maximum(weights, 1e-9)
    places, scores, sizes = [], [], []
    for k in np.unique(member):
        rows = np.flatnonzero(member == k)
        centre = (x[rows] * w[rows, None]).sum(0) / w[rows].sum()
        apart = distances(x[rows], centre[None])[:, 0]
        places.append(int(rows[apart.argmin()]))
        scores.append(float(1 - apart.min() / 2))
        sizes.append(len(rows))
    order = np.argsort([-s for s in sizes], kind="stable").tolist()
    taken = [places[i] for i in order]
    rest = [i for i in range(len(few)) if i not in set(taken)]  # an empty cluster leaves a place
    extra = rest[: n - len(taken)]
    return few[[*taken, *extra]], np.array([scores[i] for i in order] + [0.0] * len(extra))


def _typicality(x: np.ndarray, member: np.ndarray) -> np.ndarray:
    """(m,) inverse mean distance to the nearest rows of the same cluster; 0 for a row that is alone."""
    out = np.zeros(len(x))
    for k in np.unique(member):
        rows = np.flatnonzero(member == k)
        if len(rows) < 2:
            continue
        near = min(NEIGHBOURS, len(rows) - 1)
        for start in range(0, len(rows), 2048):
            some = rows[start : start + 2048]
            apart = np.sqrt(np.partition(distances(x[some], x[rows]), near, axis=1)[:, : near + 1])
            out[some] = 1 / np.maximum(apart.sum(1) / near, 1e-9)  # the row itself is at 0
    return out
