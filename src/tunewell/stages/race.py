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


def curve_of(training: Training, metric: str) -> dict[int, float]:
    """Step -> validation score of a tuning."""
    return {e["step"]: float(e[f"eval_{metric}"]) for e in training.history if f"eval_{metric}" in e}


def points_of(training: Training, metric: str) -> dict[int, Point]:
    """Step -> point, of all validations of a tuning that were read by the monitor too."""
    scores = curve_of(training, metric)
    kept = {e["step"]: e[KEY] for e in training.history if KEY in e}
    return {s: Point(scores[s], float(kept[s])) for s in scores if s in kept}


def behind(point: Point, other: Point, clear_score: float) -> bool:
    """Whether `point` is behind on both, and clearly on one; `clear_score` is a standard error of the score.

    >>> behind(Point(0.8, 0.9), Point(0.9, 0.9), 0.02), behind(Point(0.8, 0.95), Point(0.9, 0.9), 0.02)
    (True, False)
    """
    score, kept = other.score - point.score, other.kept - point.kept
    return score >= 0 and kept >= 0 and (score > clear_score or kept > CLEAR)


class Ending(TrainerCallback):
    """What ends a tuning that is hopeless, and remembers why.

    Attributes:
        stopped: what is said of it when it was stopped, else empty; checkpoints hold it.
    """

    title, paper = "Why a candidate was stopped, in a checkpoint", ""
    stopped = ""

    def state(self) -> dict[str, Any]:
        import torch

        return {"stopped": torch.tensor(list(self.stopped.encode()), dtype=torch.uint8)} if self.stopped else {}

    def load_state(self, state: dict[str, Any]) -> None:
        self.stopped = bytes(state["stopped"].tolist()).decode()

    def end(self, state: Any, control: Any, why: str) -> str:
        """Stop at the step at hand; returns what is said of it."""
        self.stopped = f"stopped at step {state.global_step} of {state.max_steps}: {why}"
        control.should_training_stop = True
        return self.stopped


class Behind(Ending):
    """Ends a tuning in its second half when it is more than `clear` behind another at the same step.

    Args:
        curves: rate -> its curve, see `curve_of`.
    """

    name = "rates"

    def __init__(
        self, metric: str, curves: Mapping[str, Mapping[int, float]], clear: float, echo: Callable[[str], None]
    ) -> None:
        self.metric, self.curves, self.clear, self.echo = metric, curves, clear, echo

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        score = (metrics or {}).get(f"eval_{self.metric}")
        if score is None or not 2 * state.global_step >= state.max_steps > state.global_step:
            return
        for rate, curve in self.curves.items():
            there = curve.get(state.global_step)
            if there is not None and there - score > self.clear:
                self.echo(
                    f"rate: {self.end(state, control, f'validation {score:.4f}, where rate {rate} had {there:.4f}')}"
                )
                return


class Race(Ending):
    """Reads the monitor at every validation, and ends a tuning that is hopeless.

    Args:
        monitor: of the tuning at work, asked for when it is needed.
        others: name -> points of the candidates before, see `points_of`. clear_score: see `behind`.
    """

    name = "race"

    def __init__(
        self,
        monitor: Callable[[], Any],
        metric: str,
        others: Mapping[str, Mapping[int, Point]],
        clear_score: float,
        echo: Callable[[str], None],
    ) -> None:
        self.monitor, self.metric, self.others = monitor, metric, others
        self.clear_score, self.echo = clear_score, echo

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
                why = (
                    f"validation {point.score:.4f} and about {point.kept:.4f} kept, where {name} had "
                    f"{there.score:.4f} and {there.kept:.4f}"
                )
                self.echo(f"auto: {self.end(state, control, why)}")
                return
