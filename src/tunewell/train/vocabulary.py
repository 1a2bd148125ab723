"""Tune only the rows of the embedding matrix that the training data can touch.

Half of a small encoder's parameters are word embeddings (11.7 of MiniLM's 22.7 M), and a few thousand
rows of labelled text use a small part of them. The others have a gradient of zero at every step, and
still AdamW reads and writes their moments, clipping sums their squares and a checkpoint carries them
three times. While tuning, the matrix is therefore replaced by the rows in use; afterwards they are put
back. The gradients are the same. What differs from tuning the whole matrix: the other rows get no
weight decay and no gradient from a strategy's general text, they stay as the base model has them.

Shapes: V entries of the vocabulary, K of them in use, H hidden size, B texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    import numpy as np

WORTH = 0.75  # a smaller share of the vocabulary in use is worth the exchange


class UsedEmbedding(nn.Module):
    """Looks up like the whole matrix, and learns only the rows in use.

    Args:
        whole: the embedding to stand in for. used: (K,) ids that are learned, ascending.
    """

    place: torch.Tensor
    others: torch.Tensor

    def __init__(self, whole: nn.Embedding, used: torch.Tensor) -> None:
        super().__init__()
        place = torch.full((whole.num_embeddings,), -1, dtype=torch.long, device=whole.weight.device)
        place[used] = torch.arange(len(used), device=place.device)
        self.num_embeddings, self.embedding_dim = whole.num_embeddings, whole.embedding_dim
        padding = whole.padding_idx
        self.padding_idx = None if padding is None or place[padding] < 0 else int(place[padding])
        self.weight = nn.Parameter(whole.weight.detach()[used].clone(), requires_grad=whole.weight.requires_grad)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("others", whole.weight.detach(), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, T) ids -> (B, T, H)."""
        place = self.place[ids]
        outside = place < 0
        if not outside.any():
            return functional.embedding(place, self.weight, self.padding_idx)
        found = functional.embedding(place.clamp(min=0), self.weight, self.padding_idx)
        return torch.where(outside.unsqueeze(-1), functional.embedding(ids, self.others), found)


@contextmanager
def only_used_rows(model: Any, used: np.ndarray) -> Iterator[int]:
    """While inside, `model` learns only the embeddings of `used` ids; afterwards it holds its whole matrix again.

    Nothing is exchanged where it would not pay, or where the matrix serves as the output layer too.

    Args:
        used: (K,) ids of the training rows, ascending, without repeats.

    Yields:
        Parameters that are left out of tuning.
    """
    whole = model.get_input_embeddings()
    tied = model.get_output_embeddings() is not None
    if type(whole) is not nn.Embedding or tied or whole.max_norm or len(used) > WORTH * whole.num_embeddings:
        yield 0
        return
    ids = torch.from_numpy(used).to(whole.weight.device)
    part = UsedEmbedding(whole, ids)
    model.set_input_embeddings(part)
    try:
        yield whole.weight.numel() - part.weight.numel()
    finally:
        if part.weight.numel():  # weights in parts are whole at process 0 alone (train/sharding.py)
            with torch.no_grad():
                whole.weight[ids] = part.weight.detach().to(whole.weight.dtype)
        whole.weight.requires_grad_(part.weight.requires_grad)
        model.set_input_embeddings(whole)
