"""The output layer where it is needed alone: at the tokens that carry loss.

A vocabulary of 49,152 entries makes the logits of a batch larger than all that the layers below hold, and most
tokens are of prompts, whose logits nobody asks for. `only_at` lets the output layer see the hidden states that
count; `answer_nats` also never holds more than a slice of their logits (as Wijmans et al., 2024, Cut Your Losses
in Large-Vocabulary Language Models, and Hsu et al., 2024, Liger Kernel, do on GPUs).

Shapes: B rows, T tokens, K tokens that carry loss, H hidden size, V entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tunewell.tasks.generation.loss import IGNORED

SLICE = 2**24  # logits held at a time: 64 MB in fp32


@contextmanager
def only_at(model: Any, keep: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """While inside, the model's logits are (K, V), of the tokens where `keep` (B, T) is True.

    What a model does to its logits afterwards (scaling, soft caps) is done to these. The list that is given out
    holds the hidden states (K, H) after a forward pass.
    """
    seen: list[torch.Tensor] = []

    def select(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(inputs[0][keep])
        return (seen[-1],)

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield seen
    finally:
        hook.remove()


class _SlicedNats(torch.autograd.Function):
    """Sum of -log p over K tokens, and its gradient made in the same pass, one slice of logits at a time."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, wanted: Any, rows: int) -> Any:
        need_h, need_w, need_b = ctx.needs_input_grad[:3]
        kind = torch.get_autocast_dtype(hidden.device.type) if _autocast(hidden) else hidden.dtype
        h, w = hidden.to(kind), weight.to(kind)
        total = torch.zeros((), device=hidden.device)
        grad_h = torch.empty_like(hidden) if need_h else None
        grad_w = torch.zeros_like(weight) if need_w else None
        grad_b = torch.zeros_like(bias) if need_b and bias is not None else None
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(h), rows):
                part, goal = h[start : start + rows], wanted[start : start + rows]
                logits = (part @ w.t()).float()
                if bias is not None:
                    logits += bias.float()
                logits = F.log_softmax(logits, dim=-1)
                at = torch.arange(len(goal), device=goal.device)
                total -= logits[at, goal].sum()
                grad = logits.exp_()
                grad[at, goal] -= 1.0
                if grad_b is not None:
                    grad_b += grad.sum(0).to(grad_b.dtype)
                low = grad.to(kind)
                if grad_h is not None:
                    grad_h[start : start + rows] = (low @ w).to(grad_h.dtype)
                if grad_w is not None:
                    grad_w += low.t() @ part
        ctx.grads = grad_h, grad_w, grad_b
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (factor,) = upstream
        return *(None if g is None else g * factor for g in ctx.grads), None, None


def _autocast(tensor: torch.Tensor) -> bool:
    return torch.is_autocast_enabled(tensor.device.type)


def sliced_nats(hidden: torch.Tensor, head: nn.Linear, wanted: torch.Tensor) -> torch.Tensor:
    """Sum of -log p of `wanted` (K,) under `head` of `hidden` (K, H), in nats; differentiable once."""
    rows = max(1, SLICE // head.weight.shape[0])
    return _SlicedNats.apply(hidden, head.weight, head.bias, wanted, rows)


def plain_head(model: Any) -> bool:
    """Whether a model's logits are its output layer's and nothing more: then they need not be kept."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head._forward_hooks or head._forward_pre_hooks:
        return False
    training = model.training
    model.eval()
    extra: dict[str, Any] = {}
    ids = torch.tensor([[1, 2, 3]], device=model.device) % model.get_input_embeddings().num_embeddings
    if getattr(model.config, "is_encoder_decoder", False):
        extra["decoder_input_ids"] = ids
    try:
        with torch.inference_mode(), only_at(model, torch.ones_like(ids, dtype=torch.bool)) as seen:
            logits = model(input_ids=ids, **extra).logits
            return bool(logits.ndim == 2 and torch.equal(logits, F.linear(seen[0], head.weight, head.bias)))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    finally:
        model.train(training)


def answer_nats(model: Any, run: Callable[[], Any], wanted: torch.Tensor, *, plain: bool) -> tuple[Any, torch.Tensor]:
    """A model's outputs and the sum of -log p of the answers' tokens, in nats.

    Args:
        run: the model's forward pass. wanted: (B, T) what is to be predicted at each token, -100 for nothing.
        plain: see `plain_head`; then no logits are kept.
    """
    keep = wanted != IGNORED
    head = model.get_output_embeddings()
    with only_at(model, keep) as seen:
        if not plain:
            outputs = run()
            return outputs, F.cross_entropy(outputs.logits.float(), wanted[keep], reduction="sum")
        # the layer itself sees one token, since its own logits are not wanted
        first = head.register_forward_pre_hook(lambda module, inputs: (inputs[0][:1].detach(),))
        try:
            outputs = run()
        finally:
            first.remove()
    return outputs, sliced_nats(seen[0], head, wanted[keep])
