"""The first row: a title above the column names, no names, names twice. Each is told, none becomes a class."""

from __future__ import annotations

import pytest

from tunewell.data.columns import resolve
from tunewell.data.header import refuse_title
from tunewell.data.load import load
from tunewell.errors import DataError

ROWS = [("the crew was kind", "good"), ("the seat was broken", "bad"), ("a lovely meal", "good"), ("so rude", "bad")]


def table(path, lines, delimiter=","):
    path.write_text("".join(delimiter.join(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("above", "delimiter"),
    [
        ([("Customer reviews 2026", ""), ("", "")], ","),
        ([("Customer reviews 2026", "")], ";"),
        ([("Customer reviews 2026",)], ","),
        ([("Customer reviews 2026",), ()], "\t"),
    ],
)
def test_a_title_above_the_names(tmp_path, above, delimiter):
    path = table(tmp_path / "export.csv", [*above, ("text", "label"), *ROWS], delimiter)
    with pytest.raises(DataError, match="begins with one cell alone, 'Customer reviews 2026'") as caught:
        load(path)
    assert caught.value.remedy == "delete the rows above `text | label`"
    assert caught.value.where.endswith("export.csv")


def test_a_title_above_the_names_in_a_spreadsheet(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [["Customer reviews 2026"], [], ["text", "label"], *map(list, ROWS)]:
        book.active.append(row)
    book.save(tmp_path / "export.xlsx")
    with pytest.raises(DataError, match=r"(?s)one cell alone, 'Customer reviews 2026'.*above `text \| label`"):
        load(tmp_path / "export.xlsx")


@pytest.mark.parametrize(
    "rows",
    [
        [("notes",), ("first",), ("second",), ("third",)],
        [("notes",), ("one, two",), ("a", "b", "c"), ("d",)],  # commas in texts: told by the row that has too many
        [("", "text", "label"), ("1", "kind", "good"), ("2", "rude", "bad")],  # an index without a name
        [("text", ""), ("kind", "x"), ("rude", "y")],
        [("id", "", ""), ("1", "", ""), ("2", "", "")],
        [("Reviews", ""), ("kind", "good")],
        [],
    ],
)
def test_what_is_no_title(rows):
    refuse_title(rows, {"text"}, source="x.csv")


def test_no_names_at_all(tmp_path):
    path = table(tmp_path / "bare.csv", ROWS)
    dataset = load(path).dataset
    with pytest.raises(DataError, match="has no column names, it seems: the first row is 'the crew was kind") as caught:
        resolve(dataset, source=path)
    assert caught.value.remedy == "add one; if the column is called so, name it: --label 'good'"
    assert resolve(dataset, label=["good"], source=path).label == ("good",)


def test_a_class_called_as_a_usual_column(tmp_path):
    path = table(tmp_path / "topics.csv", [("text", "topic"), *ROWS, ("what is this about", "topic")])
    assert resolve(load(path).dataset, source=path).label == ("topic",)


def test_names_among_the_rows(tmp_path):
    path = table(tmp_path / "both.csv", [("text", "label"), *ROWS, ("text", "label"), *ROWS])
    for label in (None, ["label"]):
        with pytest.raises(DataError, match="row 5 holds the column names once more") as caught:
            resolve(load(path).dataset, label=label, source=path)
        assert caught.value.where.endswith("both.csv:5")
