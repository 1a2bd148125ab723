"""Checkpoints: which of them is whole, which may go, and what they hold beside Trainer's own files.

A checkpoint counts when its seal (`whole.json`, see `tunewell.seal`) was written, which happens last, and every file is
what the seal says. Others are removed; training goes on from the last whole one whose best one is whole too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.seal import broken, seal

if TYPE_CHECKING:
    import torch

    from tunewell.train.trainer import TunewellTrainer

STATE = "trainer_state.json"


def step_of(path: Path) -> int:
    """The step in a checkpoint's name; -1 for other folders."""
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def by_step(folder: Path) -> list[Path]:
    """The checkpoints of a folder by their step: no clock is asked."""
    return sorted((p for p in folder.glob("checkpoint-*") if step_of(p) >= 0), key=step_of)


def last_whole(folder: Path, echo: Callable[[str], None] = lambda line: None) -> Path | None:
    """The whole checkpoint with the highest step, or None. Others after it are told of and deleted."""
    known: dict[Path, str | None] = {}

    def fault(path: Path) -> str | None:
        if path not in known:
            known[path] = broken(path) if path.is_dir() else "it is gone"
        return known[path]

    for path in reversed(by_step(folder)):
        why = fault(path)
        if why is None:
            best = _best(path)
            why = None if best is None or best == path else fault(best)
            if why is None:
                return path
            assert best is not None
            why = f"the best one so far, {best.name}, does not count: {why}"
        echo(f"tune: {path.name} is passed over: {why}")
        shutil.rmtree(path, ignore_errors=True)
    return None


def _best(path: Path) -> Path | None:
    """The best checkpoint up to this one; None when there was none. A folder may have been moved since."""
    try:
        name = json.loads((path / STATE).read_text(encoding="utf-8"))["best_model_checkpoint"]
        return None if name is None else path.with_name(Path(name).name)
    except (OSError, ValueError, KeyError, TypeError):
        return path.with_name("checkpoint-unknown")


def seal_and_rotate(path: Path, *, keep: int, best: str | None) -> None:
    """Seal a checkpoint; only then older ones may go, and never the best.

    Args:
        keep: checkpoints that stay, the newest first; best: of state.best_model_checkpoint.
    """
    seal(path)
    kept = {path.name, Path(best).name if best else path.name}
    others = [p for p in by_step(path.parent) if p.name not in kept]
    spare = max(0, keep - len(kept))
    for old in others[: len(others) - spare]:
        # the seal goes first: a removal that is cut short leaves nothing that looks whole
        (old / "whole.json").unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)


class LoopState:
    """What the loop itself carries from step to step beyond Trainer's state: the loss since the last log entry, and
    whether the step's validation is owed."""

    name, title, paper = "loop", "What the loop carries in a checkpoint", ""

    def __init__(self, trainer: TunewellTrainer) -> None:
        self.trainer = trainer
        self.found: dict[str, torch.Tensor] = {}

    def state(self) -> dict[str, torch.Tensor]:
        import torch

        t = self.trainer
        counts = torch.tensor([t._globalstep_last_logged, t._bad_in_a_row, t.owed], dtype=torch.int64)
        return {"loss": t._tr_loss.detach().reshape(1), "counts": counts}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.found = state

    def put(self) -> None:
        """Called when Trainer has reset them."""
        if self.found:
            t: Any = self.trainer
            t._tr_loss = self.found["loss"].reshape(()).to(t.args.device)
            t._globalstep_last_logged, t._bad_in_a_row, *owed = self.found["counts"].tolist()
            t.owed = owed == [1]
            self.found = {}
