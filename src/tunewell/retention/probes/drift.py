"""Drift: how far general text has moved against the base model.

Neighbour overlap is the mean share of a text's 10 nearest neighbours (cosine) that it had under the
base model; chance is k / (n − 1). Linear CKA (Kornblith et al., 2019) compares the geometry of two
sets of embeddings; the debiased estimator (Székely & Rizzo, 2014; Nguyen et al., 2021) is 0 on
average for unrelated ones, however few the texts.

Both are 1 for the base model by definition and tell sameness, not an ability: a model can exchange
every neighbour and rank pairs as well as before. So they are shown, and count towards `keep` only
when the recipe names them.
"""

from __future__ import annotations

import numpy as np

from tunewell.retention.measurement import NEIGHBOURS, items_hash
from tunewell.retention.probes import Lookup, Probe
from tunewell.retention.probes.similarity import halve

TEXTS, MIN_WORDS = 300, 5


def general(half: str, seed: int) -> list[str]:
    """Sentences of the even Lee stories (general text for distillation takes only the odd ones)."""
    import re

    from tunewell.data.packaged import lee_stories
    from tunewell.retention.probes.topics import sample

    found = [s.strip() for story in halve(lee_stories("even"), half, seed) for s in re.split(r"(?<=[.!?])\s+", story)]
    return sample(list(dict.fromkeys(s for s in found if len(s.split()) >= MIN_WORDS)), TEXTS, seed)


def drift_probe(name: str, half: str, seed: int, *, counted: bool) -> Probe:
    texts = general(half, seed)

    def arrays(lookup: Lookup) -> dict[str, np.ndarray]:
        return {"vectors": lookup(texts).astype(np.float32)}

    title = {
        "neighbours": f"Neighbour overlap (top {NEIGHBOURS}, general text)",
        "cka": "Linear CKA with the base (general text)",
    }
    metric = {"neighbours": "overlap", "cka": "CKA"}[name]
    chance = NEIGHBOURS / (len(texts) - 1) if name == "neighbours" else 0.0
    return Probe(name, title[name], metric, name, tuple(texts), items_hash(name, texts), arrays, chance, counted)


def nearest(vectors: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Indices (n, k) of the k nearest other rows by cosine."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1, kind="stable")[:, :k]


def overlap(before: np.ndarray, after: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """(n,) share of each row's k nearest neighbours in `before` that it still has in `after` (both (n, H))."""
    k = min(k, len(before) - 1)
    a, b = nearest(before, k), nearest(after, k)
    return (a[:, :, None] == b[:, None, :]).any(axis=2).mean(axis=1)


def debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Debiased linear CKA of two embeddings of the same n ≥ 4 texts, (n, H₁) and (n, H₂)."""
    k, m = (_u_centred(v.astype(np.float64) @ v.astype(np.float64).T) for v in (x, y))
    scale = np.sqrt(max((k * k).sum(), 0.0) * max((m * m).sum(), 0.0))
    return float((k * m).sum() / scale) if scale > 0 else 0.0


def _u_centred(gram: np.ndarray) -> np.ndarray:
    """U-centring of Székely & Rizzo (2014): zero diagonal, rows and columns that sum to zero."""
    n = len(gram)
    gram = gram.copy()
    np.fill_diagonal(gram, 0.0)
    rows = gram.sum(axis=1) / (n - 2)
    out = gram - rows[:, None] - rows[None, :] + gram.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(out, 0.0)
    return out
