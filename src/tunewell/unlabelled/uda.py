"""UDA: soft answers to agree with, and labelled rows let in little by little (Xie et al., 2020).

FixMatch makes one class of the model's answer to a text; UDA keeps the answer, sharpened by a temperature τ:

    1/B Σ over u of 1(max q_u > β) · KL(q̃_u ‖ p(· | strong(u))),   q̃_u ∝ q_u^(1/τ), τ = 0.4, no gradient

With few labels and many texts a model has learned the labelled rows by heart long before it has read the others.
Against that, training-signal annealing: a labelled row counts only while its own class has no more than

    η_t = α_t (1 − 1/C) + 1/C,   α_t = t | exp(5 (t − 1)) | 1 − exp(−5 t),   t from 0 to 1 over the steps

"linear", "exp" (signal comes late, for few rows) and "log" (early). The loss is the mean of the rows that count.

Where we differ: as in the hard form q is aligned to the labelled classes, and without a threshold in the recipe β is
the running mean of the confidence (see `consistency.py`); with accumulated gradients the mean is that of each batch.

Shapes: B rows, C classes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TEMPERATURE = 0.4  # τ
SCALE = 5.0
SCHEDULES = ("linear", "log", "exp")


def soft_loss(weak: torch.Tensor, strong: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """UDA's term, and which texts count.

    Args:
        weak, strong: (B, C) logits of the two views; no gradient goes into `weak`. threshold: β, of the confidence
            before sharpening.

    Returns:
        Scalar: the sum of the divergences of the texts that count over all B, in nats. (B,) booleans.
    """
    from torch.nn import functional

    weak = weak.detach().float()
    counts = weak.softmax(-1).max(-1).values > threshold
    target = (weak / TEMPERATURE).log_softmax(-1)
    divergence = functional.kl_div(strong.float().log_softmax(-1), target, reduction="none", log_target=True).sum(-1)
    return (divergence * counts).sum() / len(divergence), counts


def tsa_threshold(schedule: str, step: int, steps: int, classes: int) -> float:
    """η of a step: what the model may at most give to a labelled row's class for the row to count.

    Args:
        schedule: linear, log or exp. step: from 0. steps: planned.

    >>> [round(tsa_threshold("linear", s, 10, 2), 2) for s in (0, 5, 10)]
    [0.5, 0.75, 1.0]
    """
    t = step / max(1, steps)
    alpha = {"linear": t, "exp": math.exp(SCALE * (t - 1)), "log": 1 - math.exp(-SCALE * t)}[schedule]
    return alpha * (1 - 1 / classes) + 1 / classes


def annealed(
    losses: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses whose mean is that of the rows that count, and which those are; 0 where none does.

    Args:
        losses: (B,). logits: (B, C). labels: (B,) class ids. threshold: η.
    """
    given = logits.detach().float().softmax(-1).gather(1, labels.unsqueeze(1)).squeeze(1)
    counts = given <= threshold
    return losses * counts * (len(losses) / counts.sum().clamp(min=1)), counts
