"""`tunewell run` and the commands that take a recipe's keys."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.errors import GateError
from tunewell.recipe import SECTIONS, Recipe
from tunewell.results import Choice, Comparison, Estimate, Evaluation, ProbeResult, Retention, Summary, Training

MODULE = import_module("tunewell.run")


class FakeRun:
    """What `tunewell.run.run` gives back, with figures that a test can read."""

    def __init__(self, recipe: Recipe, kept: bool | None = True) -> None:
        figure = Estimate(value=0.75, low=0.7, high=0.8, n=100)
        lost = Estimate(value=0.97654, low=0.96, high=0.99, n=100)
        probe = ProbeResult(
            name="sts",
            title="similarity (STS-B)",
            metric="spearman",
            chance=0.0,
            before=figure,
            after=figure,
            retention=lost,
        )
        self.dir = Path("runs/x")
        self.recipe, self.report_path, self.model_path = recipe, self.dir / "report.html", self.dir / "model"
        self.summary = Summary(
            task="text-classification", metric="f1_macro", test=figure, base=None, baselines={}, retention=None,
            keep=recipe.keep, kept=kept, strategy=("plain",), model="m", seed=1, n_train=1234,
            seconds={"train": 83.0, "total": 200.0}, peak_memory_mb=900.0, verdict=("It is better.",),
        )  # fmt: skip
        self.retention = Retention(half="report", probes=(probe,), mean=lost, worst=lost, worst_probe="sts")
        evaluation = Evaluation(split="test", metric="f1_macro", metrics={"f1_macro": figure}, n=100)
        better = Comparison(
            metric="f1_macro", difference=Estimate(value=0.1), test="McNemar", p_value=0.0002, better=True
        )
        self.baselines = (FakeBaseline("majority class", evaluation, better),)
        self.choice = Choice(keep=recipe.keep, keep_worst=None, met=kept, candidates=(), reason="alpha 0.9 is best")
        self.training = Training(
            strategy=("plain",), steps=1, epochs=1, best_step=1, best_score=0.7, stopped_early=False, learning_rate=0.1,
            precision="fp32", examples=1, tokens=1, padding_share=0, seconds=83, peak_memory_mb=900,
            parameters=22_700_000, trainable_parameters=22_700_000,
        )  # fmt: skip


class FakeBaseline:
    def __init__(self, title: str, evaluation: Evaluation, comparison: Comparison) -> None:
        self.title, self.evaluation, self.comparison = title, evaluation, comparison


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Recipes and options that reach `tunewell.run.run`."""
    calls: dict = {"kept": True}

    def run(recipe, *, echo, progress, command, raise_on_gate, jobs=None, ray=None):
        calls.update(recipe=recipe, progress=progress, command=command, workers=(jobs, ray))
        echo("a stage")
        return FakeRun(recipe, calls["kept"])

    monkeypatch.setattr(MODULE, "run", run)
    monkeypatch.setattr(MODULE, "gate_error", lambda finished: GateError("the budget is not met"))
    return calls


def invoke(*args: str):
    return CliRunner().invoke(app, ["run", *args])


def test_every_key_is_an_option_under_its_heading() -> None:
    text = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["run", "--help"]).output
    places = [text.index(f"\n{title}:\n") for title in SECTIONS.values()]
    assert places == sorted(places)
    for name, field in Recipe.model_fields.items():
        assert f"\n  --{name} " in text
        assert "".join((field.description or "").split())[:40] in "".join(text.split())
    assert "[10.0]" in text


