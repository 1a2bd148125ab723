"""`tunewell curve` on tiny models: nested subsets, points that are not measured twice, answers, mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

import tunewell
from tunewell.cli import app
from tunewell.curve.measure import check_sizes, default_sizes, nested_order
from tunewell.curve.records import CurvePoint, LearningCurve, More, Needed
from tunewell.curve.words import more_sentence, needed_sentence, sentences
from tunewell.errors import DataError, RecipeError

KEYS = {"text": "text", "label": "label", "bf16": False, "threads": 1, "max_length": 32, "seed": 3}


@pytest.fixture
def data(tmp_path, make_reviews, save_csv):
    return str(save_csv(tmp_path / "reviews.csv", make_reviews(160)))


def test_orders_are_nested_and_in_proportion():
    strata = np.repeat([0, 1, 2], [70, 25, 5])
    order = nested_order(strata, np.random.default_rng(0))
    assert sorted(order) == list(range(100))
    assert set(strata[order[:3]]) == {0, 1, 2}  # no class is missing from the smallest subset
    for size in (20, 40, 80):
        counts = np.bincount(strata[order[:size]], minlength=3)
        assert np.allclose(counts / size, [0.7, 0.25, 0.05], atol=0.08)
    other = nested_order(strata, np.random.default_rng(1))
    assert set(order[:20]) != set(other[:20])


def test_sizes():
    assert default_sizes(6400, 2) == [200, 400, 800, 1600, 3200, 6400]
    assert check_sizes([40, 20, 20, 80], 100, 2) == [20, 40, 80]
    for sizes, says in (([20, 40], "2 sizes make no curve"), ([1, 20, 40], "size 1 "), ([20, 40, 101], "size 101 ")):
        with pytest.raises(RecipeError, match=says):
            check_sizes(sizes, 100, 2)


@pytest.mark.parametrize("by", ["tune", "probe"])
def test_a_curve_and_the_same_again(data, tiny_model, tmp_path, by, monkeypatch):
    import tunewell.curve.measure as measuring

    monkeypatch.setattr(measuring, "MIN_STEPS", 2)
    said: list[str] = []
    options = dict(
        train=data, model=str(tiny_model), sizes=[16, 32, 64], repeats=2, by=by, target=0.99, more=[100],
        cost_per_label=0.5, labels_per_hour=50, output_dir=str(tmp_path / "curve"), num_train_epochs=1,
        progress=False, echo=said.append, **KEYS,
    )  # fmt: skip
    curve = tunewell.learning_curve(**options)
    assert [(p.size, p.repeat) for p in curve.points] == [(s, r) for r in range(2) for s in (16, 32, 64)]
    assert (curve.by, curve.n_train, curve.n_test) == (by, 112, 32)
    assert all(0 <= p.score <= 1 for p in curve.points)
    assert curve.more[0].money == 50
    assert curve.more[0].hours == 2
    assert curve.needed is not None
    page = (tmp_path / "curve" / "report.html").read_text(encoding="utf-8")
    assert "100 more labels bring about" in page
    assert LearningCurve.load(tmp_path / "curve" / "curve.json") == curve
    assert not (tmp_path / "curve" / "tuning").exists()

    said.clear()
    again = tunewell.learning_curve(**{**options, "sizes": [16, 32, 64, 96]})  # points at hand are not measured again
    assert again.points[:3] == curve.points[:3]
    assert sum("repeat" in line and "curve: " in line and ": f1" in line for line in said) == 2
    assert any("6 are there already" in line for line in said)


def test_a_subset_brings_its_own_validation_rows(data, tiny_model, tmp_path):
    from tunewell.curve.measure import subset
    from tunewell.recipe_file import load_recipe
    from tunewell.stages.job import Job

    recipe = load_recipe(train=data, model=str(tiny_model), validation_size=0.4, **KEYS)
    with Job(recipe, output_dir=None) as job:
        small, larger, other = subset(job, 20, 0), subset(job, 40, 0), subset(job, 20, 1)
        rows = {name: set(j.splits["train"]["row"][:]) for name, j in zip("slo", (small, larger, other), strict=True)}
        assert rows["s"] < rows["l"]
        assert rows["s"] != rows["o"]
        assert (len(small.splits["validation"]), len(job.splits["validation"])) == (20, 64)
        assert small.splits["test"] is job.splits["test"]
        assert small.recipe.num_train_epochs > job.recipe.num_train_epochs  # as many steps as tuning needs
        assert other.recipe.seed == job.recipe.seed + 1


def test_sentences():
    more = More(labels=1200, gain=0.018, low=0.012, high=0.024, money=96, hours=8)
    assert more_sentence(more) == (
        "1,200 more labels bring about +1.8 ± 0.6 points (96 in money, 8 h 0 min of labelling)."
    )
    needed = Needed(target=0.9, value=3400, low=2500, high=None, share=0.8, most=20000)
    assert needed_sentence(needed, 1000) == (
        "0.9 needs about 3,400 labels in all (2,500 to more than 20,000), 2,400 more than there are."
    )
    assert "you have 4,000" in needed_sentence(needed, 4000)
    never = Needed(target=0.99, value=None, low=None, high=None, share=0.0, most=20000)
    assert needed_sentence(never, 1000) == "0.99 is not to be expected within 20,000 labels (no forecast reaches it)."
    points = tuple(CurvePoint(size=s, repeat=0, score=s / 100, seconds=1) for s in (10, 20, 40))
    curve = LearningCurve(
        task="text-classification", metric="accuracy", model="m", strategy=("plain",), by="tune", seed=1, n_train=40,
        n_test=9, points=points, laws={"power": 1.0}, discrepancy=0.01, curve=(), more=(more,), needed=needed,
    )  # fmt: skip
    assert sentences(curve)[0] == "With 40 labels the mean accuracy is 0.400 on 9 test rows; with 20 it was 0.200."


def test_the_command(data, tiny_model, tmp_path):
    line = ["curve", data, "--model", tiny_model, "--by", "probe", "--sizes", "16,32,64", "--repeats", 2]
    line += ["--output_dir", tmp_path / "out", "--bf16", "--threads", 1, "--seed", 3]
    result = CliRunner().invoke(app, [str(a) for a in line])
    assert result.exit_code == 0, result.output
    assert "more labels bring about" in result.stdout
    assert "laws: " in result.stdout
    record = json.loads(CliRunner().invoke(app, [str(a) for a in [*line, "--json"]]).stdout)
    assert [p["size"] for p in record["points"]] == [16, 32, 64] * 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--sizes", "a few"], "'a few' is not a whole number"),
        (["--sizes", "16,32"], "2 sizes make no curve"),
        (["--sizes", "1,16,32"], "size 1 is not possible"),
        (["--sizes", "16,32,4000"], "size 4000 is not possible"),
        (["--repeats", "0"], "0 is not in the range"),
        (["--cost_per_label", "-1"], "cost_per_label: -1"),
        (["--labels_per_hour", "0"], "labels_per_hour: 0"),
        (["--more", "0"], "counted from 1"),
        (["--strategy", "average"], "measures the score alone"),
        (["--by", "magic"], "magic"),
        (["--label", "stars"], "stars"),
    ],
)
def test_mistakes(data, tiny_model, tmp_path, options, says):
    line = ["curve", data, "--model", str(tiny_model), "--output_dir", str(tmp_path / "out"), *options]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_too_few_labels(tmp_path, tiny_model, make_reviews, save_csv):
    few = str(save_csv(tmp_path / "few.csv", make_reviews(20)))
    with pytest.raises(RecipeError, match="make no curve|makes no curve"):
        tunewell.learning_curve(train=few, model=str(tiny_model), output_dir=str(tmp_path / "o"), **KEYS)
    one = str(save_csv(tmp_path / "one.csv", [(t, "same") for t, _ in make_reviews(40)]))
    with pytest.raises(DataError):
        tunewell.learning_curve(train=one, model=str(tiny_model), output_dir=str(tmp_path / "o"), **KEYS)


# ---------------------------------------------------------------- what runs are worth


@pytest.fixture
def split(tmp_path, make_reviews, save_csv):
    """Training rows, fewer of them, and test rows that neither holds."""
    rows = list(dict.fromkeys(make_reviews(400)))
    names = {"train": rows[:120], "few": rows[:40], "test": rows[120:180]}
    return {name: str(save_csv(tmp_path / f"{name}.csv", part)) for name, part in names.items()}


def tuned(split, tiny_model, tmp_path, **keys):
    options = {"train": split["few"], "test": split["test"], **KEYS, **keys}
    return tunewell.run(
        model=str(tiny_model), probes="none", explain=0, num_train_epochs=1, output_dir=str(tmp_path / "run"),
        echo=lambda line: None, progress=False, **options,
    )  # fmt: skip


def curve_of(split, tiny_model, tmp_path, **keys):
    return tunewell.learning_curve(
        train=split["train"], test=split["test"], model=str(tiny_model), sizes=[16, 32, 64], repeats=2, by="probe",
        output_dir=str(tmp_path / "curve"), progress=False, echo=lambda line: None, **{**KEYS, **keys},
    )  # fmt: skip


def test_a_run_is_worth_the_labels_that_the_curve_takes_to_its_score(split, tiny_model, tmp_path, monkeypatch):
    """The run's own score on the test rows, and the same answer as for a target of that size."""
    run = tuned(split, tiny_model, tmp_path)
    curve = curve_of(split, tiny_model, tmp_path, runs=[str(run.dir)])
    found = curve.worth[0]
    assert found.score == pytest.approx(run.summary.test.value)
    assert (found.labels, found.strategy) == (run.summary.n_train, ("plain",))
    asked = curve_of(split, tiny_model, tmp_path, target=found.score)
    assert found.needed == asked.needed
    assert LearningCurve.load(tmp_path / "curve" / "curve.json").worth == ()  # the last one asked for none
    # a score that the curve has at 32 labels is worth about as many
    middle = curve.means()[32]
    monkeypatch.setattr("tunewell.curve.worth._score", lambda job, predictor: middle)
    again = curve_of(split, tiny_model, tmp_path, runs=[str(run.dir)]).worth[0].needed
    assert again.target == middle and again.low is not None and again.low <= 64


