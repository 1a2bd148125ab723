"""Error slices: kinds of texts on which a model errs more than elsewhere, found without anyone naming them.

Rows are cut into two halves by chance. On the first, texts are clustered so that rows of high loss draw the centres
to themselves (k-means weighted by loss, on what the texts say and on how the model reads them), and the clusters with
the clearest excess of errors are put forward. On the second half, which had no part in it, every text goes to its
nearest centre, and each of the few clusters put forward is tested against all other texts (Fisher's exact test, one
side), with p-values adjusted by Holm for their number. What chance put together on the first half does not come
through. Only the text decides where a row belongs, never its label or answer.

In the manner of Eyuboglu et al., 2022, Domino, and d'Eon et al., 2022, The Spotlight, which however report slices
on the rows that they were found on.

Words that tell a slice from the rest are those with the highest log-odds under an informative Dirichlet prior
(Monroe et al., 2008, Fightin' Words), counted once a text.

Shapes: n rows, D dimensions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tunewell.errors import DataError
from tunewell.results import Estimate, Record

LEAST = 80  # rows: a half must hold clusters large enough to be tested
SMALLEST = 10  # rows of a cluster on the first half
CLUSTERS = (6, 12, 24)
TESTED = 5
LEVEL = 0.05
WORDS = 6
PRIOR = 500.0  # pseudo-counts of the prior, handed out by how many texts hold a word
CLEAR = 1.96  # z of a word that is shown
OVERLAP = 0.5  # Jaccard index from which two clusters count as one
LSA = 50


class SliceExample(Record):
    text: str
    label: str
    prediction: str


class Slice(Record):
    """One kind of texts.

    Attributes:
        words: those that tell it from the rest, the clearest first.
        n: its rows in both halves. share_of_errors: of all errors.
        rate, rest: error rate inside and outside, on the held-out half, with Wilson intervals.
        p: of the test on the held-out half, adjusted by Holm.
        found: the error rate on the half that it was found on, which flatters the search.
        labels: shares of its most frequent true labels.
    """

    words: tuple[str, ...]
    n: int
    share_of_errors: float
    rate: Estimate
    rest: Estimate
    p: float
    found: float
    labels: dict[str, float]
    examples: tuple[SliceExample, ...] = ()


class Slices(Record):
    """`slices.json`: kinds of texts with more errors, those that hold on the held-out half.

    Attributes:
        rows: all; half of them were held out. errors: their error rate.
        tested: how many clusters were put to the test. error: what counts as one.
    """

    slices: tuple[Slice, ...]
    rows: int
    errors: float
    tested: int
    error: str
    seconds: float = 0.0


def find_slices(
    texts: Sequence[str],
    wrong: np.ndarray,
    loss: np.ndarray,
    vectors: np.ndarray | None = None,
    *,
    seed: int = 42,
) -> tuple[list[tuple[np.ndarray, float, float]], np.ndarray, int]:
    """Clusters whose excess of errors holds on the held-out half.

    Args:
        texts: n. wrong: (n,) bool. loss: (n,) not below 0, of any unit. vectors: (n, D) how the model reads them.

    Returns:
        For each slice (n,) bool its members, its adjusted p-value and its error rate on the first half; then (n,)
        bool the held-out half; then how many clusters were tested.

    Raises:
        DataError: fewer than 80 rows.
    """
    from scipy.stats import fisher_exact

    from tunewell.evaluate.statistics import holm

    wrong, n = np.asarray(wrong, dtype=bool), len(texts)
    if n < LEAST:
        raise DataError(f"{n} rows are too few to look for slices", expected=f"at least {LEAST}")
    held = np.zeros(n, dtype=bool)
    held[np.random.default_rng(seed).permutation(n)[: n // 2]] = True
    points = _points(texts, vectors, seed)
    candidates: list[tuple[float, np.ndarray]] = []
    for k in CLUSTERS:
        if k * SMALLEST > (~held).sum():
            continue
        for members in _clusters(points, np.asarray(loss, dtype=np.float64), ~held, k, seed):
            p = _fisher(members & ~held, ~members & ~held, wrong, fisher_exact)
            if (members & ~held).sum() >= SMALLEST and p < 0.5:
                candidates.append((p, members))
    chosen: list[np.ndarray] = []
    for _, members in sorted(candidates, key=lambda pair: pair[0]):
        if all(_jaccard(members, other) < OVERLAP for other in chosen):
            chosen.append(members)
        if len(chosen) == TESTED:
            break
    adjusted = holm([_fisher(m & held, ~m & held, wrong, fisher_exact) for m in chosen])
    kept = sorted(
        ((members, p, float(wrong[members & ~held].mean())) for members, p in zip(chosen, adjusted, strict=True)),
        key=lambda found: found[1],
    )
    return [found for found in kept if found[1] < LEVEL], held, len(chosen)


def slices_of(
    texts: Sequence[str],
    labels: Sequence[str],
    predictions: Sequence[str],
    wrong: np.ndarray,
    loss: np.ndarray,
    vectors: np.ndarray | None = None,
    *,
    error: str = "wrong answer",
    seed: int = 42,
) -> Slices:
    """The record of `find_slices`, with words, figures and examples.

    Args:
        labels, predictions: n each, as they are to be shown. error: what counts as one, in words.
    """
    import time

    started = time.perf_counter()
    wrong = np.asarray(wrong, dtype=bool)
    found, held, tested = find_slices(texts, wrong, loss, vectors, seed=seed)
    out = []
    for members, p, before in found:
        inside, outside = (np.flatnonzero(side).tolist() for side in (members, ~members))
        z = fighting_words([texts[i] for i in inside], [texts[i] for i in outside])
        worst = [i for i in np.argsort(-np.asarray(loss), kind="stable").tolist() if members[i]][:3]
        counts = Counter(labels[i] for i in inside)
        out.append(
            Slice(
                words=tuple(word for word, value in z[:WORDS] if value >= CLEAR),
                n=int(members.sum()),
                share_of_errors=float((wrong & members).sum() / max(1, wrong.sum())),
                rate=_rate(wrong[members & held]),
                rest=_rate(wrong[~members & held]),
                p=p,
                found=before,
                labels={name: count / int(members.sum()) for name, count in counts.most_common(3)},
                examples=tuple(SliceExample(text=texts[i], label=labels[i], prediction=predictions[i]) for i in worst),
            )
        )
    return Slices(
        slices=tuple(out), rows=len(texts), errors=float(wrong.mean()), tested=tested, error=error,
        seconds=round(time.perf_counter() - started, 2),
    )  # fmt: skip


def fighting_words(inside: Sequence[str], outside: Sequence[str], *, prior: float = PRIOR) -> list[tuple[str, float]]:
    """Words by how surely they are more frequent inside than outside: z of the log-odds ratio, largest first.

    δ = log((y₁ + α) / (n₁ + α₀ − y₁ − α)) − the same outside, var ≈ 1 / (y₁ + α) + 1 / (y₂ + α), z = δ / √var, with y
    the texts that hold the word, n their sum over words, and α = α₀ · (y₁ + y₂) / (n₁ + n₂).

    Args:
        prior: α₀.
    """
    one, two = (Counter(word for text in texts for word in set(_words(text))) for texts in (inside, outside))
    n1, n2 = sum(one.values()), sum(two.values())
    out = []
    for word in one:
        y1, y2 = one[word], two[word]
        a = prior * (y1 + y2) / (n1 + n2)
        delta = np.log((y1 + a) / (n1 + prior - y1 - a)) - np.log((y2 + a) / (n2 + prior - y2 - a))
        out.append((word, float(delta / np.sqrt(1 / (y1 + a) + 1 / (y2 + a)))))
    return sorted(out, key=lambda pair: (-pair[1], pair[0]))


def _words(text: str) -> list[str]:
    from tunewell.explain.segment import units

    found = [text[a:b].lower() for a, b in units(text)]
    return [word for word in found if re.search(r"\w", word)]


def _points(texts: Sequence[str], vectors: np.ndarray | None, seed: int) -> np.ndarray:
    """(n, D) what texts say (LSA of TF-IDF) beside how the model reads them, each of length 1."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    table: Any = TfidfVectorizer(analyzer=_words, sublinear_tf=True, min_df=2)
    try:
        counted = table.fit_transform(texts)
    except ValueError:  # no word in two texts
        counted = None
    parts = []
    if counted is not None and counted.shape[1] > 1:
        size = min(LSA, counted.shape[1] - 1)
        parts.append(normalize(TruncatedSVD(size, random_state=seed).fit_transform(counted)))
    if vectors is not None:
        parts.append(normalize(np.asarray(vectors, dtype=np.float64) - np.mean(vectors, axis=0)))
    return np.hstack(parts) if parts else np.zeros((len(texts), 1))