def test_keys_reach_the_recipe_typed(seen: dict) -> None:
    result = invoke(
        "--train", "a b.csv", "--learning-rate", "2e-5", "--max_steps", "-1", "--label", "a,b", "--strict", "--no-bf16",
        "--average-alphas", "0.5,1", "--probe_files", "p.csv", "--probe_files", "q.csv", "--keep", "0.98",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    recipe = seen["recipe"]
    assert (recipe.train, recipe.learning_rate, recipe.max_steps, recipe.label) == ("a b.csv", 2e-5, -1, ["a", "b"])
    assert (recipe.strict, recipe.bf16, recipe.average_alphas) == (True, False, [0.5, 1.0])
    assert recipe.probe_files == ["p.csv", "q.csv"]
    assert seen["command"].startswith("tunewell run --train 'a b.csv' --learning-rate 2e-5")


def test_workers_reach_the_run(seen: dict) -> None:
    assert invoke("--train", "a.csv", "--label", "a", "--seeds", "3", "--jobs", "2").exit_code == 0
    assert seen["workers"] == (2, None)
    assert invoke("--train", "a.csv", "--label", "a", "--seeds", "3", "--ray", "local").exit_code == 0
    assert seen["workers"] == (None, "local")


def test_options_take_precedence_over_the_file(tmp_path: Path, seen: dict) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("train: a.csv\nseed: 1\nkeep: 0.9\n")
    assert invoke(str(path), "--seed", "7").exit_code == 0
    assert (seen["recipe"].seed, seen["recipe"].keep, seen["recipe"].train) == (7, 0.9, "a.csv")


def test_mistakes_are_the_recipes_and_come_together(seen: dict) -> None:
    result = invoke("--train", "a.csv", "--keep", "98", "--seed", "x")
    assert result.exit_code == 2
    assert "error: recipe: 2 mistakes:" in result.stderr
    assert "`keep: 98`: expected less than or equal to 1" in result.stderr
    assert "`seed: x`: expected a valid integer" in result.stderr
    assert "recipe" not in seen


def test_the_table(seen: dict) -> None:
    result = invoke("--train", "a.csv", "--keep", "0.98")
    assert result.stderr == "a stage\n"
    assert (
        result.stdout
        == """
Gained, on 100 test rows (p by: McNemar)
                  f1_macro  95 % interval   tuned against it
  tuned              0.750  0.700 to 0.800
  majority class     0.750  0.700 to 0.800  +0.100 better, p < 0.001

Kept
  probe                      before  after    kept  95 % interval
  similarity (STS-B)          0.750  0.750  0.9765  0.9600 to 0.9900
  mean                                      0.9765  0.9600 to 0.9900
  worst: similarity (STS-B)                 0.9765  0.9600 to 0.9900
  keep 0.98: met (alpha 0.9 is best)

Needed
  1,234 training rows, tuning 1 min 23 s, in all 3 min 20 s, memory 900 MB, 22.7 of 22.7 M parameters

It is better.

model   runs/x/model
report  runs/x/report.html
"""
    )


def test_a_missed_budget_is_shown_and_exits_3(seen: dict) -> None:
    seen["kept"] = False
    result = invoke("--train", "a.csv", "--keep", "0.98")
    assert result.exit_code == 3
    assert "NOT MET" in result.stdout
    assert "report  runs/x/report.html" in result.stdout
    assert result.stderr.endswith("gate: the budget is not met\n")


def test_quiet_prints_results_only(seen: dict) -> None:
    result = invoke("--train", "a.csv", "--quiet")
    assert result.stderr == ""
    assert seen["progress"] is False


def test_stopping_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(MODULE, "run", run)
    result = invoke("--train", "a.csv")
    assert result.exit_code == 130
    assert "the same command goes on from here" in result.stderr


def test_demo_writes_its_data_beside_the_run(tmp_path: Path, seen: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def demo_csv(path: Path, n: int, seed: int) -> Path:
        written.append((n, seed))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text,sentiment\n")
        return path

    monkeypatch.setattr("tunewell.data.packaged.demo_csv", demo_csv)
    folder = tmp_path / "runs" / "demo"
    for _ in range(2):
        result = CliRunner().invoke(app, ["demo", "--output_dir", str(folder), "--keep", "0.9"])
        assert result.exit_code == 0, result.output
    assert written == [(4000, 42)]
    recipe = seen["recipe"]
    assert recipe.train == str(tmp_path / "runs" / "demo-tweets.csv")
    assert (recipe.text, recipe.label, recipe.keep) == ("text", ["sentiment"], 0.9)
    assert not folder.exists()


def test_tune_prints_the_models_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "tune_only", lambda recipe, **_: Path("runs") / recipe.train / "model")
    result = CliRunner().invoke(app, ["tune", "--train", "a"])
    assert (result.exit_code, result.stdout) == (0, "runs/a/model\n")
