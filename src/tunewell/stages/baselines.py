"""Cheap alternatives, scored on test before anything is tuned; compared with the tuned model later."""

from __future__ import annotations

import json

import numpy as np

from tunewell.stages.job import Job
from tunewell.tasks.classification import ABOUT, SCORES


def baselines(job: Job) -> None:
    """Train and score the task's baselines; their answers are cached."""
    job.task.baselines(job)


def baseline_scores(job: Job) -> list[tuple[dict, np.ndarray]]:
    """(name, title, seconds) of each baseline with its scores on test."""
    about = json.loads((job.folder / ABOUT).read_text(encoding="utf-8"))
    with np.load(job.folder / SCORES, allow_pickle=False) as arrays:
        return [(entry, arrays[entry["name"]]) for entry in about]
