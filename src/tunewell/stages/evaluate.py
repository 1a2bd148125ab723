"""The tuned model on test rows: metrics, predictions.csv, and the round trip of the saved folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError
from tunewell.folder import fingerprint
from tunewell.predict import CALIBRATION, CONFORMAL, Predictor, decide
from tunewell.results import BaselineResult, Estimate, Evaluation, write_whole
from tunewell.stages.baselines import baseline_scores
from tunewell.stages.calibrate import CALIBRATED, calibrate
from tunewell.stages.job import Job

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.tasks import TaskSpec

ROUND_TRIP_ROWS, ROUND_TRIP_LIMIT = 200, 1e-5
TESTED = "test scores"  # in a job's memory: (n, C) or (n,) as predictions.csv has them
PROBABILITY_COLUMNS = 50  # with more labels only the answer's own probability is written


def round_trip(folder: Path, dataset: Dataset, scores: np.ndarray) -> float:
    """Load the saved folder afresh and predict again.

    Returns:
        The largest difference from `scores` over at most ROUND_TRIP_ROWS rows.

    Raises:
        RuntimeError: a difference above 1e-5; the run does not count as done.
    """
    few = dataset.select(range(min(len(dataset), ROUND_TRIP_ROWS)))
    fresh = Predictor.load(folder)
    again = fresh.raw_scores(list(few["text"]), list(few["text_pair"]) if fresh.spec.pair else None)
    difference = largest_difference(scores[: len(few)], again)
    if not difference <= ROUND_TRIP_LIMIT:
        raise RuntimeError(
            f"{folder}: the saved model does not give its own predictions again "
            f"(largest difference {difference:.2g}, allowed {ROUND_TRIP_LIMIT:g})"
        )
    return difference


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest absolute difference of two arrays of scores, relative to their size where above 1."""
    return float(np.max(np.abs(a - b) / np.maximum(1.0, np.abs(a)), initial=0.0))


def write_predictions(path: Path, dataset: Dataset, spec: TaskSpec, scores: np.ndarray) -> None:
    """Test rows with label, prediction and probabilities, as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)  # \r\n between rows: with \n alone, a lone \r in a text would not be quoted
    pair = "text_pair" in dataset.column_names
    all_columns = not spec.regression and len(spec.labels) <= PROBABILITY_COLUMNS
    header = ["row", "source", "text", *(["text_pair"] if pair else []), "label", "prediction"]
    if not spec.regression:
        header += [f"p_{label}" for label in spec.labels] if all_columns else ["probability"]
    writer.writerow(header)
    answers = decide(spec, scores)
    for i, row in enumerate(dataset):
        label, answer = row["label"], answers[i]
        cells = [
            row["row"],
            row["source"],
            row["text"],
            *([row["text_pair"]] if pair else []),
            json.dumps(label, ensure_ascii=False) if spec.multi_label else label,
            json.dumps(answer, ensure_ascii=False) if spec.multi_label else answer,
        ]
        if not spec.regression:
            cells += [f"{p:.6f}" for p in scores[i]] if all_columns else [f"{scores[i].max():.6f}"]
        writer.writerow(cells)
    write_whole(path, buffer.getvalue())


def evaluate_tuned(job: Job) -> Evaluation:
    """The chosen model on test, against each baseline; predictions; the round trip of the saved folder."""
    folder = job.folder
    outputs = ["evaluation.json", "validation.json", "baselines.json", "predictions.csv"]
    if job.spec.name in CALIBRATED:
        outputs += [CALIBRATION] if job.spec.multi_label else [CALIBRATION, CONFORMAL]
    return folder.step(
        "evaluate",
        fingerprint(job.keys.choice, folder.steps.get("baselines"), job.recipe.calibrate),
        outputs,
        lambda: job.task.evaluate(job),
        lambda: Evaluation.load(folder / "evaluation.json"),
    )


def evaluate_labels(job: Job) -> Evaluation:
    """`evaluate_tuned` for classes and scores."""
    from tunewell.evaluate.metrics import evaluate
    from tunewell.evaluate.statistics import compare

    spec, seed, folder = job.spec, job.recipe.seed, job.folder
    predictor = Predictor.load(folder / "model", batch_size=job.recipe.per_device_eval_batch_size)
    scores = {}
    for name in ("validation", "test"):
        rows = job.splits[name]
        if not len(rows):
            continue
        scores[name] = predictor.raw_scores(list(rows["text"]), list(rows["text_pair"]) if spec.pair else None)
    difference = round_trip(folder / "model", job.splits["test"], scores["test"])
    job.echo(f"round trip: the saved model gives its predictions again (largest difference {difference:.1e})")
    scores = calibrate(job, scores)
    job.memory[TESTED] = scores["test"]
    truth = job.targets("test")
    tuned = evaluate(spec, scores["test"], truth, split="test", seed=seed)
    results = [
        BaselineResult(
            **about,
            evaluation=evaluate(spec, other, truth, split="test", seed=seed),
            comparison=compare(spec, scores["test"], other, truth, metric=spec.metric, seed=seed),
        )
        for about, other in baseline_scores(job)
    ]
    write_predictions(folder / "predictions.csv", job.splits["test"], spec, scores["test"])
    validation = Evaluation(split="validation", metric=spec.metric, metrics={spec.metric: Estimate(value=None)}, n=0)
    if job.validated:
        validation = evaluate(spec, scores["validation"], job.targets("validation"), split="validation", seed=seed)
    validation.write(folder / "validation.json")
    dump = [r.model_dump(mode="json") for r in results]
    write_whole(folder / "baselines.json", json.dumps({"baselines": dump}, indent=1) + "\n")
    tuned.write(folder / "evaluation.json")
    return tuned


def evaluate_file(path: Path, data: str, **options: Any) -> Evaluation:
    """See `tunewell.run.evaluate_run`; the folder's task.json says whose task it is."""
    from tunewell.predict import read_task
    from tunewell.tasks import TASKS, task_of

    described = read_task(path) or (read_task(path.parent) if (path / "config.json").is_file() else None)
    name = (described or {}).get("spec", {}).get("name", "text-classification")
    return task_of(name if name in TASKS else "text-classification").evaluate_file(path, data, options)


