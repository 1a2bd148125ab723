"""Memory aware synapses: weights that the base model's answers are sensitive to are held (Aljundi et al., 2018).

Adds mas_weight · Σ Ω (θ − θ₀)² with Ω = E|∂‖F(x)‖² / ∂θ|. It needs no labels and no likelihood: F(x)
is the pooled embedding of a general text, and ‖F‖² is taken relative to its size at the base model, so
that a weight means the same on every model. The absolute value is taken for each text, as in the
paper, so every text has a backward pass of its own; 128 texts are used.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning, Weights

TEXTS = 128


class MemoryAwareSynapses:
    name = "mas"
    title = "Memory aware synapses"
    paper = "Aljundi et al., 2018, Memory aware synapses: learning what (not) to forget"

    def __init__(self, options: dict[str, Any]) -> None:
        self.weight = float(options["mas_weight"])
        self.general = options["general_text"], min(TEXTS, options["general_samples"])

    def prepare(self, tuning: Tuning) -> None:
        from tunewell.strategies.quadratic import anchors, cached, general_batches

        if self.weight:
            self.anchor = anchors(tuning.model)

            def measure() -> Weights:
                tuning.echo("mas: measuring how sensitive the base model's embeddings are to each weight")
                batches = islice(general_batches(tuning, self.general, 1), TEXTS)
                return sensitivity(tuning.model, batches, list(self.anchor))

            self.importance = cached(tuning, "mas", measure)

    def shard(self, place: Any) -> None:
        if self.weight:
            self.anchor, self.importance = (
                {name: place(name, w) for name, w in held.items()} for held in (self.anchor, self.importance)
            )

    def after_backward(self, model: Any, step: int) -> None:
        from tunewell.strategies.quadratic import pull

        if self.weight:
            pull(model, self.anchor, 2 * self.weight, self.importance)


def sensitivity(model: Any, batches: Iterable[dict[str, torch.Tensor]], names: list[str]) -> Weights:
    """Mean over texts of |∂(‖e‖² / ‖e₀‖²) / ∂θ|.

    Args:
        batches: one text each. names: of the parameters to measure.
    """
    import torch

    from tunewell.strategies.quadratic import pooled

    parameters = {name: p for name, p in model.named_parameters() if name in set(names)}
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    training, n = model.training, 0
    model.eval()
    try:
        for batch in batches:
            size = pooled(model, batch).square().sum()
            gradients = torch.autograd.grad(
                size / size.detach().clamp(min=1e-12), list(parameters.values()), allow_unused=True
            )
            for name, g in zip(parameters, gradients, strict=True):
                if g is not None:
                    total[name] += g.abs()
            n += 1
    finally:
        model.train(training)
    return {name: t / max(n, 1) for name, t in total.items()}
