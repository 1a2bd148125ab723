"""Attention rollout: attention followed from the first token through all layers down to the words.

It has no sign and knows no target: it says where information may have come from, not what it spoke for.
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
    """Scores of words: their share (0 to 1) in the first token's rolled-out attention.

    Raises:
        ModelError: the model does not show its attention.
    """
    import torch

    out: list[Any] = [None] * len(items)
    lengths = np.fromiter((len(item.ids) for item in items), dtype=np.int64, count=len(items))
    with scorer.at_rest(), attention(scorer.model, "eager"), torch.inference_mode():
        for index in like_length(lengths, scorer.rows, scorer.tokens):
            batch = scorer.batch([whole(items[i]) for i in index])
            layers = scorer.model(**batch, output_attentions=True).attentions
            if not layers:
                raise ModelError("does not show its attention", where=scorer.model.config.model_type)
            flow = rolled([layer.float().mean(dim=1).cpu().numpy() for layer in layers])
            kept = batch["attention_mask"].bool().cpu().numpy()
            for row, i in enumerate(index):
                first = int(kept[row].argmax())
                out[i] = Attribution(items[i].to_words(flow[row, first][kept[row]].astype(np.float64)), passes=1)
    return out


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
