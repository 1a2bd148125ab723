"""Similarity: does the cosine of two texts' embeddings rank pairs as people do? Spearman's correlation.

Sentences: STS-B (Cer et al., 2017); the dev split is the select half, the test split the report half.
Words: wordsim353 (Finkelstein et al., 2002), simlex999 (Hill et al., 2015), cut into halves by seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewell.retention.measurement import items_hash
from tunewell.retention.probes import Lookup, Probe

SENTENCE_PAIRS = {"select": 600, "report": 1379}  # the dev split has 1,500 pairs, the test split 1,379


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the rows of a and b (n, H): (n,)."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(norms, 1e-12)


def similarity_probe(name: str, title: str, pairs: Sequence[tuple[str, str, float]], *, counted: bool = True) -> Probe:
    """A probe of (text, text, human score) triples."""
    left, right = [p[0] for p in pairs], [p[1] for p in pairs]
    gold = np.array([p[2] for p in pairs], dtype=np.float64)

    def arrays(lookup: Lookup) -> dict[str, np.ndarray]:
        return {"cosine": cosine(lookup(left), lookup(right)).astype(np.float64), "gold": gold}

    return Probe(name, title, "Spearman", "spearman", (*left, *right), items_hash(name, pairs), arrays, counted=counted)


def halve(items: Sequence, half: str, seed: int) -> list:
    """One of two disjoint seeded halves, in the order of the items."""
    order = np.random.default_rng(seed).permutation(len(items))
    chosen = order[: len(items) // 2] if half == "select" else order[len(items) // 2 :]
    return [items[i] for i in np.sort(chosen)]


def sentences(half: str, seed: int) -> Probe:
    from tunewell.data.packaged import sts_pairs

    pairs = sts_pairs("dev" if half == "select" else "test")
    if len(pairs) > SENTENCE_PAIRS[half]:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(pairs))[: SENTENCE_PAIRS[half]])
        pairs = [pairs[i] for i in chosen]
    return similarity_probe("similarity", "Sentence similarity (STS-B)", pairs)


def words(name: str, title: str, half: str, seed: int) -> Probe:
    from tunewell.data.packaged import word_pairs

    return similarity_probe(name, title, halve(word_pairs(name), half, seed))  # type: ignore[arg-type]
