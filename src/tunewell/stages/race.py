"""Candidates of a search that are hopeless are stopped before they are tuned to the end.

At every validation of a tuning its score and the monitor's estimate of what is kept are held against those of the
candidates before it at the same step: the same fidelity, as in successive halving (Jamieson & Talwalkar, 2016). One
that is behind another on both, and clearly on one, is stopped there. What it has reached stays a candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback

from tunewell.results import Training
from tunewell.train.monitor import KEY

CLEAR = 0.005  # of what is kept: the monitor's own error is of this size


@dataclass(frozen=True)
class Point:
    """Where a tuning stands at a step: validation score and estimate of what is kept."""

    score: float
    kept: float


def points_of(training: Training, metric: str) -> dict[int, Point]:
    """Step -> point, of all validations of a tuning that were read by the monitor too."""
    scores = {e["step"]: e[f"eval_{metric}"] for e in training.history if f"eval_{metric}" in e}
    kept = {e["step"]: e[KEY] for e in training.history if KEY in e}
    return {s: Point(float(scores[s]), float(kept[s])) for s in scores if s in kept}


def behind(point: Point, other: Point, clear_score: float) -> bool:
    """Whether `point` is behind on both, and clearly on one; `clear_score` is a standard error of the score.

    >>> behind(Point(0.8, 0.9), Point(0.9, 0.9), 0.02), behind(Point(0.8, 0.95), Point(0.9, 0.9), 0.02)
    (True, False)
    """
    score, kept = other.score - point.score, other.kept - point.kept
    return score >= 0 and kept >= 0 and (score > clear_score or kept > CLEAR)


class Race(TrainerCallback):
    """Reads the monitor at every validation, and ends a tuning that is hopeless.

    Args:
        monitor: of the tuning at work, asked for when it is needed.
        others: name -> points of the candidates before, see `points_of`. clear_score: see `behind`.

    Attributes:
        stopped: what is said of it when it was stopped, else empty; checkpoints hold it.
    """

    name, title, paper = "race", "Why a candidate was stopped, in a checkpoint", ""

    def __init__(
        self,
        monitor: Callable[[], Any],
        metric: str,
        others: Mapping[str, Mapping[int, Point]],
        clear_score: float,
        echo: Callable[[str], None],
    ) -> None:
        self.monitor, self.metric, self.others = monitor, metric, others
        self.clear_score, self.echo, self.stopped = clear_score, echo, ""

    def state(self) -> dict[str, Any]:
        import torch

        return {"stopped": torch.tensor(list(self.stopped.encode()), dtype=torch.uint8)} if self.stopped else {}

    def load_state(self, state: dict[str, Any]) -> None:
        self.stopped = bytes(state["stopped"].tolist()).decode()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        monitor = self.monitor()
        if monitor is None or not metrics or f"eval_{self.metric}" not in metrics:
            return
        point = Point(float(metrics[f"eval_{self.metric}"]), monitor.take(state, control))
        if state.global_step >= state.max_steps:
            return
        for name, points in self.others.items():
            there = points.get(state.global_step)
            if there is not None and behind(point, there, self.clear_score):
                self.stopped = (
                    f"stopped at step {state.global_step} of {state.max_steps}: validation {point.score:.4f} and about "
                    f"{point.kept:.4f} kept, where {name} had {there.score:.4f} and {there.kept:.4f}"
                )
                self.echo(f"auto: {self.stopped}")
                control.should_training_stop = True
                return