def _clusters(points: np.ndarray, loss: np.ndarray, seen: np.ndarray, k: int, seed: int) -> list[np.ndarray]:
    """k sets of rows (n,) bool: centres from the rows `seen`, weighted by loss; all rows go to the nearest."""
    from sklearn.cluster import KMeans

    weights = loss[seen] + loss[seen].mean() + 1e-9  # rows without loss keep half a voice
    fitted = KMeans(k, n_init=4, random_state=seed).fit(points[seen], sample_weight=weights)
    place = fitted.predict(points)
    return [place == c for c in range(k)]


def _fisher(inside: np.ndarray, outside: np.ndarray, wrong: np.ndarray, test: Any) -> float:
    """One-sided p-value that errors are more frequent inside."""
    table = [[int((wrong & inside).sum()), int((~wrong & inside).sum())],
             [int((wrong & outside).sum()), int((~wrong & outside).sum())]]  # fmt: skip
    return float(test(table, alternative="greater").pvalue) if sum(table[0]) else 1.0


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def _rate(wrong: np.ndarray) -> Estimate:
    from tunewell.evaluate.statistics import wilson

    n = len(wrong)
    if not n:
        return Estimate(value=None, low=None, high=None, n=0)
    low, high = wilson(int(wrong.sum()), n)
    return Estimate(value=float(wrong.mean()), low=low, high=high, n=n)