def evaluate_labelled_file(
    path: Path,
    data: str,
    *,
    text: str | None,
    text_pair: str | None,
    label: Sequence[str] | None,
    encoding: str,
    seed: int,
    task_name: str | None = None,
    polarity: dict[str, str] | str | None = None,
    echo: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """`evaluate_file` for classes and scores.

    Args:
        polarity: which labels of the file are which class; by default what the run was tuned with where it fits,
            else what the labels tell by themselves (sentiment only).
        echo: told which polarity was taken, where it is not the run's.
    """
    from tunewell.data.columns import canonical, refuse_objects, resolve
    from tunewell.data.load import load
    from tunewell.evaluate.metrics import evaluate
    from tunewell.stages.prepare import relabelled
    from tunewell.tasks import targets
    from tunewell.tasks.polarity import choose, describe

    predictor = Predictor.load(path, task_name=task_name)
    spec, known = predictor.spec, predictor.columns
    file = load(data, encoding=encoding)
    columns = resolve(
        file.dataset,
        text=text or known.get("text"),
        text_pair=text_pair or known.get("text_pair"),
        label=tuple(label) if label else (tuple(known["label"]) if known.get("label") else None),
        group=None,
        task=spec.name,
        multi_label=spec.multi_label,
        label_separator=known.get("label_separator"),
        source=file.source,
        evaluating=True,
    )
    refuse_objects(file.objects, columns, source=file.source)
    dataset, _ = canonical(file.dataset, columns, source=file.source)
    if not len(dataset):
        raise DataError("no row with a text and a label", where=file.source, expected="at least one")
    if not spec.regression:
        if polarity is not None or known.get("polarity") is not None:
            labels = sorted(set(dataset["label"]))
            chosen = choose(polarity, labels, source=file.source, otherwise=known.get("polarity"))
            if chosen != known.get("polarity"):
                echo(f"{file.source}: polarity: {describe(chosen)}")
            dataset = relabelled(dataset, chosen, file.source)
        _refuse_unknown(dataset, spec, file.source)
    pairs = list(dataset["text_pair"]) if spec.pair else None
    return evaluate(
        spec, predictor.scores(list(dataset["text"]), pairs), targets(spec, dataset), split="test", seed=seed
    )


def _refuse_unknown(dataset: Dataset, spec: TaskSpec, source: str) -> None:
    known = set(spec.labels)
    for cell, row in zip(dataset["label"], dataset["row"], strict=True):
        for label in cell if spec.multi_label else [cell]:
            if label not in known:
                raise DataError(
                    f"label {label!r} is not one that the model knows",
                    where=f"{source}:{row}",
                    expected=", ".join(list(spec.labels)[:12]) + (" …" if len(spec.labels) > 12 else ""),
                )
