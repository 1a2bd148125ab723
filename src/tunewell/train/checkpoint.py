"""Finding a checkpoint that is whole.

Trainer writes `trainer_state.json` last, so a checkpoint without a readable one was torn by a kill
and is removed; training goes on from the last whole one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def last_whole(folder: Path) -> Path | None:
    """The whole checkpoint with the highest step, or None. Torn ones are deleted."""
    best: tuple[int, Path] | None = None
    for path in folder.glob("checkpoint-*"):
        step = _step(path)
        if step is None:
            shutil.rmtree(path, ignore_errors=True)
        elif best is None or step > best[0]:
            best = (step, path)
    return best[1] if best else None


def _step(path: Path) -> int | None:
    """The step of a whole checkpoint, None for a torn one."""
    try:
        state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        whole = all((path / name).is_file() for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"))
        return int(state["global_step"]) if whole and (path / "model.safetensors").is_file() else None
    except (OSError, ValueError, KeyError):
        return None
