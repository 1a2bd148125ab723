"""Reptile (Nichol et al., 2018): tune on a task, then move the shared weights towards where tuning went.

    φ ← φ + ε · mean over tasks of (φ̃ − φ)

No row is held back within a task: support and query rows are gone through in batches as large as the support. The
lesson is φ − φ̃, so that a plain step of size ε against it is the update; ε falls linearly to 0, as in the paper.
"""

from __future__ import annotations

from typing import Any

from torch.nn.functional import cross_entropy

from tunewell.meta.episode import Episode, Inner, Lesson, accuracy, descend, first_head, learnable, unchanged

NAME, TITLE = "reptile", "Reptile"
PAPER = "Nichol et al. (2018)"
USE, OUTER, RATE = "whole", "sgd", 0.5


def batches(episode: Episode, steps: int) -> list[list[int]]:
    """Row numbers of each step: all rows of the episode in their order, over and over."""
    rows, size = [*episode.support, *episode.query], len(episode.support)
    around = [rows[i % len(rows)] for i in range(steps * size)]
    return [around[i * size : (i + 1) * size] for i in range(steps)]


def lesson(body: Any, episode: Episode, inner: Inner) -> Lesson:
    """What a step of size ε against moves φ to φ + ε (φ̃ − φ)."""
    before = [p.detach().clone() for p in learnable(body)]
    loss = right = float("nan")
    with unchanged(body):
        head = first_head(body, episode)
        for rows in batches(episode, inner.steps):
            y = episode.of(rows)
            head, given = descend(body, head, episode.take(rows), y, inner.rate)
            loss, right = float(cross_entropy(given, y)), accuracy(given, y)
        moved = [old - p.detach() for old, p in zip(before, learnable(body), strict=True)]
    return Lesson(list(moved), loss, right)
