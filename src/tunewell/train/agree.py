"""What processes that tune together agree on at every step: what they have seen, and what process 0 has decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from tunewell import processes
from tunewell.train.progress import SEEN

if TYPE_CHECKING:
    from tunewell.train.stop import StopInOrder
    from tunewell.train.trainer import TunewellTrainer

FLAGS = ("should_training_stop", "should_epoch_stop", "should_save", "should_evaluate", "should_log")


def agreed(control: Any) -> None:
    """Process 0's flags at all processes: monitors, races and patience decide there."""
    for name, flag in processes.told({name: bool(getattr(control, name)) for name in FLAGS}).items():
        setattr(control, name, flag)


class Agree(TrainerCallback):
    """Comes last, when every other callback has had its say."""

    def __init__(self, stop: StopInOrder) -> None:
        self.stop = stop
        self.trainer: TunewellTrainer | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.trainer is not None
        seen = self.trainer.seen
        *counts, asked = processes.total([*seen, self.stop.asked])
        self.trainer.counts.add(**dict(zip(SEEN, map(int, counts), strict=True)))
        self.trainer.seen = [0] * len(SEEN)
        if asked:  # a signal to one is one to all
            self.stop.ask()
            control.should_save = True
        agreed(control)
