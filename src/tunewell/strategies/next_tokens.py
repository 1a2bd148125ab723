"""What a decoder says comes next in general text: the base model's answers, and how far a tuned one is from them.

Of each token the base model's K likeliest successors are kept, all else as one: with KL(p₀ ‖ p) taken over these K + 1
outcomes, a lower bound of the whole divergence and close to it, since K tokens hold nearly all probability.

Shapes: B texts, T tokens, V entries of the vocabulary, K likeliest tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

LIKELIEST = 64
LEAST = 1e-6  # of what is left beside the K likeliest: keeps logarithms finite


class Answers(NamedTuple):
    """`ids` (B, T, K) and `logs`, their log-probabilities (B, T, K), float16."""

    ids: torch.Tensor
    logs: torch.Tensor


def answers(model: Any, batch: dict[str, torch.Tensor], *, bf16: bool = False, k: int = LIKELIEST) -> Answers:
    """What a model says of a padded batch; its mode (dropout) is left as it is."""
    import torch

    with torch.no_grad(), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
        logits = model(**batch).logits
    best = logits.float().log_softmax(-1).topk(min(k, logits.shape[-1]), dim=-1)
    return Answers(best.indices.to(torch.int32), best.values.half())


def divergence(base: Answers, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of KL(p₀ ‖ p) in nats over the tokens that `mask` (B, T) keeps, for logits (B, T, V); a lower bound."""
    ids, before = base.ids.to(logits.device).long(), base.logs.to(logits.device).float()
    after = logits.float().log_softmax(-1).gather(-1, ids)
    kl = (before.exp() * (before - after)).sum(-1)
    left, now = ((1 - logs.exp().sum(-1)).clamp(min=LEAST) for logs in (before, after))
    kl = kl + left * (left / now).log()
    weights = mask.to(kl.dtype)
    return (kl * weights).sum() / weights.sum().clamp(min=1)
