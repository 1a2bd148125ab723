"""What finished runs are worth in labels: their scores on the curve's test rows, looked up on the curve.

A run with fewer labels and some method that makes more of them (few-shot tuning, texts without labels, copies,
selection) equals tuning by the curve's recipe with N labels: that is what the method has saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunewell.curve.records import Needed, Worth
from tunewell.errors import DataError, RecipeError

if TYPE_CHECKING:
    from tunewell.explain.influence.rows import FileRows
    from tunewell.predict import Predictor
    from tunewell.stages.job import Job


def worth(job: Job, runs: Sequence[FileRows], needed: Callable[[float], Needed]) -> tuple[Worth, ...]:
    """Score runs on the curve's test rows, and say how many labels the curve takes to their scores.

    Args:
        runs: see `comparable`. needed: score -> the labels that it takes, by the curve's laws.
    """
    from tunewell.predict import Predictor

    out = []
    for rows in runs:
        score, labels = _score(job, Predictor.load(rows.run)), len(rows.trained)
        strategy = tuple(rows.recipe.strategies)
        job.echo(f"curve: {rows.run}: {job.spec.metric} {score:.4f} on the test rows here, from {labels:,} labels")
        out.append(Worth(run=str(rows.run), strategy=strategy, labels=labels, score=score, needed=needed(score)))
    return tuple(out)


def comparable(job: Job, run: str | Path) -> FileRows:
    """A run that can be put on the curve of a job: what it was tuned on.

    Raises:
        RunFolderError, DataError: no finished run; its training file is gone, or some of its rows are test rows here.
        RecipeError: a run of another task, or of other labels.
    """
    from tunewell.explain.influence.rows import read_rows

    rows = read_rows(run)
    if rows.spec.name != job.spec.name or rows.spec.pair != job.spec.pair:
        raise RecipeError(
            f"is a run of {rows.spec.name}{' on pairs' if rows.spec.pair else ''}",
            where=str(run),
            expected=f"{job.spec.name}{' on pairs' if job.spec.pair else ''}, as the curve's data",
        )
    if set(rows.spec.labels) != set(job.spec.labels) or rows.spec.multi_label != job.spec.multi_label:
        raise RecipeError(
            f"has the labels {', '.join(rows.spec.labels[:8])}",
            where=str(run),
            expected="those of the curve's data: " + ", ".join(job.spec.labels[:8]),
        )
    known = rows.select(np.flatnonzero(rows.split != "test"))
    shared = set(_keys(known.texts, known.pairs)) & set(_test(job))
    if shared:
        raise DataError(
            f"has learned {len(shared):,} of the texts that the curve is tested on, such as {min(shared)[0][:60]!r}",
            where=str(run),
            expected="runs that have not seen the test rows",
            remedy="give the same file of test rows to both: `test: FILE`",
        )
    return rows


def _keys(texts: Sequence[str], pairs: Sequence[str] | None) -> list[tuple[str, str]]:
    return list(zip(texts, pairs if pairs is not None else [""] * len(texts), strict=True))


def _test(job: Job) -> list[tuple[str, str]]:
    test = job.splits["test"]
    return _keys(list(test["text"]), list(test["text_pair"]) if job.spec.pair else None)


def _score(job: Job, predictor: Predictor) -> float:
    """A run's score on the curve's test rows, in the curve's metric."""
    from tunewell.curve.measure import score_on_test

    test = job.splits["test"]
    found = predictor.scores(list(test["text"]), list(test["text_pair"]) if job.spec.pair else None)
    if not job.spec.regression:
        found = found[:, [predictor.labels.index(label) for label in job.spec.labels]]
    return score_on_test(job, found)
