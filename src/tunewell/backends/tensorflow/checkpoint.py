"""Where a tuning in TensorFlow stands, in one file: whole or not there, since it is renamed into place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.backends.tensorflow.steps import Steps
from tunewell.results import write_with

BEST = "best.safetensors"
KINDS = ("weights", "first", "second")


def save(folder: Path, step: int, steps: Steps, state: dict[str, Any], keep: int) -> None:
    """Write step-<step>.safetensors, and remove all but the newest `keep`.

    Args:
        state: what else is to be known, as JSON.
    """
    from safetensors.numpy import save_file

    kinds = zip(KINDS, (steps.model.variables, steps.first, steps.second), strict=True)
    tensors = {f"{kind}/{name}": v.numpy() for kind, variables in kinds for name, v in variables.items()}
    about = {"state": json.dumps({**state, "updates": steps.updates})}
    write_with(folder / f"step-{step}.safetensors", lambda path: save_file(tensors, str(path), metadata=about))
    for old in _all(folder)[:-keep]:
        old.unlink(missing_ok=True)


def save_best(folder: Path, values: dict[str, np.ndarray]) -> None:
    """Write the weights with the best validation score so far, as PyTorch names them."""
    from safetensors.numpy import save_file

    write_with(folder / BEST, lambda path: save_file(values, str(path)))


def load_last(folder: Path, steps: Steps) -> dict[str, Any] | None:
    """Bring model and optimiser to the last checkpoint and give its state; None where there is none."""
    from safetensors import safe_open

    files = _all(folder)
    if not files or not (folder / BEST).is_file():
        return None
    with safe_open(str(files[-1]), framework="numpy") as file:
        state = json.loads(file.metadata()["state"])
        for kind, variables in zip(KINDS, (steps.model.variables, steps.first, steps.second), strict=True):
            for name, variable in variables.items():
                variable.assign(file.get_tensor(f"{kind}/{name}"))
    steps.updates = state.pop("updates")
    return state


def _all(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*.safetensors"), key=lambda path: int(path.stem.removeprefix("step-")))
