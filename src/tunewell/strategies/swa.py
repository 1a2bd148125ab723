"""Stochastic weight averaging: the plain mean of the weights along the last part of tuning (Izmailov et al., 2018).

From `swa_start` of the steps on, the weights are taken into the mean some hundred times, evenly. Once
there is a mean, it is what validation scores and what the run keeps. The paper averages at a constant or
cyclical rate: `lr_scheduler_type: constant_with_warmup` comes nearest; BERT-like models have no batch
statistics to take anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning, Weights

TIMES = 100


class StochasticWeightAveraging:
    name = "swa"
    title = "Stochastic weight averaging"
    paper = "Izmailov et al., 2018, Averaging weights leads to wider optima and better generalization"

    def __init__(self, options: dict[str, Any]) -> None:
        self.start = float(options["swa_start"])
        self.mean: Weights = {}
        self.count = 0

    def prepare(self, tuning: Tuning) -> None:
        self.first = round(self.start * tuning.steps)
        self.every = max(1, round((1 - self.start) * tuning.steps / TIMES))

    def after_step(self, model: Any, step: int, learning_rate: float) -> None:
        import torch

        if step < self.first or (step - self.first) % self.every:
            return
        self.count += 1
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name in self.mean:
                    self.mean[name].lerp_(p.detach(), 1 / self.count)
                elif p.requires_grad:
                    self.mean[name] = p.detach().clone()

    def validating(self, model: Any) -> Any:
        from tunewell.strategies.ema import swapped

        return swapped(model, self.mean)

    def state(self) -> Weights:
        import torch

        return {"count": torch.tensor(self.count), **{f"mean.{n}": w for n, w in self.mean.items()}}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.count = int(state["count"])
        self.mean = {n.removeprefix("mean."): w for n, w in state.items() if n != "count"}

    def shard(self, place: Any) -> None:
        self.mean = {name: place(name, w) for name, w in self.mean.items()}

    def finish(self, model: Any) -> None:
        from tunewell.strategies.ema import put

        put(model, self.mean)
