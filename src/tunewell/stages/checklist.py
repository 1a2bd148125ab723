"""Behavioural tests of a finished run, on its own test rows or on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.explain.checklist import Checklist, checklist
from tunewell.stages.calibrate import run_of_labels
from tunewell.stages.drift import task_rows


def checklist_of(
    run: str | Path,
    some: Sequence[dict[str, Any]] | None = None,
    *,
    rows: int = 200,
    negation: str = "auto",
    seed: int = 42,
    watch: Callable[[str], None] = lambda line: None,
) -> Checklist:
    """Behavioural tests of a finished run, written into its folder as checklist.json; see `explain.checklist`.

    Args:
        some: rows with `text` (and `text_pair`); by default the run's test rows. rows: how many of them at the most.

    Raises:
        RunFolderError: not a finished run, or its answers are texts. DataError: too few rows.
    """

    finished = run_of_labels(run)
    every = task_rows(finished.dir, rows, seed) if some is None else list(some)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(every))[:rows])
    found = checklist(finished.predictor, [every[i] for i in chosen], negation=negation, seed=seed, watch=watch)
    found.write(finished.dir / "checklist.json")
    return found
