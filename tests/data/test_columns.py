"""Roles and task inferred from data, and rows in canonical form."""

from __future__ import annotations

import pytest
from datasets import Dataset

from tunewell.data.columns import canonical, resolve, text_column
from tunewell.errors import DataError


def table(**columns):
    return Dataset.from_dict(columns)


def test_by_name():
    found = resolve(table(id=[1, 2], review=["a", "b"], stars=["1", "5"]), source="a.csv")
    assert (found.text, found.label, found.task) == ("review", ("stars",), "text-classification")
    assert any("review" in n for n in found.notices)


def test_chinese_names():
    found = resolve(table(编号=["1", "2"], 评论=["好", "坏"], 情感=["正", "负"]), source="a.csv")
    assert (found.text, found.label) == ("评论", ("情感",))


def test_longest_strings_are_the_text():
    assert text_column(table(k=["x", "y"], v=["a long sentence", "another one"]), source="a.csv") == "v"


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["1", "2", "3", "4", "5"], "text-classification"),
        (["0.5", "1.25", "2.0", "3.1", "4"], "text-regression"),
        ([str(i) for i in range(90)], "text-regression"),
        (["yes", "no", "yes"], "text-classification"),
        ([0, 1, 1], "text-classification"),
    ],
)
def test_task(labels, task):
    assert resolve(table(text=[f"t{i}" for i in range(len(labels))], label=labels), source="a").task == task


def test_a_named_task_wins():
    data = table(text=list("abcde"), stars=list("12345"))
    assert resolve(data, label=["stars"], task="text-regression", source="a").task == "text-regression"


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        ({"label": [["a"], ["a", "b"], []]}, {}, [["a"], ["a", "b"], []]),
        ({"label": ['["a"]', '["a", "b"]', "[]"]}, {}, [["a"], ["a", "b"], []]),
        ({"a": ["1", "1", "0"], "b": ["0", "1", "0"]}, {"label": ["a", "b"]}, [["a"], ["a", "b"], []]),
        ({"label": ["a", "a|b", "b"]}, {"label_separator": "|"}, [["a"], ["a", "b"], ["b"]]),
    ],
)
def test_several_labels_a_row(columns, options, expected):
    data = table(text=["x", "y", "z"], **columns)
    found = resolve(data, source="a", **options)
    rows, dropped = canonical(data, found, source="a.csv")
    assert found.multi_label and rows["label"] == expected and dropped == {}


def test_rows_left_out_are_counted_by_reason():
    data = table(text=["a", "", None, "d", "e", " "], label=["x", "y", "x", None, "nan", "y"])
    found = resolve(data, source="a")
    rows, dropped = canonical(data, found, source="a.csv")
    assert rows["row"] == [1] and rows["source"] == ["a.csv"]
    assert dropped == {"empty text": 3, "no label": 2}


def test_none_and_na_are_words_like_others():
    data = table(text=["None", "NA", "null"], label=["none", "some", "none"])
    rows, dropped = canonical(data, resolve(data, source="a"), source="a")
    assert rows["text"] == ["None", "NA", "null"] and rows["label"] == ["none", "some", "none"] and not dropped


def test_whole_numbers_read_as_floats_are_classes_without_fraction():
    data = table(text=["a", "b", "c"], label=[1.0, 2.0, 1.0])
    assert canonical(data, resolve(data, source="a"), source="a")[0]["label"] == ["1", "2", "1"]


def test_few_bad_scores_are_counted_and_many_refused():
    data = table(text=[f"t{i}" for i in range(40)], score=[str(i / 7) for i in range(39)] + ["high"])
    found = resolve(data, label=["score"], task="text-regression", source="a")
    assert canonical(data, found, source="a")[1] == {"label is not a number": 1}
    data = table(text=["a", "b", "c"], score=["1.5", "x", "y"])
    found = resolve(data, label=["score"], task="text-regression", source="a", evaluating=True)
    with pytest.raises(DataError) as caught:
        canonical(data, found, source="a.csv")
    assert "2 of 3 labels are not numbers, the first is 'x'" in str(caught.value) and caught.value.where == "a.csv:2"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"text": "txt"}, "no column `txt` (wanted as text)"),
        ({"label": ["lable"]}, "did you mean `label`?"),
        ({"text": "label", "label": ["label"]}, "named as text and as label"),
        ({"multi_label": True}, "holds one label a row"),
    ],
)
def test_what_does_not_fit(options, says):
    with pytest.raises(DataError) as caught:
        resolve(table(text=["a", "b"], label=["x", "y"]), source="a.csv", **options)
    assert says in str(caught.value)


def test_one_class_is_refused_for_learning_only():
    data = table(text=["a", "b"], label=["x", "x"])
    with pytest.raises(DataError, match="one class only: 'x'"):
        resolve(data, source="a")
    assert resolve(data, source="a", task="text-classification", evaluating=True).label == ("label",)
