"""What is kept, estimated from a few general texts: cheap enough to be read while a model is tuned.

Encoders: how the tuned model's embeddings of n texts relate to the base model's. Of the statistics below,
`cosine` is the one that the monitor reads: it ranks as well as the others within their intervals, and its scale is
the same on both models that it was tried on; `benchmarks/monitor.py` shows how well each does.

Decoders: forward KL(p₀ ‖ p) a token on general text. The expected surprise of a text that the base model
itself would write is H(p₀) + KL(p₀ ‖ p), so bits per byte, whose retention is before / after, are kept to about
n₀ / (n₀ + KL), with n₀ the base model's surprise a token on the same texts.

Shapes: n texts, H hidden size, P tokens, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


LOST = 1 / 3


def cosines(vectors: np.ndarray) -> np.ndarray:
    """(n (n − 1) / 2,) cosines of all pairs of rows of (n, H)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return (unit @ unit.T)[np.triu_indices(len(unit), 1)]


def structure(before: np.ndarray, after: np.ndarray) -> float:
    """Spearman correlation of the pairwise cosines of two sets of embeddings (n, H): 1 means that nothing moved.

    Representational similarity analysis (Kriegeskorte et al., 2008). If what has moved knows nothing of a
    probe's truth, a probe's rank correlation falls by just this factor (attenuation; Spearman, 1904): the worst case.

    >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    >>> round(structure(x, 3 * x), 6)
    1.0
    """
    from scipy.stats import rankdata

    a, b = (rankdata(np.round(cosines(v.astype(np.float64)), 9)) for v in (before, after))
    if a.std() == 0 or b.std() == 0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1.0, 1.0))


def kept_cosine(found: float) -> float:
    """The mean retention of the probes that a mean cosine foretells: 1 − LOST · (1 − cosine).

    What moves first is mostly what no probe asks for, hence a factor below 1; it is fitted to checkpoints of tunings by
    several strategies and rates, see the docs (Concepts, The monitor).

    >>> kept_cosine(1.0), round(kept_cosine(0.94), 3)
    (1.0, 0.98)
    """
    return 1 - LOST * (1 - found)


def mean_cosine(before: np.ndarray, after: np.ndarray) -> float:
    """Mean over texts of the cosine between a text's two embeddings, both (n, H)."""
    from tunewell.retention.probes.similarity import cosine

    return float(cosine(before, after).mean())


def statistics(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """All statistics of two sets of embeddings (n, H); each is 1 for the base model itself.

    structure: see there. cka: debiased linear CKA. neighbours: share of the 10 nearest kept. cosine: mean cosine
    of a text's two embeddings. distance: 1 − mean of ‖e − e₀‖² / ‖e₀‖².
    """
    from tunewell.retention.probes.drift import debiased_cka, overlap

    away = np.square(after - before).sum(axis=1) / np.maximum(np.square(before).sum(axis=1), 1e-12)
    return {
        "structure": structure(before, after),
        "cka": debiased_cka(before, after),
        "neighbours": float(overlap(before, after).mean()),
        "cosine": mean_cosine(before, after),
        "distance": float(1 - away.mean()),
    }


def forward_kl(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Mean over tokens of KL(p₀ ‖ p) in nats.

    Args:
        before: log-probabilities of the base model (P, V). after: logits (or log-probabilities) now (P, V).
    """
    now = after.float().log_softmax(-1)
    return (before.exp() * (before - now)).sum(-1).mean().clamp(min=0)


def kept_bits(nats: float, kl: float) -> float:
    """Retention of bits per byte that a divergence foretells: n₀ / (n₀ + KL).

    >>> kept_bits(3.0, 0.0), kept_bits(3.0, 1.0)
    (1.0, 0.75)
    """
    return nats / (nats + kl) if nats + kl > 0 else 1.0
