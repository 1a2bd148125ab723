"""How far a tuned decoder speaks as the base model does: on general prompts, what comes next?

- `agreement`: the share of places where both find the same token likeliest.
- `kl`: the forward divergence KL(base ‖ tuned) of the next token, in nats a token. Both models' K likeliest tokens
  are kept; what both have in common is compared token by token, all else as one. Such a coarser view can only
  lower a divergence (data processing), and by little, since K tokens hold nearly all probability.

Both say how much has moved, not whether for better or worse: they are drift, counted only when named.

Shapes: n texts, T tokens of a text, K likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewell.retention.measurement import items_hash
from tunewell.retention.probes.speaker import Speaker, SpokenProbe

if TYPE_CHECKING:
    pass

PROMPTS, TOKENS, LIKELIEST = 48, 48, 64
TITLES = {"agreement": "Next token as the base model's", "kl": "Divergence from the base model's next token"}


def drift_of(name: str, texts: Sequence[str], *, counted: bool) -> SpokenProbe:
    """`agreement` or `kl` on the beginnings of texts."""
    k = 1 if name == "agreement" else LIKELIEST

    def arrays(speaker: Speaker) -> dict[str, np.ndarray]:
        found = speaker.following(texts, TOKENS, k)
        return {"ids": found.ids, "logs": found.logs}

    metric = "share" if name == "agreement" else "nats a token"
    items = items_hash(name, list(texts), TOKENS, k)
    return SpokenProbe(name, TITLES[name], metric, name, tuple(texts), items, arrays, counted=counted)


def agreeing(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (n,) where two models' likeliest tokens (n, T, 1) are the same, and places in all (n,)."""
    there = before[:, :, 0] >= 0
    return ((before[:, :, 0] == after[:, :, 0]) & there).sum(1).astype(np.float64), there.sum(1).astype(np.float64)


def divergences(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """KL(before ‖ after) summed over the places of each text (n,), in nats, and the places (n,).

    Args:
        before, after: ids and log-probabilities (n, T, K) of the likeliest tokens.
    """
    (ids, logs), (other_ids, other_logs) = before, after
    there = ids[:, :, 0] >= 0
    out = np.zeros(ids.shape[:2])
    for i, t in np.argwhere(there):
        _, mine, theirs = np.intersect1d(ids[i, t], other_ids[i, t], assume_unique=True, return_indices=True)
        lp, lq = logs[i, t, mine].astype(np.float64), other_logs[i, t, theirs].astype(np.float64)
        p, q = np.exp(lp), np.exp(lq)
        rest_p, rest_q = max(1.0 - p.sum(), 0.0), max(1.0 - q.sum(), 1e-12)
        kl = float((p * (lp - lq)).sum())
        if rest_p > 1e-12:
            kl += rest_p * np.log(rest_p / rest_q)
        out[i, t] = max(kl, 0.0)
    return out.sum(1), there.sum(1).astype(np.float64)
