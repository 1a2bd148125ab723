"""Runs side by side: what their answers to the same test rows say, what they keep, what differs in their recipes.

Two runs are compared row by row or not at all: their test rows must be the same, in whatever order. Differences have
the paired bootstrap intervals and the tests of `evaluate.statistics`; where several runs are held against one, the
tests' p-values are Holm's (1979), so that all verdicts together are wrong by chance in 5 % of cases at most.

Shapes: n rows, C classes.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.data.cells import Rows
from tunewell.errors import DataError
from tunewell.evaluate.statistics import LEVEL, holm, interval, paired_permutation, paired_test, replicates
from tunewell.results import Estimate, Retention, Summary
from tunewell.tasks.spec import TaskSpec
from tunewell.ui.about import changed, read_json, recipe_of
from tunewell.ui.scan import FAULTS, Entry

Key = tuple[str, ...]
MOST = 8  # runs side by side
NOT_COMPARED = ("output_dir", "overwrite_output_dir", "lang", "threads", "report_to")  # keys that change no figure
LABELLED = ("text-classification", "text-regression", "sentiment")


@dataclass(frozen=True)
class Answers:
    """A run's test rows in a fixed order, with what it said to them.

    Attributes:
        keys: n of (text, second text, label, number among rows alike), sorted. scores: as `measure_of` takes them.
        known: metrics that `scores` hold enough for.
        points: (n,) F1 of each answer, for questions, whose scores are empty.
    """

    spec: TaskSpec
    keys: tuple[Key, ...]
    scores: np.ndarray
    targets: np.ndarray
    known: tuple[str, ...]
    points: np.ndarray | None = None


@dataclass(frozen=True)
class Verdict:
    """A run against the reference: the test on the headline metric, adjusted for the number of such tests."""

    at: str
    test: str
    p_value: float | None
    adjusted: float | None
    better: bool | None


@dataclass
class Comparison:
    """All that the page shows.

    Attributes:
        refused: why rows cannot be paired, "" where they are. rows: paired test rows.
        differences: metric -> run -> its figure less the reference's.
        figures: metric -> run -> its own. retention: probe -> run -> its own. recipes: key -> run -> value.
    """

    entries: list[Entry]
    reference: Entry
    metric: str = ""
    rows: int = 0
    refused: DataError | None = None
    figures: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    differences: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    retention: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    recipes: dict[str, dict[str, str]] = field(default_factory=dict)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """All metrics that there is a figure of."""
        return list(dict.fromkeys([*self.figures, *self.differences]))


def side_by_side(entries: Sequence[Entry], reference: str = "") -> Comparison:
    """Compare two finished runs or more.

    Args:
        reference: `at` of the run that the others are held against; the first by default.

    Raises:
        DataError: too few or too many runs, or one that is not finished.
    """
    if len(entries) < 2 or len(entries) > MOST:
        raise DataError(f"{len(entries)} chosen", where="compare", expected=f"2 to {MOST} finished runs")
    for entry in entries:
        if entry.state != "finished" or entry.kind != "run":
            what = f"is {entry.state}" if entry.kind == "run" else "is a sequence"
            raise DataError(what, where=entry.name, expected="a finished run of one task")
    one = next((e for e in entries if e.at == reference), entries[0])
    found = Comparison(list(entries), one, metric=one.metric)
    for entry in entries:
        _own_figures(found, entry)
    _recipes(found)
    try:
        _paired(found)
    except DataError as error:
        found.refused = error
    return found


def _own_figures(found: Comparison, entry: Entry) -> None:
    """What each run's own records say, each figure with its own interval."""
    try:
        evaluation = read_json(entry.path / "evaluation.json")
        for name, value in evaluation.get("metrics", {}).items():
            found.figures.setdefault(name, {})[entry.at] = Estimate.model_validate(value)
        summary = Summary.load(entry.path / "summary.json")
        found.costs[entry.at] = {
            "rows": summary.n_train, "train": summary.seconds.get("train", 0.0),
            "total": summary.seconds.get("total", 0.0), "memory": summary.peak_memory_mb,
        }  # fmt: skip
        path = entry.path / "retention.json"
        if path.is_file():
            retention = Retention.load(path)
            kept = {
                **{p.title: p.retention for p in retention.probes},
                "mean": retention.mean,
                "worst": retention.worst,
            }
            for name, value in kept.items():
                found.retention.setdefault(name, {})[entry.at] = value
    except FAULTS as error:
        raise DataError(f"cannot be read: {type(error).__name__}", where=entry.name) from None
    for name in ("mean", "worst"):  # behind the single probes
        if name in found.retention:
            found.retention[name] = found.retention.pop(name)


