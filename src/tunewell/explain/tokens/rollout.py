"""Attention rollout: attention followed from the tokens that the head reads through all layers down to the words.

It has no sign and knows no target: it says where information may have come from, not what it spoke for. Abnar and
Zuidema follow the first token of BERT, which is what its head reads. A head on a decoder reads the last token, whose
row it is then (in a causal model the first token sees itself alone), and one on mean embeddings reads them all: the
mean of their rows. Which tokens a head reads is asked of the model, by the gradient of its outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import ModelError
from tunewell.explain.scorer import whole
from tunewell.explain.segment import Item
from tunewell.explain.tokens import Attribution
from tunewell.models.embed import like_length

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer

title = "Attention rollout"
paper = "Abnar and Zuidema, 2020, Quantifying Attention Flow in Transformers"
unit = "share of attention (no sign)"


def attribute(scorer: Scorer, items: Sequence[Item], targets: np.ndarray, *, seed: int = 42) -> list[Attribution]:
    """Scores of words: their share (0 to 1) in the rolled-out attention of the tokens that the head reads.

    Raises:
        ModelError: the model does not show its attention.
    """
    out: list[Any] = [None] * len(items)
    lengths = np.fromiter((len(item.ids) for item in items), dtype=np.int64, count=len(items))
    embed = scorer.layer
    with scorer.at_rest(), attention(scorer.model, "eager"):
        for index in like_length(lengths, scorer.rows, scorer.tokens):
            batch = scorer.batch([whole(items[i]) for i in index])
            # a way back from the outputs to the last layer, without gradients of weights
            fed = embed(batch["input_ids"]).detach().requires_grad_(True)
            with scorer.fed(embed, fed):
                found = scorer.model(**batch, output_attentions=True, output_hidden_states=True)
            scorer.forwards += len(index)
            if not found.attentions:
                raise ModelError("does not show its attention", where=scorer.model.config.model_type)
            flow = rolled([layer.detach().float().mean(dim=1).cpu().numpy() for layer in found.attentions])
            kept = batch["attention_mask"].bool().cpu().numpy()
            read = read_tokens(found.logits, found.hidden_states[-1], kept)
            for row, i in enumerate(index):
                seen = flow[row, read[row]].mean(axis=0)
                out[i] = Attribution(items[i].to_words(seen[kept[row]].astype(np.float64)), passes=1)
    return out


def read_tokens(logits: Any, hidden: Any, kept: np.ndarray) -> np.ndarray:
    """(B, T) bool: the tokens whose last hidden state the head reads, told by the gradient of its outputs.

    Args:
        logits: (B, C) with a way back to `hidden` (B, T, H). kept: (B, T) bool, False for padding.

    Returns:
        All kept tokens of a row whose outputs depend on none, as under a head of zeros.
    """
    import torch

    weights = torch.arange(1, logits.shape[1] + 1, device=logits.device, dtype=logits.dtype)
    (slope,) = torch.autograd.grad((logits * weights).sum(), hidden, allow_unused=True)
    if slope is None:
        return kept
    size = slope.float().norm(dim=2).cpu().numpy() * kept
    read = size > 1e-6 * size.max(axis=1, keepdims=True)
    return np.where(read.any(axis=1, keepdims=True), read, kept)


def rolled(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Rollout (B, T, T) of attentions (B, T, T) averaged over heads: the product of (A + I) / 2, last layer first."""
    flow = np.eye(layers[0].shape[-1])[None]
    for layer in layers:
        flow = (layer + np.eye(layer.shape[-1])) / 2 @ flow
    return flow


@contextlib.contextmanager
def attention(model: Any, kind: str) -> Iterator[None]:
    """Another implementation of attention for a while ("eager", "sdpa").

    Raises:
        ModelError: the model does not have it.
    """
    before = model.config._attn_implementation
    try:
        try:
            if before != kind:
                model.set_attn_implementation(kind)
        except (ValueError, ImportError) as error:
            raise ModelError(f"has no {kind} attention", where=model.config.model_type) from error
        yield
    finally:
        if model.config._attn_implementation != before:
            model.set_attn_implementation(before)
