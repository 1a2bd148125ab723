"""An exponential moving average of the weights while tuning (Polyak & Juditsky, 1992; Tarvainen & Valpola, 2017).

After every step the average becomes d · average + (1 − d) · θ, with d = min(ema_decay, (1 + t) / (10 + t))
so that the first, still untuned weights are soon forgotten. The average is what validation scores and
what the run keeps; the optimiser goes on from θ.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewell.train.hooks import Weights


class MovingAverage:
    name = "ema"
    title = "Exponential moving average of the weights"
    paper = "Tarvainen & Valpola, 2017, Mean teachers are better role models; Polyak & Juditsky, 1992"

    def __init__(self, options: dict[str, Any]) -> None:
        self.decay = float(options["ema_decay"])
        self.average: Weights = {}

    def after_step(self, model: Any, step: int, learning_rate: float) -> None:
        import torch

        weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad or n in self.average}
        with torch.no_grad():
            for name, w in weights.items():
                if name in self.average:
                    t = step + 1
                    self.average[name].lerp_(w, 1 - min(self.decay, (1 + t) / (10 + t)))
                else:
                    self.average[name] = w.clone()

    def validating(self, model: Any) -> Any:
        return swapped(model, self.average)

    def state(self) -> Weights:
        return self.average

    def load_state(self, state: Weights) -> None:
        self.average = dict(state)

    def shard(self, place: Any) -> None:
        self.average = {name: place(name, w) for name, w in self.average.items()}

    def finish(self, model: Any) -> None:
        put(model, self.average)


@contextmanager
def swapped(model: Any, weights: Weights) -> Iterator[None]:
    """Other weights in place of a model's own, for as long as the context lasts."""
    own = {n: p.data for n, p in model.named_parameters() if n in weights}
    try:
        for name, p in model.named_parameters():
            if name in weights:
                p.data = weights[name].to(p.device)
        yield
    finally:
        for name, p in model.named_parameters():
            if name in own:
                p.data = own[name]


def put(model: Any, weights: Weights) -> None:
    """Copy weights into a model."""
    import torch

    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in weights:
                p.copy_(weights[name])