def _recipes(found: Comparison) -> None:
    """Only the keys that differ; a key at its default is blank."""
    values = {e.at: dict(changed(recipe_of(e.path))) for e in found.entries}
    for key in dict.fromkeys(k for of_run in values.values() for k in of_run):
        row = {at: of_run.get(key, "") for at, of_run in values.items()}
        if key not in NOT_COMPARED and len(set(row.values())) > 1:
            found.recipes[key] = row


# ---------------------------------------------------------------- row by row


def _paired(found: Comparison) -> None:
    of = {e.at: answers(e.path, _mark(e.path)) for e in found.entries}
    base = of[found.reference.at]
    for entry in found.entries:
        _refuse_others(found.reference, base, entry, of[entry.at])
    found.rows = len(base.keys)
    results = {
        e.at: differences(of[e.at], base, found.metric) for e in found.entries if e.at != found.reference.at
    }  # fmt: skip
    p_values = [test[1] for _, test in results.values()]
    for (at, (figures, test)), adjusted in zip(results.items(), holm(p_values), strict=True):
        for name, estimate in figures.items():
            found.differences.setdefault(name, {})[at] = estimate
        found.verdicts.append(
            Verdict(at, test[0], test[1], adjusted, _better(figures.get(found.metric), test, adjusted))
        )


def _better(difference: Estimate | None, test: tuple[str, float, float], adjusted: float) -> bool | None:
    """Beyond chance only where interval, adjusted test and the direction that the test saw agree."""
    if difference is None or difference.low is None or difference.high is None:
        return None
    if difference.low * difference.high <= 0 or adjusted >= 1 - LEVEL or test[2] * difference.low <= 0:
        return None
    return difference.low > 0


def differences(
    one: Answers, other: Answers, metric: str, seed: int = 42
) -> tuple[dict[str, Estimate], tuple[str, float, float]]:
    """Metric -> one − other with its paired 95 % interval; and (test, p-value, how much better `one` is by it)."""
    if one.points is not None and other.points is not None:
        gained = one.points - other.points
        low, high = interval(
            replicates(lambda w: {"f1": gained @ w / w.sum(axis=0)}, len(gained), seed=seed)["f1"], float(gained.mean())
        )
        estimate = Estimate(value=float(gained.mean()), low=low, high=high, n=len(gained))
        p_value = paired_permutation(gained, seed=seed)
        return {"f1": estimate}, ("paired permutation of F1", p_value, float(gained.sum()))
    from tunewell.evaluate.weighted import measure_of

    names = [m for m in one.known if m in other.known]
    left, right = (measure_of(a.spec, a.scores, a.targets, names) for a in (one, other))

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        a, b = left(weights), right(weights)
        return {name: a[name] - b[name] for name in names}

    n = len(one.keys)
    values = {name: float(v[0]) for name, v in difference(np.ones((n, 1))).items()}
    drawn = replicates(difference, n, seed=seed)
    out = {}
    for name in names:
        low, high = interval(drawn[name], values[name])
        out[name] = Estimate(value=None if np.isnan(values[name]) else values[name], low=low, high=high, n=n)
    p_value, test, gain = paired_test(one.spec, one.scores, other.scores, one.targets, seed)
    return out, (test, p_value, gain)


def _refuse_others(reference: Entry, base: Answers, entry: Entry, found: Answers) -> None:
    """
    Raises:
        DataError: the two were tested on other rows, or tell other classes apart.
    """
    where = f"{entry.name}, {reference.name}"
    if (found.points is None) != (base.points is None) or found.spec.name != base.spec.name:
        raise DataError(
            f"their tasks are {found.spec.name} and {base.spec.name}", where=where, expected="runs of one task"
        )
    if found.keys != base.keys:
        ours, theirs = Counter(found.keys), Counter(base.keys)
        both = (ours & theirs).total()
        raise DataError(
            f"the test rows differ: {both:,} in both, {len(found.keys) - both:,} only in {entry.name}, "
            f"{len(base.keys) - both:,} only in {reference.name}",
            where=where,
            expected="the same test rows, so that one model has not learned what the other is tested on",
            remedy="the same `test` file for both, or the same `train` file, seed and test_size",
        )
    if sorted(found.spec.labels) != sorted(base.spec.labels) or found.spec.multi_label != base.spec.multi_label:
        raise DataError("they tell other classes apart", where=where, expected="the same classes")


def _mark(path: Path) -> tuple[int, int]:
    """What changes when a run's answers do."""
    try:
        found = (path / "predictions.csv").stat()
    except OSError:
        raise DataError(
            "has no predictions.csv", where=path.name, expected="a run with its answers to test rows"
        ) from None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=16)
def answers(path: Path, mark: tuple[int, int]) -> Answers:
    """The answers of a run to its test rows, rows and classes sorted.

    Raises:
        DataError: predictions.csv is damaged, or its answers are texts that are not scored row by row.
    """
    task = read_json(path / "task.json").get("spec") or _spec_from_records(path)
    name = str(task.get("name", ""))
    if name not in (*LABELLED, "question-answering"):
        raise DataError(
            f"answers of {name or 'this task'} are not scored row by row",
            where=path.name,
            expected="classes, scores or answers to questions",
        )
    try:
        with (path / "predictions.csv").open(encoding="utf-8", newline="") as file:
            rows = list(Rows(file))
        return _answers(task, rows)
    except (OSError, ValueError, KeyError, IndexError, TypeError, csv.Error):
        raise DataError(
            "is damaged or of another version", where=f"{path.name}/predictions.csv",
            expected="test rows as `tunewell run` writes them",
        ) from None  # fmt: skip


def _spec_from_records(path: Path) -> dict[str, Any]:
    """The task of a run whose task.json is gone (its model was deleted)."""
    evaluation, summary = read_json(path / "evaluation.json"), read_json(path / "summary.json")
    return {
        "name": summary.get("task", ""),
        "labels": evaluation.get("labels", []),
        "multi_label": "subset_accuracy" in evaluation.get("metrics", {}),
        "metric": evaluation.get("metric", ""),
    }


def _answers(task: dict[str, Any], rows: list[dict[str, str]]) -> Answers:
    from tunewell.evaluate.metrics import metrics_of

    if task["name"] == "question-answering":
        order, keys = _ordered([(r["question"], r["id"], r["label"]) for r in rows])
        points = np.array([float(rows[i]["f1"]) for i in order])
        empty = np.empty(0)
        return Answers(TaskSpec(task["name"]), keys, empty, empty, ("f1",), points)
    spec = TaskSpec.from_dict(task)
    order, keys = _ordered([(r["text"], r.get("text_pair") or "", r["label"]) for r in rows])
    rows = [rows[i] for i in order]
    if spec.regression:
        scores = np.array([float(r["prediction"]) for r in rows])
        targets = np.array([float(r["label"]) for r in rows])
        return Answers(spec, keys, scores, targets, metrics_of(spec))
    labels = sorted(spec.labels) if not spec.ordered else list(spec.labels)
    spec = TaskSpec(spec.name, tuple(labels), spec.multi_label, spec.metric, spec.pair, spec.ordered)
    at = {label: j for j, label in enumerate(labels)}
    written = all(f"p_{label}" in rows[0] for label in labels)
    n, c = len(rows), len(labels)
    if written:
        scores = np.array([[float(r[f"p_{label}"]) for label in labels] for r in rows])
    known = metrics_of(spec)
    if spec.multi_label:
        said, truth = np.zeros((n, c)), np.zeros((n, c))
        for i, r in enumerate(rows):
            for cells, column in ((said, "prediction"), (truth, "label")):
                for label in json.loads(r[column]):
                    cells[i, at[label]] = 1.0
        if not written:
            return Answers(spec, keys, said, truth, tuple(m for m in known if m != "average_precision"))
        # six digits may have moved a probability over the threshold: the answer itself decides
        scores = np.where(said > 0, np.maximum(scores, 0.5), np.minimum(scores, np.nextafter(0.5, 0)))
        return Answers(spec, keys, scores, truth, known)
    said_ids = np.array([at[r["prediction"]] for r in rows])
    truth_ids = np.array([at[r["label"]] for r in rows])
    if not written:
        sure = np.array([float(r["probability"]) for r in rows])
        scores = np.repeat((1 - sure)[:, None] / max(c - 1, 1), c, axis=1)
        scores[np.arange(n), said_ids] = np.maximum(sure, scores[:, 0] + 1e-9)
        known = tuple(m for m in known if m != "log_loss")
    scores[np.arange(n), said_ids] = np.nextafter(scores.max(axis=1), 2)  # ties of six digits go to the answer given
    return Answers(spec, keys, scores, truth_ids, known)


def _ordered(parts: list[Key]) -> tuple[list[int], tuple[Key, ...]]:
    """An order that does not depend on the file's, and the keys in it; rows alike are told apart by a number."""
    seen: Counter[Key] = Counter()
    keys: list[Key] = []
    for part in parts:
        keys.append((*part, str(seen[part])))
        seen[part] += 1
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return order, tuple(keys[i] for i in order)
