"""Rows of a batch behind one another in one sequence, so that nothing is padded and none sees another.

The rows stand in one sequence with positions that start anew at each row. Attention is computed row by row on its
own stretch of the sequence, causal within it: no token can attend to another row, and the work is the sum of the
rows' squared lengths, not the square of the sum as under a block-diagonal mask. Losses and gradients are those of
the padded batch; Krell et al., 2021, Efficient Sequence Packing without Cross-contamination, did this with masks.

Shapes: N tokens of all rows, R rows, H heads, D size of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch

NAME = "tunewell_packed"
CLOSE = 1e-3  # largest difference of logits, relative to the largest, that counts as the same
BOUNDS = "cu_seq_lens_q"  # Transformers' name for where rows begin and end


def packed(rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Rows as one sequence: `input_ids` and `position_ids` (1, N), and where rows begin and end (R + 1,).

    >>> {k: v.tolist() for k, v in packed([[5, 6, 7], [8, 9]]).items()}
    {'input_ids': [[5, 6, 7, 8, 9]], 'position_ids': [[0, 1, 2, 0, 1]], 'cu_seq_lens_q': [0, 3, 5]}
    """
    lengths = torch.tensor([len(row) for row in rows])
    ends = lengths.cumsum(0)
    ids = torch.tensor([i for row in rows for i in row], dtype=torch.long)
    positions = torch.arange(len(ids)) - torch.repeat_interleave(ends - lengths, lengths)
    return {
        "input_ids": ids.unsqueeze(0),
        "position_ids": positions.unsqueeze(0),
        BOUNDS: torch.cat([torch.zeros(1, dtype=torch.long), ends]),
    }


def attend_by_row(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """Attention of Transformers' interface, (1, H, N, D) -> (1, N, H, D), for rows that stand behind one another."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    bounds = options.pop(BOUNDS)
    options.pop("is_causal", None)
    window = options.get("sliding_window")
    parts = []
    for start, end in pairwise(bounds):
        mask = _band(end - start, int(window), query.device) if window and end - start > int(window) else None
        q, k, v = (x[:, :, start:end] for x in (query, key, value))
        parts.append(sdpa_attention_forward(module, q, k, v, mask, is_causal=mask is None, **options)[0])
    return torch.cat(parts, dim=1), None


def _band(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Causal attention to the last `window` tokens, as (1, 1, length, length) of True and False."""
    at = torch.arange(length, device=device)
    back = at[:, None] - at[None, :]
    return ((back >= 0) & (back < window))[None, None]


@contextmanager
def attending_by_row(model: Any) -> Iterator[None]:
    """While inside, the model's attention is `attend_by_row`; afterwards it is what it was."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend_by_row)
    configs = configs_of(model)
    with attending(configs, [NAME] * len(configs)):
        yield


def configs_of(model: Any) -> list[Any]:
    """The configurations that a model's layers look up their attention in."""
    return list({id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values())


def kinds_of(configs: Sequence[Any]) -> list[str | None]:
    """The attention that each configuration names now."""
    return [config._attn_implementation_internal for config in configs]


@contextmanager
def attending(configs: Sequence[Any], kinds: Sequence[str | None]) -> Iterator[None]:
    """While inside, the attention that each configuration names is that of `kinds`; afterwards it is what it was."""
    before = kinds_of(configs)
    try:
        for config, kind in zip(configs, kinds, strict=True):
            config._attn_implementation_internal = kind
        yield
    finally:
        for config, kind in zip(configs, before, strict=True):
            config._attn_implementation_internal = kind


def forward(model: Any, batch: dict[str, torch.Tensor]) -> Any:
    """The model's outputs for a batch that `packed` made."""
    inputs = dict(batch)
    bounds = inputs.pop(BOUNDS).tolist()  # a list: attention reads it once a layer
    with attending_by_row(model):
        return model(**inputs, **{BOUNDS: bounds}, use_cache=False)


def exact(model: Any) -> bool:
    """Whether a decoder answers rows that stand behind one another as it answers each alone.

    Tried on the model itself, with rows of 3, 7 and 5 tokens: models whose attention does not come through
    Transformers' interface, or that carry a state from token to token, cannot be packed.
    """
    size = model.get_input_embeddings().num_embeddings
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(0, size, (n,), generator=draw).tolist() for n in (3, 7, 5)]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            batch = {k: v.to(model.device) for k, v in packed(rows).items()}
            together = forward(model, batch).logits[0].float()
            each = [model(input_ids=torch.tensor([r], device=model.device)).logits[0].float() for r in rows]
        alone = torch.cat(each)
        return bool((together - alone).abs().max() <= CLOSE * alone.abs().max())
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError):
        return False
    finally:
        model.train(training)
