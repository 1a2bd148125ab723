"""What is kept, estimated from a few general texts: cheap enough to be read while a model is tuned.

Encoders: how the tuned model's embeddings of n texts relate to the base model's. Of the statistics below,
`structure` is the one that the monitor reads: it predicts the probes as well as any and has no free choice of a
neighbourhood; `benchmarks/monitor.py` shows how well each does.

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


LOST, POWER = 0.15, 2 / 3


def cosines(vectors: np.ndarray) -> np.ndarray:
    """(n (n − 1) / 2,) cosines of all pairs of rows of (n, H)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return (unit @ unit.T)[np.triu_indices(len(unit), 1)]


def structure(before: np.ndarray, after: np.ndarray) -> float:
    """Spearman correlation of the pairwise cosines of two sets of embeddings (n, H): 1 means that nothing moved.

    Representational similarity analysis (Kriegeskorte et al., 2008). If what has moved knows nothing of a
    probe's truth, a probe's rank correlation falls by just this factor (attenuation; Spearman, 1904): the worst case.

    >>> x = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    >>> structure(x, 3 * x), round(structure(x, x[::-1]), 2)
    (1.0, 0.71)
    """
    from scipy.stats import rankdata

    a, b = (rankdata(np.round(cosines(v.astype(np.float64)), 9)) for v in (before, after))
    if a.std() == 0 or b.std() == 0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1.0, 1.0))


def kept_structure(found: float) -> float:
    """The mean retention of the probes that a reading of `structure` foretells.

    1 − LOST · (1 − structure)^POWER. What moves first is mostly what no probe asks for, hence the small factor; both
    numbers are fitted to checkpoints of tunings by several strategies and rates, see the docs (Concepts, The monitor).

    >>> kept_structure(1.0), round(kept_structure(0.9), 3)
    (1.0, 0.968)
    """
    return 1 - LOST * max(0.0, 1 - found) ** POWER


def statistics(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """All statistics of two sets of embeddings (n, H); each is 1 for the base model itself.

    structure: see there. cka: debiased linear CKA. neighbours: share of the 10 nearest kept. cosine: mean cosine
    of a text's two embeddings. distance: 1 − mean of ‖e − e₀‖² / ‖e₀‖².
    """
    from tunewell.retention.probes.drift import debiased_cka, overlap
    from tunewell.retention.probes.similarity import cosine

    away = np.square(after - before).sum(axis=1) / np.maximum(np.square(before).sum(axis=1), 1e-12)
    return {
        "structure": structure(before, after),
        "cka": debiased_cka(before, after),
        "neighbours": float(overlap(before, after).mean()),
        "cosine": float(cosine(before, after).mean()),
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
