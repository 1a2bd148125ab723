"""Is the explanation true? What the model's answer loses when the words that are said to matter go or stay alone.

Comprehensiveness: the target's probability falls when the words that speak most for it are taken out; high is
good. Sufficiency: it falls little when only they stay; low is good (below 0 the rest had been in the way). Both are
averaged over the top 1, 5, 10, 20 and 50 % of the words (at least one word each), as ERASER's scorer does (AOPC;
DeYoung et al., 2020). Words are removed, not masked. The same words in random and in inverse order show what the
figures are worth.

For regression, words are ordered by the size of their score, since both signs move the value, and what counts is the
change of the value in either direction, in units of the label: comprehensiveness mean |f(x) − f(x without them)|,
sufficiency mean |f(x) − f(them alone)|. For methods without a sign the order is that of the scores.

Shapes: n texts, W words, K bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from tunewell.explain.segment import Item

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer

BINS = (0.01, 0.05, 0.1, 0.2, 0.5)
RANDOM_ORDERS = 5


@dataclass(frozen=True)
class Faithfulness:
    """How true an explanation of one text is.

    Attributes:
        comprehensiveness, sufficiency: of the explanation's own order, means over `bins`.
        comprehensiveness_random, sufficiency_random: means over random orders of the same words.
        comprehensiveness_inverse, sufficiency_inverse: of the order from the least important word on.
        bins: shares of words. comprehensiveness_by_bin, sufficiency_by_bin: (K,) the values behind the means.
        unit: "probability"; "label" for regression; "log-probability" for answers.
    """

    comprehensiveness: float
    sufficiency: float
    comprehensiveness_random: float
    sufficiency_random: float
    comprehensiveness_inverse: float
    sufficiency_inverse: float
    bins: tuple[float, ...]
    comprehensiveness_by_bin: tuple[float, ...]
    sufficiency_by_bin: tuple[float, ...]
    unit: str = "probability"

    @property
    def gap(self) -> float:
        """Comprehensiveness − sufficiency: what `auto` makes as large as it can."""
        return self.comprehensiveness - self.sufficiency

    @property
    def gap_random(self) -> float:
        return self.comprehensiveness_random - self.sufficiency_random

    @property
    def beats_random(self) -> bool:
        """Whether both figures are better than those of random orders."""
        return self.comprehensiveness > self.comprehensiveness_random and self.sufficiency < self.sufficiency_random


def order(scores: np.ndarray, *, regression: bool) -> np.ndarray:
    """Words (W,) from the most important on; equal scores in the order of the text."""
    return np.argsort(-(np.abs(scores) if regression else scores), kind="stable")


def top_sets(ranked: np.ndarray, bins: Sequence[float] = BINS) -> np.ndarray:
    """(K, W) bool: the top share of the words for each bin, at least one word.

    >>> top_sets(np.array([2, 0, 1]), (0.01, 0.5)).astype(int)
    array([[0, 0, 1],
           [1, 0, 1]])
    """
    n = len(ranked)
    place = np.argsort(ranked)  # of each word in the order
    return np.stack([place < size for size in sizes(n, bins)])


def sizes(n: int, bins: Sequence[float] = BINS) -> list[int]:
    """How many words the top share of n words has for each bin, at least one.

    >>> sizes(15)
    [1, 1, 2, 3, 8]
    """
    # rounded first: 0.2 · 5 must not become 1.0000000000000002 and so two words
    return [max(1, ceil(round(share * n, 9))) for share in bins]


def rows_to_measure(n: int, bins: Sequence[float] = BINS, random_orders: int = RANDOM_ORDERS) -> int:
    """At most how many rows `measure` sends through the model for a text of n words: 71 for a long one.

    >>> rows_to_measure(200), rows_to_measure(15), rows_to_measure(1)
    (71, 57, 2)
    """
    return min(1 + 2 * (2 + random_orders) * len(set(sizes(n, bins))), 2**n)


def measure(
    scorer: Scorer,
    items: Sequence[Item],
    targets: np.ndarray,
    scores: Sequence[np.ndarray],
    *,
    bins: Sequence[float] = BINS,
    random_orders: int = RANDOM_ORDERS,
    seed: int = 42,
) -> list[Faithfulness]:
    """Measure explanations of n texts.

    Args:
        targets: (n,) outputs. scores: for each text (W,).
        random_orders: how many random orders the control is the mean of; the same for every method.
    """
    regression = scorer.by_size
    asked, plans = [], []
    for item, s in zip(items, scores, strict=True):
        own = order(np.asarray(s), regression=regression)
        rng = np.random.default_rng([seed, item.key])
        orders = [own, own[::-1], *(rng.permutation(len(own)) for _ in range(random_orders))]
        tops = np.stack([top_sets(o, bins) for o in orders])  # (orders, K, W)
        plans.append(len(orders))
        asked.append((item, np.ones(len(item.words), dtype=bool)))
        asked += [(item, ~top) for top in tops.reshape(-1, tops.shape[-1])]
        asked += [(item, top) for top in tops.reshape(-1, tops.shape[-1])]
    logits = iter(scorer.without(asked))
    out = []
    for target, n_orders in zip(targets, plans, strict=True):
        values = scorer.probability(np.stack([next(logits) for _ in range(1 + 2 * n_orders * len(bins))]), int(target))
        out.append(_result(values, n_orders, bins, regression, scorer.unit))
    return out


def _result(values: np.ndarray, n_orders: int, bins: Sequence[float], regression: bool, unit: str) -> Faithfulness:
    lost = values[0] - values[1:]
    lost = (np.abs(lost) if regression else lost).reshape(2, n_orders, len(bins))
    own, inverse, random = lost[:, 0], lost[:, 1], lost[:, 2:]  # (2, K), (2, K), (2, orders, K)
    chance = [float(r.mean()) if random.shape[1] else float("nan") for r in random]
    return Faithfulness(
        comprehensiveness=float(own[0].mean()),
        sufficiency=float(own[1].mean()),
        comprehensiveness_random=chance[0],
        sufficiency_random=chance[1],
        comprehensiveness_inverse=float(inverse[0].mean()),
        sufficiency_inverse=float(inverse[1].mean()),
        bins=tuple(bins),
        comprehensiveness_by_bin=tuple(map(float, own[0])),
        sufficiency_by_bin=tuple(map(float, own[1])),
        unit=unit,
    )


@dataclass(frozen=True)
class Plausibility:
    """How far an explanation agrees with what people highlighted in one text.

    Attributes:
        auprc: area under the precision-recall curve of the scores (average precision), 0 to 1.
        token_f1: F1 of the top words, as many as were highlighted.
        prevalence: share of highlighted words, which is what random scores get in both.
    """

    auprc: float
    token_f1: float
    prevalence: float


def plausibility(scores: np.ndarray, highlighted: np.ndarray) -> Plausibility | None:
    """Agreement with human highlights (DeYoung et al., 2020).

    Args:
        scores: (W,). highlighted: (W,) 0 or 1.

    Returns:
        None where no word or every word is highlighted: nothing to tell apart.

    >>> plausibility(np.array([0.9, 0.1, 0.5]), np.array([1, 0, 0]))
    Plausibility(auprc=1.0, token_f1=1.0, prevalence=0.3333333333333333)
    """
    from sklearn.metrics import average_precision_score

    truth = np.asarray(highlighted).astype(bool)
    if truth.all() or not truth.any():
        return None
    top = np.argsort(-np.asarray(scores), kind="stable")[: truth.sum()]
    return Plausibility(float(average_precision_score(truth, scores)), float(truth[top].mean()), float(truth.mean()))
