"""Freezing: parts of the model stay as they are.

`freeze` in the recipe says which: `embeddings` (the token embeddings; Lee et al., 2019, What would
Elsa do?), `last_K` (all but the last K layers and the head), `head_only`, `bitfit` (all but the bias
terms and the head; Ben Zaken et al., 2022), `gradual` (one layer more from the top at a time, all by
the middle of tuning; Howard & Ruder, 2018, with steps for epochs). The head is always tuned, where it has weights of
its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError

if TYPE_CHECKING:
    from tunewell.train.hooks import Tuning

UNFROZEN_BY = 0.5  # share of the steps after which `gradual` holds nothing back


class Freezing:
    name = "freeze"
    title = "Freezing parts of the model"
    paper = "Howard & Ruder, 2018, Universal language model fine-tuning; Ben Zaken et al., 2022, BitFit"

    def __init__(self, options: dict[str, Any]) -> None:
        self.mode = str(options["freeze"])

    def prepare(self, tuning: Tuning) -> None:
        from tunewell.strategies.layers import depths, head_depth

        self.places = depths(tuning.model)
        self.layers = head_depth(tuning.model) - 1
        self.headless = max(self.places.values()) <= self.layers
        self.steps = tuning.steps
        if self.mode == "gradual":
            return  # the optimiser must know all parameters; begin_step holds them back
        lowest = self._lowest()
        for name, p in tuning.model.named_parameters():
            p.requires_grad_(
                self.places[name] > self.layers or name.endswith("bias")
                if self.mode == "bitfit"
                else self.places[name] >= lowest
            )
        if not any(p.requires_grad for p in tuning.model.parameters()):
            raise RecipeError(
                f"`freeze: {self.mode}` leaves nothing to tune: this model has "
                + ("no bias terms, and " if self.mode == "bitfit" else "")
                + "no head with weights of its own",
                where="freeze",
                expected=f"last_1 to last_{self.layers}, or embeddings, gradual",
            )

    def _lowest(self) -> int:
        """The lowest place that is tuned."""
        if self.mode == "embeddings":
            return 1
        if self.mode == "head_only":
            return self.layers + 1
        if self.mode == "bitfit":
            return 0
        last = int(self.mode.removeprefix("last_"))
        if last > self.layers:
            raise RecipeError(
                f"`freeze: {self.mode}`, but the model has {self.layers} layers",
                where="freeze",
                expected=f"last_1 to last_{self.layers}, or embeddings, head_only, bitfit, gradual",
            )
        return self.layers + 1 - last

    def begin_step(self, model: Any, step: int) -> None:
        if self.mode == "gradual":
            lowest = min(thawed(step, self.steps, self.layers), self.layers + (not self.headless))
            for name, p in model.named_parameters():
                p.requires_grad_(self.places[name] >= lowest)

    def finish(self, model: Any) -> None:
        if self.mode == "gradual":
            model.requires_grad_(True)


def thawed(step: int, steps: int, layers: int) -> int:
    """The lowest place tuned at a step: layers + 1 (the head alone) at first, 0 (all) by the middle.

    >>> [thawed(step, 16, 2) for step in (0, 2, 4, 6, 8, 15)]
    [3, 2, 1, 0, 0, 0]
    """
    stage = UNFROZEN_BY * steps / (layers + 2)
    return max(0, layers + 1 - int(step / max(stage, 1e-9)))
