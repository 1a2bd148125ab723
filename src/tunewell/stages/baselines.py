"""Cheap alternatives, scored on test before anything is tuned; compared with the tuned model later."""

from __future__ import annotations

import io
import json

import numpy as np

from tunewell.folder import fingerprint
from tunewell.results import write_whole
from tunewell.stages.job import Job

SCORES, ABOUT = "cache/baseline-scores.npz", "cache/baselines.json"


def baselines(job: Job) -> None:
    """Train and score the baselines; cached under the rows, the base model and the seed."""
    from tunewell.evaluate.baselines import run_baselines

    def make() -> None:
        splits = {**job.splits, "train": job.splits["train"].select(job.places["train"])}
        results = run_baselines(job.spec, splits, embeddings=job.vectors, seed=job.recipe.seed)
        buffer = io.BytesIO()
        np.savez(buffer, **{name: r.scores["test"] for name, r in results.items()})  # type: ignore[arg-type]
        write_whole(job.folder / SCORES, buffer.getvalue())
        about = [{"name": name, "title": r.title, "seconds": r.seconds} for name, r in results.items()]
        write_whole(job.folder / ABOUT, json.dumps(about))
        job.echo("baselines: " + ", ".join(r.title for r in results.values()))

    job.folder.step("baselines", fingerprint(job.keys.data, job.recipe.seed), [SCORES, ABOUT], make, lambda: None)


def baseline_scores(job: Job) -> list[tuple[dict, np.ndarray]]:
    """(name, title, seconds) of each baseline with its scores on test."""
    about = json.loads((job.folder / ABOUT).read_text(encoding="utf-8"))
    with np.load(job.folder / SCORES, allow_pickle=False) as arrays:
        return [(entry, arrays[entry["name"]]) for entry in about]
