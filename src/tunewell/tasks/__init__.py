"""Tasks: how a row becomes model input, what the targets are, how logits become scores."""

from tunewell.tasks.spec import TaskSpec, spec_of, targets

__all__ = ["TaskSpec", "spec_of", "targets"]
