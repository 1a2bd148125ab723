"""One more task for a finished run or sequence."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunewell.data.secrets import stem_of
from tunewell.errors import RecipeError, RunFolderError
from tunewell.recipe import Recipe
from tunewell.sequence.run import Echo, Sequence, run_sequence
from tunewell.sequence.spec import Spec, Task, load_spec

# what a sequence takes over from the run that it begins with
STANDING = (
    "model", "revision", "trust_remote_code", "seed", "probes", "probe_files", "general_text", "max_length",
    "learning_rate", "num_train_epochs", "per_device_train_batch_size", "bf16", "threads", "lang",
)  # fmt: skip


def continued(path: str | Path, task: dict[str, Any], **keys: Any) -> Spec:
    """The sequence that a run or a sequence becomes with one more task.

    Args:
        path: a finished run, or a sequence folder, finished or not.
        task: keys of the new task: train, name, test, text, label, head, ...
        keys: keys of a sequence; for a sequence folder only output_dir, since its settings stand.

    Raises:
        RunFolderError: neither a run nor a sequence. RecipeError: keys that do not fit.
    """
    path = Path(path)
    given = {k: v for k, v in task.items() if v is not None}
    given.setdefault("name", _plain_name(stem_of(str(given.get("train", "task")))))
    if (path / "sequence.yaml").is_file():
        spec = load_spec(path / "sequence.yaml")
        output = str(keys.pop("output_dir", None) or path)
        if changed := sorted(k for k, v in keys.items() if v is not None):
            raise RecipeError(
                f"the settings of a sequence stand from its first task on: {', '.join(changed)}",
                where=str(path),
                expected="the new task's own keys",
            )
        return _with(spec, given, output)
    if not (path / "summary.json").is_file() or not (path / "model" / "config.json").is_file():
        raise RunFolderError(
            "is neither a finished run nor a sequence",
            where=str(path),
            expected="a folder that `tunewell run` has finished, or that `tunewell sequence` works in",
        )
    return load_spec(_from_run(path, given, keys))


def _with(spec: Spec, given: dict[str, Any], output: str) -> Spec:
    """A sequence with one task more; the same command given again changes nothing."""
    values = {
        "strategy": list(spec.strategy), "output_dir": output, **spec.own, **spec.recipe,
        "tasks": [t.to_dict() for t in spec.tasks],
    }  # fmt: skip
    values = {k: v for k, v in values.items() if v is not None}
    last = spec.tasks[-1]
    if Task(**{**given, "head": given.get("head") or given["name"]}) == last and len(spec.tasks) > 1:
        return replace(spec, output_dir=output)
    values["tasks"].append(given)
    return load_spec(values)


def _from_run(path: Path, given: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    """Keys of a sequence that begins with a finished run: its model, seed and training settings."""
    from tunewell.run import Run

    recipe = Run(path).recipe
    default = Recipe()
    values = {k: getattr(recipe, k) for k in STANDING if getattr(recipe, k) != getattr(default, k)}
    values |= {k: v for k, v in keys.items() if v is not None}
    values.setdefault("output_dir", f"{path}-continued")
    name = _plain_name(path.resolve().name)
    first = {"name": name if name != given["name"] else f"{name}-run", "run": str(path)}
    return {**values, "tasks": [first, given]}


def _plain_name(name: str) -> str:
    """A name that a task may have.

    >>> _plain_name("my reviews.v2"), _plain_name("")
    ('my_reviews_v2', 'task')
    """
    return re.sub(r"[^A-Za-z0-9_-]", "_", name).lstrip("-") or "task"


def continue_run(
    path: str | Path,
    *,
    train: str,
    name: str | None = None,
    echo: Echo | None = None,
    progress: bool = True,
    command: str = "",
    **keys: Any,
) -> Sequence:
    """Add a task to a finished run or to a sequence; earlier tasks' test rows become probes.

    A run becomes the first task of a new sequence in PATH-continued (or `output_dir`); a sequence
    grows in its own folder.

    Args:
        path: run or sequence folder.
        train: the new task's rows; name: what to call it, by default the file's name.
        keys: validation, test, text, text_pair, label, head of the task; for a run also the keys of a
            sequence (strategy, memory, learning_rate, ...).

    Returns:
        The finished sequence.
    """
    of_task = ("validation", "test", "text", "text_pair", "label", "head")
    task = {"name": name, "train": train, **{k: keys.pop(k) for k in of_task if k in keys}}
    return run_sequence(continued(path, task, **keys), echo=echo, progress=progress, command=command)
