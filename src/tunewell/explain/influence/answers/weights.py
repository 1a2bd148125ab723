"""By which weights gradients are taken: the adapters that the run has learned, else the last block.

A run's adapters are merged into its weights. Their gradients do not need them apart: with the two matrices put beside
each layer so that they add nothing, W x + s B (A x) − s B₀ (A₀ x), the output and the gradients by A and B are those of
the adapted layer.

Shapes: r rank, a layer has `in` inputs and `out` outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewell.errors import ModelError

if TYPE_CHECKING:
    import torch

    from tunewell.train.trace import Adapters

ADAPTERS, BLOCK = "adapters", "last block"


@dataclass(frozen=True)
class Weights:
    """Leaves by which gradients are taken, in one order.

    Attributes:
        kind: ADAPTERS or BLOCK. names: of each. tensors: require gradients.
        moments: (mean, square) of each as Adam keeps them; empty without.
    """

    kind: str
    names: list[str]
    tensors: list[torch.Tensor]
    moments: list[tuple[torch.Tensor, torch.Tensor]]

    @property
    def sizes(self) -> list[int]:
        return [t.numel() for t in self.tensors]


@contextmanager
def weights_of(model: Any, adapters: Adapters | None = None) -> Iterator[Weights]:
    """While inside, gradients of the model's outputs reach these weights and no others.

    Args:
        model: in evaluation mode; its weights and what they require are as before afterwards.
        adapters: those that were merged into it; None for the last block.

    Raises:
        ModelError: the adapters belong to another model, or it has no numbered blocks.
    """
    required = [(p, p.requires_grad) for p in model.parameters()]
    for parameter, _ in required:
        parameter.requires_grad_(False)
    handles: list[Any] = []
    try:
        if adapters is None:
            named = last_block(model)
            for _, tensor in named:
                tensor.requires_grad_(True)
            yield Weights(BLOCK, [n for n, _ in named], [t for _, t in named], [])
            return
        names, tensors, moments = [], [], []
        modules = dict(model.named_modules())
        for layer in sorted(adapters.weights):
            if layer not in modules:
                raise ModelError(
                    f"its adapters name a layer {layer}, which the model has not",
                    where="adapters.safetensors",
                    expected="adapters of this model",
                )
            module, both = modules[layer], adapters.weights[layer]
            device = next(module.parameters()).device
            a, b = (both[part].to(device).clone().requires_grad_(True) for part in ("A", "B"))
            handles.append(module.register_forward_hook(_beside(a, b, adapters.scales[layer])))
            for part, tensor in (("A", a), ("B", b)):
                names.append(f"{layer}.{part}")
                tensors.append(tensor)
                if adapters.moments:
                    moments.append(adapters.moments[layer][part])
        yield Weights(ADAPTERS, names, tensors, moments)
    finally:
        for handle in handles:
            handle.remove()
        for parameter, before in required:
            parameter.requires_grad_(before)


def _beside(a: torch.Tensor, b: torch.Tensor, scale: float) -> Any:
    """A hook that adds the product of the two matrices less itself: nothing to the value, all to the gradients."""

    def add(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import linear

        # what flows back to the inputs goes through the merged weight already
        made = linear(linear(inputs[0].detach(), a), b) * scale
        return output + (made - made.detach()).to(output.dtype)

    return add


def last_block(model: Any) -> list[tuple[str, torch.Tensor]]:
    """Names and matrices of the highest numbered block; of an encoder-decoder, of its decoder.

    Raises:
        ModelError: no part of the model is numbered.
    """
    from tunewell.strategies.layers import numbered

    places = numbered(model, (n for n, p in model.named_parameters() if p.dim() >= 2))
    numbers = [place for place in places.values() if place is not None]
    if not numbers:
        raise ModelError(
            f"no blocks are numbered in this {model.config.model_type} model",
            where=str(model.config.name_or_path),
            expected="a decoder or encoder-decoder of blocks",
        )
    return [(n, p) for n, p in model.named_parameters() if p.dim() >= 2 and places.get(n) == max(numbers)]


def at(model: Any, adapters: Adapters) -> None:
    """Take a base model to a moment of its tuning: the adapters merged in, what was tuned beside them put in place."""
    import torch

    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    with torch.no_grad():
        for layer, both in adapters.weights.items():
            weight = modules[layer].weight
            product = (both["B"] @ both["A"]) * adapters.scales[layer]
            weight.add_((product.T if product.shape != weight.shape else product).to(weight))
        for name, tensor in adapters.others.items():
            parameters[name].copy_(tensor.to(parameters[name]))
