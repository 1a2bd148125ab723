"""Learning over many small tasks how to learn the next one from a few rows."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

from tunewell.meta.records import FamilyTask, MetaLearning, OuterStep, Use

__all__ = ["FamilyTask", "MetaLearning", "OuterStep", "Use", "meta"]


def meta(
    tasks: str,
    method: str = "protonet",
    *,
    shots: int = 5,
    ways: int | None = None,
    queries: int = 15,
    task_column: str | None = None,
    held_out: float | str = 0.2,
    selection: float | str = 0.1,
    inner_steps: int = 5,
    inner_rate: float | None = None,
    outer_rate: float | None = None,
    steps: int = 100,
    tasks_per_step: int = 4,
    episodes: int = 100,
    echo: Callable[[str], None] | None = None,
    progress: bool = True,
    command: str = "",
    **keys: Any,
) -> MetaLearning:
    """Learn an initialisation over many small tasks that tunes to a new one with a few rows in a few steps.

    Whole tasks are held out: those of `selection` choose when to stop and which learning rate serves, those of
    `held_out` are only reported on. On them the learned encoder is compared with the base model put to use in the
    same ways (same rows, steps and seeds) and with prototypes on the frozen base model.

    >>> learned = tunewell.meta("tasks/", "reptile", model="all-MiniLM-L6-v2", shots=5)   # doctest: +SKIP
    >>> learned.accuracy, learned.gain, learned.model_path   # doctest: +SKIP

    Args:
        tasks: a folder with a file a task, or one file whose `task_column` says which task a row is of.
        method: reptile, fomaml, anil or protonet.
        shots: rows of each class to learn from; ways: classes an episode, by default five, or as many as a task
            has; queries: other rows of each class, at most, that are asked.
        held_out, selection: shares of all tasks, at least one each, or names with commas between them.
        inner_steps, inner_rate: gradient steps on an episode, and their learning rate: by default 0.005 for steps on
            all weights, 0.05 on the head alone.
        outer_rate: of the shared weights; by default the method's. steps: of the outer loop, each over
            `tasks_per_step` episodes. episodes: that are reported in all.
        echo: called with one line a stage; by default lines go to stderr. progress: show bars.
        keys: recipe keys: model, text, label, keep, probes, seed, output_dir, ...

    Returns:
        The record, also written to `meta.json`, beside `model/` and `meta.html`. The same call goes on where a
        stopped one was.

    Raises:
        TunewellError: the user's mistakes.
    """
    from tunewell.meta.run import run_meta
    from tunewell.meta.settings import Settings
    from tunewell.recipe_file import load_recipe

    settings = Settings(
        method, ways, shots, queries, task_column, str(held_out), str(selection), inner_steps, inner_rate, outer_rate,
        steps, tasks_per_step, episodes,
    )  # fmt: skip
    recipe = load_recipe(None, **keys)
    return run_meta(str(tasks), settings, recipe, echo=echo or _to_stderr, progress=progress, command=command)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _CallableModule(types.ModuleType):
    """`tunewell.meta` is this package, since Python binds a submodule to its package; calling it is calling `meta`."""

    def __call__(self, *args: Any, **keys: Any) -> MetaLearning:
        return meta(*args, **keys)


_CallableModule.__call__.__doc__ = meta.__doc__
__signature__ = inspect.signature(meta)
sys.modules[__name__].__class__ = _CallableModule
