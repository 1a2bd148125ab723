"""Families of tasks: reading, what is left out, and which tasks are held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tunewell.errors import DataError, RecipeError
from tunewell.meta.draw import Tokens
from tunewell.meta.family import ELSEWHERE, REPEATED, deal, fitting, read_family, without_held_out
from tunewell.recipe import Recipe


def rows(prefix: str, classes: str = "ab", n: int = 4) -> list[tuple[str, str]]:
    return [(f"{prefix} {c} number {i}", c) for c in classes for i in range(n)]


@pytest.fixture
def folder(tmp_path: Path, save_csv) -> Path:
    place = tmp_path / "tasks"
    place.mkdir()
    for name in ("one", "two", "three", "four", "five"):
        save_csv(place / f"{name}.csv", rows(name))
    return place


def read(place: Path, column: str | None = None, **keys):
    return read_family(str(place), Recipe(**keys), column)


def test_a_folder_and_a_column_give_the_same_tasks(folder: Path, tmp_path: Path, save_csv) -> None:
    tasks, _ = read(folder)
    assert [t.name for t in tasks] == ["five", "four", "one", "three", "two"]
    assert tasks[0].classes == ("a", "b") and tasks[0].labels.tolist() == [0] * 4 + [1] * 4
    # the column is called as labels often are, and is not taken for the label
    whole = [(text, label, name) for name in ("one", "two", "three", "four", "five") for text, label in rows(name)]
    file = save_csv(tmp_path / "all.csv", whole, ("text", "intent", "topic"))
    same, _ = read(file, "topic")
    assert [(t.name, t.texts, t.classes) for t in same] == [(t.name, t.texts, t.classes) for t in tasks]


def test_texts_that_stand_twice(folder: Path, save_csv) -> None:
    given = [*rows("six"), ("six  A number 0", "a"), ("torn", "a"), ("Torn", "b")]
    save_csv(folder / "six.csv", given)
    tasks, notices = read(folder)
    six = next(t for t in tasks if t.name == "six")
    assert six.texts == tuple(t for t, _ in rows("six"))
    assert six.dropped == {REPEATED: 3}
    assert any("3 rows left out" in n and "1 of these texts under two labels" in n for n in notices)


def test_texts_of_held_out_tasks_are_not_learned_from(folder: Path, save_csv) -> None:
    save_csv(folder / "one.csv", [*rows("one"), *rows("two")[:3], *rows("three")[:1]])
    save_csv(folder / "two.csv", [*rows("two"), *rows("three")[:1]])
    roles = {"five": "learn", "four": "learn", "one": "learn", "three": "report", "two": "select"}
    notices: list[str] = []
    tasks = {t.name: t for t in without_held_out(read(folder)[0], roles, notices)}
    assert tasks["one"].dropped == {ELSEWHERE: 4} and len(tasks["one"].texts) == 8
    assert tasks["two"].dropped == {ELSEWHERE: 1}
    assert tasks["three"].dropped == {} and len(notices) == 2


def test_whole_tasks_are_held_out(folder: Path) -> None:
    tasks, _ = read(folder)
    roles = deal(tasks, "0.4", "0.1", 1)
    assert sorted(roles.values()) == ["learn", "learn", "report", "report", "select"]
    assert deal(tasks, "0.4", "0.1", 1) == roles
    assert any(deal(tasks, "0.4", "0.1", s) != roles for s in range(2, 8))
    named = deal(tasks, "one, two", "three", 1)
    assert named == {"one": "report", "two": "report", "three": "select", "five": "learn", "four": "learn"}
    assert deal(tasks, "one", "0.2", 1)["one"] == "report"


@pytest.mark.parametrize(
    ("held_out", "selection", "says"),
    [
        ("onne", "0.1", "no task `onne`"),
        ("one", "one", "task `one` is to be reported on and to choose on"),
        ("1.5", "0.1", "`held_out: 1.5`"),
        (",", "0.1", "`held_out` is empty"),
        ("one,two,three,four,five", "0.1", "no task is left to choose on"),
        ("one,two,three", "four,five", "no task is left to learn from"),
    ],
)
def test_roles_that_cannot_be(folder: Path, held_out: str, selection: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        deal(read(folder)[0], held_out, selection, 0)


def test_too_few_tasks(folder: Path) -> None:
    tasks, _ = read(folder)
    with pytest.raises(DataError, match=r"2 tasks \(five, four\)") as caught:
        deal(tasks[:2], "0.2", "0.1", 0)
    assert "at least 3" in caught.value.expected


def test_what_is_no_family(folder: Path, tmp_path: Path, save_csv) -> None:
    def refused(kind, says: str, column: str | None = None, place: Path = folder, **keys) -> str:
        with pytest.raises(kind, match=says) as caught:
            read(place, column, **keys)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    refused(DataError, "holds no task", place=tmp_path / "empty")
    refused(DataError, "no such file", place=tmp_path / "nowhere.csv", column="x")
    refused(RecipeError, "is for one file with all tasks", column="domain")
    file = folder / "one.csv"
    assert "columns are: text, label" in refused(RecipeError, "no column is named that tells", place=file)
    refused(RecipeError, "no column `domain`", place=file, column="domain")
    gap = save_csv(tmp_path / "gap.csv", [("x", "a", "t"), ("y", "b", "")], ("text", "label", "domain"))
    refused(DataError, "`domain` is empty in 1 rows", place=gap, column="domain")
    (folder / "notes.md").write_text("nothing", encoding="utf-8")
    assert "notes.md: is no task" in refused(DataError, "is no task: it is not a data file")
    (folder / "notes.md").rename(folder / ".notes.md")  # passed over
    read(folder)
    (folder / "inside").mkdir()
    refused(DataError, "is a folder, and no task")
    (folder / "inside").rmdir()
    (folder / "one.jsonl").write_text('{"text": "x", "label": "a"}\n', encoding="utf-8")
    refused(DataError, "two tasks are called `one`: one.csv and one.jsonl")
    (folder / "one.jsonl").unlink()
    save_csv(file, [("x", "a"), ("y", "a")])
    assert "one.csv" in refused(DataError, "one class only: 'a'")
    single = [("x", "a", "t"), ("y", "a", "t"), ("z", "a", "u"), ("v", "b", "u")]
    lone = save_csv(tmp_path / "lone.csv", single, ("text", "label", "domain"))
    refused(DataError, "task `t` has one class only: 'a'", place=lone, column="domain")
    file.write_text("", encoding="utf-8")
    refused(DataError, "is empty")


def test_classes_with_too_few_rows(folder: Path, save_csv) -> None:
    save_csv(folder / "one.csv", [*rows("one"), *rows("one", "cd", 2)])
    task = next(t for t in read(folder)[0] if t.name == "one")
    notices: list[str] = []
    left = fitting(task, None, 3, notices)
    assert left.classes == ("a", "b") and left.labels.tolist() == [0] * 4 + [1] * 4
    assert notices == ["task `one`: 2 classes left out that have not 4 rows: c, d"]
    assert fitting(task, None, 1, notices) is task
    with pytest.raises(DataError, match="task `one` has too few rows of 2 of its 4 classes: `c` has 2, `d` has 2"):
        fitting(task, 3, 3, notices)
    with pytest.raises(DataError, match="task `one` has 4 classes, and an episode 5"):
        fitting(task, 5, 1, notices)
    with pytest.raises(DataError, match="too few rows of 4 of its 4 classes"):
        fitting(task, None, 4, notices)


def test_episodes(folder: Path, tiny_model: Path, save_csv) -> None:
    import torch

    from tunewell.models.load import load_tokenizer

    save_csv(folder / "one.csv", rows("one", "abcdefg", 9))
    task = next(t for t in read(folder)[0] if t.name == "one")
    tokens = Tokens(task, load_tokenizer("tiny", str(tiny_model)), 32, torch.device("cpu"))
    e = tokens.episode(3, "report", "one", 0, ways=None, shots=2, queries=4)
    assert (e.classes, len(e.support), len(e.query)) == (5, 10, 20)
    assert not set(e.support) & set(e.query)
    assert np.bincount(e.of(e.support)).tolist() == [2] * 5 and np.bincount(e.of(e.query)).tolist() == [4] * 5
    again = tokens.episode(3, "report", "one", 0, ways=None, shots=2, queries=4)
    other = tokens.episode(3, "report", "one", 1, ways=None, shots=2, queries=4)
    ids = [x.take(x.support)["input_ids"].tolist() for x in (e, again, other)]
    assert ids[0] == ids[1] != ids[2]
    few = tokens.episode(0, ways=3, shots=8, queries=15)  # one row is left to be asked
    assert (len(few.support), len(few.query)) == (24, 3)
