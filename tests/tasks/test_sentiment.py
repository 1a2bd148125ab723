"""Sentiment: labels on one scale, classes in order, aspects as second texts, sets of other domains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tunewell
from tunewell.cli import app
from tunewell.errors import DataError, TunewellError
from tunewell.evaluate.metrics import evaluate, headlines_of, metrics_of
from tunewell.evaluate.shift import difference, domain_shift
from tunewell.recipe import Recipe
from tunewell.results import Estimate
from tunewell.stages.prepare import prepare
from tunewell.tasks import TaskSpec, polarity

STARS = {"negative": ("1", "2"), "neutral": ("3",), "positive": ("4", "5")}
THREE = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def stars(make_reviews, save_csv, tmp_path_factory) -> Path:
    """150 reviews with stars, and an aspect beside each."""
    rows = [
        (text, STARS[label][i % len(STARS[label])], ("seat", "crew")[i % 2])
        for i, (text, label) in enumerate(make_reviews(150, THREE))
    ]
    return save_csv(tmp_path_factory.mktemp("stars") / "stars.csv", rows, ("review", "stars", "aspect"))


@pytest.fixture(scope="module")
def run(stars, tiny_model, tmp_path_factory):
    return tunewell.run(
        train=str(stars), task="sentiment", model=str(tiny_model), probes="none", num_train_epochs=1, explain=0,
        output_dir=str(tmp_path_factory.mktemp("run") / "r"), progress=False, echo=lambda line: None,
    )  # fmt: skip


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1", "2", "3", "4", "5"], {"1": 0, "2": 0, "3": 1, "4": 2, "5": 2}),
        (["1.0", "5.0"], {"1.0": 0, "5.0": 2}),
        (["0", "1"], {"0": 0, "1": 2}),
        (["-1", "0", "1"], {"-1": 0, "0": 1, "1": 2}),
        (["-3.7", "-0.5", "0.5", "0.51"], {"-3.7": 0, "-0.5": 1, "0.5": 1, "0.51": 2}),
        (["Neg", "POS", "中性"], {"Neg": 0, "POS": 2, "中性": 1}),
    ],
)
def test_what_labels_tell_by_themselves(labels: list[str], expected: dict[str, int]) -> None:
    found = polarity.usual(labels)
    assert found is not None
    assert {label: THREE.index(polarity.class_of(found, label) or "") for label in labels} == expected


@pytest.mark.parametrize("labels", [["1", "2"], ["0", "1", "2"], ["angry", "happy"], ["positive", "4"], []])
def test_what_labels_do_not_tell(labels: list[str]) -> None:
    assert polarity.usual(labels) is None
    with pytest.raises(DataError, match="cannot tell which labels are negative") as refused:
        polarity.choose(None, labels, source="a.csv")
    assert "--polarity" in str(refused.value)


def test_the_first_rule_that_fits_decides() -> None:
    rules = polarity.parse("<=2=bad,2..4=fair,>=4=good,n/a=fair")
    assert [polarity.class_of(rules, x) for x in ("1.5", "2", "3", "4", "9", "N/A")] == [
        "bad", "bad", "fair", "fair", "good", "fair",
    ]  # fmt: skip
    assert polarity.order(rules, []) == ("bad", "fair", "good")  # as the rules stand
    assert polarity.order({"5": "positive", "1": "negative"}, []) == ("negative", "positive")  # as the names say


def test_stars_become_classes_in_order_and_it_is_said(stars: Path) -> None:
    prepared = prepare(Recipe(train=str(stars), task="sentiment"))
    assert prepared.spec == TaskSpec("text-classification", THREE, ordered=True)
    assert any("1, 2 → negative; 3 → neutral; 4, 5 → positive" in line for line in prepared.notices)
    assert prepared.columns.polarity == polarity.STARS


def test_the_user_says_otherwise(stars: Path) -> None:
    recipe = Recipe(train=str(stars), task="sentiment", polarity={1: "bad", 2: "bad", 3: "bad", 4: "good", 5: "good"})
    assert prepare(recipe).spec.labels == ("bad", "good")
    kept = prepare(Recipe(train=str(stars), task="sentiment", polarity="keep"))
    assert kept.spec.labels == ("1", "2", "3", "4", "5")
    assert kept.spec.ordered


def test_scores_stay_scores_unless_classes_are_wanted(tmp_path: Path, make_reviews, save_csv) -> None:
    rng = np.random.default_rng(0)
    rows = [(t, f"{rng.normal(2 if y == 'positive' else -2, 0.5):.2f}") for t, y in make_reviews(80)]
    file = str(save_csv(tmp_path / "s.csv", rows, ("text", "score")))
    assert prepare(Recipe(train=file, task="sentiment")).spec.name == "text-regression"
    spec = prepare(Recipe(train=file, task="sentiment", sentiment="classes")).spec
    assert (spec.name, spec.labels[0], spec.labels[-1]) == ("text-classification", "negative", "positive")


def test_an_aspect_is_the_second_text(stars: Path) -> None:
    prepared = prepare(Recipe(train=str(stars), aspect="aspect"))  # which tells the task
    assert prepared.spec.pair and prepared.spec.ordered
    assert set(prepared.splits["train"]["text_pair"]) == {"seat", "crew"}


# ---------------------------------------------------------------- figures


def test_distances_between_classes_against_scikit_learn() -> None:
    from sklearn.metrics import cohen_kappa_score, mean_absolute_error

    rng = np.random.default_rng(3)
    spec = TaskSpec("text-classification", tuple("12345"), ordered=True)
    truth, scores = rng.integers(0, 5, 200), rng.dirichlet(np.ones(5), 200)
    found = evaluate(spec, scores, truth, split="test", n_boot=200)
    answers = scores.argmax(axis=1)
    assert found.metrics["mae"].value == pytest.approx(mean_absolute_error(truth, answers))
    kappa = cohen_kappa_score(truth, answers, weights="quadratic")
    assert found.metrics["quadratic_kappa"].value == pytest.approx(kappa, abs=1e-12)
    low, high = found.metrics["quadratic_kappa"].low, found.metrics["quadratic_kappa"].high
    assert low is not None and high is not None and low < kappa < high


def test_by_hand() -> None:
    """Truth 0 1 2, answers 0 2 2: one of three a step off; kappa = 1 - 1 / 5."""
    spec = TaskSpec("text-classification", THREE, ordered=True)
    found = evaluate(spec, np.eye(3)[[0, 2, 2]], np.array([0, 1, 2]), split="test", n_boot=10).metrics
    assert found["mae"].value == pytest.approx(1 / 3)
    # squares if truth and answers were independent: (0+1+4) of the answer 0 and twice (4+1+0) of 2, each over 3 rows
    assert found["quadratic_kappa"].value == pytest.approx(1 - 1 / 5)


def test_constant_answers_have_no_kappa() -> None:
    spec = TaskSpec("text-classification", THREE, ordered=True)
    found = evaluate(spec, np.eye(3)[[1, 1]], np.array([1, 1]), split="test", n_boot=10).metrics
    assert found["quadratic_kappa"].value is None
    assert found["mae"].value == 0.0


def test_only_ordered_classes_have_distances() -> None:
    plain = TaskSpec("text-classification", THREE)
    assert "mae" not in metrics_of(plain)
    assert "quadratic_kappa" not in headlines_of(plain)
    ordered = TaskSpec("text-classification", THREE, ordered=True)
    assert "quadratic_kappa" in headlines_of(ordered) and "mae" not in headlines_of(ordered)
    assert TaskSpec.from_dict(ordered.to_dict()) == ordered


# ---------------------------------------------------------------- a run


def test_a_run_shows_its_scale(run) -> None:
    assert {"f1_macro", "mae", "quadratic_kappa"} <= set(run.metrics)
    assert run.check.columns["polarity"].startswith("1, 2 → negative")
    assert set(run.predict(["what a lovely crew"])) <= set(THREE)
    report = run.report_path.read_text(encoding="utf-8")
    assert "quadratic_kappa" in report
    assert "1, 2 → negative" in report


def test_other_files_are_read_on_the_same_scale(run, stars: Path, tmp_path: Path, make_reviews, save_csv) -> None:
    rows = [
        (text, {"negative": "-2.5", "neutral": "0.1", "positive": "1.75"}[y]) for text, y in make_reviews(60, THREE)
    ]
    scores = str(save_csv(tmp_path / "scores.csv", rows, ("text", "score")))
    said: list[str] = []
    shift = domain_shift(run.dir, [str(stars), scores], echo=said.append)
    assert [row.n for row in shift.rows] == [run.summary.test.n, 150, 60]
    assert shift.rows[0].drop is None
    own, there, drop = (shift.rows[0].metrics["f1_macro"], shift.rows[2].metrics["f1_macro"], shift.rows[2].drop)
    assert drop is not None
    assert drop.value == pytest.approx(own.value - there.value)
    assert any("text column 'text', label column 'score'" in line for line in said)
    assert any("<-0.5 → negative" in line for line in said)


def test_the_table_on_the_command_line(run, stars: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(run.dir), "--data", str(stars), "--quiet"])
    assert done.exit_code == 0, done.output
    assert "own test rows" in done.stdout and "drop" in done.stdout
    done = CliRunner().invoke(app, ["evaluate", str(run.dir), "--data", str(stars), "--json", "--quiet"])
    assert json.loads(done.stdout)["metric"] == "f1_macro"


def test_the_difference_of_independent_figures() -> None:
    """Zou and Donner (2008) by hand: 0.8 [0.7, 0.9] - 0.5 [0.3, 0.6] = 0.3, from 0.3 - √0.02 to 0.3 + √0.05."""
    found = difference(Estimate(value=0.8, low=0.7, high=0.9, n=10), Estimate(value=0.5, low=0.3, high=0.6, n=7))
    assert (found.value, found.n) == (pytest.approx(0.3), 7)
    assert found.low == pytest.approx(0.3 - 0.02**0.5)
    assert found.high == pytest.approx(0.3 + 0.05**0.5)
    assert difference(Estimate(value=None), Estimate(value=0.5)).value is None


# ---------------------------------------------------------------- mistakes

ROWS = [(f"text number {i}", str(i % 5 + 1), f"part {i % 3}") for i in range(60)]
MISTAKES: dict[str, tuple[list[tuple[str, ...]], list[str], tuple[str, ...]]] = {
    "a label that no rule fits": (
        [*ROWS, ("one more", "6", "x")],
        ["--polarity", "<3=negative,3=neutral,4..5=positive"],
        ("a.csv:61: no rule of `polarity` fits the label '6'", "add a rule"),
    ),
    "rules without a class": (ROWS, ["--polarity", "1,2,3"], ("write rule=class",)),
    "a broken range": (ROWS, ["--polarity", "1..=negative,2=positive"], ("`1..` is no range of numbers",)),
    "a broken side": (ROWS, ["--polarity", "<x=negative,2=positive"], ("`<x` is no range of numbers",)),
    "one class": (ROWS, ["--polarity", "1..5=fine"], ("name at least two classes",)),
    "one class in the data": (ROWS, ["--polarity", "<9=low,>=9=high"], ("after `polarity` all rows are 'low'",)),
    "unknown words": (
        [(t, "glad" if i % 2 else "angry", a) for i, (t, _, a) in enumerate(ROWS)], [],
        ("cannot tell which labels are negative", "'angry', 'glad'", "--polarity"),
    ),
    "numbers of one sign": (
        [(t, str(i % 9 + 1), a) for i, (t, _, a) in enumerate(ROWS)], ["--sentiment", "classes"],
        ("cannot tell which labels are negative",),
    ),
    "words that are to be kept": (
        [(t, "pos" if i % 2 else "neg", a) for i, (t, _, a) in enumerate(ROWS)], ["--polarity", "keep"],
        ("keep, which takes numbers",),
    ),
    "classes and scores at once": (
        ROWS, ["--polarity", "<3=negative,>=3=positive", "--sentiment", "scores"],
        ("does not go with `sentiment: scores`",),
    ),
    "no such aspect": (ROWS, ["--aspect", "aspects"], ("no column `aspects`", "did you mean `aspect`?")),
    "aspect and second text": (ROWS, ["--aspect", "aspect", "--text_pair", "aspect"], ("leave `text_pair` out",)),
    "aspect is the text": (ROWS, ["--aspect", "text", "--text", "text"], ("aspect must be another column",)),
    "several labels a row": (
        [(t, '["1", "5"]' if i % 2 else '["2"]', a) for i, (t, _, a) in enumerate(ROWS)], [],
        ("several labels a row do not go with `task: sentiment`", "a row for each aspect"),
    ),
    "a metric of scores": (ROWS, ["--metric", "spearman"], ("`metric: spearman` is for regression",)),
    "a metric to be low": (ROWS, ["--metric", "mae"], ("`metric: mae` cannot be the headline metric",)),
    "another task": (
        ROWS, ["--task", "text-classification", "--polarity", "1=a,2=b"], ("belongs to `task: sentiment`",),
    ),
    "unknown scale": (ROWS, ["--sentiment", "stars"], ("`sentiment: stars`",)),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case: str, tmp_path: Path, save_csv, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, options, says = MISTAKES[case]
    monkeypatch.chdir(tmp_path)
    save_csv(tmp_path / "a.csv", rows, ("text", "label", "aspect"))
    task = [] if "--task" in options else ["--task", "sentiment"]
    done = CliRunner().invoke(
        app, ["run", "--train", "a.csv", "--model", str(tiny_model), "--output_dir", "r", *task, *options]
    )
    assert done.exit_code == 2, done.output
    for words in says:
        assert words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


def test_mistakes_in_sets_of_other_domains(run, stars: Path, tmp_path: Path, save_csv) -> None:
    with pytest.raises(DataError, match="is named twice"):
        domain_shift(run.dir, [str(stars), str(stars)])
    other = str(save_csv(tmp_path / "b.csv", [("a text", "angry"), ("b text", "glad")]))
    with pytest.raises(DataError, match="cannot tell which labels are negative"):
        domain_shift(run.dir, [other])
    with pytest.raises(TunewellError, match="label 'cross' is not one that the model knows"):
        domain_shift(run.dir, [other], polarity={"angry": "cross", "glad": "positive"})
    done = CliRunner().invoke(app, ["evaluate", str(run.dir), other, "--polarity", "angry"])
    assert done.exit_code == 2
    assert "write rule=class" in done.stderr