def test_a_run_in_a_sentence():
    from tunewell.curve.records import Worth
    from tunewell.curve.words import worth_sentence

    needed = Needed(target=0.8, value=410, low=300, high=None, share=0.9, most=2000)
    found = Worth(run="runs/few", strategy=("fewshot",), labels=32, score=0.8, needed=needed)
    assert worth_sentence(found, "f1_macro") == (
        "runs/few (fewshot): f1_macro 0.800 from 32 labels, as much as 410 labels bring on the curve "
        "(300 to more than 2,000)."
    )
    assert "相当于曲线上 410 条标注" in worth_sentence(found, "f1_macro", "zh")


def test_runs_that_cannot_be_compared(split, tiny_model, tmp_path, make_reviews, save_csv):
    learned = tuned(split, tiny_model, tmp_path, train=split["test"], test=split["few"])
    with pytest.raises(DataError, match=r"has learned \d+ of the texts that the curve is tested on"):
        curve_of(split, tiny_model, tmp_path, runs=[str(learned.dir)])
    other = save_csv(tmp_path / "other.csv", [(t, f"{label}!") for t, label in make_reviews(60, seed=8)])
    named = tuned(split, tiny_model, tmp_path, train=str(other), test=None, overwrite_output_dir=True)
    with pytest.raises(RecipeError, match="has the labels negative!, positive!"):
        curve_of(split, tiny_model, tmp_path, runs=[str(named.dir)])
    found = CliRunner().invoke(
        app, ["curve", split["train"], "--by", "probe", "--text", "text", "--label", "label", "--runs", "nowhere",
              "--model", str(tiny_model), "--output_dir", str(tmp_path / "curve")]
    )  # fmt: skip
    assert found.exit_code == 2 and "nowhere" in found.output
    assert not (tmp_path / "curve" / "curve.json").exists()
