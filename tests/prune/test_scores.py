"""Scores of rows against their definitions, by hand; what is kept by them; duplicates and classes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewell.errors import RunFolderError
from tunewell.evaluate.statistics import compare
from tunewell.prune.auto import set_aside, winner
from tunewell.prune.choose import METHODS, choose, first_of_each, groups_of, order_of, quotas
from tunewell.prune.records import MapPoint, Pruning, Tried
from tunewell.prune.scores import Scores, el2n, forgetting_events, scores_of
from tunewell.results import Comparison, Estimate
from tunewell.train.dynamics import Dynamics

nan = np.nan


def dynamics(p: np.ndarray, label: np.ndarray) -> Dynamics:
    """What a tuning would have recorded for probabilities (E, n, C), see `train.dynamics.judge` and `error_norm`."""
    every = np.arange(p.shape[1])
    given_p = p[:, every, label]
    others = p.copy()
    others[:, every, label] = 0
    return Dynamics(
        np.log(given_p) - np.log(others.max(-1)),
        given_p,
        others.argmax(-1).astype(np.int32),
        np.linalg.norm(p - np.eye(p.shape[2])[label], axis=-1),
    )


def test_el2n_by_hand():
    """p = (0.7, 0.2, 0.1) for the class 0: √(0.09 + 0.04 + 0.01); read in the second epoch, a mean over tunings."""
    label = np.array([0, 1])
    first = np.array([[[0.3, 0.3, 0.4], [0.2, 0.5, 0.3]], [[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]]])
    second = np.array([[[0.3, 0.3, 0.4], [0.2, 0.5, 0.3]], [[1.0 - 2e-9, 1e-9, 1e-9], [0.5, 0.25, 0.25]]])
    found = scores_of([dynamics(first, label), dynamics(second, label)])
    assert found.tunings == 2
    one, other = np.sqrt(0.14), np.sqrt(0.25 + 0.75**2 + 0.25**2)
    np.testing.assert_allclose(found.el2n, [one / 2, other], atol=1e-6)


def test_el2n_of_one_epoch_and_of_gaps():
    assert el2n(np.array([[0.3, 0.9]])).tolist() == [0.3, 0.9]
    assert el2n(np.array([[0.3, 0.9], [nan, 0.1], [0.7, nan]])).tolist() == [0.3, 0.1]


@pytest.mark.parametrize(
    ("seen", "events"),
    [
        ("1111", 0),  # never forgotten
        ("0011", 0),  # learned once and for good
        ("1010", 2),
        ("0101", 1),
        ("0110", 1),
        ("0000", 4),  # never learned: more often than any other
        ("1-01", 1),  # an epoch that did not reach it is passed over
        ("1-11", 0),
    ],
)
def test_forgetting_by_hand(seen, events):
    right = np.array([[c == "1"] for c in seen])
    there = np.array([[c != "-"] for c in seen])
    assert forgetting_events(right, there).tolist() == [events]


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_events_are_the_falls_of_a_sequence(right):
    found = int(forgetting_events(np.array(right)[:, None], np.ones((len(right), 1), bool))[0])
    falls = sum(a and not b for a, b in pairwise(right))
    assert found == (falls if any(right) else len(right))


def test_data_map_by_hand():
    """Probabilities of the label 0.2, 0.8, 0.8, 0.2: mean ½, standard deviation 0.3, right in two epochs of four."""
    p = np.array([[[q, 1 - q]] for q in (0.2, 0.8, 0.8, 0.2)])
    found = scores_of([dynamics(p, np.array([0]))])
    np.testing.assert_allclose(found.confidence, [0.5])
    np.testing.assert_allclose(found.variability, [0.3])
    np.testing.assert_allclose(found.correctness, [0.5])
    assert found.forgetting.tolist() == [1]
    assert found.epochs == 4


def test_rows_of_an_earlier_version():
    cells = np.zeros((2, 3))
    with pytest.raises(RunFolderError, match="of an earlier version"):
        scores_of([Dynamics(cells, cells, cells, cells * nan)])


# ---------------------------------------------------------------- the choice


@pytest.fixture
def scores():
    return Scores(
        el2n=np.array([0.1, 0.9, 0.5, 0.7]), forgetting=np.array([0.0, 5.0, 1.0, 2.0]),
        confidence=np.array([0.9, 0.1, 0.6, 0.4]), variability=np.array([0.0, 0.1, 0.3, 0.2]),
        correctness=np.array([1.0, 0.0, 0.6, 0.4]), epochs=5, tunings=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "first"),
    [("el2n", [1, 3]), ("forgetting", [1, 3]), ("ambiguous", [2, 3]), ("easy", [0, 2]), ("hard", [1, 3])],
)
def test_what_each_method_keeps(scores, method, first):
    assert order_of(method, scores, 0)[:2].tolist() == first


@pytest.mark.parametrize("method", [m for m in METHODS if m != "auto"])
def test_orders_are_seeded(scores, method):
    order = order_of(method, scores, 7)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    assert order.tolist() == order_of(method, scores, 7).tolist()


def test_ties_are_drawn_and_rows_without_a_score_come_last():
    n = 200
    flat = np.zeros(n)
    s = Scores(flat, flat, flat, np.where(np.arange(n) == 5, nan, flat), flat, 3, 1)
    drawn = {tuple(order_of("forgetting", s, seed)[:3]) for seed in range(5)}
    assert len(drawn) == 5
    assert order_of("ambiguous", s, 0)[-1] == 5


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=6),
    st.integers(0, 60),
    st.sampled_from(["share", "equal"]),
)
def test_quotas_add_up(classes, total, balance):
    sizes = [max(a, b) for a, b in classes]
    rooms = [min(a, b) for a, b in classes]
    given_ = quotas(total, sizes, rooms, balance)
    assert sum(given_) == min(total, sum(rooms))
    assert all(0 <= g <= r for g, r in zip(given_, rooms, strict=True))


def test_classes_keep_their_share():
    labels = ["a"] * 8 + ["b"] * 4
    order, usable = np.arange(12), np.ones(12, dtype=bool)
    kept = choose(order, labels, 6, usable=usable, balance="share")
    assert kept.tolist() == [True] * 4 + [False] * 4 + [True] * 2 + [False] * 2
    assert choose(order, labels, 6, usable=usable, balance="equal").tolist() == (
        [True] * 3 + [False] * 5 + [True] * 3 + [False]
    )
    assert choose(order, labels, 6, usable=usable, balance="none").tolist() == [True] * 6 + [False] * 6
    assert choose(order[::-1], None, 2, usable=usable).tolist() == [False] * 10 + [True] * 2


def test_duplicates_of_one_label():
    long = "The hotel was clean and the staff was friendly on every day"
    rows = Dataset.from_dict(
        {
            "text": [
                long,
                long.upper(),
                long + "!",
                long,
                "Another text altogether here",
                "房间很干净服务员很热情早餐也不错",
            ],
            "label": ["good", "good", "good", "bad", "good", "good"],
            "row": [1, 2, 3, 4, 5, 6],
            "source": ["f"] * 6,
        }
    )
    assert groups_of(rows, "keep").tolist() == [0, 1, 2, 3, 4, 5]
    assert groups_of(rows, "exact").tolist() == [0, 0, 2, 3, 4, 5]
    assert groups_of(rows, "near").tolist() == [0, 0, 0, 3, 4, 5]  # the one of the other label is a conflict, no twin
    assert first_of_each(np.array([2, 1, 0, 3, 4, 5]), groups_of(rows, "near")).tolist() == [
        False, False, True, True, True, True,
    ]  # fmt: skip


# ---------------------------------------------------------------- auto


def test_a_fifth_of_each_class_is_set_aside():
    targets = np.array([0] * 50 + [1] * 10)
    aside = set_aside(targets, 0)
    assert (aside[:50].sum(), aside[50:].sum()) == (10, 2)
    assert aside.tolist() == set_aside(targets, 0).tolist()


def tried(method, value, low, high):
    d = Comparison(
        metric="accuracy", difference=Estimate(value=value, low=low, high=high), test="", p_value=None, better=None
    )
    return Tried(method=method, score=Estimate(value=0.5), difference=d)


def test_auto_takes_what_is_better_than_chance():
    random = Tried(method="random", score=Estimate(value=0.5), difference=None)
    weak, strong, best = (
        tried("el2n", 0.01, -0.03, 0.05),
        tried("easy", 0.05, 0.03, 0.07),
        tried("hard", 0.06, 0.0, 0.12),
    )
    assert winner([random, weak]) == "random"  # a standard error is 0.08 / 3.92 = 0.0204
    assert winner([random, weak, strong]) == "easy"
    assert winner([random, strong, best]) == "hard"
    assert winner([random, tried("easy", 0.2, None, None)]) == "random"


def test_the_probe_finds_the_rows_that_teach():
    """Half of the rows have wrong labels: the method that keeps the right ones wins."""
    from tunewell.prune.auto import best
    from tunewell.tasks.spec import TaskSpec

    rng = np.random.default_rng(0)
    spec = TaskSpec("text-classification", ("a", "b"), metric="accuracy")
    truth = np.arange(120) % 2
    x = np.where(truth == 1, 1.0, -1.0)[:, None] * np.ones(3) + rng.normal(size=(120, 3)) * 0.8
    fine = np.arange(120) < 80
    labels = np.where(fine, truth, 1 - truth)
    judge = np.arange(60) % 2
    judge_x = np.where(judge == 1, 1.0, -1.0)[:, None] * np.ones(3) + rng.normal(size=(60, 3)) * 0.8

    def kept_by(method):
        if method == "random":
            return np.arange(120) % 2 == (np.arange(120) // 2) % 2
        return fine if method == "easy" else ~fine

    chosen, found = best(spec, x, labels, judge_x, judge, kept_by, seed=0)
    scores = {t.method: t.score.value for t in found}
    assert scores["easy"] > scores["hard"]
    assert chosen in ("easy", "random")
    assert next(t for t in found if t.method == "random").difference is None


# ---------------------------------------------------------------- the page


def record(**more):
    point = MapPoint(row=3, label="<b>good", text="<script>x", variability=0.2, confidence=0.7, correctness=0.5,
                     forgetting=1, el2n=0.4, kept=True)  # fmt: skip
    return Pruning(**{
        "source": "a.csv", "output": "kept.csv", "task": "text-classification", "model": "m", "seed": 1,
        "metric": "f1_macro", "asked": "auto", "method": "random", "keep_share": 0.5, "balance": "share",
        "duplicates": "near", "rows": 10, "kept": 5, "left_out": {"a duplicate of a row with the same label": 2},
        "epochs": 4, "tunings": 1, "classes": {"<b>good": (6, 3), "bad": (4, 2)}, "judged_on": 9,
        "tried": (Tried(method="random", score=Estimate(value=0.5), difference=None), tried("easy", 0.1, 0.0, 0.2)),
        "points": (point, point.model_copy(update={"kept": False})), "hardest": (point,), "ambiguous": (point,),
        "command": "tunewell run --train kept.csv", **more,
    })  # fmt: skip


@pytest.mark.parametrize(("lang", "says"), [("en", "Data map"), ("zh", "数据地图")])
def test_the_page(tmp_path, lang, says):
    from tunewell.report.datamap import build

    page = build(tmp_path / "datamap.html", record(), lang).read_text(encoding="utf-8")
    assert says in page
    assert "<script>x" not in page and "<b>good" not in page  # text of the data is escaped
    assert page.count("<circle") == 2
    assert "tunewell run --train kept.csv" in page
    assert "http" not in page.replace("http-equiv", "")
    # less that is there still makes a page
    build(tmp_path / "datamap.html", record(points=(), tried=(), classes={}, method="easy"), lang)


def test_compare_is_the_projects_own():
    """What `winner` reads comes from the paired bootstrap: two equal sets of answers do not differ."""
    from tunewell.tasks.spec import TaskSpec

    spec = TaskSpec("text-classification", ("a", "b"), metric="accuracy")
    p = np.array([[0.9, 0.1], [0.2, 0.8]] * 10)
    d = compare(spec, p, p, np.array([0, 1] * 10))
    assert d.difference.value == 0
    assert winner([Tried(method="easy", score=Estimate(value=1.0), difference=d)]) == "random"
