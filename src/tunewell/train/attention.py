"""Dropout on attention weights, set for the time of a tuning.

Fused attention kernels on processors know no dropout: a model with some falls back to kernels that hold the whole
matrix of attention weights (heads x T x T a text) and draw a random number for each entry. With windows of several
hundred tokens this takes as long as all the rest of a step. The other dropout, on embeddings and layers' outputs,
stays as the model has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

PLACES = ("dropout", "attention_dropout", "attn_dropout")
QUERIES = ("query", "q_proj", "q_lin", "c_attn", "query_proj", "in_proj", "Wqkv", "q", "qkv")


def attention_dropouts(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """The layers that weigh tokens, each with the name of its dropout: a module of its own or a number."""
    found = []
    for module in model.modules():
        if not type(module).__name__.endswith("Attention") or not any(hasattr(module, q) for q in QUERIES):
            continue
        found += [(module, p) for p in PLACES if isinstance(getattr(module, p, None), nn.Dropout | float | int)]
    return found


@contextmanager
def attention_dropout(model: nn.Module, value: float | None) -> Iterator[int]:
    """Within, attention weights are dropped with probability `value`; afterwards as before.

    Args:
        value: from 0 to below 1; None leaves everything as it is.

    Yields:
        The number of attention layers that were set.
    """
    found = [] if value is None else attention_dropouts(model)
    before: list[float] = []
    try:
        for module, name in found:
            place: Any = getattr(module, name)
            if isinstance(place, nn.Dropout):
                before.append(place.p)
                place.p = float(value or 0)
            else:
                before.append(place)
                setattr(module, name, float(value or 0))
        yield len(found)
    finally:
        for (module, name), p in zip(found, before, strict=False):
            place = getattr(module, name)
            if isinstance(place, nn.Dropout):
                place.p = p
            else:
                setattr(module, name, p)
