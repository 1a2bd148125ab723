"""Scores of frozen features: what tuning would reach, guessed without tuning. One score, one file; higher is better.
How near two tasks are stands beside them, in `tasks.py`."""

from __future__ import annotations

from tunewell.rank.scores.hscore import hscore, shrunken_hscore
from tunewell.rank.scores.leep import leep, nce
from tunewell.rank.scores.linear_probe import probe_scores
from tunewell.rank.scores.logme import logme
from tunewell.rank.scores.tasks import cosine, task_distance, textemb
from tunewell.rank.scores.transrate import transrate

__all__ = [
    "cosine",
    "hscore",
    "leep",
    "logme",
    "nce",
    "probe_scores",
    "shrunken_hscore",
    "task_distance",
    "textemb",
    "transrate",
]
