"""Elastic weight consolidation: weights that the base model's knowledge rests on are held (Kirkpatrick et al., 2017).

Adds ewc_weight / 2 · Σ F (θ − θ₀)², F the diagonal Fisher information of the base model. An encoder
without a language-model head has no likelihood of its own, so it is given one on its pooled
embeddings of general text: a Gaussian around e(x) with variance ‖e(x)‖² a dimension. F is then
E[Σₖ (∂eₖ/∂θ)² / ‖e‖²], and the whole term is the diagonal, second-order form of the loss of `distill`.

It is measured as the definition has it, with answers drawn from the model's own distribution. The
draws of the texts of a batch are independent with mean zero, so the squared gradient of the batch's
sum is, on average, the sum of the texts' squared gradients: no pass of its own for each text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning, Weights

ROWS = 32


class ElasticWeights:
    name = "ewc"
    title = "Elastic weight consolidation"
    paper = "Kirkpatrick et al., 2017, Overcoming catastrophic forgetting in neural networks"

    def __init__(self, options: dict[str, Any]) -> None:
        self.weight = float(options["ewc_weight"])
        self.general = options["general_text"], options["general_samples"]

    def prepare(self, tuning: Tuning) -> None:
        from tunewell.strategies.quadratic import anchors, cached, general_batches

        if self.weight:
            self.anchor = anchors(tuning.model)

            def measure() -> Weights:
                tuning.echo("ewc: measuring the Fisher information of the base model on general text")
                batches = general_batches(tuning, self.general, ROWS)
                return fisher(tuning.model, batches, list(self.anchor), seed=tuning.seed)

            self.importance = cached(tuning, "ewc", measure)

    def after_backward(self, model: Any, step: int) -> None:
        from tunewell.strategies.quadratic import pull

        if self.weight:
            pull(model, self.anchor, self.weight, self.importance)


def fisher(model: Any, batches: Iterable[dict[str, torch.Tensor]], names: list[str], *, seed: int) -> Weights:
    """The diagonal Fisher information of pooled embeddings, averaged over texts; see the head of this file.

    Args:
        batches: inputs of the base model, with attention_mask.
        names: of the parameters to measure.

    Returns:
        name -> (shape of the parameter) E[Σₖ (∂eₖ/∂θ)² / ‖e‖²].
    """
    import torch

    from tunewell.strategies.quadratic import pooled

    parameters = {name: p for name, p in model.named_parameters() if name in set(names)}
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    generator = torch.Generator().manual_seed(seed)
    training, n = model.training, 0
    model.eval()
    try:
        for batch in batches:
            e = pooled(model, batch)
            drawn = torch.randn(e.shape, generator=generator).to(e.device)
            likelihood = (drawn * e / e.detach().norm(dim=1, keepdim=True).clamp(min=1e-12)).sum()
            gradients = torch.autograd.grad(likelihood, list(parameters.values()), allow_unused=True)
            for name, g in zip(parameters, gradients, strict=True):
                if g is not None:
                    total[name].addcmul_(g, g)
            n += len(e)
    finally:
        model.train(training)
    return {name: t / max(n, 1) for name, t in total.items()}
