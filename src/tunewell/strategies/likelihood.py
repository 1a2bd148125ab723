"""Fisher information of a language model's own likelihood: next tokens of decoders, masked tokens of encoders.

F = E over tokens of E over y ~ p of (∂ log p(y) / ∂θ)², the answers y drawn from the model itself (the true Fisher
information, and not the empirical one; Kunstner, Balles & Hennig, 2019). The draws of the tokens of a batch are
independent with scores of mean zero, so the squared gradient of their sum is, on average, the sum of their squares.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Weights

MASKED = 0.15  # share of an encoder's tokens that are masked (Devlin et al., 2019)


def likelihood_fisher(
    model: Any, batches: Iterable[dict[str, torch.Tensor]], names: list[str], *, seed: int, mask: int | None = None
) -> Weights:
    """The diagonal Fisher information a token.

    Args:
        model: gives logits (B, T, V). names: of the parameters to measure.
        mask: id of the mask token for a masked language model; None for a decoder.

    Returns:
        name -> (shape of the parameter) E[(∂ log p(y) / ∂θ)²].
    """
    import torch

    from tunewell.strategies.quadratic import squared_gradients

    generator = torch.Generator().manual_seed(seed)

    def draw(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int] | None:
        batch, asked = _asked(batch, mask, generator)
        if not asked.any():
            return None
        return drawn_likelihood(model(**batch).logits[asked], generator)

    return squared_gradients(model, batches, names, draw)


def drawn_likelihood(logits: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, int]:
    """Σ log p(y) over n answers y drawn from the model's own distribution, for logits (n, C), and n."""
    import torch

    log = logits.float().log_softmax(-1)
    drawn = torch.multinomial(log.detach().exp().cpu(), 1, generator=generator).to(log.device)
    return log.gather(1, drawn).sum(), len(drawn)


def _asked(
    batch: dict[str, torch.Tensor], mask: int | None, generator: torch.Generator
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The batch as the model is to see it, and the places (B, T) whose tokens it is asked for."""
    import torch

    real = batch["attention_mask"].bool()
    if mask is None:  # every place says what comes next
        return {k: v for k, v in batch.items() if k != "token_type_ids"}, real
    asked = (torch.rand(real.shape, generator=generator).to(real.device) < MASKED) & real
    return {**batch, "input_ids": batch["input_ids"].masked_fill(asked, mask)}, asked


def masked_model(model: Any, mask: int | None) -> Any:
    """The base model again, under its own masked-language-model head.

    Raises:
        RecipeError: it brings none.
    """
    import torch
    from transformers import AutoModelForMaskedLM

    from tunewell.models.heads import architectures

    place = model.name_or_path
    if mask is None or not any(a.endswith("ForMaskedLM") for a in architectures(place)):
        raise RecipeError(
            f"`ewc_fisher: likelihood` needs a language-model head, and {place} brings none",
            where="ewc_fisher",
            expected="a masked language model such as splade-tiny or BERT, a decoder, or `ewc_fisher: embeddings`",
        )
    return AutoModelForMaskedLM.from_pretrained(place, dtype=torch.float32, use_safetensors=True).to(model.device)
