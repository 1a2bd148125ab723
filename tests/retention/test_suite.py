"""Suites: names, halves that share nothing, one embedding a text, the user's own probes."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest

from tunewell.errors import AssetError, DataError, RecipeError
from tunewell.retention.probes.similarity import halve
from tunewell.retention.suite import load_suite


def write(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def letters(texts):
    """Embeddings that a person can predict: counts of letters."""
    return np.array([[t.count(c) for c in "abcdefgh"] for t in texts], dtype=np.float32)


def test_none_measures_nothing():
    suite = load_suite(["none"])
    assert suite.names == () and dict(suite.measure(letters)) == {}


@pytest.mark.parametrize(
    ("probes", "says"), [(["topic"], "did you mean `topics`"), (["none", "cka"], "cannot be combined")]
)
def test_wrong_names(probes, says):
    with pytest.raises(RecipeError, match="probe|none") as caught:
        load_suite(probes)
    assert says in str(caught.value)


def test_halves_are_disjoint_and_whole():
    items = list(range(101))
    first, second = halve(items, "select", 3), halve(items, "report", 3)
    assert sorted(first + second) == items and first == sorted(first) and halve(items, "select", 3) == first


def test_own_similarity_is_the_rank_correlation(tmp_path):
    rows = [("a" * 5, "a" * (i % 5) + "b" * (5 - i % 5), i % 5) for i in range(60)]
    path = write(tmp_path / "mine.csv", ("text_a", "text_b", "score"), rows)
    measured = load_suite(["none"], [path]).measure(letters)
    assert measured["mine"].value == pytest.approx(1.0) and measured["mine"].n == 30


def test_each_text_is_embedded_once(tmp_path):
    path = write(
        tmp_path / "mine.csv", ("text_a", "text_b", "score"), [("same", f"b{i % 3}", i % 4) for i in range(80)]
    )
    seen: Counter[str] = Counter()

    def counting(texts):
        seen.update(texts)
        return letters(texts)

    load_suite(["none"], [path]).measure(counting)
    assert max(seen.values()) == 1 and seen["same"] == 1


def test_own_topics(tmp_path):
    rows = [("ab" * (1 + i % 3), "x") if i % 2 else ("gh" * (1 + i % 3), "y") for i in range(100)]
    measured = load_suite(["none"], [write(tmp_path / "own.csv", ("text", "label"), rows)]).measure(letters)
    assert measured["own"].value == 1.0 and 0.4 < measured["own"].chance < 0.75


@pytest.mark.parametrize(
    ("header", "rows", "says"),
    [
        (("text", "topic"), [("a", "b")] * 60, "text_a, text_b, score"),
        (("text", "label"), [("a", "b")] * 12, "only 12 rows"),
        (("text", "label"), [(f"t{i}", "b") for i in range(60)], "one label only"),
        (("text_a", "text_b", "score"), [("a", "b", 1)] * 60, "all scores are the same"),
        (("text_a", "text_b", "score"), [("a", "b", i) for i in range(59)] + [("a", "b", "high")], ":60"),
    ],
)
def test_own_file_that_does_not_serve(tmp_path, header, rows, says):
    with pytest.raises(DataError) as caught:
        load_suite(["none"], [write(tmp_path / "mine.csv", header, rows)])
    assert says in str(caught.value)


@pytest.mark.assets
def test_packaged_halves_share_no_item():
    try:
        select, report = (load_suite(half=half) for half in ("select", "report"))
    except AssetError as error:
        pytest.skip(f"the package registry cannot be reached: {error.what}")
    assert select.names == report.names == ("similarity", "wordsim353", "simlex999", "topics", "neighbours", "cka")
    assert [p.counted for p in select.probes] == [True] * 4 + [False] * 2
    for a, b in zip(select.probes, report.probes, strict=True):
        assert a.items != b.items
    general = [{t for p in s.probes if p.name == "cka" for t in p.texts} for s in (select, report)]
    assert not general[0] & general[1]


@pytest.mark.assets
def test_general_text_for_distillation_is_not_what_the_probes_measure():
    from tunewell.data.packaged import general_sentences
    from tunewell.data.split import text_key

    try:
        probed = {text_key(t) for half in ("select", "report") for t in load_suite(half=half).texts}
        learned = {text_key(t) for t in general_sentences(4000, 42)}
    except AssetError as error:
        pytest.skip(f"the package registry cannot be reached: {error.what}")
    assert not probed & learned
