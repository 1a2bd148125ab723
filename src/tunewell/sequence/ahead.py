"""`strategy: separate` side by side: its tasks know nothing of each other, so that workers tune them ahead.

Each task is tuned in its own folder below that of the sequence, locked by its worker; the sequence then finds the
tunings done and measures them as it always does.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError, WorkerError
from tunewell.sequence.spec import Spec, load_spec
from tunewell.workers import Shared, Workers, done

if TYPE_CHECKING:
    from tunewell.sequence.work import Work


def refuse(spec: Spec, workers: Workers) -> None:
    """Make sure that there are independent parts, and that workers can be had.

    Raises:
        RecipeError: each task begins with what the last one left. WorkerError: the address does not answer.
    """
    if workers.here:
        return
    if spec.strategy != ("separate",):
        raise RecipeError(
            f"`{', '.join(spec.strategy)}` learns one task after the other",
            where=workers.told,
            expected="strategy: separate, whose tasks are independent",
            remedy="leave it out, or start one command for each order of tasks",
        )
    if workers.ray is not None:
        from tunewell.workers.on_ray import reach

        reach(workers.ray)


def tune_ahead(work: Work, workers: Workers) -> None:
    """Tune the tasks that are not done yet."""
    from tqdm import tqdm

    tasks, folder = work.spec.tasks, work.folder
    missing = [
        i
        for i in range(len(tasks))
        if not folder.done(f"task-{i + 1}", work.keys[i], [f"tasks/{work.place(i).name}/row.json"])
    ]
    if not missing:
        return
    about = {"spec": work.spec.to_yaml(), "folder": str(folder.path.absolute())}
    files = [f for i in missing for f in (tasks[i].train, tasks[i].validation, tasks[i].test) if f]
    sees = [str(folder / "sequence.yaml"), *(f for f in files if Path(f).exists())]
    shared = Shared(lambda: about, opened, about, sees)
    items = [[i, work.keys[i], work.prepared[i].fingerprint] for i in missing]
    options: dict[str, Any] = {"threads": work.recipe.threads, "echo": work.echo}
    with (
        tqdm(total=len(items), desc="tasks", unit="tuning", leave=False, disable=not work.progress) as bar,
        closing(done(tune_task, items, shared, workers, name=lambda item: tasks[item[0]].name, **options)) as results,
    ):
        for one in results:
            seconds = one.result()
            name = tasks[missing[one.at]].name
            work.echo(f"[{name}] tuned in {seconds:.0f} s" + (f" on {one.where}" if one.where else ""))
            bar.update()


def opened(about: dict[str, Any]) -> dict[str, Any]:
    """The sequence in a worker: its spec and its folder."""
    import yaml

    return {"spec": load_spec(yaml.safe_load(about["spec"])), "folder": Path(about["folder"])}


def tune_task(shared: dict[str, Any], item: Sequence[Any]) -> float:
    """Tune one task by itself, in its own folder; the seconds that it took.

    Args:
        item: the task's place in the sequence, what its result depends on, and the fingerprint of its rows.

    Raises:
        WorkerError: the rows are not those of the process that gave the command.
    """
    from tunewell.sequence.job import TaskJob
    from tunewell.sequence.prepare import run_recipe
    from tunewell.stages.job import silent
    from tunewell.stages.prepare import prepare
    from tunewell.stages.tune import tune

    (i, key, rows), spec = item, shared["spec"]
    task = spec.tasks[i]
    prepared = prepare(run_recipe(task) if task.run else spec.recipe_of(task), echo=silent)
    if prepared.fingerprint != rows:
        raise WorkerError(
            f"the worker on {platform.node()} has read other rows",
            where=f"task {task.name}",
            expected="the same files on all machines",
            remedy="put data and models on a file system that all machines share",
        )
    with TaskJob(
        spec.recipe_of(task),
        output_dir=shared["folder"] / "tasks" / f"{i + 1:02d}-{task.name}",
        prepared=prepared,
        inputs=key,
        body=None,
        head=None,
        others={},
        head_first=spec.plan.head_first,
        echo=silent,
        progress=False,
    ) as job:
        job.begin()
        return tune(job).seconds
