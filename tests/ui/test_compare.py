"""Runs side by side: figures worked by hand, rows paired in any order, and refusals where rows differ."""

from __future__ import annotations

import csv
import json
import random
from html import unescape

import numpy as np
import pytest

from tunewell.evaluate.statistics import compare as two_models
from tunewell.evaluate.statistics import holm, mcnemar
from tunewell.tasks.spec import TaskSpec
from tunewell.ui.compare import side_by_side
from tunewell.ui.places import Place
from tunewell.ui.scan import Shelf

from .conftest import session

TRUTH = ["neg", "pos"] * 20


def write(folder, make_records, rights, *, labels=("neg", "pos"), order=None, texts=None, columns=True):
    """A run that answers row i right where rights[i]."""
    make_records(folder, labels=labels)
    task = {"name": "text-classification", "labels": list(labels), "multi_label": False, "metric": "f1_macro",
            "pair": False}  # fmt: skip
    (folder / "task.json").write_text(json.dumps({"spec": task}), encoding="utf-8")
    rows = []
    for i, right in enumerate(rights):
        answer = TRUTH[i] if right else {"neg": "pos", "pos": "neg"}[TRUTH[i]]
        sure = {"neg": 0.2, "pos": 0.2} | {answer: 0.8}
        rows.append([i, "x.csv", texts[i] if texts else f"text {i % 30}", TRUTH[i], answer])
        rows[-1] += [sure[name] for name in labels] if columns else [0.8]
    header = ["row", "source", "text", "label", "prediction"]
    header += [f"p_{name}" for name in labels] if columns else ["probability"]
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([rows[i] for i in order] if order else rows)


def entries(folder):
    return sorted(Shelf(Place(folder)).all(), key=lambda e: e.at)


@pytest.fixture
def three(tmp_path, make_records):
    """a right on all 40 rows but 5, b on all but another one, c like a; b's rows are shuffled."""
    a = [i >= 5 for i in range(40)]
    b = [i != 39 for i in range(40)]
    order = list(range(40))
    random.Random(1).shuffle(order)
    write(tmp_path / "a", make_records, a)
    write(tmp_path / "b", make_records, b, labels=("pos", "neg"), order=order, columns=False)
    write(tmp_path / "c", make_records, a)
    return tmp_path


def test_paired_figures_by_hand(three):
    found = side_by_side(entries(three), "a")
    assert (found.refused, found.rows, found.metric) == (None, 40, "f1_macro")
    by_run = {v.at: v for v in found.verdicts}
    assert by_run["b"].p_value == pytest.approx(0.21875)  # 5 against 1: 2 · (1 + 6) / 2^6
    assert by_run["c"].p_value == 1.0
    assert [by_run["b"].adjusted, by_run["c"].adjusted] == pytest.approx(holm([0.21875, 1.0]))
    assert by_run["b"].better is None
    assert found.differences["accuracy"]["b"].value == pytest.approx(4 / 40)
    assert found.differences["accuracy"]["c"].value == 0
    assert "log_loss" not in found.differences or "b" not in found.differences["log_loss"]  # b holds no probabilities


def test_a_difference_beyond_chance_and_the_library_s_own_figure(tmp_path, make_records):
    rights = {"a": [i % 2 == 0 or i > 30 for i in range(40)], "b": [True] * 39 + [False]}
    for name, right in rights.items():
        write(tmp_path / name, make_records, right)
    found = side_by_side(entries(tmp_path), "a")
    spec = TaskSpec("text-classification", ("neg", "pos"))
    truth = np.array([0, 1] * 20)
    said = {n: (np.array(r) == (truth == 1))[:, None] for n, r in rights.items()}
    scores = {n: np.where(positive, [[0.2, 0.8]], [[0.8, 0.2]]) for n, positive in said.items()}
    library = two_models(spec, scores["b"], scores["a"], truth)
    mine = found.differences["f1_macro"]["b"]
    assert mine.value == pytest.approx(library.difference.value)
    # rows stand in another order, so that the same draws resample other rows
    assert (mine.low, mine.high) == pytest.approx((library.difference.low, library.difference.high), abs=0.03)
    verdict = found.verdicts[0]
    assert verdict.p_value == pytest.approx(mcnemar(rights["b"], rights["a"]))
    assert verdict.better is True
    assert side_by_side(entries(tmp_path), "b").verdicts[0].better is False


def test_other_rows_are_refused_with_counts(three, make_records):
    write(three / "d", make_records, [True] * 40, texts=[f"text {i % 30}" for i in range(36)] + ["new"] * 4)
    found = side_by_side([e for e in entries(three) if e.at in "ad"], "a")
    assert found.refused.what == "the test rows differ: 36 in both, 4 only in d, 4 only in a"
    assert "seed" in found.refused.remedy
    assert not found.differences
    assert found.figures["f1_macro"]["d"].value == 0.75  # each with its own interval all the same


