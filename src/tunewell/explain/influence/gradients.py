"""Per-example gradients of a tuned model, projected layer by layer while they are made.

The gradient of one example by a linear layer's weights is the sum over its tokens of output gradient times input,
δ aᵀ. Projecting both sides, (P δ)(Q a)ᵀ, gives a small matrix an example without ever forming the large one: one
forward and one backward pass a batch, whatever the number of weights (Choe et al., 2024, What is Your Data Worth to
GPT?, call it LoGra). P and Q are seeded Gaussian matrices, so that inner products are kept in the mean (Johnson and
Lindenstrauss, 1984); a side that is already small is left whole.

Shapes: B rows, T tokens, H features before the head, C outputs, K numbers a layer, D = sum of K over layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import ModelError

if TYPE_CHECKING:
    import torch

    from tunewell.tasks import TaskSpec


@dataclass(frozen=True)
class Batch:
    """What one pass over a batch gives.

    Attributes:
        features: (B, H) input of the head. logits: (B, C). gradients: (B, D), or (B, 0) when not asked for.
    """

    features: np.ndarray
    logits: np.ndarray
    gradients: np.ndarray


def head_of(model: Any) -> Any:
    """The last linear layer, which gives the logits.

    Raises:
        ModelError: the model has none.
    """
    import torch

    linear = [
        m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == model.config.num_labels
    ]
    if not linear:
        raise ModelError(
            f"the head of this {model.config.model_type} model is not linear",
            where=str(model.config.name_or_path),
            expected="a classification head whose last layer is linear",
        )
    return linear[-1]


def direction(spec: TaskSpec, logits: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Gradient of the explained output by the logits: (B, C).

    The explained output is the log odds of class `which` (log p / (1 − p), as in TRAK), the logit of label `which`
    for several labels a row, the value for regression.
    """
    import torch

    onehot = torch.nn.functional.one_hot(which, logits.shape[1]).to(logits.dtype)
    if spec.regression or spec.multi_label:
        return onehot
    return onehot - torch.softmax(logits.masked_fill(onehot.bool(), -torch.inf), dim=1)


class Projector:
    """Hooks on the linear layers of a model that collect projected per-example gradients. A context manager.

    Args:
        model: in evaluation mode; unchanged afterwards.
        side: numbers kept of each side of a layer's gradient, so at most side² a layer.
        seed: of the projections.

    Attributes:
        blocks: name of each layer -> its slice of the D numbers; the head comes last.
    """

    def __init__(self, model: Any, *, side: int = 8, seed: int = 0) -> None:
        import torch

        self.model, self.head, self.side = model, head_of(model), side
        generator = torch.Generator().manual_seed(seed)
        self._layers: dict[str, tuple[Any, torch.Tensor | None, torch.Tensor | None]] = {}
        self.blocks: dict[str, slice] = {}
        start = 0
        named = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not self.head]
        for name, module in [*named, ("head", self.head)]:
            inputs = int(module.in_features or 0) + (module.bias is not None)
            inner = _projection(inputs, side, generator)
            outer = _projection(module.out_features, side, generator)
            size = min(side, inputs) * min(side, module.out_features)
            self._layers[name] = (module, inner, outer)
            self.blocks[name] = slice(start, start + size)
            start += size
        self.size = start
        self._handles: list[Any] = []
        self._inputs: dict[str, torch.Tensor] = {}
        self._found: dict[str, torch.Tensor] = {}
        self._collect = True
        self._required: list[tuple[Any, bool]] = []

    def __enter__(self) -> Projector:
        # only activations need gradients: weights are left out, and the embeddings' output starts the graph
        self._required = [(p, p.requires_grad) for p in self.model.parameters()]
        for parameter, _ in self._required:
            parameter.requires_grad_(False)
        self._handles.append(self.model.get_input_embeddings().register_forward_hook(self._start))
        for name, (module, inner, outer) in self._layers.items():
            self._handles.append(module.register_forward_hook(self._keeper(name, inner, outer)))
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()
        for parameter, required in self._required:
            parameter.requires_grad_(required)
        self._handles, self._required, self._inputs, self._found = [], [], {}, {}

    def _start(self, module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output.detach().requires_grad_(True) if self._collect else output

    def _keeper(self, name: str, inner: torch.Tensor | None, outer: torch.Tensor | None) -> Any:
        import torch

        def keep(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if module is self.head:
                self._inputs["features"] = inputs[0].detach()
            if not (self._collect and output.requires_grad):
                return
            a = inputs[0].detach()
            if module.bias is not None:
                a = torch.cat([a, a.new_ones(*a.shape[:-1], 1)], dim=-1)
            a = a if inner is None else a @ inner.to(a.device)

            def receive(delta: torch.Tensor) -> None:
                d = delta.detach()
                d = d if outer is None else d @ outer.to(d.device)
                rows = len(d)
                product = torch.einsum(
                    "bto,bti->boi", d.reshape(rows, -1, d.shape[-1]), a.reshape(rows, -1, a.shape[-1])
                )
                before = self._found.get(name)  # a layer that is used more than once (ALBERT)
                self._found[name] = product.reshape(rows, -1) + (0 if before is None else before)

            output.register_hook(receive)

        return keep

    def run(
        self,
        inputs: dict[str, torch.Tensor],
        which: np.ndarray | None,
        spec: TaskSpec,
        *,
        gradients: bool = True,
        direction_of: Any = direction,
    ) -> Batch:
        """One pass over a padded batch.

        Args:
            which: (B,) class whose output is explained; by default the predicted one.
            direction_of: gives the gradient by the logits, see `direction`.
        """
        import torch

        self._collect = gradients
        self._found, self._inputs = {}, {}
        with torch.enable_grad() if gradients else torch.no_grad():
            logits = self.model(**inputs).logits
        if self._inputs["features"].dim() != 2:
            raise ModelError(
                f"the head of this {self.model.config.model_type} model answers for each token",
                where=str(self.model.config.name_or_path),
                expected="a head on one vector a text",
            )
        plain = logits.detach()
        out = np.empty((len(plain), 0), dtype=np.float32)
        if gradients:
            chosen = plain.argmax(1) if which is None else torch.as_tensor(which, device=plain.device)
            logits.backward(direction_of(spec, plain, chosen))
            parts = [
                self._found.get(name, plain.new_zeros(len(plain), block.stop - block.start))
                for name, block in self.blocks.items()
            ]
            out = torch.cat(parts, dim=1).float().cpu().numpy()
        return Batch(self._inputs["features"].float().cpu().numpy(), plain.float().cpu().numpy(), out)


def _projection(size: int, side: int, generator: torch.Generator) -> torch.Tensor | None:
    """(size, side) Gaussian with E[P Pᵀ] = I; None when there is nothing to project."""
    import torch

    return None if size <= side else torch.randn(size, side, generator=generator) / side**0.5
