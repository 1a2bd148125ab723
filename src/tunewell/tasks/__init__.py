"""Tasks: how a row becomes model input, what the loss and the metrics are, how answers are made.

Names are resolved when they are asked for: the recipe reads the table of tasks before anything heavy is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunewell.tasks.registry import TASKS, task_of

if TYPE_CHECKING:
    from tunewell.tasks.spec import TaskSpec, spec_of, targets

__all__ = ["TASKS", "TaskSpec", "spec_of", "targets", "task_of"]


def __getattr__(name: str) -> Any:
    if name in ("TaskSpec", "spec_of", "targets"):
        return getattr(import_module("tunewell.tasks.spec"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
