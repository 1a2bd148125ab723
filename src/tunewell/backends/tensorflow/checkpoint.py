"""Where a tuning in TensorFlow stands: one file, and one with the best weights so far, each under a seal.

A checkpoint counts when its seal was written and it is what the seal says, and the same of the best weights that
its name points to; see `tunewell.seal`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.backends.tensorflow.steps import Steps
from tunewell.results import write_with
from tunewell.seal import broken, seal, seal_of

KINDS = ("weights", "first", "second")
MORE = "more"


def best_file(folder: Path, step: int) -> Path:
    """Where the weights of a step stand that was the best."""
    return folder / f"best-{step}.safetensors"


def save_best(folder: Path, step: int, values: dict[str, np.ndarray]) -> None:
    """Write weights as PyTorch names them."""
    _write(best_file(folder, step), values)


def save(
    folder: Path, steps: Steps, state: dict[str, Any], more: Mapping[str, np.ndarray], *, best: int, keep: int
) -> None:
    """Write a checkpoint; only then older ones go, all but the newest `keep`.

    Args:
        state: what is to be known beside the weights, as JSON, with the `step`. more: arrays beside them.
        best: step of the best weights so far; 0 for none.
    """
    kinds = zip(KINDS, (steps.model.variables, steps.first, steps.second), strict=True)
    tensors = {f"{kind}/{name}": v.numpy() for kind, variables in kinds for name, v in variables.items()}
    tensors |= {f"{MORE}/{name}": array for name, array in more.items()}
    about = {"state": json.dumps({**state, "updates": steps.updates})}
    _write(folder / f"step-{state['step']}-best-{best}.safetensors", tensors, about)
    kept = _all(folder)[-keep:]
    needed = {*kept, *(best_file(folder, _numbers(path)[1]) for path in kept)}
    for old in [*_all(folder), *folder.glob("best-*.safetensors")]:
        if old not in needed:
            _remove(old)


def load_last(
    folder: Path, steps: Steps, echo: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Bring model and optimiser to the last whole checkpoint; others after it are told of and deleted.

    Returns:
        Its state and the arrays beside the weights; None where there is none.
    """
    from safetensors import safe_open

    for path in reversed(_all(folder)):
        best = _numbers(path)[1]
        why = broken(path) or (broken(best_file(folder, best)) if best else None)
        if why is not None:
            echo(f"tune: {path.name} is passed over: {why}")
            _remove(path)
            continue
        with safe_open(str(path), framework="numpy") as file:
            state = json.loads(file.metadata()["state"])
            for kind, variables in zip(KINDS, (steps.model.variables, steps.first, steps.second), strict=True):
                for name, variable in variables.items():
                    variable.assign(file.get_tensor(f"{kind}/{name}"))
            names = [key for key in file.keys() if key.startswith(f"{MORE}/")]  # noqa: SIM118
            more = {key.removeprefix(f"{MORE}/"): file.get_tensor(key) for key in names}
        steps.updates = state.pop("updates")
        return state, more
    return None


def _write(path: Path, tensors: dict[str, np.ndarray], about: dict[str, str] | None = None) -> None:
    from safetensors.numpy import save_file

    write_with(path, lambda temporary: save_file(tensors, str(temporary), metadata=about))
    seal(path)


def _remove(path: Path) -> None:
    seal_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _numbers(path: Path) -> tuple[int, int]:
    """The step of a checkpoint and that of its best weights, from its name."""
    _, step, _, best = path.stem.split("-")
    return int(step), int(best)


def _all(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*-best-*.safetensors"), key=_numbers)
