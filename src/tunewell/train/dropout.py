"""Dropout on processors, drawn fifteen bits an entry, and attention over short texts.

`torch.nn.functional.dropout` draws a number of 53 bits for every entry of a tensor, on one thread however many there
are: a tenth of a step of short texts on two cores, more on more, and a third of one of long texts, whose attention
weights are dropped as well. Here one 64-bit number of the same generator decides on four entries, and what is dropped
is masked bit by bit. The probability is rounded to a multiple of 2**-15 (0.1 becomes 0.100006) and what stays is
divided by the rounded share, so that the expectation is exact. Other devices keep their own dropout.

Attention is two matrix products and a softmax. Torch's fused kernel for processors spares memory, but its backward pass
in bfloat16 takes up to eight times as long as the products where texts are short. There the products are taken; their
gradients are as near to those in fp32 (a relative difference of 0.0057 on MiniLM, and 0.0054 fused).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

STEPS = 2**15  # values of a draw
LONGEST = 256  # tokens up to which the products are faster than the fused kernel where gradients are asked for
FEWEST = 32  # steps of a probability: a smaller one would be off by more than a hundredth of itself
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes of an entry: whole numbers of that width

_dropout, _attention = functional.dropout, functional.scaled_dot_product_attention  # torch's own


def steps_of(p: float) -> int:
    """A probability in steps of 2**-15."""
    return round(p * STEPS)


def factor_of(p: float) -> float:
    """What the entries that stay are multiplied by."""
    return STEPS / (STEPS - steps_of(p))


def drawn(shape: torch.Size, dropped: int) -> torch.Tensor:
    """-1 (all bits set) where an entry stays, 0 where it goes, with probability `dropped` / 32,768; int16.

    From torch's own generator, so that a run that is resumed draws what it would have drawn.
    """
    count = shape.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    draws = bits.view(torch.int16)[:count].view(shape)
    draws >>= 1  # from -16,384 to 16,383, so that the difference below stays within sixteen bits
    draws -= STEPS // 2 - dropped
    draws >>= 15  # the sign alone
    return draws


class _Kept(torch.autograd.Function):
    """Entries of (any shape) where `stays` has its bits set, zero elsewhere; not scaled."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, stays: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(stays)
        return masked(x, stays)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return masked(gradients[0], ctx.saved_tensors[0]), None


def masked(x: torch.Tensor, stays: torch.Tensor) -> torch.Tensor:
    """`x` with the bits of `stays`, -1 or 0 an entry."""
    bits = BITS[x.element_size()]
    return (x.contiguous().view(bits) & stays.to(bits)).view(x.dtype)


def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """As `torch.nn.functional.dropout`, drawn as said above where that is possible."""
    quick = training and not inplace and input.device.type == "cpu" and input.is_floating_point()
    if not quick or not FEWEST <= steps_of(p) < STEPS:
        return _dropout(input, p, training, inplace)
    return _Kept.apply(input, drawn(input.shape, steps_of(p))) * factor_of(p)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """As `torch.nn.functional.scaled_dot_product_attention`, in the manner said above where that is faster.

    Its fused kernels for processors know no dropout, and its other one is the same products as here.
    """
    dropped = steps_of(dropout_p)
    products = FEWEST <= dropped < STEPS if dropout_p else short_in_bf16(query, key)
    if query.device.type != "cpu" or not products:
        return _attention(
            query, key, value, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale,
            **({"enable_gqa": True} if enable_gqa else {}),
        )  # fmt: skip
    if torch.is_autocast_enabled("cpu"):  # as for the function that this stands for
        query, key, value = (t.to(torch.get_autocast_dtype("cpu")) for t in (query, key, value))
    with torch.autocast("cpu", enabled=False):
        if enable_gqa:
            key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], dim=-3) for t in (key, value))
        scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill_(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            scores = scores + attn_mask.to(scores.dtype)
        weights = scores.softmax(-1)
        if not dropped:
            return weights @ value
        return (_Kept.apply(weights, drawn(weights.shape, dropped)) @ value) * factor_of(dropout_p)


def short_in_bf16(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Whether attention is over few tokens, in bfloat16, and has a backward pass to come."""
    if key.shape[-2] > LONGEST or not torch.is_grad_enabled() or not (query.requires_grad or key.requires_grad):
        return False
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return autocast or query.dtype == torch.bfloat16


@contextmanager
def quick_dropout() -> Iterator[None]:
    """Within, `torch.nn.functional` drops as said above, in every model; afterwards as before."""
    before = functional.dropout, functional.scaled_dot_product_attention
    functional.dropout, functional.scaled_dot_product_attention = dropout, attention
    try:
        yield
    finally:
        functional.dropout, functional.scaled_dot_product_attention = before
