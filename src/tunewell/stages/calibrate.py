"""Whether the chosen model's probabilities mean what they say, and what is done about it; into calibration.json.

The map is fitted on validation, where the model was also chosen; what the report shows of it is measured on test.
Sorted conformal scores of the validation rows go into conformal.npz, so that `predict` can promise any coverage.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import RecipeError, RunFolderError
from tunewell.evaluate import conformal
from tunewell.predict import CALIBRATION, CONFORMAL
from tunewell.results import Calibration, Calibrator, Coverage, Estimate, write_whole
from tunewell.stages.job import Job

if TYPE_CHECKING:
    from tunewell.run import Run

CALIBRATED = ("text-classification", "text-regression")  # tasks that write calibration.json
SHOWN = (0.8, 0.9, 0.95)  # coverages in the report


def run_of_labels(run: str | Path) -> Run:
    """A finished run for classes or scores.

    Raises:
        RunFolderError: not a finished run, or its answers are texts.
    """
    from tunewell.run import load_run

    finished = load_run(run)
    if finished.summary.task not in CALIBRATED:
        raise RunFolderError(
            f"has answers that are texts: its task is {finished.summary.task}",
            where=str(run),
            expected="a run for classes or scores",
        )
    return finished


def refuse(job: Job) -> None:
    """Refuse a map that does not go with the task.

    Raises:
        RecipeError: scores have no probabilities; an isotonic map could move a label across 0.5.
    """
    asked, spec = job.recipe.calibrate, job.spec
    if asked == "isotonic" and spec.multi_label:
        raise RecipeError(
            "`calibrate: isotonic` could change which labels a row gets where it can have several",
            where="calibrate",
            expected="auto, temperature or none",
        )
    if asked in ("temperature", "isotonic") and spec.regression:
        raise RecipeError(
            f"`calibrate: {asked}` maps probabilities, and scores have none",
            where="calibrate",
            expected="auto or none for regression",
        )


def calibrate(job: Job, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fit the map on validation, measure it on test, and write both records.

    Args:
        scores: split -> what the saved model gives, (n, C) or (n,), of validation and test.

    Returns:
        The same after the map.
    """
    from tunewell.evaluate.calibrators import calibrated, choose

    spec, seed = job.spec, job.recipe.seed
    truth = {name: job.targets(name) for name in scores}
    parts: dict[str, Any] = {}
    found = Calibrator(method="none", n=len(truth.get("validation", ())))
    reason = "scores have no probabilities" if job.validated else "no validation rows to fit a map on"
    after = scores
    if not spec.regression and not job.validated:
        parts |= _errors("before", scores["test"], truth["test"], seed)
        parts |= _errors("after", scores["test"], truth["test"], seed)
        job.echo(f"calibration: {_told(found)} ({reason})")
    elif not spec.regression:
        found, parts["validation"], reason = choose(
            scores["validation"], truth["validation"], job.recipe.calibrate, seed=seed
        )
        after = {name: calibrated(found, values) for name, values in scores.items()}
        parts |= _errors("before", scores["test"], truth["test"], seed)
        parts |= _errors("after", after["test"], truth["test"], seed)
        job.echo(f"calibration: {_told(found)} ({reason})")
    if not spec.multi_label:
        methods = ("distance",) if spec.regression else conformal.METHODS
        known = {m: np.empty(0) for m in methods}
        if job.validated:
            known = {m: conformal.true_scores(after["validation"], truth["validation"], m) for m in methods}
        parts["sets"] = tuple(
            _measured(method, c, known[method], after["test"], truth["test"])
            for method in methods
            for c in SHOWN
            if len(known[method]) >= conformal.fewest(c)
        )
        buffer = io.BytesIO()
        np.savez(buffer, **{m: np.sort(v) for m, v in known.items()})  # type: ignore[arg-type]
        write_whole(job.folder / CONFORMAL, buffer.getvalue())
        if not spec.regression:
            from tunewell.evaluate.abstention import abstention

            test = after["test"]
            parts["abstention"] = abstention(test.max(axis=1), test.argmax(axis=1) != truth["test"], seed=seed)
    asked = job.recipe.calibrate
    Calibration(asked=asked, calibrator=found, reason=reason, **parts).write(job.folder / CALIBRATION)
    return after


def _told(found: Calibrator) -> str:
    if found.method == "temperature":
        return f"temperature {found.temperature:.2f}"
    return found.method if found.method != "none" else "left as it is"


def _errors(when: str, scores: np.ndarray, truth: np.ndarray, seed: int) -> dict[str, Any]:
    """Calibration errors and proper scores of the answers' probabilities; of every label for multi-label."""
    from tunewell.evaluate.calibration_error import calibration_errors, mass_bins
    from tunewell.evaluate.calibrators import log_losses

    if np.ndim(truth) == 2:
        claimed, came = scores.ravel(), (truth > 0).ravel()
        squared = ((scores - truth) ** 2).mean(axis=1)
    else:
        claimed, came = scores.max(axis=1), scores.argmax(axis=1) == truth
        hot = np.zeros_like(scores)
        hot[np.arange(len(scores)), truth] = 1.0
        squared = ((scores - hot) ** 2).sum(axis=1)
    figures = calibration_errors(claimed, came, seed=seed)
    figures |= {"log_loss": _mean(log_losses(scores, truth)), "brier": _mean(squared)}
    return {when: figures, f"bins_{when}": mass_bins(claimed, came)}


def _mean(values: np.ndarray) -> Estimate:
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(value=mean, n=n)
    half = 1.959964 * float(values.std(ddof=1) / np.sqrt(n))
    return Estimate(value=mean, low=max(0.0, mean - half), high=mean + half, n=n)


def _measured(method: str, coverage: float, known: np.ndarray, scores: np.ndarray, truth: np.ndarray) -> Coverage:
    """Sets of one promise on test."""
    from tunewell.evaluate.statistics import wilson

    threshold, n = conformal.quantile(known, coverage), len(truth)
    if method == "distance":
        inside = np.abs(scores - truth) <= threshold
        sizes: Any = np.full(n, 2 * threshold)
    else:
        found = conformal.sets(scores, threshold, method)
        inside, sizes = found[np.arange(n), truth], found.sum(axis=1)
    low, high = wilson(int(inside.sum()), n)
    return Coverage(
        method=method,
        coverage=coverage,
        threshold=threshold,
        measured=Estimate(value=float(inside.mean()), low=low, high=high, n=n),
        size=float(np.mean(sizes)),
        single=float(np.mean(sizes == 1)) if method != "distance" else 0.0,
        empty=float(np.mean(sizes == 0)) if method != "distance" else 0.0,
    )
