"""Elastic weight consolidation: weights that the base model's knowledge rests on are held (Kirkpatrick et al., 2017).

Adds ewc_weight / 2 · Σ F (θ − θ₀)², F the diagonal Fisher information of the base model. An encoder
without a language-model head has no likelihood of its own (`ewc_fisher: embeddings`), so it is given one on its pooled
embeddings of general text: a Gaussian around e(x) with variance ‖e(x)‖² a dimension. F is then
E[Σₖ (∂eₖ/∂θ)² / ‖e‖²], and the whole term is the diagonal, second-order form of the loss of `distill`.

Where there is a language-model head, F can be that of its own likelihood (`ewc_fisher: likelihood`): the next
tokens of a decoder, masked tokens of an encoder, and the term is then ewc_weight · KL(p₀ ‖ p) a token to second order.

It is measured as the definition has it, with answers drawn from the model's own distribution. The
draws of the texts of a batch are independent with mean zero, so the squared gradient of the batch's
sum is, on average, the sum of the texts' squared gradients: no pass of its own for each text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning, Weights

ROWS = 32


class ElasticWeights:
    name = "ewc"
    title = "Elastic weight consolidation"
    paper = "Kirkpatrick et al., 2017, Overcoming catastrophic forgetting in neural networks"

    def __init__(self, options: dict[str, Any]) -> None:
        self.weight, self.kind = float(options["ewc_weight"]), options["ewc_fisher"]
        self.general = options["general_text"], options["general_samples"]

    def prepare(self, tuning: Tuning) -> None:
        from tunewell.strategies.likelihood import likelihood_fisher, masked_model
        from tunewell.strategies.quadratic import anchors, cached, general_batches
        from tunewell.train.monitor import is_decoder

        if self.weight:
            if tuning.model.config.is_encoder_decoder:
                raise RecipeError(
                    "`strategy: ewc` is for encoders and decoders; nothing is measured of an encoder-decoder",
                    where="strategy",
                    expected="another strategy such as l2sp",
                )
            self.anchor = anchors(tuning.model)

            def measure() -> Weights:
                tuning.echo("ewc: measuring the Fisher information of the base model on general text")
                batches = general_batches(tuning, self.general, ROWS)
                names, mask = list(self.anchor), tuning.tokenizer.mask_token_id
                if is_decoder(tuning.model) and self.kind != "embeddings":
                    return likelihood_fisher(tuning.model, batches, names, seed=tuning.seed)
                if self.kind == "likelihood":
                    masked = masked_model(tuning.model, mask)
                    found = likelihood_fisher(masked, batches, names, seed=tuning.seed, mask=mask)
                    return {name: in_use(tuning.model, name, f) for name, f in found.items()}
                return fisher(tuning.model, batches, list(self.anchor), seed=tuning.seed)

            self.importance = cached(tuning, "ewc", measure)

    def shard(self, place: Any) -> None:
        if self.weight:
            self.anchor, self.importance = (
                {name: place(name, w) for name, w in held.items()} for held in (self.anchor, self.importance)
            )

    def after_backward(self, model: Any, step: int) -> None:
        from tunewell.strategies.quadratic import pull

        if self.weight:
            pull(model, self.anchor, self.weight, self.importance)


def in_use(model: Any, name: str, importance: torch.Tensor) -> torch.Tensor:
    """The rows of a whole embedding matrix's importances that are tuned; see `train.vocabulary`."""
    import torch

    table = model.get_input_embeddings()
    place = getattr(table, "place", None)
    if place is None or model.get_parameter(name) is not table.weight:
        return importance
    return importance[torch.nonzero(place >= 0).flatten()].contiguous()


def fisher(model: Any, batches: Iterable[dict[str, torch.Tensor]], names: list[str], *, seed: int) -> Weights:
    """The diagonal Fisher information of pooled embeddings, averaged over texts; see the head of this file.

    Args:
        batches: inputs of the base model, with attention_mask.
        names: of the parameters to measure.

    Returns:
        name -> (shape of the parameter) E[Σₖ (∂eₖ/∂θ)² / ‖e‖²].
    """
    import torch

    from tunewell.strategies.quadratic import pooled, squared_gradients

    generator = torch.Generator().manual_seed(seed)

    def draw(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        e = pooled(model, batch)
        drawn = torch.randn(e.shape, generator=generator).to(e.device)
        return (drawn * e / e.detach().norm(dim=1, keepdim=True).clamp(min=1e-12)).sum(), len(e)

    return squared_gradients(model, batches, names, draw)
