"""The rows that are to be pruned and what tuning thought of them: of a data file, or of a finished run.

Shapes: n rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import RecipeError, RunFolderError
from tunewell.prune.scores import Scores, scores_of
from tunewell.train.dynamics import FILE, Dynamics

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.recipe import Recipe
    from tunewell.stages.job import Job
    from tunewell.tasks import TaskSpec

Echo = Callable[[str], None]
EPOCHS = 5.0  # of a tuning that is made for its dynamics, where the recipe does not say
OWN_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Pool:
    """Rows with scores.

    Attributes:
        folder: where prune.json and the page go.
        own: the file as it stands; rows: canonical training rows (text, label, row); `row` is the place in `own`.
        held: canonical rows that no choice may come from, on which one may be judged: validation; None without.
        others: split -> places in the file of the rows that the run held out of it.
        taboo: texts of test rows.
    """

    folder: Path
    recipe: Recipe
    spec: TaskSpec
    own: Dataset
    rows: Dataset
    scores: Scores
    source: str
    columns: dict[str, Any]
    held: Dataset | None
    others: dict[str, np.ndarray]
    taboo: tuple[str, ...]


def of_run(run: Path, train: str | None = None) -> Pool:
    """The training rows of a finished run and the dynamics that it recorded.

    Raises:
        RunFolderError: not a finished run of a task with classes, or without dynamics. DataError: its training file
            is gone or has changed.
    """
    from tunewell.explain.influence.rows import read_rows
    from tunewell.stages.prepare import relabelled

    described = _described(run)
    polarity = described.get("columns", {}).get("polarity")
    spec = described.get("spec", {})
    refuse(str(spec.get("name")), str(run))
    rows = read_rows(run, train)
    if polarity is not None:  # sentiment: the file's labels as the classes that the run has learned
        rows = replace(rows, dataset=relabelled(rows.dataset, polarity, rows.source))
    found = Dynamics.load(run / "train" / FILE)
    trained = rows.select(rows.trained)
    if found is None or found.margin.shape[1] != len(trained):
        raise RunFolderError(
            "left no training dynamics of its rows" if found is None else "has training dynamics of other rows",
            where=str(run / "train" / FILE),
            expected="a run of this version, tuned with a classification head",
            remedy=f"tunewell prune {rows.source} tunes for the scores by itself",
        )
    held = rows.select(np.flatnonzero(rows.split == "validation"))
    others = {s: rows.rows[rows.split == s] for s in OWN_SPLITS if (rows.split == s).any()}
    return Pool(
        folder=run,
        recipe=rows.recipe,
        spec=rows.spec,
        own=rows.own,
        rows=trained.dataset,
        scores=scores_of([found]),
        source=rows.source,
        columns=described.get("columns", {}),
        held=held.dataset if len(held) else None,
        others=others,
        taboo=(),
    )


def _described(run: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((run / "task.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise RunFolderError(
            "is not a finished run: task.json is missing or damaged",
            where=str(run),
            expected="a data file, or a folder that `tunewell run` has finished",
        ) from None


def refuse(task: str, where: str) -> None:
    """Raises RecipeError for a task whose rows have no probability of a label."""
    if task != "text-classification":
        raise RecipeError(
            f"rows are scored by the probability of their label, and this task is {task}",
            where=where,
            expected="text-classification or sentiment by classes",
        )


def of_file(job: Job, tunings: int) -> Pool:
    """All rows of a job's training file, tuned on with so many seeds for their dynamics.

    Tunings that are there already (a stopped command given again) are not repeated.
    """
    from tunewell.data.load import load
    from tunewell.prune.choose import same_file
    from tunewell.stages.tune import place, tune

    refuse(job.spec.name, job.recipe.train or "train")
    assert job.max_length
    found = []
    for i in range(tunings):
        child = job.with_keys(f"tuning-{i + 1}", seed=job.recipe.seed + i)
        if tunings > 1:
            job.echo(f"prune: tuning {i + 1} of {tunings}")
        tune(child)
        noted = Dynamics.load(job.folder / place(child) / FILE)
        assert noted is not None
        found.append(noted)
    columns = job.prepared.columns
    file = load(str(job.recipe.train), encoding=job.recipe.encoding)
    given = job.recipe.test is not None and not same_file(job.recipe.test, job.recipe.train)
    return Pool(
        folder=job.folder.path,
        recipe=job.recipe,
        spec=job.spec,
        own=file.dataset,
        rows=job.splits["train"],
        scores=scores_of(found),
        source=file.source,
        columns={"text": columns.text, "text_pair": columns.text_pair, "label": list(columns.label)},
        held=job.splits["validation"] if job.validated else None,
        others={},
        taboo=tuple(job.splits["test"]["text"]) if given else (),
    )


def recipe_for(recipe: Recipe) -> Recipe:
    """The recipe of tunings that are made for dynamics: on all rows of the file, plain, without stopping early.

    Raises:
        RecipeError: keys that change which rows are tuned on, or how.
    """
    beside = [
        key for key, given in (("augment", recipe.augment != ["none"]), ("unlabelled", recipe.unlabelled)) if given
    ]
    if beside:
        raise RecipeError("rows are scored as they are", where=beside[0], expected=f"a recipe without `{beside[0]}`")
    if recipe.strategies != ("plain",):
        raise RecipeError(
            f"rows are scored by plain tuning, not by {' + '.join(recipe.strategies)}",
            where="strategy" if recipe.strategy else "keep",
            expected="a recipe without `strategy` and `keep`",
        )
    if recipe.framework != "pytorch" or recipe.classify_by != "head":
        raise RecipeError(
            "rows are scored by a classification head in PyTorch",
            where="framework" if recipe.framework != "pytorch" else "classify_by",
            expected="framework: pytorch, classify_by: head",
        )
    own: dict[str, Any] = {"test": recipe.test or recipe.train, "early_stopping_patience": 0, "monitor": "off"}
    if recipe.validation is None:
        own["validation_size"] = 0.0
    if "num_train_epochs" not in recipe.model_fields_set and recipe.max_steps < 0:
        own["num_train_epochs"] = EPOCHS
    return recipe.model_validate({**recipe.model_dump(exclude_unset=True), **own})
