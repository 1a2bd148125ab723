"""What evaluation leaves in the run folder, the same for every task whose answers are texts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewell.evaluate.answers import Figures, compare, evaluation
from tunewell.results import BaselineResult, Evaluation, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from tunewell.stages.job import Job

SAMPLES = 20  # test rows shown side by side in the report


@dataclass(frozen=True)
class Baseline:
    """A cheap alternative: its figures on test and its answers (None where it has none)."""

    name: str
    title: str
    figures: Figures
    answers: Sequence[str | None]
    seconds: float


def write_evaluation(
    job: Job,
    figures: Figures,
    validation: Evaluation,
    baselines: Sequence[Baseline],
) -> Evaluation:
    """evaluation.json, validation.json and baselines.json; returns the tuned model's evaluation on test."""
    folder, seed, metric = job.folder, job.recipe.seed, job.spec.metric
    tuned = evaluation(figures, split="test", metric=metric, seed=seed)
    results = [
        BaselineResult(
            name=b.name,
            title=b.title,
            evaluation=evaluation(b.figures, split="test", metric=metric, seed=seed),
            seconds=round(b.seconds, 3),
            comparison=compare(figures, b.figures, metric=metric, seed=seed),
        )
        for b in baselines
    ]
    validation.write(folder / "validation.json")
    dump = [r.model_dump(mode="json") for r in results]
    write_whole(folder / "baselines.json", json.dumps({"baselines": dump}, indent=1) + "\n")
    tuned.write(folder / "evaluation.json")
    return tuned


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file; lists and dicts as JSON, fractions with six digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(v) for v in row])
    write_whole(path, buffer.getvalue())


def _cell(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:.6f}" if isinstance(value, float) else "" if value is None else value


def write_samples(path: Path, names: Sequence[str], rows: Sequence[dict[str, Any]], note: str = "") -> None:
    """samples.json: rows side by side for the report.

    Args:
        names: headings of the answers, in order.
        rows: where, input, reference, answers (one a name). note: shown above them.
    """
    write_whole(
        path, json.dumps({"names": list(names), "rows": list(rows), "note": note}, ensure_ascii=False, indent=1) + "\n"
    )
