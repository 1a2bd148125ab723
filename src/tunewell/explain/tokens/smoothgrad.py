"""SmoothGrad: gradient × input averaged over noisy copies of the embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.explain.segment import Item
from tunewell.explain.tokens import Attribution

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer

title = "SmoothGrad"
paper = "Smilkov et al., 2017, SmoothGrad: removing noise by adding noise"
unit = "log-odds of the target to first order (units of the label in regression)"


def attribute(
    scorer: Scorer,
    items: Sequence[Item],
    targets: np.ndarray,
    *,
    seed: int = 42,
    samples: int = 16,
    noise: float = 0.1,
) -> list[Attribution]:
    """Scores of words.

    Args:
        samples: noisy copies of a text; noise comes in pairs of opposite sign. noise: its standard deviation, as a
            share of the range of the text's embedding values (the paper's σ / (x_max − x_min)). Only words get noise.
    """
    draws = [_noise(scorer, item, samples, noise, seed) for item in items]
    jobs = [(i, s) for i in range(len(items)) for s in range(samples)]
    sums = [np.zeros(len(item.ids)) for item in items]

    def fed(job: int, text: Any) -> Any:
        import torch

        i, s = jobs[job]
        return text + torch.as_tensor(draws[i][s], dtype=text.dtype, device=text.device)

    inputs = [scorer.embeddings(item.ids) for item in items]
    for job, _, gradient, _ in scorer.passes(items, targets, [i for i, _ in jobs], fed):
        i = jobs[job][0]
        sums[i] += (gradient.astype(np.float64) * inputs[i]).sum(axis=1) / samples
    return [Attribution(item.to_words(s), passes=samples) for item, s in zip(items, sums, strict=True)]


def _noise(scorer: Scorer, item: Item, samples: int, noise: float, seed: int) -> np.ndarray:
    """(samples, T, H) float32; a text's own, whatever texts stand beside it."""
    text = scorer.embeddings(item.ids)
    rng = np.random.default_rng([seed, item.key])
    half = rng.normal(0.0, noise * float(np.ptp(text)), size=((samples + 1) // 2, *text.shape)).astype(np.float32)
    out = np.concatenate([half, -half])[:samples]
    out[:, item.word_of < 0] = 0.0
    return out
