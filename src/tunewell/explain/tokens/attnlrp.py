"""AttnLRP: relevance handed down layer by layer, by rules that fit transformers.

Written as gradient × input over a backward pass that is changed in four places (their equivalence is in the paper's
appendix): an activation hands on the relevance it got (identity rule); a LayerNorm's standard deviation is taken as
constant; the two factors of a product (query and key, attention and value) get half each (uniform rule); softmax
keeps its own gradient (its Taylor decomposition). Linear layers follow the ε rule with ε → 0, where biases keep
their share. The values of the forward pass stay the same.

For encoders with plain feed-forward layers and PyTorch's attention: BERT, CamemBERT, DistilBERT, ELECTRA, RoBERTa and
XLM-RoBERTa (`KNOWN`). Others are refused, among them those with gated layers or attention of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import ModelError
from tunewell.explain.segment import Item
from tunewell.explain.tokens import Attribution
from tunewell.explain.tokens.rollout import attention

if TYPE_CHECKING:
    from tunewell.explain.scorer import Scorer

title = "AttnLRP"
paper = "Achtibat et al., 2024, AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers"
unit = "relevance, in log-odds of the target (units of the label in regression)"

KNOWN = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
ACTIVATIONS = ("gelu", "relu", "silu", "tanh")  # those that are one function of PyTorch's


def attribute(scorer: Scorer, items: Sequence[Item], targets: np.ndarray, *, seed: int = 42) -> list[Attribution]:
    """Scores of words: relevance of their embeddings.

    Raises:
        ModelError: an architecture for which the rules here are not complete.
    """
    kind = scorer.model.config.model_type
    if kind not in KNOWN:
        raise ModelError(
            f"AttnLRP's rules are not written for {kind} models", where="method", expected=", ".join(KNOWN)
        )
    config = scorer.model.config
    if (act := getattr(config, "hidden_act", None) or getattr(config, "activation", None)) not in ACTIVATIONS:
        raise ModelError(
            f"AttnLRP's rules are not written for the activation {act}", where="method", expected=", ".join(ACTIVATIONS)
        )
    out: list[Any] = [None] * len(items)
    with attention(scorer.model, "sdpa"), rules():
        for i, fed, gradient, _ in scorer.passes(items, targets, range(len(items)), lambda job, text: text):
            out[i] = Attribution(items[i].to_words((gradient.astype(np.float64) * fed).sum(axis=1)), passes=1)
    return out


def rules() -> Any:
    """A context in which PyTorch's functions go backwards by AttnLRP's rules."""
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    activations = {
        torch.nn.functional.gelu, torch.nn.functional.relu, torch.nn.functional.silu, torch.nn.functional.tanh,
        torch.tanh, torch.relu, torch.Tensor.tanh, torch.Tensor.relu,
    }  # fmt: skip

    class Rules(TorchFunctionMode):
        def __torch_function__(self, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if function in activations:
                return identity(function, *args, **kwargs)
            if function is functional.layer_norm:
                return layer_norm(*args, **kwargs)
            if function is functional.scaled_dot_product_attention:
                query, key, value, *rest = args if len(args) > 2 else _three(args, kwargs)
                done = function(share(query, 2), share(key, 2), value, *rest, **kwargs)
                return share(done, 2)
            return function(*args, **kwargs)

    return Rules()


def _three(args: Any, kwargs: dict[str, Any]) -> list[Any]:
    names = ("query", "key", "value")
    return [args[i] if i < len(args) else kwargs.pop(name) for i, name in enumerate(names)]


def share(x: Any, n: int) -> Any:
    """x, but 1 / n of the gradient passes."""
    return x.detach() + (x - x.detach()) / n


def identity(function: Callable, x: Any, *args: Any, **kwargs: Any) -> Any:
    """function(x), with the gradient that hands all relevance on: y / x."""
    import torch

    y = function(x, *args, **kwargs).detach()
    near = x.abs() < 1e-6
    ratio = y / torch.where(near, torch.ones_like(x), x.detach())
    at_zero = (function(torch.full_like(x, 1e-3), *args, **kwargs) / 1e-3).detach()
    return y + (x - x.detach()) * torch.where(near, at_zero, ratio)


def layer_norm(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """LayerNorm whose standard deviation is a constant on the way back."""
    dims = tuple(range(-len(shape), 0))
    centred = x - x.mean(dims, keepdim=True)
    y = centred * (centred.detach().square().mean(dims, keepdim=True) + eps).rsqrt()
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias
