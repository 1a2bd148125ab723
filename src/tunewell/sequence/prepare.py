"""The rows of all tasks of a sequence, before the first is tuned."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tunewell.errors import DataError, RecipeError, TunewellError
from tunewell.sequence.spec import Spec, Task, mistake

if TYPE_CHECKING:
    from tunewell.stages.prepare import Prepared

Echo = Callable[[str], None]


def prepare_all(spec: Spec, echo: Echo) -> list[Prepared]:
    """The rows of every task, so that a mistake in the last is found before the first is tuned.

    Raises:
        TunewellError: the only mistake that there is, or all of them as one RecipeError.
    """
    from tunewell.models.load import locate
    from tunewell.stages.preflight import preflight
    from tunewell.stages.prepare import prepare
    from tunewell.tasks import task_of

    model_path = locate(spec.recipe_of(spec.tasks[0]).model)
    out: list[Any] = []
    errors: list[tuple[str, TunewellError]] = []
    for task in spec.tasks:
        try:
            prepared = prepare(run_recipe(task) if task.run else spec.recipe_of(task), echo=named(echo, task.name))
            if prepared.spec.regression or prepared.spec.multi_label:
                raise DataError(
                    "a sequence takes tasks with one class a row", where=str(task.train or task.run),
                    expected="a column with one class a row",
                )  # fmt: skip
            if not len(prepared.splits["validation"]):
                raise DataError(
                    "a sequence chooses on validation rows, and there are none", where=str(task.train or task.run),
                    expected="a file for `validation`, or a validation_size above 0",
                )  # fmt: skip
            _same_head(spec, task, prepared, out)
            seen = SimpleNamespace(
                recipe=spec.recipe_of(task), spec=prepared.spec, task=task_of(prepared.spec.name),
                model_path=model_path, prompt=None, validated=True, splits=prepared.splits,
            )  # fmt: skip
            preflight(seen)  # type: ignore[arg-type]
            out.append(prepared)
        except TunewellError as error:
            errors.append((task.name, error))
            out.append(None)
    if len(errors) == 1:
        name, only = errors[0]
        only.where = f"task {name}: {only.where}" if only.where else f"task {name}"
        raise only
    if errors:
        raise mistake([f"task {name}: {' '.join(str(e).split())}" for name, e in errors], "sequence")
    return out


def _same_head(spec: Spec, task: Task, prepared: Prepared, before: list[Any]) -> None:
    """A head that goes on needs the same labels."""
    if task.head == task.name:
        return
    place = next(i for i, t in enumerate(spec.tasks) if t.head == task.head)
    if before[place] is not None and before[place].spec.labels != prepared.spec.labels:
        raise RecipeError(
            f"`head: {task.head}` answers with other labels ({', '.join(before[place].spec.labels[:6])})",
            where="head",
            expected="the same labels: " + ", ".join(prepared.spec.labels[:6]),
            remedy="leave `head` out: the task gets a head of its own",
        )


def run_recipe(task: Task) -> Any:
    """The recipe of a finished run that a sequence begins with."""
    from tunewell.run import Run

    return Run(str(task.run)).recipe


def named(echo: Echo, name: str) -> Echo:
    """An echo that tells whose lines these are."""
    return lambda line: echo(f"[{name}] {line}")
