"""Learning between the rows: mixup on the pooled sentence representation.

Zhang et al. (2018) learn from mixtures of two rows, x̃ = λ xᵢ + (1 − λ) xⱼ and ỹ = λ yᵢ + (1 − λ) yⱼ with
λ ~ Beta(α, α). Words cannot be mixed, so Mixup-Transformer (Sun et al., 2020) mixes what the last layer of the head
is given, the pooled representation zᵢ of a text:

    L = 1/B Σᵢ λ ℓ(W z̃ᵢ + b, yᵢ) + (1 − λ) ℓ(W z̃ᵢ + b, y_π(i)),    z̃ᵢ = λ zᵢ + (1 − λ) z_π(i)

which for the cross-entropy is its loss on the mixed label. One λ and one permutation π are drawn for a batch, as in
Zhang's code. Labels that are numbers (scores; 0 and 1 of several labels) are mixed themselves: ℓ(W z̃ᵢ + b, ỹᵢ).

This takes the place of the task's own loss in every batch; the rows themselves are answered as ever, so that what is
recorded of them (margins, the guard's loss) is that of the rows and not of mixtures. `mixup_alpha: 0` mixes nothing.
Where we differ from Sun et al.: they hold λ at 0.5 and mix in the later half of tuning only; here λ is drawn.

Shapes: B rows, F size of what the last layer is given, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning


class Mixup:
    name = "mixup"
    title = "Mixtures of rows, on their pooled representations"
    paper = (
        "Zhang et al., 2018, mixup: beyond empirical risk minimization; Sun et al., 2020, Mixup-Transformer: dynamic "
        "data augmentation for NLP tasks"
    )

    def __init__(self, options: dict[str, Any]) -> None:
        self.alpha = float(options["mixup_alpha"])
        self.handle: Any = None
        self.pooled: Any = None

    def prepare(self, tuning: Tuning) -> None:
        """Raises RecipeError for a decoder, whose head is given tokens and no pooled text."""
        from tunewell.tasks.generation.models import kind_of

        if kind_of(tuning.model.config) == "decoder":
            raise RecipeError(
                "`strategy: mixup` mixes the pooled representations of an encoder, and this is a decoder",
                where="strategy",
                expected="an encoder, or another strategy",
            )
        self.row_loss, self.float_labels = tuning.row_loss, tuning.float_labels

    def begin_step(self, model: Any, step: int) -> None:
        """Listens to the head from the first step on: only now have all strategies prepared the model."""
        from tunewell.strategies.lpft import last_linear

        if self.alpha and self.handle is None:
            self.head = last_linear(model)
            self.handle = self.head.register_forward_pre_hook(self._keep)

    def _keep(self, module: Any, inputs: tuple[Any, ...]) -> None:
        if module.training:
            self.pooled = inputs[0]

    def row_losses(self, model: Any, outputs: Any, labels: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """The losses (B,) of the batch's mixtures, in place of those of its rows."""
        import torch

        z, self.pooled = self.pooled, None
        if not self.alpha or z is None or len(labels) < 2:
            return losses
        # from the loop's own generator, whose state checkpoints hold: a resumed tuning draws the same
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        other = torch.randperm(len(labels)).to(labels.device)
        head = self.head
        return mixed_losses(
            z, labels, share, other, head.weight, head.bias, self.row_loss, mix_labels=self.float_labels
        )

    def finish(self, model: Any) -> None:
        if self.handle is not None:
            self.handle.remove()
        self.handle = self.pooled = None


def mixed_losses(
    z: torch.Tensor,
    labels: torch.Tensor,
    share: float,
    other: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    row_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    mix_labels: bool,
) -> torch.Tensor:
    """Losses (B,) of λ zᵢ + (1 − λ) z_π(i) under a linear head.

    Args:
        z: (B, F). labels: as `row_loss` takes them. share: λ. other: (B,) π.
        weight: (C, F); bias: (C,) or None.
        mix_labels: mix the labels (numbers) and not the losses (class ids).

    >>> import torch
    >>> z, one = torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0]])
    >>> squared = lambda logits, y: (logits[:, 0] - y) ** 2
    >>> swap = torch.tensor([1, 0])
    >>> mixed_losses(z, torch.tensor([1.0, 0.0]), 0.75, swap, one, None, squared, mix_labels=True).tolist()
    [0.5625, 0.0625]
    """
    from torch.nn.functional import linear

    z = z.float()
    logits = linear(share * z + (1 - share) * z[other], weight.float(), None if bias is None else bias.float())
    if mix_labels:
        return row_loss(logits, share * labels + (1 - share) * labels[other])
    return share * row_loss(logits, labels) + (1 - share) * row_loss(logits, labels[other])
