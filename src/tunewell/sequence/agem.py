"""A-GEM: no step may raise the loss on a batch of stored rows (Chaudhry et al., 2019, Efficient lifelong learning).

With g the step's gradient and r that of the stored batch: where g·r < 0, g becomes
g − (g·r / r·r) r (equation 11). Stored rows are never trained on. The projection comes after
clipping, just before the optimiser's step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from tunewell.sequence.past import Past
from tunewell.sequence.replay import Memory

if TYPE_CHECKING:
    from tunewell.train.hooks import Tuning, Weights

Gradients = list[torch.Tensor]


def project(gradient: Gradients, reference: Gradients) -> Gradients:
    """g − (g·r / r·r) r where g·r < 0, else g, over all parameters at once.

    >>> [g.tolist() for g in project([torch.tensor([1.0, -1.0])], [torch.tensor([0.0, 2.0])])]
    [[1.0, 0.0]]
    """
    dot = sum((g * r).sum() for g, r in zip(gradient, reference, strict=True))
    norm = sum((r * r).sum() for r in reference)
    if not isinstance(dot, torch.Tensor) or not isinstance(norm, torch.Tensor) or dot >= 0 or norm == 0:
        return gradient
    return [g - dot / norm * r for g, r in zip(gradient, reference, strict=True)]


class AveragedGEM(TrainerCallback):
    name = "agem"
    title = "A-GEM: steps are projected so that stored rows do not get worse"
    paper = "Chaudhry et al., 2019, Efficient lifelong learning with A-GEM"

    def __init__(self, past: Past, *, rows: int | None = None) -> None:
        self.past, self.rows = past, rows or past.batch
        self.projected = 0

    def prepare(self, tuning: Tuning) -> None:
        self.memory = Memory(self.past.stored, tuning.tokenizer, self.past.memory_length)
        self.bf16 = tuning.bf16
        if len(self.memory):
            tuning.echo(f"agem: steps are held to {len(self.memory):,} stored rows, {self.rows} a step")

    def extra_loss(self, model: Any, step: int) -> None:
        return None

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        return iter(())

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Trainer calls this with the step's gradients in place."""
        if not len(self.memory):
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        own = [p.grad for p in parameters]
        if all(g is None for g in own):  # a step that is skipped
            return
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            entropy, _distance = self.memory.losses(
                model, self.memory.draw(self.rows, self.past.seed, state.global_step)
            )
        wanted = torch.autograd.grad(entropy, parameters, allow_unused=True)
        gradient = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, own, strict=True)]
        reference = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, wanted, strict=True)]
        projected = project(gradient, reference)
        if projected is not gradient:
            self.projected += 1
            for p, g in zip(parameters, projected, strict=True):
                p.grad = g.to(p.dtype)
