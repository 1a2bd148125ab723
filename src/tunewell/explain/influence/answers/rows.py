"""The training file of a run that writes answers, read again: its rows as conversations, and the split of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, ModelError, RunFolderError
from tunewell.strategies import SDFT
from tunewell.tasks.spec import WRITING

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.recipe import Recipe
    from tunewell.tasks.generation.writers import Encoded, Writer


@dataclass(frozen=True)
class AnswerRows:
    """Rows of the training file that hold a question and an answer.

    Attributes:
        dataset: canonical rows (text, label, messages, row); `row` is the place in the file, counted from 1.
        split: (n,) as in `rows.FileRows`. described: what task.json holds.
    """

    run: Path
    recipe: Recipe
    dataset: Dataset
    split: np.ndarray
    source: str
    described: dict[str, Any]

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def rows(self) -> np.ndarray:
        """(n,) places in the file, counted from 1."""
        return np.asarray(self.dataset["row"], dtype=np.int64)

    def select(self, places: np.ndarray) -> AnswerRows:
        """Some of the rows."""
        return replace(self, dataset=self.dataset.select(places), split=self.split[places])

    def encoded(self, writer: Writer) -> list[Encoded]:
        """The rows as tokens, as the run learned them."""
        talks = [json.loads(m) for m in self.dataset["messages"]]
        prefix = self.described.get("prefix") or ""
        if prefix and writer.shift:
            for talk in talks:
                talk[0]["content"] = prefix + talk[0]["content"]
        return [writer.encode(talk) for talk in talks]


def task_at(run: str | Path) -> str:
    """The task of a run folder; the empty string where task.json is missing or tells none."""
    try:
        found = json.loads((Path(run) / "task.json").read_text(encoding="utf-8"))
        return str(found["spec"]["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def read_answer_rows(run: str | Path, train: str | None = None) -> AnswerRows:
    """Read the training file of a run again and check that it is what the run was tuned on.

    Args:
        run: a finished run of text-generation or translation. train: where its training file is now, if moved.

    Raises:
        RunFolderError: not a finished run, or one of `sdft` whose answers are not at hand. DataError: the file is gone
            or has changed. ModelError: another task.
    """
    from datasets import Dataset

    from tunewell.data.load import load
    from tunewell.explain.influence.rows import check_source, records_of, splits_of
    from tunewell.tasks.generation import translation
    from tunewell.tasks.generation.conversations import conversations

    run = Path(run)
    recipe, division, described = records_of(run)
    task = described.get("spec", {}).get("name")
    if task not in WRITING:
        raise ModelError(f"this is a run of {task}", where=str(run), expected=" or ".join(WRITING))
    source = train or recipe.train
    if source is None:
        raise DataError(
            "this run was not tuned from a file", where=str(run), expected="a run of `tunewell run --train FILE`"
        )
    check_source(source, recipe, division, run)
    if task == "translation":
        file = translation.load_aligned(source, lambda p: load(p, encoding=recipe.encoding), recipe)
        made, _, _ = translation.read_pairs(file, translation.columns_of(file, recipe), "", recipe.group)
    else:
        file = load(source, encoding=recipe.encoding)
        made, _, _ = conversations(file, recipe)
    dataset = Dataset.from_list(made)
    split = splits_of(np.asarray(dataset["row"]), division)
    if SDFT in recipe.strategies:
        dataset = _as_learned(dataset, np.flatnonzero(split == "train"), run)
    return AnswerRows(run, recipe, dataset, split, file.source, described)


def _as_learned(dataset: Dataset, train: np.ndarray, run: Path) -> Dataset:
    """The rows of a run with `sdft`: those for training with the answers that it learned in place of the file's."""
    from datasets import concatenate_datasets

    from tunewell.stages.rewrite import ROWS, with_answers

    path = run / ROWS
    try:
        by = {e["row"]: e for e in map(json.loads, filter(None, path.read_text(encoding="utf-8").split("\n")))}
        entries = [by.pop(row) for row in np.asarray(dataset["row"])[train].tolist()]
    except (OSError, ValueError, KeyError, TypeError):
        by, entries = {"none": {}}, []
    if by:
        raise RunFolderError(
            "the answers that this run has learned, those of `sdft`, are missing or are not those of its rows",
            where=str(path),
            expected="the file that the run has written",
            remedy=f"tunewell run {run / 'recipe.yaml'} makes it again",
        )
    learned = with_answers(dataset.select(train), entries)
    others = np.setdiff1d(np.arange(len(dataset)), train)
    both = concatenate_datasets([learned, dataset.select(others)])
    return both.select(np.argsort(np.concatenate([train, others]), kind="stable"))
