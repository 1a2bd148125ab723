"""Frozen features, layer by layer: the mean of a text's hidden states after every layer.

Shapes: n rows, T tokens, L layers, H hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.models.embed import encode, like_length, mean_pool, pad

if TYPE_CHECKING:
    import torch
    from datasets import Dataset


@dataclass(frozen=True)
class Passed:
    """What a forward pass gave.

    Attributes:
        layers: (L + 1, n, F) features; layer 0 are the word embeddings.
        read: (n, H) what the head reads, before its last layer: for BERT the pooled first token. Without a head the
            mean of the last layer.
        logits: (n, Z) of the head, None without one.
        tokens, seconds: of the forward passes alone.
    """

    layers: np.ndarray
    read: np.ndarray
    logits: np.ndarray | None
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
        model: a base model, or one with a classification head, drawn or learnt.
        advance: told of rows done.
    """
    import torch

    encoded = encode(tokenizer, rows["text"][:], rows["text_pair"][:] if pair else None, max_length)
    lengths = np.fromiter((len(ids) for ids in encoded["input_ids"]), dtype=np.int64, count=len(rows))
    layers: np.ndarray | None = None
    logits: np.ndarray | None = None
    read: np.ndarray | None = None
    seen: list[torch.Tensor] = []
    last = last_layer(model)
    hook = None if last is None else last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    device, seconds = model.device, 0.0
    model.eval()
    with (
        closing(hook),
        torch.inference_mode(),
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16),
    ):
        for index in like_length(lengths, batch_size):
            batch = {k: v.to(device) for k, v in pad(tokenizer, encoded, index).items()}
            started = time.perf_counter()
            out = model(**batch, output_hidden_states=True)
            seconds += time.perf_counter() - started
            mask = batch["attention_mask"]
            pooled = torch.stack([mean_pool(h.float(), mask) for h in out.hidden_states]).cpu().numpy()
            if layers is None:
                layers = np.empty((pooled.shape[0], len(rows), pooled.shape[2]), dtype=np.float32)
            layers[:, index] = pooled
            x = seen.pop() if seen else None
            part = pooled[-1] if x is None or x.ndim != 2 else x.float().cpu().numpy()
            read = np.empty((len(rows), part.shape[1]), dtype=np.float32) if read is None else read
            read[index] = part
            if (z := getattr(out, "logits", None)) is not None:
                logits = np.empty((len(rows), z.shape[1]), dtype=np.float32) if logits is None else logits
                logits[index] = z.float().cpu().numpy()
            advance(len(index))
    assert layers is not None and read is not None
    return Passed(layers, read, logits, int(lengths.sum()), seconds)


@contextmanager
def closing(hook: Any) -> Iterator[None]:
    """Nothing stays hooked to the model, even after a crash."""
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


def last_layer(model: Any) -> Any:
    """The linear layer that gives a head's answers; None for a model without a head."""
    from torch import nn

    if model.base_model is model:
        return None
    outputs = model.config.num_labels
    found = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == outputs]
    return found[-1] if found else None
