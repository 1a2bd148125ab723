"""Stored rows of earlier tasks: how many, which, and where they lie.

A choice is an order of rows whose every beginning is a fair choice of that size, so that a memory that
must shrink when a task comes drops rows from the end:

    reservoir  a uniform sample of the stream of rows (algorithm R; Vitter, 1985)
    balanced   the classes in turn, drawn at random within each
    herding    for each class in turn, the row that brings the mean of the chosen nearest to the
               class's mean (iCaRL; Rebuffi et al., 2017, algorithm 4), on normalised embeddings
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.results import write_whole

CHOICES = ("reservoir", "balanced", "herding")


def size_of(memory: float, rows: int, tasks: int) -> int:
    """Rows to store of a task: a share of its rows below 1, else an equal part of that number for each task so far.

    >>> size_of(0.01, 3600, 1), size_of(200, 3600, 3), size_of(0, 3600, 1)
    (36, 66, 0)
    """
    if not memory:
        return 0
    wanted = math.ceil(memory * rows - 1e-9) if memory < 1 else int(memory) // tasks
    return min(rows, max(1, wanted))


def reservoir(n: int, size: int, seed: int) -> np.ndarray:
    """(min(n, size),) rows by algorithm R: row i takes a random place with probability size / (i + 1)."""
    rng = np.random.default_rng(seed)
    kept = np.arange(min(n, size))
    for i in range(size, n):
        place = rng.integers(0, i + 1)
        if place < size:
            kept[place] = i
    return rng.permutation(kept)


def balanced(targets: np.ndarray, size: int, seed: int) -> np.ndarray:
    """(size,) rows: the classes in turn, in random order within each."""
    rng = np.random.default_rng(seed)
    return _in_turn([rng.permutation(np.flatnonzero(targets == c)) for c in np.unique(targets)], size)


def herding(vectors: np.ndarray, targets: np.ndarray, size: int) -> np.ndarray:
    """(size,) rows: the classes in turn, each class by herding.

    Args:
        vectors: (n, H) embeddings; normalised here, as in the paper.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    classes = np.unique(targets)
    each = -(-size // len(classes))
    return _in_turn([herd(unit, np.flatnonzero(targets == c), each) for c in classes], size)


def herd(vectors: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """p_k = argmin over x of ‖μ − (φ(x) + Σ_{j<k} φ(p_j)) / k‖ within one class."""
    own = vectors[rows].astype(np.float64)
    mean, total = own.mean(axis=0), np.zeros(own.shape[1])
    chosen: list[int] = []
    free = np.ones(len(rows), dtype=bool)
    for k in range(1, min(size, len(rows)) + 1):
        distance = np.linalg.norm(mean - (total + own) / k, axis=1)
        distance[~free] = np.inf
        best = int(distance.argmin())
        chosen.append(best)
        free[best] = False
        total += own[best]
    return rows[np.array(chosen, dtype=np.int64)]


def _in_turn(classes: Sequence[np.ndarray], size: int) -> np.ndarray:
    out = [group[k] for k in range(max(map(len, classes))) for group in classes if k < len(group)]
    return np.array(out[:size], dtype=np.int64)


def choose_rows(how: str, *, n: int, targets: np.ndarray, size: int, seed: int, vectors: Any = None) -> np.ndarray:
    """An order of `size` rows out of n; `vectors` is called for the embeddings when herding needs them."""
    if how == "reservoir":
        return reservoir(n, size, seed)
    return balanced(targets, size, seed) if how == "balanced" else herding(vectors(), targets, size)


@dataclass(frozen=True)
class Stored:
    """The stored rows of one task.

    Attributes:
        task, head: its name and the head that answers for it.
        texts, pairs, targets: m rows; targets are class ids. rows: their places in the data file.
        logits: (m, C) that the model gave right after the task, for dark replay.
    """

    task: str
    head: str
    texts: list[str]
    pairs: list[str] | None
    targets: np.ndarray
    logits: np.ndarray
    rows: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, size: int) -> Stored:
        """The first `size` rows."""
        pairs = None if self.pairs is None else self.pairs[:size]
        return Stored(
            self.task, self.head, self.texts[:size], pairs, self.targets[:size], self.logits[:size], self.rows[:size]
        )

    def write(self, path: Path) -> None:
        """One JSON line a row: text, target, logits, the row's place in its file."""
        head = {"task": self.task, "head": self.head}
        lines = [
            json.dumps(
                {
                    **head,
                    "text": self.texts[i],
                    **({} if self.pairs is None else {"text_pair": self.pairs[i]}),
                    "target": int(self.targets[i]),
                    "logits": [round(float(v), 5) for v in self.logits[i]],
                    "row": self.rows[i],
                },
                ensure_ascii=False,
            )
            for i in range(len(self))
        ]
        write_whole(path, "".join(line + "\n" for line in lines))

    @classmethod
    def read(cls, path: Path) -> Stored:
        """Raises ValueError or KeyError when the file is damaged."""
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        pairs = [line["text_pair"] for line in lines] if lines and "text_pair" in lines[0] else None
        return cls(
            lines[0]["task"],
            lines[0]["head"],
            [line["text"] for line in lines],
            pairs,
            np.array([line["target"] for line in lines], dtype=np.int64),
            np.array([line["logits"] for line in lines], dtype=np.float32),
            [line["row"] for line in lines],
        )
