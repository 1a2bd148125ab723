"""Recall and learn: Adam that first recalls the base model and then learns the task (Chen et al., 2020).

The task's loss has weight λ(t) = 1 / (1 + exp(−k (t − t₀))), and the pull to the base weights 1 − λ(t).
The pull is kept out of Adam's moments (RecAdam):

    θ ← θ − η (λ(t) · u + (1 − λ(t)) · γ · (θ − θ₀))

with u what AdamW would have done. Here u holds AdamW's weight decay too, which the authors' code adds
unscaled. t₀ is a share of the planned steps and not a number of steps, so that short runs get to their
task; the head follows AdamW alone, as in the paper. γ = 0 switches all of it off.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewell.train.hooks import Tuning


class RecallAndLearn:
    name = "recadam"
    title = "Recall and learn (RecAdam)"
    paper = "Chen et al., 2020, Recall and learn: fine-tuning deep pretrained language models with less forgetting"

    def __init__(self, options: dict[str, Any]) -> None:
        self.pull, self.rate, self.share = (float(options[f"recadam_{k}"]) for k in ("pull", "k", "t0"))

    def prepare(self, tuning: Tuning) -> None:
        from tunewell.strategies.quadratic import anchors

        self.t0 = self.share * tuning.steps
        self.anchor = anchors(tuning.model) if self.pull else {}

    def shard(self, place: Any) -> None:
        self.anchor = {name: place(name, w) for name, w in self.anchor.items()}

    def before_step(self, model: Any, step: int) -> None:
        if self.pull:
            self.before = {n: p.detach().clone() for n, p in model.named_parameters() if n in self.anchor}

    def after_step(self, model: Any, step: int, learning_rate: float) -> None:
        import torch

        if self.pull:
            share = annealed(step + 1, self.rate, self.t0)
            # a rate that would throw a weight beyond where it began only brings it there
            back = min(1.0, learning_rate * (1 - share) * self.pull)
            with torch.no_grad():
                for name, p in model.named_parameters():
                    if name in self.anchor:
                        before, anchor = self.before[name], self.anchor[name].to(p.device)
                        p.copy_(before + share * (p - before) - back * (before - anchor))
            self.before = {}


def annealed(t: int, k: float, t0: float) -> float:
    """λ(t), the task's share of the objective.

    >>> round(annealed(100, 0.1, 100), 3), round(annealed(150, 0.1, 100), 4)
    (0.5, 0.9933)
    """
    return 1 / (1 + math.exp(min(700.0, -k * (t - t0))))