def test_other_classes_and_damaged_answers_are_refused(three, make_records):
    write(three / "d", make_records, [True] * 40, labels=("neg", "pos", "other"), columns=False)
    refused = side_by_side([e for e in entries(three) if e.at in "ad"]).refused
    assert refused.what == "they tell other classes apart"
    (three / "c" / "predictions.csv").write_text("row,label\n1,2\n", encoding="utf-8")
    assert "damaged" in side_by_side([e for e in entries(three) if e.at in "ac"]).refused.what
    (three / "c" / "predictions.csv").unlink()
    assert "no predictions.csv" in side_by_side([e for e in entries(three) if e.at in "ac"]).refused.what


def test_only_keys_that_differ(three):
    (three / "b" / "recipe.yaml").write_text("train: word.csv\nkeep: 0.9\nseed: 7\nlang: zh\n", encoding="utf-8")
    found = side_by_side(entries(three)[:2])
    assert found.recipes == {"keep": {"a": "0.98", "b": "0.9"}, "seed": {"a": "", "b": "7"}}


def test_the_page(three):
    client = session(three)
    html = unescape(client.get("/compare?at=a&at=b&at=c&with=a").text)
    for text in ("On the same 40 test rows", "adjusted for 2 comparisons (Holm)", "0.2188", "McNemar", "+0.1000"):
        assert text in html, text
    assert client.get("/compare?at=a").status_code == 400
    assert client.get("/compare?at=a&at=../x").status_code == 404
    assert "9 chosen" not in client.get("/compare?at=a&at=a&at=a").text


def write_task(folder, make_records, spec, header, rows):
    make_records(folder)
    (folder / "task.json").write_text(json.dumps({"spec": spec}), encoding="utf-8")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8")) | {"metric": spec["metric"]}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.mark.parametrize(
    ("spec", "header", "one", "other", "metric", "difference", "test"),
    [
        (
            {"name": "text-regression", "labels": [], "multi_label": False, "metric": "r2", "pair": False},
            ["text", "label", "prediction"],
            [["a", 1.0, 1.0], ["b", 2.0, 2.0], ["c", 3.0, 3.0], ["d", 4.0, 4.0]],
            [["a", 1.0, 2.0], ["b", 2.0, 2.0], ["c", 3.0, 3.0], ["d", 4.0, 2.0]],
            "mae", -0.75, "paired permutation of squared errors",
        ),
        (
            {"name": "text-classification", "labels": ["x", "y"], "multi_label": True, "metric": "f1_micro",
             "pair": False},
            ["text", "label", "prediction", "p_x", "p_y"],
            [["a", '["x"]', '["x"]', 0.9, 0.1], ["b", '["x", "y"]', '["x", "y"]', 0.9, 0.5], ["c", "[]", "[]", 0, 0]],
            [["a", '["x"]', '["y"]', 0.4, 0.6], ["b", '["x", "y"]', '["x", "y"]', 0.9, 0.8], ["c", "[]", "[]", 0, 0]],
            "hamming_loss", -2 / 6, "paired permutation of wrong labels a row",
        ),
        (
            {"name": "question-answering", "labels": [], "multi_label": False, "metric": "f1", "pair": True},
            ["question", "id", "label", "f1"],
            [["a", "1", "z", 1.0], ["b", "2", "z", 0.5], ["c", "3", "z", 1.0]],
            [["a", "1", "z", 0.0], ["b", "2", "z", 0.5], ["c", "3", "z", 0.5]],
            "f1", 0.5, "paired permutation of F1",
        ),
    ],
)  # fmt: skip
def test_other_tasks_by_hand(tmp_path, make_records, spec, header, one, other, metric, difference, test):
    write_task(tmp_path / "one", make_records, spec, header, one[::-1])
    write_task(tmp_path / "other", make_records, spec, header, other)
    found = side_by_side(entries(tmp_path), "other")
    assert found.refused is None
    assert found.differences[metric]["one"].value == pytest.approx(difference)
    assert found.verdicts[0].test == test
    assert found.verdicts[0].better is None  # so few rows tell nothing


def test_answers_that_have_no_score_a_row_are_refused(tmp_path, make_records):
    spec = {"name": "translation", "labels": [], "multi_label": False, "metric": "chrf", "pair": False}
    for name in "ab":
        write_task(tmp_path / name, make_records, spec, ["text", "label", "prediction"], [["a", "b", "c"]])
    assert side_by_side(entries(tmp_path)).refused.what == "answers of translation are not scored row by row"
