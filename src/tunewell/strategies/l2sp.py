"""L2-SP: weight decay towards the base model instead of towards zero (Li et al., 2018).

Adds l2sp_weight / 2 · ‖θ − θ₀‖² over the weights that the base model has. The paper adds a small plain
weight decay on the head; here that is the optimiser's `weight_decay`, as in every other strategy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewell.train.hooks import Tuning


class L2SP:
    name = "l2sp"
    title = "Weight decay towards the base model (L2-SP)"
    paper = "Li et al., 2018, Explicit inductive bias for transfer learning with convolutional networks"

    def __init__(self, options: dict[str, Any]) -> None:
        self.weight = float(options["l2sp_weight"])

    def prepare(self, tuning: Tuning) -> None:
        from tunewell.strategies.quadratic import anchors

        self.anchor = anchors(tuning.model) if self.weight else {}

    def shard(self, place: Any) -> None:
        self.anchor = {name: place(name, w) for name, w in self.anchor.items()}

    def after_backward(self, model: Any, step: int) -> None:
        from tunewell.strategies.quadratic import pull

        if self.weight:
            pull(model, self.anchor, self.weight)
