"""Error slices of a run's test rows; into slices.json."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tunewell.data.cells import Rows
from tunewell.errors import RunFolderError
from tunewell.explain.slices import LEAST, Slices, slices_of
from tunewell.folder import fingerprint
from tunewell.predict import Predictor
from tunewell.stages.calibrate import CALIBRATED, run_of_labels
from tunewell.stages.job import Job

LARGE = 0.8  # quantile of |error| from which a predicted value counts as wrong
MOST = 5000  # rows looked at


def slices_tuned(job: Job) -> Slices | None:
    """Slices of the chosen model; None where the recipe explains nothing, or where there are too few rows."""
    path = job.folder / "slices.json"
    if not job.recipe.explain or job.spec.name not in CALIBRATED or len(job.splits["test"]) < LEAST:
        path.unlink(missing_ok=True)
        return None

    def make() -> Slices:
        job.echo("explain: kinds of texts with more errors")
        predictor = Predictor.load(job.folder / "model") if job.recipe.classify_by != "likelihood" else None
        found = measured(job.folder.path, predictor, job.recipe.seed)
        found.write(path)
        return found

    key = fingerprint(job.keys.choice, "slices", job.recipe.seed)
    return job.optional("slices", key, path, make, lambda: Slices.load(path), "kinds of texts with more errors are ")


def slices_of_run(run: str | Path, *, seed: int = 42) -> Slices:
    """Slices of a finished run's test rows, found anew and written into its folder.

    Raises:
        RunFolderError: no finished run for classes or scores. DataError: too few rows.
    """
    finished = run_of_labels(run)
    predictor = finished.predictor
    found = measured(finished.dir, predictor if predictor.scorer is None else None, seed)
    found.write(finished.dir / "slices.json")
    return found


def measured(folder: Path, predictor: Predictor | None, seed: int) -> Slices:
    """Slices of the rows of predictions.csv.

    Args:
        predictor: reads the texts; without one, only their words are compared.
    """
    from tunewell.models.embed import embed

    path = folder / "predictions.csv"
    if not path.is_file():
        raise RunFolderError("has no predictions.csv", where=str(folder), expected="a finished run")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(Rows(file))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST])
    rows = [rows[i] for i in chosen]
    texts, labels, predictions = ([row[name] for row in rows] for name in ("text", "label", "prediction"))
    pairs = [row["text_pair"] for row in rows] if rows and "text_pair" in rows[0] else None
    valued = bool(rows) and not any(name == "probability" or name.startswith("p_") for name in rows[0])
    if valued:
        loss = np.abs(np.array([float(row["prediction"]) - float(row["label"]) for row in rows]))
        limit = float(np.quantile(loss, LARGE)) if len(loss) else 0.0
        wrong, error = loss > limit, f"off by more than {limit:.3g}"
    else:
        wrong, error = np.array([row["label"] != row["prediction"] for row in rows]), "wrong answer"
        loss = np.array([_loss(row) for row in rows])
    vectors = None
    if predictor is not None and len(rows) >= LEAST:
        vectors = embed(
            predictor.model, predictor.tokenizer, texts, pairs=pairs if predictor.pair else None,
            max_length=predictor.max_length,
        )  # fmt: skip
    said = texts if pairs is None else [f"{a} ⇔ {b}" for a, b in zip(texts, pairs, strict=True)]
    return slices_of(said, labels, predictions, wrong, loss, vectors, error=error, seed=seed)


def _loss(row: dict[str, str]) -> float:
    """−log p of the label, at most 5; of several labels a row, 1 for a wrong answer.

    With many labels only the answer's own probability is written: of a wrong answer what it leaves is the most that the
    label can have.
    """
    p = row.get(f"p_{row['label']}")
    if p is None and "probability" in row:
        sure = float(row["probability"])
        p = str(sure if row["label"] == row["prediction"] else 1 - sure)
    if p is None:
        return float(row["label"] != row["prediction"])
    return float(min(5.0, -np.log(max(float(p), 1e-9))))
