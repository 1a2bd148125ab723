"""What tuning changed inside the model, on test rows and general text; into drift.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.data.cells import Rows
from tunewell.errors import AssetError, DataError, ModelError, RunFolderError
from tunewell.explain.drift import Drift, drift
from tunewell.folder import fingerprint
from tunewell.predict import Predictor
from tunewell.stages.calibrate import CALIBRATED, run_of_labels
from tunewell.stages.job import Job

ROWS = 200  # test rows, and general texts
LEAST = 8


def drift_tuned(job: Job) -> Drift | None:
    """Drift of the chosen model; None where the recipe explains nothing, or where it cannot be measured."""
    path = job.folder / "drift.json"
    if not job.recipe.explain or job.spec.name not in CALIBRATED:
        path.unlink(missing_ok=True)
        return None

    def make() -> Drift:
        job.echo("explain: what tuning changed")
        general = [] if job.recipe.probes == ["none"] else general_texts(job.recipe.seed)
        rows = task_rows(job.folder.path, ROWS, job.recipe.seed)
        found = drift(job.encoder.model, Predictor.load(job.folder / "model"), rows, general, seed=job.recipe.seed)
        found.write(path)
        return found

    key = fingerprint(job.keys.choice, "drift", job.recipe.seed, job.recipe.probes == ["none"])
    return job.optional("drift", key, path, make, lambda: Drift.load(path), "what tuning changed is ")


def drift_of(
    run: str | Path, *, rows: int = ROWS, general: str | None = None, seed: int = 42, watch: Callable[[str], None]
) -> Drift:
    """Drift of a finished run, measured anew and written into its folder; see `explain.drift`.

    Args:
        rows: test rows and general texts at the most. general: a file of general text, one a line or a column
            `text`; by default packaged news sentences. watch: told what is being done.

    Raises:
        RunFolderError: no finished run, or without test predictions. ModelError: its base model is gone or another
            one. DataError: too few rows or texts.
    """
    from tunewell.models.load import load_encoder

    finished = run_of_labels(run)
    some = task_rows(finished.dir, rows, seed)
    texts = general_texts(seed, rows) if general is None else _own_texts(general, rows, seed)
    recipe = finished.recipe
    try:
        base = load_encoder(recipe.model, recipe.revision, recipe.trust_remote_code).model
    except (ModelError, AssetError) as error:
        raise ModelError(
            f"the base model of this run is gone: {error.what}",
            where=recipe.model,
            expected=f"the model that {run} was tuned from",
            remedy="put it back where it was",
        ) from error
    predictor = Predictor.load(finished.dir)
    theirs = {k: v.shape for k, v in base.state_dict().items()}
    if any(theirs.get(k, v.shape) != v.shape for k, v in predictor.model.base_model.state_dict().items()):
        raise ModelError(
            "is another model now than the one this run was tuned from: its weights have other shapes",
            where=recipe.model,
            expected=f"the model that {run} was tuned from",
        )
    found = drift(base, predictor, some, texts, seed=seed, watch=watch)
    found.write(finished.dir / "drift.json")
    return found


def task_rows(folder: Path, rows: int, seed: int) -> list[dict[str, Any]]:
    """A seeded sample of the test rows of predictions.csv, in their order.

    Raises:
        RunFolderError: there is none. DataError: fewer than 8 rows.
    """
    path = folder / "predictions.csv"
    if not path.is_file():
        raise RunFolderError("has no predictions.csv", where=str(folder), expected="a finished run")
    with path.open(encoding="utf-8", newline="") as file:
        every = list(Rows(file))
    if len(every) < LEAST:
        raise DataError(f"{len(every)} test rows are too few", where=str(path), expected=f"at least {LEAST}")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(every))[:rows])
    return [every[i] for i in chosen]


def general_texts(seed: int, rows: int = ROWS) -> list[str]:
    """Packaged news sentences; none where the package cannot be had."""
    from tunewell.retention.probes.drift import general

    try:
        return general("report", seed)[:rows]
    except AssetError:
        return []


def _own_texts(name: str, rows: int, seed: int) -> list[str]:
    from tunewell.data.rows import open_rows

    with open_rows(name) as source:
        column = "text" if "text" in source.columns else source.columns[0]
        texts = list(dict.fromkeys(t for chunk in source for t in chunk.texts(column) if t.strip()))
    if len(texts) < LEAST:
        raise DataError(f"{len(texts)} general texts are too few", where=name, expected=f"at least {LEAST}")
    return [texts[i] for i in np.sort(np.random.default_rng(seed).permutation(len(texts))[:rows])]
