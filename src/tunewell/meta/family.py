"""A family of tasks: a folder with a file a task, or one file with a column that says which task a row is of.

Whole tasks are held out: some choose (when to stop, which learning rate), others are only reported on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, RecipeError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.data.load import Loaded
    from tunewell.recipe import Recipe

ROLES = ("learn", "select", "report")
LEAST = 3  # tasks: one to learn from, one to choose on, one to report on
REPEATED, ELSEWHERE = "text that stands there already", "text of a held-out task"
FEW = "class with too few rows"


@dataclass(frozen=True)
class Task:
    """One task of a family.

    Attributes:
        source: the file, as it was named. texts: n, no two alike; pairs: their second texts, or None.
        labels: (n,) class ids. classes: their names. dropped: reason -> rows left out.
    """

    name: str
    source: str
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: np.ndarray
    classes: tuple[str, ...]
    dropped: dict[str, int] = field(default_factory=dict)

    def rows_of(self, c: int) -> np.ndarray:
        """Where the rows of a class are."""
        return np.flatnonzero(self.labels == c)

    def spellings(self) -> list[str]:
        """A key for each row: two rows with the same key are one text, whatever its case and blanks."""
        pairs = self.pairs or ("",) * len(self.texts)
        return ["\x00".join(" ".join(t.casefold().split()) for t in row) for row in zip(self.texts, pairs, strict=True)]

    def only(self, kept: Sequence[int] | np.ndarray, reason: str) -> Task:
        """The task with these rows alone, classes without rows gone; the others are counted under a reason."""
        kept = np.asarray(kept, dtype=np.int64)
        lost = len(self.texts) - len(kept)
        if not lost:
            return self
        there = np.unique(self.labels[kept])
        return Task(
            self.name,
            self.source,
            tuple(self.texts[i] for i in kept),
            None if self.pairs is None else tuple(self.pairs[i] for i in kept),
            np.searchsorted(there, self.labels[kept]),
            tuple(self.classes[c] for c in there),
            {**self.dropped, reason: self.dropped.get(reason, 0) + lost},
        )


def read_family(place: str, recipe: Recipe, task_column: str | None) -> tuple[list[Task], list[str]]:
    """All tasks in the order of their names, and what had to be guessed.

    Args:
        place: a folder, or a file. recipe: its `text`, `text_pair`, `label` and `encoding` hold for all tasks.

    Raises:
        DataError: nothing there, a file that is no task, two tasks of one name, one class only.
        RecipeError: one file without `task_column`, or a folder with it.
    """
    path = Path(place).expanduser()
    notices: list[str] = []
    if path.is_dir() and not _is_dataset(path):
        if task_column is not None:
            raise RecipeError(
                "`task_column` is for one file with all tasks, and this is a folder",
                where=place,
                expected="a folder with a file a task, or a file and its column",
                remedy="leave --task-column out, or name the file",
            )
        tasks = [_from_file(name, file, recipe, notices) for name, file in _files(path, place).items()]
    else:
        tasks = _from_column(place, recipe, task_column, notices)
    return [_distinct(t, notices) for t in sorted(tasks, key=lambda t: t.name)], notices


def _is_dataset(path: Path) -> bool:
    return any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json", "state.json"))


def _files(path: Path, place: str) -> dict[str, Path]:
    """name -> file or `datasets` folder."""
    from tunewell.data.load import FORMATS

    out: dict[str, Path] = {}
    for entry in sorted(path.iterdir()):
        if entry.name.startswith((".", "_")):
            continue
        endings = [s.lower() for s in entry.suffixes if s.lower() != ".gz"]
        if entry.is_dir() and not _is_dataset(entry):
            raise DataError(
                "is a folder, and no task", where=str(entry), expected="a file a task", remedy="move it elsewhere"
            )
        if not entry.is_dir() and (not endings or endings[-1] not in FORMATS):
            raise DataError(
                "is no task: it is not a data file",
                where=str(entry),
                expected="a file a task: " + ", ".join(FORMATS),
                remedy="move it elsewhere; names that begin with `.` or `_` are passed over",
            )
        name = entry.name
        while Path(name).suffix.lower() in (*FORMATS, ".gz"):
            name = Path(name).stem
        if name in out:
            raise DataError(
                f"two tasks are called `{name}`: {out[name].name} and {entry.name}",
                where=place,
                expected="a file a task, each with a name of its own",
                remedy="rename one, or put its rows into the other",
            )
        out[name] = entry
    if not out:
        raise DataError("holds no task", where=place, expected="a file a task, CSV, JSONL, Parquet, ...")
    return out


def _canonical(loaded: Loaded, recipe: Recipe, *, besides: str | None, notices: list[str]) -> Dataset:
    """Rows with a text and one label each, as runs read them.

    Raises:
        DataError: as `data.columns.resolve`; several labels a row.
    """
    from tunewell.data.columns import canonical, label_column, refuse_objects, resolve, text_column

    source, dataset = loaded.source, loaded.dataset
    label = list(recipe.label) if recipe.label else None
    if label is None and besides is not None and besides in dataset.column_names:  # or it would be taken for the label
        text = recipe.text or text_column(dataset, source=source, besides=[besides])
        free = [n for n in dataset.column_names if n != besides]
        label = [label_column(free, text, recipe.text_pair, source)]
    columns = resolve(
        dataset,
        text=recipe.text,
        text_pair=recipe.text_pair,
        label=label,
        group=besides,
        task="text-classification",
        multi_label=recipe.multi_label,
        source=source,
    )
    if columns.multi_label:
        raise DataError("has several labels a row", where=source, expected="one class a row, for few-shot tasks")
    refuse_objects(loaded.objects, columns, source=source)
    rows, dropped = canonical(dataset, columns, source=source)
    notices += [f"{source}: {n}" for n in (*loaded.notices, *columns.notices)]
    notices += [f"{source}: {n:,} rows left out ({why})" for why, n in dropped.items()]
    if not len(rows):
        raise DataError("no row has a text and a label", where=source, expected="rows with both")
    return rows


def _from_file(name: str, file: Path, recipe: Recipe, notices: list[str]) -> Task:
    from tunewell.data.load import load

    rows = _canonical(load(str(file), encoding=recipe.encoding), recipe, besides=None, notices=notices)
    return _task(name, str(file), rows)


def _from_column(place: str, recipe: Recipe, task_column: str | None, notices: list[str]) -> list[Task]:
    from tunewell.data.load import load

    loaded = load(place, encoding=recipe.encoding)
    names = loaded.dataset.column_names
    if task_column is None:
        raise RecipeError(
            "is one file, and no column is named that tells its tasks apart",
            where=place,
            expected="a folder with a file a task, or --task-column",
            remedy="columns are: " + ", ".join(names),
        )
    if task_column not in names:
        hint = nearest(task_column, names)
        raise RecipeError(
            f"no column `{task_column}` (wanted as task)", where=place, expected="one of: " + ", ".join(names),
            remedy=hint,
        )  # fmt: skip
    absent = [i for i, v in enumerate(loaded.dataset[task_column], 1) if v is None or not str(v).strip()]
    if absent:
        raise DataError(
            f"`{task_column}` is empty in {len(absent):,} rows",
            where=f"{place}:{absent[0]}",
            expected="the name of a task in each row",
        )
    rows = _canonical(loaded, recipe, besides=task_column, notices=notices)
    owner = [str(v).strip() for v in rows["group"]]
    return [
        _task(name, place, rows.select([i for i, v in enumerate(owner) if v == name])) for name in sorted(set(owner))
    ]


def _task(name: str, source: str, rows: Dataset) -> Task:
    classes, labels = np.unique(np.array(rows["label"][:], dtype=object).astype(str), return_inverse=True)
    pairs = tuple(rows["text_pair"][:]) if "text_pair" in rows.column_names else None
    if len(classes) < 2:
        raise DataError(
            f"task `{name}` has one class only: {str(classes[0])!r}",
            where=source,
            expected="at least two classes in each task",
            remedy="leave the task out, or name the right column with --label",
        )
    return Task(name, source, tuple(rows["text"][:]), pairs, labels, tuple(str(c) for c in classes))


def _distinct(task: Task, notices: list[str]) -> Task:
    """Each text once, so that no row is asked that stands among those to learn from; under two labels, not at all."""
    keys, first = task.spellings(), dict[str, int]()
    labels: dict[str, set[int]] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
        labels.setdefault(key, set()).add(int(task.labels[i]))
    kept = sorted(i for key, i in first.items() if len(labels[key]) == 1)
    made = task.only(kept, REPEATED)
    if lost := made.dropped.get(REPEATED, 0):
        torn = sum(len(found) > 1 for found in labels.values())
        more = f", {torn:,} of these texts under two labels and left out whole" if torn else ""
        notices.append(f"task `{task.name}`: {lost:,} rows left out whose text stands in it twice{more}")
    return made


def deal(tasks: Sequence[Task], held_out: str, selection: str, seed: int) -> dict[str, str]:
    """task -> role, one of ROLES: by name, or a seeded share of all tasks, at least one.

    Args:
        held_out, selection: a share between 0 and 1, or names with commas between them.

    Raises:
        RecipeError: an unknown name, a name in both, or nothing left to learn from. DataError: fewer than 3 tasks.
    """
    names = [t.name for t in tasks]
    if len(names) < LEAST:
        raise DataError(
            f"{len(names)} task{'s' if len(names) != 1 else ''} ({', '.join(names)})",
            where=tasks[0].source if tasks else "tasks",
            expected=f"at least {LEAST}: one to learn from, one to choose on, one to report on",
        )
    given = {"report": _share_or_names(held_out, "held_out", names),
             "select": _share_or_names(selection, "selection", names)}  # fmt: skip
    roles: dict[str, str] = {}
    for role, found in given.items():
        for name in found if isinstance(found, list) else ():
            if name in roles:
                raise RecipeError(
                    f"task `{name}` is to be reported on and to choose on",
                    where="selection",
                    expected="other tasks than those of --held-out: what chooses is not what is shown",
                )
            roles[name] = role
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    for role, found in given.items():
        if isinstance(found, float):
            free = [n for n in order if n not in roles]
            roles |= dict.fromkeys(free[: max(1, round(found * len(names)))], role)
    roles = {name: roles.get(name, "learn") for name in names}
    if "learn" not in roles.values() or "select" not in roles.values():
        raise RecipeError(
            f"no task is left to {'choose on' if 'select' not in roles.values() else 'learn from'}",
            where="held_out",
            expected=f"some of the {len(names)} tasks for each",
            remedy="lower --held-out or --selection",
        )
    return roles


def _share_or_names(value: str, key: str, names: Sequence[str]) -> float | list[str]:
    text = str(value).strip()
    if text in names:
        return [text]
    try:
        share = float(text)
    except ValueError:
        pass
    else:
        if 0 < share < 1:
            return share
        raise RecipeError(f"`{key}: {value}`", where=key, expected="a share between 0 and 1, or names of tasks")
    wanted = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in wanted:
        if name not in names:
            raise RecipeError(
                f"no task `{name}`",
                where=key,
                expected="a share between 0 and 1, or one of: " + ", ".join(names),
                remedy=nearest(name, names),
            )
    if not wanted:
        raise RecipeError(f"`{key}` is empty", where=key, expected="a share between 0 and 1, or names of tasks")
    return wanted


def without_held_out(tasks: Sequence[Task], roles: dict[str, str], notices: list[str]) -> list[Task]:
    """The tasks, those to learn from without texts of the others, those to choose on without texts reported on."""
    out: dict[str, Task] = {}
    taken: set[str] = set()
    for role in reversed(ROLES):
        mine = [t for t in tasks if roles[t.name] == role]
        for task in mine:
            keys = task.spellings()
            made = task.only([i for i, key in enumerate(keys) if key not in taken], ELSEWHERE)
            if lost := made.dropped.get(ELSEWHERE, 0):
                notices.append(f"task `{task.name}`: {lost:,} rows left out whose text is one of a held-out task")
            out[task.name] = made
        taken |= {key for task in mine for key in task.spellings()}
    return [out[t.name] for t in tasks]


def fitting(task: Task, ways: int | None, shots: int, notices: list[str]) -> Task:
    """The task with those of its classes from which an episode can be drawn: one row more than `shots`.

    Args:
        ways: classes an episode; None for five, or as many as a task has.

    Raises:
        DataError: with the task, its classes and their rows.
    """
    counts = Counter(int(c) for c in task.labels)
    few = {task.classes[c]: n for c, n in sorted(counts.items(), key=lambda item: item[1]) if n < shots + 1}
    good = len(task.classes) - len(few)
    wanted = 2 if ways is None else ways
    if good < wanted:
        named = ", ".join(f"`{c}` has {n}" for c, n in list(few.items())[:4]) + (", ..." if len(few) > 4 else "")
        if len(task.classes) < wanted:
            what = f"task `{task.name}` has {len(task.classes)} classes, and an episode {wanted}"
        else:
            what = f"task `{task.name}` has too few rows of {len(few)} of its {len(task.classes)} classes: {named}"
        raise DataError(
            what,
            where=task.source,
            expected=f"at least {wanted} classes of {shots + 1} rows each: {shots} to learn from and one to be asked",
            remedy="lower --ways or --shots, label more rows, or leave the task out",
        )
    if not few:
        return task
    notices.append(
        f"task `{task.name}`: {len(few)} classes left out that have not {shots + 1} rows: {', '.join(list(few)[:5])}"
    )
    return task.only([i for i, c in enumerate(task.labels) if task.classes[c] not in few], FEW)


def describe(tasks: Sequence[Task], roles: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """role -> its tasks, for a line on what is learned from what."""
    out: dict[str, list[dict[str, Any]]] = {role: [] for role in ROLES}
    for t in tasks:
        out[roles[t.name]].append({"name": t.name, "rows": len(t.texts), "classes": len(t.classes)})
    return out
