"""The rows that answers are wanted for: read, held against the test file, put into subtasks.

Shapes: t target rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.data.load import Loaded
    from tunewell.recipe import Recipe

SHOWN = 5


@dataclass(frozen=True)
class Target:
    """Target rows.

    Attributes:
        rows: canonical (text, label, messages, row). group: (t,) subtask of each. subtasks: their names; one, the
            empty string, where no column tells them.
    """

    source: str
    rows: Dataset
    group: np.ndarray
    subtasks: tuple[str, ...]


def read_rows(path: str, task: str, recipe: Recipe) -> tuple[Loaded, list[dict[str, Any]]]:
    """A file of conversations or pairs: as it was loaded, and its canonical rows.

    Raises:
        DataError: it cannot be read, or columns are missing.
    """
    from tunewell.data.load import load
    from tunewell.tasks.generation import translation
    from tunewell.tasks.generation.conversations import conversations

    if task == "translation":
        file = translation.load_aligned(path, lambda p: load(p, encoding=recipe.encoding), recipe)
        made, _, _ = translation.read_pairs(file, translation.columns_of(file, recipe), "", None)
    else:
        file = load(path, encoding=recipe.encoding)
        made, _, _ = conversations(file, recipe.model_copy(update={"group": None}))
    return file, made


def read_target(path: str, task: str, recipe: Recipe, subtask: str | None, taboo: set[str]) -> Target:
    """Read the target file.

    Args:
        subtask: its column that names subtasks. taboo: keys of test texts (`data.split.text_key`).

    Raises:
        DataError: no row has a question and an answer; no such column; a row is one of the test file.
    """
    from datasets import Dataset

    from tunewell.data.split import text_key

    file, made = read_rows(path, task, recipe)
    own = file.dataset
    if not made:
        raise DataError(
            "no target row has a question and an answer", where=path, expected="a few rows of what is wanted"
        )
    if subtask is not None and subtask not in own.column_names:
        raise DataError(
            f"no column `{subtask}`",
            where=path,
            expected="one of " + ", ".join(own.column_names),
            remedy=nearest(subtask, own.column_names),
        )
    shared = [str(r["row"]) for r in made if text_key(r["text"]) in taboo]
    if shared:
        raise DataError(
            f"{len(shared):,} target rows are test rows: what is kept would be chosen by the test",
            where=_places(path, shared),
            expected="target rows of their own",
            remedy="take them out of one of the two files",
        )
    names = [""] * len(made)
    if subtask is not None:
        cells = own[subtask]
        names = ["" if (c := cells[r["row"] - 1]) is None or c != c else str(c).strip() for r in made]
        if empty := [str(r["row"]) for r, name in zip(made, names, strict=True) if not name]:
            raise DataError(
                f"{len(empty):,} target rows name no subtask in `{subtask}`",
                where=_places(path, empty),
                expected="the name of a subtask in each row",
                remedy="fill them in, or take these rows out",
            )
    subtasks = tuple(sorted(set(names)))
    group = np.array([subtasks.index(name) for name in names], dtype=np.int64)
    return Target(path, Dataset.from_list(made), group, subtasks)


def _places(path: str, rows: list[str]) -> str:
    """A file and the first of some of its rows.

    >>> _places("few.jsonl", ["1", "4"])
    'few.jsonl:1, 4'
    """
    return f"{path}:{', '.join(rows[:SHOWN])}" + (", …" if len(rows) > SHOWN else "")
