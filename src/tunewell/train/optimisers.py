"""Optimisers beside AdamW, by name: one without a schedule, one that finds its rate by itself.

Schedule-free AdamW (Defazio et al., 2024, The road less scheduled) takes gradients at y, a point between an average x
of all points so far and the point z that steps are taken from; x is the model. Validation, the monitor and the end of
tuning see x, checkpoints hold y with the optimiser's z, and x beside them.

Prodigy (Mishchenko & Defazio, 2024) multiplies AdamW's steps by d, its own estimate of how far the start is from the
solution, which only grows; noisy gradients keep it small for hundreds of steps. It knows one rate for all parameters.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewell.train.hooks import Weights
    from tunewell.train.trainer import TunewellTrainer

ADAMW, SCHEDULE_FREE, PRODIGY = "adamw", "schedule_free_adamw", "prodigy"
MOVED = 10  # times its first guess that an estimate of Prodigy's must be to count as one
OWN_RATE = 1.0  # of Prodigy, where the recipe names none


def made(name: str, groups: list[dict[str, Any]], *, rate: float, warmup: int) -> Any:
    """An optimiser over groups of parameters, each with its weight decay and rate.

    Args:
        warmup: steps over which a schedule-free rate climbs; that of others is the scheduler's.

    Raises:
        TunewellError: the package is not installed.
    """
    from tunewell.extras import need

    need("optim", f"optim: {name}")
    if name == SCHEDULE_FREE:
        from schedulefree import AdamWScheduleFree

        return AdamWScheduleFree(groups, lr=rate, warmup_steps=warmup)
    from prodigyopt import Prodigy

    with contextlib.redirect_stdout(io.StringIO()):  # it tells of the weight decay
        return Prodigy(groups, lr=rate, use_bias_correction=True, safeguard_warmup=True)


def found_rate(optimiser: Any) -> float | None:
    """The rate that Prodigy has come to, its peak without the scheduler's factor; None of others."""
    group = optimiser.param_groups[0]
    return float(group["d_max"]) * float(group.get("initial_lr", group["lr"])) if "d_max" in group else None


def tell(optimiser: Any, echo: Callable[[str], None]) -> float | None:
    """Say what rate Prodigy has found, and when it has found none; returns `found_rate`."""
    rate = found_rate(optimiser)
    if rate is None:
        return None
    group = optimiser.param_groups[0]
    if group["d_max"] < MOVED * group["d0"]:
        echo(
            f"tune: prodigy has not left its first guess of {rate:.1g}, so that next to nothing was learned: its "
            "estimate needs more steps or larger batches; take `optim: adamw`, or `learning_rate: auto`"
        )
    else:
        echo(f"tune: prodigy has come to a rate of {rate:.2g}")
    return rate


class AveragedPoint:
    """Sees to it that x is scored, kept and chosen of a schedule-free optimiser; works as a strategy does.

    Attributes:
        trainer: whose optimiser it is; set before tuning.
    """

    name = "schedule_free"
    title = "Schedule-free AdamW"
    paper = "Defazio et al., 2024, The road less scheduled"
    trainer: TunewellTrainer | None = None

    def __init__(self) -> None:
        self._kept: Weights = {}  # of a checkpoint; until the next step

    def after_step(self, model: Any, step: int, learning_rate: float) -> None:
        self._kept = {}

    def average(self, model: Any) -> Weights:
        """x = y + (1 − 1 / β₁) (z − y), of the parameters that have been stepped."""
        import torch

        assert self.trainer is not None
        optimiser: Any = self.trainer.optimizer
        names = {id(p): n for n, p in model.named_parameters()}
        with torch.no_grad():
            return {
                names[id(p)]: p.detach().lerp(optimiser.state[p]["z"].to(p.device), 1 - 1 / group["betas"][0])
                for group in optimiser.param_groups
                for p in group["params"]
                if "z" in optimiser.state.get(p, {})
            }

    def validating(self, model: Any) -> Any:
        from tunewell.strategies.ema import swapped

        return swapped(model, self.average(model))

    def state(self) -> Weights:
        assert self.trainer is not None
        return self.average(self.trainer.accelerator.unwrap_model(self.trainer.model))

    def load_state(self, state: Weights) -> None:
        self._kept = dict(state)

    def finish(self, model: Any) -> None:
        from tunewell.strategies.ema import put

        put(model, self._kept or self.average(model))
