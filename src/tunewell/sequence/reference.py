"""What a sequence is held against: one model that learns all tasks at once, or a model for each task."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

from tunewell.sequence import measure
from tunewell.sequence.heads import body_of, head_of
from tunewell.sequence.joint import Companion, Joint
from tunewell.sequence.state import State

if TYPE_CHECKING:
    from tunewell.sequence.work import Work


def reference(work: Work) -> None:
    """`joint`: all tasks at once. `separate`: a model for each task, from the base model."""
    if work.spec.strategy == ("joint",):
        _joint(work)
        return
    for i in range(len(work.spec.tasks)):
        _separate(work, i)


def _joint(work: Work) -> None:
    from tunewell.stages.tune import tune, tuned_model
    from tunewell.tasks import targets

    key, place = work.keys[-1], work.folder / "tasks" / "01-joint"
    if work.folder.done("joint", key, ["tasks/01-joint/row.json"]):
        return
    started = time.perf_counter()
    tasks = work.spec.tasks
    lead = max(range(len(tasks)), key=lambda j: len(work.prepared[j].splits["train"]))
    rest = [j for j in range(len(tasks)) if j != lead]
    heads = {tasks[j].name: _fresh_head(work, j) for j in rest}
    longest = max(work.length(j) for j in range(len(tasks)))
    with work.job(lead, body=None, head=None, others=heads, place=place) as job:
        job.inputs = key
        job.begin()
        companions = [
            Companion(tasks[j].name, p.splits["train"], targets(p.spec, p.splits["train"]), p.spec.pair)
            for j in rest
            for p in [work.prepared[j]]
        ]
        job.companions = [(tasks[j].name, work.prepared[j]) for j in rest]
        joint = Joint(
            companions,
            max_length=longest,
            batch=work.recipe.per_device_train_batch_size,
            seed=work.seed,
            lead_rows=len(work.prepared[lead].splits["train"]),
            temperature=work.spec.own["joint_temperature"],
        )
        job.recipe = job.recipe.model_copy(update={"per_device_train_batch_size": joint.rows})
        job.hooks = [joint]
        training = tune(job)
        model = tuned_model(job)
    state = State(body_of(model), {**model.task_heads.copies(), tasks[lead].name: head_of(model)})
    state.write(place / "state")
    cells = [
        measure.right_of(model, work.encoder.tokenizer, work.prepared[j], state.heads[t.name],
                         max_length=work.length(j), **work.options())
        for j, t in enumerate(tasks)
    ]  # fmt: skip
    n = sum(len(p.splits["train"]) for p in work.prepared)
    work.write_row(
        place, "joint", len(tasks) - 1, cells, model, {"seconds": training.seconds, "n_train": n}, None, 0, started
    )
    work.folder.mark("joint", key)
    (place / "train" / "tuned.safetensors").unlink(missing_ok=True)
    shutil.rmtree(work.folder / "heads", ignore_errors=True)


def _fresh_head(work: Work, j: int) -> Any:
    """A new head for task j, fitted on the base model where the plan says so."""
    with work.job(j, body=None, head=None, others={}, place=work.folder / "heads" / work.spec.tasks[j].name) as job:
        job.begin()
        return head_of(job.fresh_model())


def _separate(work: Work, i: int) -> None:
    from tunewell.sequence.model import export
    from tunewell.stages.tune import tune, tuned_model

    task, place = work.spec.tasks[i], work.place(i)
    if work.folder.done(f"task-{i + 1}", work.keys[i], [f"tasks/{place.name}/row.json"]):
        return
    work.echo(f"task {i + 1} of {len(work.spec.tasks)}: {task.name}, by itself")
    started = time.perf_counter()
    with work.job(i, body=None, head=None, others={}) as job:
        job.begin()
        training = tune(job)
        model = tuned_model(job)
    head = head_of(model)
    right = measure.right_of(
        model, work.encoder.tokenizer, work.prepared[i], head, max_length=work.length(i), **work.options()
    )
    cells: list[Any] = [None] * len(work.spec.tasks)
    cells[i] = right
    export(model, work.encoder.tokenizer, work.about(i), work.folder / "models" / task.name)
    facts = {"seconds": training.seconds, "n_train": len(work.prepared[i].splits["train"])}
    work.write_row(place, task.name, i, cells, model, facts, None, 0, started)
    work.folder.mark(f"task-{i + 1}", work.keys[i])
    (place / "train" / "tuned.safetensors").unlink(missing_ok=True)
