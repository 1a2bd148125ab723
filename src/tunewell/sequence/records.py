"""What a sequence leaves for scripts and for the report."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tunewell.results import Estimate, Record

UNSEEN = "linear probe on the frozen body"


class TaskRow(Record):
    """After one task: accuracy on every task's test rows, and what the body keeps of the base model's abilities."""

    task: str
    accuracy: tuple[Estimate, ...]
    retention_mean: Estimate | None = None
    retention_worst: Estimate | None = None
    worst_probe: str = ""
    probes: dict[str, float] = Field(default_factory=dict)
    alpha: float | None = None  # weight of the new body in the average with the one before, where one was chosen
    seconds: dict[str, float] = Field(default_factory=dict)
    n_train: int = 0
    stored: int = 0


class SequenceSummary(Record):
    """`summary.json` of a sequence.

    `matrix[i][j]` is the accuracy on task j's test rows after training task i; above the diagonal by
    what `unseen` says, None where not measured. `joint` and `separate` have one row.
    """

    kind: str = "sequence"
    strategy: tuple[str, ...]
    tasks: tuple[str, ...]
    metric: str = "accuracy"
    matrix: tuple[tuple[float | None, ...], ...]
    average_accuracy: float | None
    backward_transfer: float | None
    forward_transfer: float | None
    forgetting: float | None
    intervals: dict[str, tuple[float | None, float | None]]  # 95 %, of the four figures
    matrix_intervals: tuple[tuple[tuple[float | None, float | None], ...], ...]
    unseen: str | None
    base: tuple[float | None, ...]  # a linear probe on the base model, task by task
    n_test: tuple[int, ...]
    rows: tuple[TaskRow, ...]
    memory: dict[str, Any]
    model: str
    seed: int
    seconds: dict[str, float]
    peak_memory_mb: float = 0.0
