"""What a method may know while one task of a sequence is tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunewell.sequence.heads import Head
from tunewell.sequence.memory import Stored

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.sequence.watch import Watch
    from tunewell.tasks import TaskSpec


@dataclass(frozen=True)
class Past:
    """What earlier tasks left, and the rows of this one.

    Attributes:
        heads: of earlier tasks, by name, without the one that this task goes on with.
        left: what a method left for itself, by its name.
        stored: rows of earlier tasks within the memory budget.
        rows: this task's training rows; max_length: their longest input, memory_length: that of stored rows.
        watch: gives the task's own batch at every step.
        options: the sequence's own keys (weights, temperature), see `spec.py`.
    """

    heads: dict[str, Head]
    stored: Sequence[Stored]
    rows: Dataset
    spec: TaskSpec
    max_length: int
    memory_length: int
    watch: Watch
    seed: int
    batch: int
    options: dict[str, Any] = field(default_factory=dict)
    left: dict[str, Head] = field(default_factory=dict)
