"""Splits: nothing is lost, nothing leaks, shares and seeds hold."""

from __future__ import annotations

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunewell.data.split import check_labels, split, text_key
from tunewell.errors import DataError
from tunewell.tasks import spec_of


def rows(texts, labels, groups=None):
    columns = {"text": texts, "label": labels, "row": list(range(1, len(texts) + 1)), "source": ["a.csv"] * len(texts)}
    return Dataset.from_dict(columns | ({"group": groups} if groups is not None else {}))


def cut(dataset, seed=1, **options):
    return split(dataset, **{"validation_size": 0.1, "test_size": 0.2, "seed": seed, **options})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Red", "red ", "blue", "green", "GREEN", *(f"t{i}" for i in range(60))]),
            st.sampled_from("xyz"),
            st.integers(0, 12),
        ),
        min_size=40,
        max_size=120,
    ),
    st.integers(0, 5),
)
def test_every_row_once_and_no_text_or_group_in_two_splits(cells, seed):
    texts, labels, groups = (list(c) for c in zip(*cells, strict=True))
    try:
        parts = cut(rows(texts, labels, [str(g) for g in groups]), seed)
    except DataError:
        return  # so few groups that one split would be empty
    assert sorted(r for p in parts.values() for r in p["row"]) == list(range(1, len(texts) + 1))
    for key in (lambda p: {text_key(t) for t in p["text"]}, lambda p: set(p["group"])):
        sets = [key(p) for p in parts.values()]
        assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]


def test_same_seed_same_split():
    data = rows([f"t{i}" for i in range(200)], ["a", "b"] * 100)
    first, second, third = cut(data, 5), cut(data, 5), cut(data, 6)
    assert all(first[n]["row"] == second[n]["row"] for n in first)
    assert first["test"]["row"] != third["test"]["row"]


def test_shares_hold_in_each_class():
    labels = ["rare"] * 40 + ["often"] * 960
    parts = cut(rows([f"t{i}" for i in range(1000)], labels))
    assert [len(parts[n]) for n in ("train", "validation", "test")] == [700, 100, 200]
    assert [sum(x == "rare" for x in parts[n]["label"]) for n in ("train", "validation", "test")] == [28, 4, 8]


def test_150_small_classes_add_up_and_stay_in_train():
    labels = [f"c{i % 150}" for i in range(750)]
    parts = cut(rows([f"t{i}" for i in range(750)], labels))
    assert abs(len(parts["test"]) - 150) <= 2 and abs(len(parts["validation"]) - 75) <= 2
    assert len(set(parts["train"]["label"])) == 150


def test_only_what_is_needed():
    parts = cut(rows([f"t{i}" for i in range(100)], ["a", "b"] * 50), need_test=False)
    assert list(parts) == ["train", "validation"] and len(parts["train"]) == 90


def test_lists_of_labels():
    labels = [["a"], ["a", "b"], [], ["c"]] * 50
    parts = cut(rows([f"t{i}" for i in range(200)], labels))
    assert sum(map(len, parts.values())) == 200 and abs(len(parts["test"]) - 40) <= 2


@pytest.mark.parametrize(("texts", "says"), [(["a", "b", "c"], "only 3 rows"), (["same"] * 40, "only 1 separate")])
def test_too_little(texts, says):
    with pytest.raises(DataError, match=says):
        cut(rows(texts, ["x", "y"] * (len(texts) // 2) + ["x"] * (len(texts) % 2)))


def test_a_label_that_cannot_be_learned_is_named_with_its_row():
    splits = {
        "train": rows(["a", "b"], ["x", "y"]),
        "validation": rows(["c"], ["x"]),
        "test": rows(["d", "e"], ["y", "z"]),
    }
    spec = spec_of(splits, task="text-classification", multi_label=False, pair=False)
    with pytest.raises(DataError) as caught:
        check_labels(splits, spec)
    assert str(caught.value).startswith("a.csv:2: label 'z' is in test but in no training row")


@pytest.mark.parametrize(("a", "b"), [("Ｈello\tWORLD ", "hello world"), ("ﬁne", "fine"), ("你 好", "你  好")])
def test_text_key(a, b):
    assert text_key(a) == text_key(b)
