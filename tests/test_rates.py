"""`learning_rate: auto`: which rates are tried, what is taken, what is stopped; resumed, refused, reported."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

import tunewell
from tunewell.errors import RecipeError, TrainingError
from tunewell.recipe import Recipe
from tunewell.results import Estimate
from tunewell.stages import rates
from tunewell.stages.race import Behind
from tunewell.stages.rates import Rates, gains, rounded


@pytest.fixture
def keys(tiny_model, tmp_path, make_reviews, save_csv):
    rows = make_reviews(140)
    parts = {"train": rows[:60], "validation": rows[60:100], "test": rows[100:]}
    files = {name: str(save_csv(tmp_path / f"{name}.csv", part)) for name, part in parts.items()}
    return {
        **files, "model": str(tiny_model), "probes": "none", "explain": 0, "bf16": False, "threads": 1,
        "num_train_epochs": 2, "metric": "accuracy", "calibrate": "none", "echo": lambda line: None,
        "progress": False, "learning_rate": "auto",
    }  # fmt: skip


def test_the_better_score_inside_the_budget_wins():
    assert gains(Estimate(value=0.001, low=-0.1, high=0.1), None, None)
    assert not gains(Estimate(value=-0.001, low=-0.1, high=0.1), None, None)
    assert gains(Estimate(value=-0.5, low=-0.6, high=-0.4), True, False)  # the only one inside the budget
    assert not gains(Estimate(value=0.5, low=0.4, high=0.6), False, True)
    assert not gains(Estimate(value=0.0, low=0.0, high=0.0), None, None)
    assert not gains(Estimate(value=None), None, None)


def test_rates_have_two_digits():
    assert rounded(0.04 / 384) == 1e-4 and rounded(1e-4 * 3) == 3e-4 and rounded(1.6e-5 / 3) == 5.3e-6


class Control:
    should_training_stop = False


class State:
    def __init__(self, step):
        self.global_step, self.max_steps = step, 10


def test_who_is_clearly_behind_in_the_second_half_is_stopped():
    said: list[str] = []
    race = Behind("f1", {"0.1": {4: 0.9, 6: 0.9, 10: 0.9}}, 0.05, said.append)
    for step, score, stopped in ((4, 0.1, False), (6, 0.86, False), (10, 0.1, False), (6, 0.84, True)):
        control = Control()
        race.on_evaluate(None, State(step), control, {"eval_f1": score})
        assert control.should_training_stop == stopped
    assert "where rate 0.1 had 0.9000" in race.stopped == said[0].removeprefix("rate: ")
    again = Behind("f1", {}, 0.05, said.append)
    again.load_state(race.state())
    assert again.stopped == race.stopped


@pytest.fixture
def scored(monkeypatch):
    """Rates whose gain over any other is told, whatever the tiny model learns."""

    def patch(worth):
        def compare(self, at, other):
            from types import SimpleNamespace

            ours, theirs = (worth(self.owners[i][0].recipe.learning_rate) for i in (at, other))
            return SimpleNamespace(
                difference=Estimate(value=ours - theirs, low=ours - theirs, high=ours - theirs, n=40)
            )

        monkeypatch.setattr("tunewell.stages.held.Tunings.compare", compare)
        monkeypatch.setattr("tunewell.stages.rates._clear", lambda trials: float("inf"))

    return patch


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (2e-4, [2e-4, 4e-4, 1e-4]),  # neither helps
        (4e-4, [2e-4, 4e-4, 8e-4]),  # up, and no further
        (1.0, [2e-4, 4e-4, 8e-4, 1.6e-3]),  # up, until no more tunings are left
        (1e-4, [2e-4, 4e-4, 1e-4, 5e-5]),  # down
    ],
)
def test_the_search_goes_where_it_helps(keys, tmp_path, scored, best, tried):
    import math

    scored(lambda rate: -abs(math.log(rate / best)))
    lines: list[str] = []
    run = tunewell.run(**{**keys, "echo": lines.append, "max_steps": 3}, output_dir=str(tmp_path / "run"))
    found = run.rates
    assert found is not None
    assert [t.rate for t in found.trials] == pytest.approx(tried)
    assert found.usual == 2e-4 and found.chosen == min(tried, key=lambda r: abs(math.log(r / best)))
    assert run.training.learning_rate == found.chosen
    assert run.choice.chosen.strategy == ("plain", f"rate {found.chosen:g}")
    chosen = run.dir / "train" / f"rate-{found.chosen:g}" / "tuned.safetensors"
    ours, theirs = load_file(str(chosen)), load_file(str(run.model_path / "model.safetensors"))
    assert all((ours[k] == theirs[k]).all() for k in theirs)
    page = run.report_path.read_text(encoding="utf-8")
    assert "Which learning rate" in page and f"{found.chosen:g}" in page
    assert any(line.startswith(f"rate: {found.chosen:g} is used") for line in lines)

    lines.clear()
    again = tunewell.run(**{**keys, "echo": lines.append, "max_steps": 3}, output_dir=str(tmp_path / "run"))
    assert not [line for line in lines if line.startswith(("tune:", "rate:"))]
    assert again.rates == found
    plain = tunewell.run(**{**keys, "learning_rate": 1e-3, "max_steps": 3}, output_dir=str(tmp_path / "run"))
    assert plain.rates is None and "Which learning rate" not in plain.report_path.read_text(encoding="utf-8")


def test_what_is_measured_decides(keys, tmp_path):
    """Differences are those of the models on validation, and another rate must have earned its place."""
    run = tunewell.run(**keys, seeds=2, output_dir=str(tmp_path / "run"))
    found = run.rates
    assert found is not None and 2 <= len(found.trials) <= 4
    taken = next(t for t in found.trials if t.rate == found.chosen)
    assert taken.better
    for t in found.trials[1:]:
        assert t.difference is not None
        assert t.better == gains(t.difference, None, None)
    assert run.summary.seeds is not None  # the further seed is tuned at the chosen rate
    assert Rates.load(run.dir / "rates.json") == found
    assert found.cost >= 1


def test_a_rate_that_breaks_is_given_up(keys, tmp_path, monkeypatch):
    from tunewell.stages.held import Tunings

    tune = Tunings.tune

    def breaking(self, child):
        if child.recipe.learning_rate > 3e-4:
            raise TrainingError("not finite", where=f"learning_rate: {child.recipe.learning_rate}")
        return tune(self, child)

    monkeypatch.setattr(Tunings, "tune", breaking)
    run = tunewell.run(**{**keys, "max_steps": 3}, output_dir=str(tmp_path / "run"))
    assert run.rates is not None
    assert run.rates.trials[1].stopped == "the loss did not stay finite" and run.rates.trials[1].score.value is None
    assert run.rates.chosen < 3e-4 and "given up" in run.report_path.read_text(encoding="utf-8")
    monkeypatch.setattr(Tunings, "tune", lambda self, child: (_ for _ in ()).throw(TrainingError("disk", where="x")))
    with pytest.raises(TrainingError, match="disk"):
        tunewell.run(**{**keys, "max_steps": 3}, output_dir=str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"validation": None, "validation_size": 0}, "no validation rows"),
        ({"strategy": "auto", "keep": 0.9, "probes": ["drift"]}, "is a search of its own"),
        ({"augment": "delete"}, "with and without already"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"learning_rate": 2.0}, "learning_rate"),
    ],
)
def test_mistakes(keys, tmp_path, more, message):
    with pytest.raises(RecipeError, match=message):
        tunewell.run(**{**keys, **more}, output_dir=str(tmp_path / "run"))


def test_only_a_run_finds_a_rate():
    from tunewell.train.rates import fixed_rate

    assert fixed_rate(1e-4) == 1e-4 and fixed_rate(None) is None
    with pytest.raises(RecipeError, match="compares tunings of a run"):
        fixed_rate("auto")
    assert Recipe(train="x.csv", learning_rate="auto").learning_rate == rates.AUTO_RATE
    assert Recipe(train="x.csv", learning_rate="5e-5").learning_rate == 5e-5
