"""What one row pulls at: the gradient of its answer's loss, one row at a time, projected at once.

The loss of a row is the mean of -log p over the tokens of its answer, so that long answers do not count more (Xia et
al., 2024, LESS, note that sums would favour the short). Where Adam's moments are at hand, what a step on the row would
do is its own direction too: Γ = m′ / (√v′ + ε), with m′ and v′ the moments after one more step on this row alone.

Shapes: P chosen weights, k numbers of a projected gradient, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError
from tunewell.explain.influence.answers.sketch import Sketch
from tunewell.explain.influence.answers.weights import Weights

if TYPE_CHECKING:
    import torch

    from tunewell.tasks.generation.writers import Encoded, Writer


@dataclass(frozen=True)
class Pull:
    """One row.

    Attributes:
        plain: (k,) projected gradient of the loss; None where it was not asked for.
        adam: (k,) projected direction of Adam's step; None without moments.
        features: (H,) mean of the last hidden states that the answer is read from.
        loss: mean nats a token. tokens: of the answer.
    """

    plain: np.ndarray | None
    adam: np.ndarray | None
    features: np.ndarray
    loss: float
    tokens: int


@dataclass(frozen=True)
class Moments:
    """Settings of Adam beside the moments: `steps` done, `betas`, `eps`."""

    steps: int
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


def adam_direction(gradient: torch.Tensor, mean: torch.Tensor, square: torch.Tensor, settings: Moments) -> torch.Tensor:
    """Γ(z) of LESS: what Adam would step by, were this gradient the next one, the learning rate left out.

    Xia et al., 2024, section 2.3. Where their published code differs from their text (no bias correction, ε within
    the root) this is Adam's own rule (Kingma & Ba, 2015); a cosine sees neither but for ε.
    """
    first, second = settings.betas
    step = settings.steps + 1
    m = (first * mean + (1 - first) * gradient) / (1 - first**step)
    v = (second * square + (1 - second) * gradient.square()) / (1 - second**step)
    return m / (v.sqrt() + settings.eps)


class Pulls:
    """Gradients of rows by some weights of a writer's model.

    Args:
        writer: whose model is in evaluation mode. weights: see `weights.weights_of`, entered.
        sketch: the projection; None gives whole gradients (P,). moments: Adam's settings, where `weights` has moments.
        plain: whether the gradient itself is wanted; without moments it is.
    """

    def __init__(
        self, writer: Writer, weights: Weights, sketch: Sketch | None, moments: Moments | None = None, *,
        plain: bool = True,
    ) -> None:  # fmt: skip
        from tunewell.tasks.generation.head import plain_head

        self.writer, self.weights, self.sketch = writer, weights, sketch
        self.moments = moments if weights.moments else None
        self.plain, self.wanted = plain_head(writer.model), plain or self.moments is None

    def of(self, row: Encoded) -> Pull:
        """One row; nothing but the chosen weights gets a gradient, and that only for the moment.

        Raises:
            DataError: no token of the row carries loss.
        """
        import torch

        loss, tokens, hidden = self._loss(row)
        found = torch.autograd.grad(loss, self.weights.tensors, allow_unused=True, materialize_grads=True)
        plain = self._projected(list(found)) if self.wanted else None
        adam = None
        if self.moments is not None:
            pairs = zip(found, self.weights.moments, strict=True)
            adam = self._projected(
                [adam_direction(g, m.to(g.device), v.to(g.device), self.moments) for g, (m, v) in pairs]
            )
        features = hidden.detach().float().mean(0).cpu().numpy()
        return Pull(plain, adam, features, float(loss.detach()), tokens)

    def _projected(self, pieces: list[torch.Tensor]) -> np.ndarray:
        import torch

        if self.sketch is not None:
            return self.sketch(pieces).numpy()
        return torch.cat([p.detach().reshape(-1).float().cpu() for p in pieces]).numpy()

    def _loss(self, row: Encoded) -> tuple[Any, int, Any]:
        """Mean nats a token, the number of tokens, hidden states (tokens, H)."""
        import torch

        from tunewell.tasks.generation.head import answer_nats
        from tunewell.tasks.generation.loss import IGNORED, following

        writer, model = self.writer, self.writer.model
        batch = {k: v.to(model.device) for k, v in writer.collate([row._asdict()]).items()}
        labels = batch.pop("labels")
        wanted = following(labels) if writer.shift else labels
        keep = wanted != IGNORED
        tokens = int(keep.sum())
        if not tokens:
            raise DataError("no token of the answer carries loss", expected="an answer with at least one token")
        seen: list[Any] = []
        look = model.get_output_embeddings().register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].detach()[keep])
        )
        try:
            with (
                torch.enable_grad(),
                torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=writer.bf16),
            ):
                _, nats = answer_nats(model, lambda: model(**batch, use_cache=False), wanted, plain=self.plain)
        finally:
            look.remove()
        return nats / tokens, tokens, seen[0]


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows (n, k) of length 1, as float32; a row of noughts stays one."""
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-20)
