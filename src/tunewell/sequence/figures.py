"""From the accuracy matrix to average accuracy, transfer and forgetting, with intervals.

R[i][j] is the accuracy on task j's test rows after training task i (T tasks).

    average accuracy   mean over j of R[T-1][j]                              (Lopez-Paz & Ranzato, 2017)
    backward transfer  mean over j < T-1 of R[T-1][j] − R[j][j]              (the same)
    forward transfer   mean over j > 0 of R[j-1][j] − b[j]                   (the same)
    forgetting         mean over j < T-1 of max over j ≤ i < T-1 of R[i][j], less R[T-1][j]
                                                                            (Chaudhry et al., 2018)

A head exists only after its task. For a task not yet seen R[i][j] is a linear probe on the frozen body
as it is after task i, fitted on task j's training rows, and b[j] the same on the base model (in the
paper b is a model with random weights). Chaudhry's maximum is taken over the entries of the task's own head.

Intervals are percentile bootstraps over each task's test rows, all entries of a column on the same resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunewell.results import Estimate

N_BOOT = 1000
Right = Sequence[Sequence[np.ndarray | None]]  # [i][j] -> (n_j,) booleans


def accuracies(right: Right) -> list[list[float | None]]:
    return [[None if cell is None else float(np.mean(cell)) for cell in row] for row in right]


def average_accuracy(matrix: Any) -> Any:
    """Mean of the last row."""
    return np.mean(matrix[-1], axis=0)


def backward_transfer(matrix: Any) -> Any:
    last = len(matrix) - 1
    return np.mean([matrix[last][j] - matrix[j][j] for j in range(last)], axis=0)


def forward_transfer(matrix: Any, base: Any) -> Any:
    return np.mean([matrix[j - 1][j] - base[j] for j in range(1, len(matrix))], axis=0)


def forgetting(matrix: Any) -> Any:
    last = len(matrix) - 1
    return np.mean(
        [np.max([matrix[i][j] for i in range(j, last)], axis=0) - matrix[last][j] for j in range(last)], axis=0
    )


def figures(right: Right, base: Sequence[np.ndarray | None], *, seed: int = 42) -> dict[str, Estimate]:
    """The four figures with intervals, from which test rows were answered right.

    Args:
        right: [i][j] -> (n_j,), None where not measured; one row alone gives only the average accuracy.
        base: [j] -> (n_j,) by a linear probe on the base model, None where not measured.
    """
    from tunewell.evaluate.statistics import bootstrap_weights

    tasks = len(right[-1])
    sizes = [len(cell) for cell in right[-1] if cell is not None]
    drawn = [np.concatenate(list(bootstrap_weights(n, N_BOOT, seed + j)), axis=1) / n for j, n in enumerate(sizes)]
    fewest = min(d.shape[1] for d in drawn)  # very many rows have fewer resamples
    draws = [d[:, :fewest] for d in drawn]

    def both(cells: Sequence[np.ndarray | None]) -> list[Any]:
        """Of each task: its value, then its bootstrap values."""
        return [
            None if cell is None else np.concatenate([[np.mean(cell)], np.asarray(cell, float) @ draws[j]])
            for j, cell in enumerate(cells)
        ]

    matrix, start = [both(row) for row in right], both(base)
    out = {"average_accuracy": _estimate(average_accuracy(matrix), sum(sizes))}
    missing = Estimate(value=None)
    square = len(right) == tasks and tasks > 1
    out["backward_transfer"] = _estimate(backward_transfer(matrix), sum(sizes[:-1])) if square else missing
    ahead = square and all(right[j - 1][j] is not None and base[j] is not None for j in range(1, tasks))
    out["forward_transfer"] = _estimate(forward_transfer(matrix, start), sum(sizes[1:])) if ahead else missing
    out["forgetting"] = _estimate(forgetting(matrix), sum(sizes[:-1])) if square else missing
    return out


def _estimate(values: np.ndarray, n: int) -> Estimate:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Estimate(value=float(values[0]), low=float(low), high=float(high), n=n)
