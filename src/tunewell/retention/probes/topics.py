"""Topic separation: accuracy of a linear probe (Alain & Bengio, 2016) on frozen embeddings.

Each model gets its own probe: a logistic regression with fixed penalty on standardised embeddings,
trained on the same documents. Chance is the share of the most frequent topic. Reuters R8 (Debole &
Sebastiani, 2005): the probe's training documents are the same in both halves, the documents it is
measured on are not. Only the first words are read, which hold the topic of a news story.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tunewell.retention.measurement import items_hash
from tunewell.retention.probes import Lookup, Probe
from tunewell.retention.probes.similarity import halve

TRAIN_DOCUMENTS, FIRST_WORDS = 400, 32
TEST_DOCUMENTS = {"select": 400, "report": 900}
PENALTY = 0.1  # C of the logistic regression


def topics_probe(
    name: str, title: str, train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]], *, counted: bool = True
) -> Probe:
    """A probe of (text, label) rows: fitted on `train`, measured on `test`."""
    texts, learned = [t for t, _ in train], np.array([label for _, label in train])
    asked, truth = [t for t, _ in test], np.array([label for _, label in test])
    chance = Counter(truth.tolist()).most_common(1)[0][1] / len(truth)

    def arrays(lookup: Lookup) -> dict[str, np.ndarray]:
        answers = predict(lookup(texts), learned, lookup(asked))
        return {"right": (answers == truth).astype(np.float64), "answer": answers, "truth": truth}

    items = items_hash(name, train, test)
    return Probe(name, title, "accuracy", "accuracy", (*texts, *asked), items, arrays, chance=chance, counted=counted)


def predict(x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Answers of a logistic regression fitted on embeddings x (n, H) with labels y (n,)."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=PENALTY, max_iter=300).fit(scaler.transform(x), y)
    return model.predict(scaler.transform(asked))


def sample(rows: Sequence, n: int, seed: int) -> list:
    """At most n rows, seeded, in their order."""
    if len(rows) <= n:
        return list(rows)
    return [rows[i] for i in np.sort(np.random.default_rng(seed).permutation(len(rows))[:n])]


def reuters(half: str, seed: int) -> Probe:
    from tunewell.data.packaged import topics

    def first(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return [(" ".join(text.split()[:FIRST_WORDS]), label) for text, label in rows]

    train = sample(topics("train"), TRAIN_DOCUMENTS, seed)
    test = sample(halve(topics("test"), half, seed), TEST_DOCUMENTS[half], seed)
    return topics_probe("topics", "Topic separation (Reuters R8)", first(train), first(test))
