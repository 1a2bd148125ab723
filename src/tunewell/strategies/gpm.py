"""Gradient projection memory: no step may change what layers answer to general text (Saha, Garg & Roy, 2021).

For every linear layer the inputs that general text gives it are gathered in the base model, and the directions M
that hold `gpm_threshold` of their energy. Each step's change is then made orthogonal to them, so that the layer
answers inputs in their span as the base model does; the rest of the space is free for the task. It is the
orthogonal gradient descent of Farajtabar et al. (2020) with input subspaces in place of stored gradients.

A bias acts as the weight of one more input, which is always 1. Embeddings and norms have no such space and are
held. The paper projects the gradient, for SGD; AdamW would turn it away again, so what is projected here is the
update itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning, Weights

ROWS = 32


class GradientProjection:
    name = "gpm"
    title = "Gradient projection memory: steps orthogonal to the inputs of general text"
    paper = "Saha et al., 2021, Gradient projection memory for continual learning; Farajtabar et al., 2020"

    def __init__(self, options: dict[str, Any]) -> None:
        self.threshold = float(options["gpm_threshold"])
        self.general = options["general_text"], options["general_samples"]

    def prepare(self, tuning: Tuning) -> None:
        from tunewell.strategies.layers import shared
        from tunewell.strategies.quadratic import cached, general_batches

        self.spaces: Weights = {}
        if not self.threshold:
            return
        layers = linear_layers(tuning.model)

        def measure() -> Weights:
            grams = gram_matrices(tuning.model, layers, general_batches(tuning, self.general, ROWS))
            return {name: leading(gram, self.threshold) for name, gram in grams.items()}

        tuning.echo("gpm: gathering the inputs that general text gives to each layer")
        self.spaces = cached(tuning, "gpm", measure)
        of_layers = {f"{name}.{kind}" for name in layers for kind in ("weight", "bias")}
        for name, p in shared(tuning.model):
            if name not in of_layers:
                p.requires_grad_(False)
        held = sum(m.shape[1] for m in self.spaces.values()) / max(1, sum(m.shape[0] for m in self.spaces.values()))
        tuning.echo(f"gpm: {held:.0%} of the directions are held in {len(self.spaces)} layers")

    def before_step(self, model: Any, step: int) -> None:
        layers = {name: model.get_submodule(name) for name in self.spaces}
        self.before = {name: augmented(layer).clone() for name, layer in layers.items()}

    def after_step(self, model: Any, step: int, learning_rate: float) -> None:
        import torch

        with torch.no_grad():
            for name, before in self.before.items():
                layer, space = model.get_submodule(name), self.spaces[name].to(before.device)
                change = augmented(layer) - before
                new = before + change - (change @ space) @ space.T
                n = layer.weight.shape[1]
                layer.weight.copy_(new[:, :n])
                if layer.bias is not None:
                    layer.bias.copy_(new[:, n])
        self.before = {}


def augmented(layer: Any) -> torch.Tensor:
    """(out, in + 1) weight and bias of a linear layer, (out, in) where it has no bias."""
    import torch

    weight = layer.weight.detach()
    return weight if layer.bias is None else torch.cat([weight, layer.bias.detach()[:, None]], dim=1)


def linear_layers(model: Any) -> list[str]:
    """Names of the linear layers that stand in a numbered layer of the base model and are tuned."""
    import torch

    from tunewell.strategies.layers import numbered

    modules: dict[str, Any] = dict(model.named_modules())
    return [
        name
        for name, layer in numbered(model, modules).items()
        if layer is not None and isinstance(modules[name], torch.nn.Linear) and modules[name].weight.requires_grad
    ]


def gram_matrices(model: Any, layers: list[str], batches: Iterable[dict[str, torch.Tensor]]) -> Weights:
    """Layer -> (d, d) sum over tokens of x xᵀ, x the layer's input with a 1 appended where it has a bias."""
    import torch

    grams: Weights = {}
    mask = torch.empty(0)

    def hook(name: str) -> Any:
        def gather(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].detach().float().reshape(-1, inputs[0].shape[-1])[mask]
            if module.bias is not None:
                x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
            grams[name] = grams.get(name, 0) + x.T @ x

        return gather

    training = model.training
    model.eval()
    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in layers]
    try:
        with torch.no_grad():
            for batch in batches:
                mask = batch["attention_mask"].bool().flatten()
                model.base_model(**batch)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    return grams


def leading(gram: torch.Tensor, threshold: float) -> torch.Tensor:
    """(d, k) the fewest orthonormal directions that hold `threshold` of the energy of inputs with this Gram matrix.

    >>> import torch
    >>> leading(torch.diag(torch.tensor([1.0, 9.0, 0.0])), 0.9).abs().tolist()
    [[0.0], [1.0], [0.0]]
    """
    import torch

    values, vectors = torch.linalg.eigh(gram.double())
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    share = values.cumsum(0) / values.sum().clamp(min=1e-300)
    k = int((share < threshold - 1e-9).sum()) + 1
    return vectors[:, :k].float().contiguous()
