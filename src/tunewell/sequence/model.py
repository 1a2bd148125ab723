"""The final model of a sequence: a shared body in plain Transformers format, a head file for each task.

model/config.json, model.safetensors, tokenizer   what AutoModel.from_pretrained reads
model/heads/NAME.safetensors                      weights above the body, named as in the whole model
model/tasks.json                                  labels, columns and longest input of each task
models/NAME/                                      one task's whole model, written when first asked for
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import ModelError, nearest
from tunewell.results import write_whole, write_with

if TYPE_CHECKING:
    from tunewell.models.load import Encoder
    from tunewell.sequence.state import State

TASKS = "tasks.json"


def save_models(folder: Path, encoder: Encoder, state: State, about: dict[str, Any]) -> None:
    """Write the body, its heads and what each task needs; the folder appears whole or not at all."""
    from safetensors.torch import save_file

    model: Any = encoder.model
    tokenizer = encoder.tokenizer
    model._weight_conversions = []  # else old names for LayerNorm come back, see models/load.py
    own = {k.split(".", 1)[1]: v for k, v in state.body.items()}
    kept = {k: v.detach().clone() for k, v in model.state_dict().items()}
    missing, unexpected = model.load_state_dict(own, strict=False)
    assert not unexpected, unexpected
    assert all(name.startswith("pooler.") for name in missing), missing

    def save(path: Path) -> None:
        path.mkdir()
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        (path / "heads").mkdir()
        for name in sorted({entry["head"] for entry in about.values()}):
            save_file(state.heads[name], str(path / "heads" / f"{name}.safetensors"))
        write_whole(path / TASKS, json.dumps(about, ensure_ascii=False, indent=1) + "\n")

    try:
        write_with(folder, save)
    finally:
        model.load_state_dict(kept)


def tasks_of(folder: Path) -> dict[str, Any] | None:
    """What the tasks of a sequence folder (or of its model/) need; None where it is none."""
    for path in (folder / "model" / TASKS, folder / "models" / TASKS, folder / TASKS):
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    return None


def named(folder: Path, task_name: str | None) -> tuple[str, dict[str, Any]]:
    """A task of a sequence folder and what it needs; the only one when none is named.

    Raises:
        ModelError: no such task, or none is named and there are several.
    """
    tasks = tasks_of(folder) or {}
    if task_name is None and len(tasks) == 1:
        task_name = next(iter(tasks))
    if task_name is None or task_name not in tasks:
        raise ModelError(
            "this model has several tasks, and none is named" if task_name is None else f"no task `{task_name}`",
            where=str(folder),
            expected="one of " + ", ".join(tasks) if tasks else "a sequence folder",
            remedy="; ".join(filter(None, [nearest(task_name or "", tasks), "name it with --task_name"])),
        )
    return task_name, tasks[task_name]


def load_task(folder: Path, task_name: str | None) -> tuple[Any, Any, dict[str, Any]]:
    """Model, tokenizer and needs of one task; nothing is written."""
    from tunewell.models.load import load_tokenizer, load_tuned

    task_name, about = named(folder, task_name)
    whole = folder / "models" / task_name / "model"
    if (whole / "config.json").is_file():
        return *load_tuned(whole), about
    body = _body(folder)
    return assemble(body, about), load_tokenizer(str(body), str(body)), about


def _body(folder: Path) -> Path:
    return folder / "model" if (folder / "model" / TASKS).is_file() else folder


def export_task(folder: Path, task_name: str) -> Path:
    """One task as a plain AutoModelForSequenceClassification folder in models/NAME/model, with task.json beside it."""
    task_name, about = named(folder, task_name)
    target = folder / "models" / task_name
    if not ((target / "model" / "config.json").is_file() and (target / "task.json").is_file()):
        model, tokenizer, about = load_task(folder, task_name)
        export(model, tokenizer, about, target)
    return target


def assemble(body: Path, about: dict[str, Any]) -> Any:
    """Body and head of one task as a whole model, in evaluation mode.

    Raises:
        ModelError: a head file is missing or does not fit.
    """
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from tunewell.models.load import load_encoder

    labels = about["spec"]["labels"]
    path = body / "heads" / f"{about['head']}.safetensors"
    if not path.is_file():
        raise ModelError(
            "the head file is missing", where=str(path), expected="a folder as `tunewell sequence` left it"
        )
    config = AutoConfig.from_pretrained(
        body,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        problem_type="single_label_classification",
    )
    model = AutoModelForSequenceClassification.from_config(config)
    prefix = model.base_model_prefix
    shared = load_encoder(str(body)).model.state_dict()  # not the file itself: old models name LayerNorm otherwise
    state = {f"{prefix}.{k}": v for k, v in shared.items()} | load_file(str(path))
    wanted = set(model.state_dict())
    missing = wanted - set(state)
    if missing:
        raise ModelError(f"lacks {', '.join(sorted(missing)[:3])}", where=str(path), expected="a whole head")
    model.load_state_dict({k: v for k, v in state.items() if k in wanted})
    return model.eval()


def export(model: Any, tokenizer: Any, about: dict[str, Any], target: Path) -> None:
    """Write model/ and task.json of one task, as a run has them."""
    limit = tokenizer.model_max_length

    def save(path: Path) -> None:
        path.mkdir()
        tokenizer.model_max_length = about["max_length"]
        model.save_pretrained(path / "model")
        tokenizer.save_pretrained(path / "model")
        described = {k: v for k, v in about.items() if k != "head"}
        write_whole(path / "task.json", json.dumps(described, ensure_ascii=False, indent=1) + "\n")

    try:
        write_with(target, save)
    finally:
        tokenizer.model_max_length = limit
