"""Tasks: how a row becomes model input, what the loss and the metrics are, how answers are made."""

from tunewell.tasks.registry import TASKS, task_of
from tunewell.tasks.spec import TaskSpec, spec_of, targets

__all__ = ["TASKS", "TaskSpec", "spec_of", "targets", "task_of"]
