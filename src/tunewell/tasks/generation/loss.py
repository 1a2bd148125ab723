"""Losses over the tokens of answers.

Shapes: B rows, T tokens, V entries of the vocabulary. A label of -100 carries no loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

IGNORED = -100


def by_row(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (B, T, V) for labels (B, T) at the same places -> nats, tokens and tokens predicted right, (B,) each."""
    mask = labels != IGNORED
    return by_row_of(logits[mask], labels, mask)


def by_row_of(
    logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `by_row`, for the logits (K, V) of the tokens where `mask` (B, T) is True alone."""
    import torch
    import torch.nn.functional as F

    picked, wanted = logits.float(), labels[mask]
    row = mask.nonzero()[:, 0]
    zeros = torch.zeros(len(labels), device=logits.device)
    nats = zeros.index_add(0, row, F.cross_entropy(picked, wanted, reduction="none"))
    tokens = zeros.index_add(0, row, torch.ones_like(row, dtype=torch.float32))
    right = zeros.index_add(0, row, (picked.argmax(-1) == wanted).float())
    return nats, tokens, right


def shifted(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For decoders: the logits at a token are for the token after it."""
    return logits[:, :-1], labels[:, 1:]


def answer_loss(outputs: Any, labels: torch.Tensor, *, shift: bool) -> torch.Tensor:
    """Losses (B,) whose mean is the mean over the batch's answer tokens, so that each token counts the same.

    This is what `transformers.Trainer` and TRL minimise for one batch a step.
    """
    logits = outputs.logits
    if shift:
        logits, labels = shifted(logits, labels)
    nats, tokens, _ = by_row(logits, labels)
    return nats * len(nats) / tokens.sum().clamp(min=1)


def following(labels: torch.Tensor) -> torch.Tensor:
    """(B, T) labels of tokens -> (B, T) of the token that follows each; the last has none.

    The first token of a row follows nothing, so `labels` of it must be -100 where rows are packed.
    """
    import torch.nn.functional as F

    return F.pad(labels[:, 1:], (0, 1), value=IGNORED)


def answer_tokens(labels: torch.Tensor, *, shift: bool) -> torch.Tensor:
    """How many tokens of a batch carry loss."""
    return ((labels[:, 1:] if shift else labels) != IGNORED).sum()
