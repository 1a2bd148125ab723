"""Frozen features, layer by layer: the mean of a text's hidden states after every layer.

Shapes: n rows, T tokens, L layers, H hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.models.embed import encode, like_length, mean_pool, pad

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Passed:
    """What a forward pass gave.

    Attributes:
        layers: (L + 1, n, F) features; layer 0 are the word embeddings.
        first: (n, H) the last layer's first token, which most heads read.
        head: (n, Z) logits of a head that the model brings, else None.
        tokens, seconds: of the forward passes alone.
    """

    layers: np.ndarray
    first: np.ndarray
    head: np.ndarray | None
    tokens: int
    seconds: float


def forward(
    model: Any,
    tokenizer: Any,
    rows: Dataset,
    *,
    pair: bool,
    max_length: int,
    batch_size: int = 64,
    bf16: bool = False,
    advance: Callable[[int], None] = lambda n: None,
) -> Passed:
    """Features of canonical rows; a pair of texts is read as the tuned model reads it, in one sequence.

    Args:
        model: a base model, or one with a classification head, whose logits are kept too.
        advance: told of rows done.
    """
    import torch

    encoded = encode(tokenizer, rows["text"][:], rows["text_pair"][:] if pair else None, max_length)
    lengths = np.fromiter((len(ids) for ids in encoded["input_ids"]), dtype=np.int64, count=len(rows))
    layers: np.ndarray | None = None
    first = head = None
    device, seconds = model.device, 0.0
    model.eval()
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        for index in like_length(lengths, batch_size):
            batch = {k: v.to(device) for k, v in pad(tokenizer, encoded, index).items()}
            started = time.perf_counter()
            out = model(**batch, output_hidden_states=True)
            seconds += time.perf_counter() - started
            mask = batch["attention_mask"]
            pooled = torch.stack([mean_pool(h.float(), mask) for h in out.hidden_states]).cpu().numpy()
            if layers is None:
                layers = np.empty((pooled.shape[0], len(rows), pooled.shape[2]), dtype=np.float32)
                first = np.empty((len(rows), pooled.shape[2]), dtype=np.float32)
            layers[:, index] = pooled
            first[index] = out.hidden_states[-1][:, 0].float().cpu().numpy()  # type: ignore[index]
            logits = getattr(out, "logits", None)
            if logits is not None:
                head = np.empty((len(rows), logits.shape[1]), dtype=np.float32) if head is None else head
                head[index] = logits.float().cpu().numpy()
            advance(len(index))
    assert layers is not None and first is not None
    return Passed(layers, first, head, int(lengths.sum()), seconds)
