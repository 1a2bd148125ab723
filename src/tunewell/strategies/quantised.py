"""QLoRA: the frozen weights under low-rank adapters are kept in 4 bits while tuning (Dettmers et al., 2023).

Each linear layer that gets an adapter is replaced by bitsandbytes' NF4 layer with doubly quantised scales before the
adapters are made. At the end each becomes a plain layer again, of exactly the weights that it computed with, and its
adapter is added to them: the run gives a plain model in full precision, and no weight is rounded a second time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tunewell.errors import RecipeError
from tunewell.extras import need


def quantise(model: Any, names: Iterable[str], *, bf16: bool) -> None:
    """Replace the named linear layers of a model, in place, by frozen 4-bit ones of their weights.

    Args:
        bf16: products are computed in bfloat16, else in float32.

    Raises:
        TunewellError: bitsandbytes is not installed. RecipeError: it does not work on this machine.
    """
    import torch

    need("quantize", "load_in_4bit")
    import bitsandbytes as bnb

    for name in names:
        plain = model.get_submodule(name)
        layer = bnb.nn.Linear4bit(
            plain.in_features,
            plain.out_features,
            bias=plain.bias is not None,
            compute_dtype=torch.bfloat16 if bf16 else torch.float32,
            compress_statistics=True,
            quant_type="nf4",
        )
        layer.load_state_dict(plain.state_dict())
        layer.requires_grad_(False)
        layer.support_avx512bf16_for_cpu = False  # else validation packs weights anew, and rounds their scales to bf16
        try:
            layer = layer.to(plain.weight.device)
        except (RuntimeError, NotImplementedError) as error:
            raise RecipeError(
                f"4-bit weights do not work here: {str(error).splitlines()[0]}",
                where="load_in_4bit",
                expected="a processor or graphics card that bitsandbytes supports",
                remedy="load_in_4bit: false",
            ) from error
        _put(model, name, layer)


def merge(model: Any) -> None:
    """Every adapted 4-bit layer of a model, in place, as a plain one: what it computed with, plus its adapter."""
    import bitsandbytes as bnb
    import torch

    adapted = [
        (n, m) for n, m in model.named_modules() if isinstance(getattr(m, "base_layer", None), bnb.nn.Linear4bit)
    ]
    for name, layer in adapted:
        base: Any = layer.base_layer
        weight = weights_of(base) + layer.get_delta_weight("default").to(torch.float32)
        plain = torch.nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device=weight.device)
        with torch.no_grad():
            plain.weight.copy_(weight)
            if base.bias is not None:
                plain.bias.copy_(base.bias)
        _put(model, name, plain)


def weights_of(layer: Any) -> Any:
    """(outputs, inputs) float32: what a 4-bit layer computes with."""
    import bitsandbytes as bnb
    import torch

    weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return weight.to(torch.float32).reshape(layer.out_features, layer.in_features)


def _put(model: Any, name: str, module: Any) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
