"""Planted label errors are found, in every kind of task; the table holds the file's own columns and places."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunewell.errors import DataError, RunFolderError
from tunewell.explain.influence.label_errors import label_errors
from tunewell.explain.influence.out_of_fold import fold_of, neighbour_votes, out_of_fold
from tunewell.explain.influence.rows import read_rows
from tunewell.explain.influence.witnesses import combine, doubtful_cells, lift
from tunewell.tasks import TaskSpec


def recall(found: Any, wrong: frozenset[int]) -> float:
    top = {int(row) for row in found.file.rows[found.order[: len(wrong)]]}
    return len(top & wrong) / len(wrong)


def test_turned_labels_come_first(classes: Any, tmp_path: Path) -> None:
    found = label_errors(classes.run)
    assert len(found) == 240 and recall(found, classes.wrong) >= 0.7  # chance is 0.1
    found.write(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    with classes.train.open(encoding="utf-8", newline="") as file:
        own = list(csv.DictReader(file))
    assert list(table[0])[:4] == ["id", "text", "label", "row"]
    assert sorted(int(r["row"]) for r in table) == list(range(1, 241))
    for record in table:
        assert {k: record[k] for k in ("id", "text", "label")} == own[int(record["row"]) - 1]
    suspicion = [float(r["suspicion"]) for r in table]
    assert suspicion == sorted(suspicion, reverse=True) and suspicion[0] == 1.0
    assert {r["split"] for r in table} == {"train", "validation", "test"}
    top = [r for r in table[:24] if int(r["row"]) in classes.wrong]
    assert np.mean([r["likely_label"] != r["label"] for r in top]) >= 0.9
    trained = [r for r in table if r["split"] == "train"]
    assert all(r["confidence"] != "" for r in trained)  # of the training dynamics
    assert all(r["confidence"] == "" for r in table if r["split"] != "train")


def test_same_answer_again_from_what_was_kept(classes: Any) -> None:
    first, again = label_errors(classes.run), label_errors(classes.run)
    np.testing.assert_array_equal(first.order, again.order)


def test_wrong_members_of_several_labels_come_first(several: Any) -> None:
    found = label_errors(several.run)
    assert recall(found, several.wrong) >= 0.7  # chance is 0.075
    top = [int(i) for i in found.order[:12] if int(found.file.rows[i]) in several.wrong and found.flagged[i]]
    labels = found.file.dataset["label"]
    assert top and all(("good" in found.likely[i]) != ("good" in labels[i]) for i in top)


def test_far_scores_come_first(scores: Any) -> None:
    found = label_errors(scores.run)
    assert recall(found, scores.wrong) >= 0.6  # chance is 0.05
    given = np.asarray(found.file.dataset["label"])
    worst = [i for i in found.order[:8] if int(found.file.rows[i]) in scores.wrong]
    assert all((found.likely[i] > 2.5) != (given[i] > 2.5) for i in worst)


def test_columns_of_our_names_are_left_to_the_data(classes: Any, tmp_path: Path) -> None:
    found = label_errors(classes.run)
    own = found.file.own.add_column("row", [f"mine {i}" for i in range(len(found.file.own))])
    object.__setattr__(found.file, "own", own)
    record = found.records()[0]
    assert record["row"].startswith("mine") and 1 <= record["row_2"] <= 240
    found.write(tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["row_2"] == record["row_2"]


def test_a_file_that_has_changed_or_gone_is_refused(classes: Any, tmp_path: Path) -> None:
    content = classes.train.read_bytes()
    try:
        classes.train.write_bytes(content.replace(b"r17,", b"r18,"))
        with pytest.raises(DataError, match="has changed since the run was tuned on it") as raised:
            read_rows(classes.run)
        assert "--train FILE" in raised.value.remedy
        classes.train.unlink()
        with pytest.raises(DataError, match="the training file of this run is gone"):
            read_rows(classes.run)
        moved = tmp_path / "elsewhere.csv"
        moved.write_bytes(content)
        assert len(read_rows(classes.run, str(moved))) == 240
    finally:
        classes.train.write_bytes(content)


def test_other_folders_and_endings_are_refused(classes: Any, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"not a finished run: recipe\.yaml is missing"):
        label_errors(tmp_path)
    found = label_errors(classes.run)
    with pytest.raises(DataError, match=r"cannot write a \.xlsx file"):
        found.write(tmp_path / "out.xlsx")
    with pytest.raises(DataError, match="would overwrite the training file"):
        found.write(classes.train)


# ---------------------------------------------------------------- the parts


def test_a_row_has_no_part_in_its_own_prediction() -> None:
    """Turning one label round changes what other folds say, never what is said of the row itself."""
    spec = TaskSpec("text-classification", ("a", "b"))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)).astype(np.float32), rng.integers(0, 2, 60)
    folds = fold_of(spec, y, seed=1, folds=5)
    assert [len(np.unique(folds[y == k])) for k in (0, 1)] == [5, 5]
    votes = neighbour_votes(spec, x, y, neighbours=4)
    other = y.copy()
    other[7] = 1 - other[7]
    again = neighbour_votes(spec, x, other, neighbours=4)
    np.testing.assert_array_equal(votes[7], again[7])
    assert np.abs(votes - again).max() > 0
    np.testing.assert_allclose(votes.sum(axis=1), 1, rtol=1e-5)


def test_out_of_fold_probabilities_of_separate_classes_are_right() -> None:
    spec = TaskSpec("text-classification", ("a", "b", "c"))
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 30)
    x = (np.eye(3)[y] * 6 + rng.normal(size=(90, 3))).astype(np.float32)
    p = out_of_fold(spec, x, y, seed=0)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert (p.argmax(axis=1) == y).mean() > 0.97


def test_ranks_are_taken_within_groups_and_weighted() -> None:
    trained = np.array([True, True, False, False])
    witnesses = {"p": np.array([0.9, 0.8, 0.2, 0.1]), "margin": np.array([5.0, 9.0, -3.0, -2.0])}
    even = combine(witnesses, trained, {"p": 1.0, "margin": 1.0})
    np.testing.assert_allclose(even, [0.5, 0.5, 0.5, 0.5])
    three = combine(witnesses, trained, {"p": 3.0, "margin": 1.0})
    np.testing.assert_allclose(three, [0.375, 0.625, 0.375, 0.625])


def test_a_witness_at_chance_has_next_to_no_say() -> None:
    assert lift(np.array([True, False]), 0.5) == 0.01
    assert lift(np.array([True, True]), 0.5) == 1.0


def test_doubtful_cells_by_hand() -> None:
    p = np.array([[0.9], [0.2], [0.1], [0.8]])
    given = np.array([[1.0], [1.0], [0.0], [0.0]])
    # present where given: mean 0.55; absent where not given: mean 0.55
    assert doubtful_cells(p, given)[:, 0].tolist() == [False, True, False, True]


def test_the_page_tells_how_witnesses_are_weighted() -> None:
    from tunewell.explain.influence.witnesses import ECHO

    page = (Path(__file__).parents[3] / "docs" / "concepts" / "influence.md").read_text(encoding="utf-8")
    assert ECHO == {"p_tuned": 0.1, "neighbours": 0.1}
    assert "(its regression and the neighbours) count a tenth of that" in page
