"""The training file of a finished run, read again: its own columns, its canonical rows, and the split of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, RunFolderError
from tunewell.folder import file_hash

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.recipe import Recipe
    from tunewell.tasks import TaskSpec

UNUSED = "unused"


@dataclass(frozen=True)
class FileRows:
    """Rows of the training file that hold a text and a label.

    Attributes:
        own: the file as it stands, all rows and columns.
        dataset: canonical rows (text, label, row, source); `row` is the place in the file, counted from 1.
        split: (n,) "train", "validation" or "test" where the run split the file itself; "unused" for rows that it
            left out (duplicates, beyond max_train_samples).
        base_model: what the run tuned.
    """

    run: Path
    recipe: Recipe
    spec: TaskSpec
    own: Dataset
    dataset: Dataset
    split: np.ndarray
    max_length: int
    source: str
    label_columns: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def rows(self) -> np.ndarray:
        """(n,) places in the file, counted from 1."""
        return np.asarray(self.dataset["row"], dtype=np.int64)

    @property
    def texts(self) -> list[str]:
        return list(self.dataset["text"])

    @property
    def pairs(self) -> list[str] | None:
        return list(self.dataset["text_pair"]) if self.spec.pair else None

    @property
    def trained(self) -> np.ndarray:
        """Places among these rows of those that the model was tuned on, in the order of the run's training split."""
        return np.flatnonzero(self.split == "train")

    def targets(self) -> np.ndarray:
        """Targets as in `tunewell.tasks.targets`."""
        from tunewell.tasks import targets

        return targets(self.spec, self.dataset)

    def select(self, places: np.ndarray) -> FileRows:
        """Some of the rows."""
        from dataclasses import replace

        return replace(self, dataset=self.dataset.select(places), split=self.split[places])


def read_rows(run: str | Path, train: str | None = None) -> FileRows:
    """Read the training file of a run again and check that it is what the run was tuned on.

    Args:
        run: a finished run folder. train: where its training file is now, if it was moved.

    Raises:
        RunFolderError: not a finished run. DataError: the file is gone or has changed.
    """
    from tunewell.data.columns import canonical, resolve
    from tunewell.data.load import load
    from tunewell.tasks import TaskSpec
    from tunewell.tasks.spec import WRITING

    run = Path(run)
    recipe, division, described = records_of(run)
    task = described.get("spec", {}).get("name")
    if task in (*WRITING, "question-answering"):
        raise RunFolderError(
            f"is a run of {task}, whose rows have texts for answers",
            where=str(run),
            expected="a run of classes or scores",
            remedy="" if task == "question-answering" else "tunewell.explain.influence.answers has its training rows",
        )
    source = train or recipe.train
    if source is None:
        raise DataError(
            "this run was not tuned from a file", where=str(run), expected="a run of `tunewell run --train FILE`"
        )
    check_source(source, recipe, division, run)
    spec, names = TaskSpec.from_dict(described["spec"]), described["columns"]
    file = load(source, encoding=recipe.encoding)
    columns = resolve(
        file.dataset,
        text=names["text"],
        text_pair=names["text_pair"],
        label=tuple(names["label"]),
        group=names["group"],
        task=spec.name,
        multi_label=spec.multi_label,
        label_separator=names["label_separator"],
        source=file.source,
    )
    dataset, _ = canonical(file.dataset, columns, source=file.source)
    split = splits_of(np.asarray(dataset["row"]), division)
    return FileRows(
        run, recipe, spec, file.dataset, dataset, split, described["max_length"], file.source, tuple(columns.label)
    )


def records_of(run: Path) -> tuple[Recipe, dict[str, Any], dict[str, Any]]:
    """The recipe of a run, how its rows were divided, and what its task is.

    Raises:
        RunFolderError: it is not finished.
    """
    from tunewell.recipe_file import load_recipe

    needed = ("recipe.yaml", "split.json", "task.json", "model/config.json")
    missing = [name for name in needed if not (run / name).is_file()]
    if missing:
        raise RunFolderError(
            f"is not a finished run: {missing[0]} is missing",
            where=str(run),
            expected="a folder that `tunewell run` has finished",
        )
    return load_recipe(run / "recipe.yaml"), read_json(run / "split.json"), read_json(run / "task.json")


def read_json(path: Path) -> dict[str, Any]:
    """A record of a run.

    Raises:
        RunFolderError: it is damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise RunFolderError(
            "is damaged", where=str(path), expected="JSON as `tunewell run` writes it", remedy="run it again"
        ) from None


def check_source(source: str, recipe: Recipe, division: dict[str, Any], run: Path) -> None:
    """The training file must be there, with the content that the run was tuned on.

    Raises:
        DataError: it is gone, or has changed.
    """
    from tunewell.stages.prepare import data_fingerprint

    remedy = f"put it back, say where it is now with --train FILE, or tune again: tunewell run {run / 'recipe.yaml'}"
    parts = [p.strip() for p in source.split(",")] if "," in source else []  # two files, line by line
    if not Path(source).expanduser().exists() and not (parts and all(Path(p).exists() for p in parts)):
        if recipe.train == source and not _is_local(source):
            return  # a hub id
        raise DataError(
            "the training file of this run is gone",
            where=source,
            expected=f"the file that {run} was tuned on (relative names are taken from the current folder)",
            remedy=remedy,
        )
    known = division.get("files", {}).get("train")
    # runs of earlier versions note one fingerprint of all their files
    same = (
        known == file_hash(Path(source).expanduser())
        if known
        else division.get("fingerprint") == data_fingerprint(recipe.model_copy(update={"train": source}))
    )
    if not same:
        raise DataError(
            "has changed since the run was tuned on it",
            where=source,
            expected="the same content, so that a row number means the same row",
            remedy=remedy,
        )


def _is_local(source: str) -> bool:
    return Path(source).suffix != "" or source.startswith((".", "/", "~", "\\")) or source.count("/") > 1


def splits_of(rows: np.ndarray, division: dict[str, Any]) -> np.ndarray:
    """(n,) the split of each row, by its place in the training file, as split.json has it."""
    members = division.get("members")
    if not members:
        return np.full(len(rows), "train", dtype=object)
    # splits that came from files of their own number the rows of those files
    ours = {"train", *division.get("split_here", ())}
    where = {row: name for name, places in members.items() if name in ours for row in places}
    return np.array([where.get(int(row), UNUSED) for row in rows], dtype=object)
