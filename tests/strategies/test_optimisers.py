"""Optimisers by name: their definitions, what is kept of them, and what they do not go with."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback

from tunewell.errors import RecipeError, TunewellError
from tunewell.recipe_file import load_recipe
from tunewell.train.optimisers import AveragedPoint, found_rate, made, tell

pytest.importorskip("schedulefree")
pytest.importorskip("prodigyopt")


def linear() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(3, 1)


def descend(model: torch.nn.Linear, optimiser, steps: int) -> None:
    x, y = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)), torch.arange(20.0)[:, None] / 10
    for _ in range(steps):
        optimiser.zero_grad()
        (model(x) - y).square().mean().backward()
        optimiser.step()


def test_the_average_by_hand():
    """One weight, β₁ = 0.9, rate 0.1, gradients 1: z falls by 0.1 a step, x is the mean of the z, y = 0.9 x + 0.1 z."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    optimiser = made("schedule_free_adamw", [{"params": [model.weight], "weight_decay": 0.0}], rate=0.1, warmup=0)
    point = AveragedPoint()
    point.trainer = SimpleNamespace(optimizer=optimiser)
    optimiser.train()
    for _ in range(4):
        model.weight.grad = torch.ones_like(model.weight)
        optimiser.step()
    x = (0.9 + 0.8 + 0.7 + 0.6) / 4
    assert optimiser.state[model.weight]["z"].item() == pytest.approx(0.6, abs=1e-5)
    assert point.average(model)["weight"].item() == pytest.approx(x, abs=1e-5)
    assert model.weight.item() == pytest.approx(0.9 * x + 0.1 * 0.6, abs=1e-5)


def test_the_average_is_the_packages_own():
    model = linear()
    optimiser = made("schedule_free_adamw", [{"params": list(model.parameters()), "weight_decay": 0.01}], rate=0.05,
                     warmup=3)  # fmt: skip
    point = AveragedPoint()
    point.trainer = SimpleNamespace(optimizer=optimiser)
    assert point.average(model) == {}  # before the first step
    optimiser.train()
    descend(model, optimiser, 15)
    found = point.average(model)
    with point.validating(model):
        assert all(torch.equal(p, found[n]) for n, p in model.named_parameters())
    assert not torch.allclose(model.weight, found["weight"])
    optimiser.eval()
    assert all(torch.allclose(p, found[n], atol=1e-6) for n, p in model.named_parameters())


def test_prodigy_finds_a_rate(capsys):
    """From an estimate of a millionth it climbs to one that fits; a second of the same gradients gives the same."""
    found, lines = [], []
    for _ in range(2):
        model = linear()
        optimiser = made("prodigy", [{"params": list(model.parameters()), "weight_decay": 0.01}], rate=1.0, warmup=0)
        assert found_rate(optimiser) == 1e-6
        descend(model, optimiser, 60)
        found.append(found_rate(optimiser))
        assert tell(optimiser, lines.append) == found[-1]
    assert found[0] == found[1] > 1e-3
    assert found_rate(torch.optim.AdamW(linear().parameters())) is None
    assert capsys.readouterr().out == ""
    assert lines[0] == f"tune: prodigy has come to a rate of {found[0]:.2g}"


def test_that_prodigy_has_found_nothing_is_told():
    model, lines = linear(), []
    optimiser = made("prodigy", [{"params": list(model.parameters()), "weight_decay": 0.0}], rate=1.0, warmup=0)
    descend(model, optimiser, 1)
    assert tell(optimiser, lines.append) == pytest.approx(1e-6, rel=1)
    assert "has not left its first guess" in lines[0] and "`optim: adamw`" in lines[0]
    assert tell(torch.optim.AdamW(model.parameters()), lines.append) is None and len(lines) == 1


class Last(TrainerCallback):
    """The average at the end of tuning, before anything is put in place."""

    def on_train_end(self, args, state, control, model=None, optimizer=None, **_):
        inner = getattr(optimizer, "optimizer", optimizer)
        point = AveragedPoint()
        point.trainer = SimpleNamespace(optimizer=inner)
        self.found, self.at = point.average(model), {n: p.detach().clone() for n, p in model.named_parameters()}


def test_the_average_is_what_is_scored_and_kept(small_job):
    """Of the best validation, which is the last here: the weights that were scored are those that are left."""
    last = Last()
    tuned = small_job(optim="schedule_free_adamw", evals_per_epoch=1, num_train_epochs=1, callbacks=(last,))
    assert tuned.record.best_step == tuned.record.steps
    name = "bert.encoder.layer.0.output.dense.weight"
    assert torch.allclose(tuned.weights[name], last.found[name], atol=1e-6)
    assert not torch.allclose(tuned.weights[name], last.at[name], atol=1e-6)
    assert tuned.record.strategy == ("plain",)
    rates = {e["learning_rate"] for e in tuned.record.history if "learning_rate" in e}
    assert len(rates) == 1  # no schedule


def test_a_run_tells_the_rate_that_prodigy_found(small_job):
    tuned = small_job(optim="prodigy", learning_rate=None, num_train_epochs=4)
    assert tuned.record.learning_rate == pytest.approx(1e-6, rel=1)  # of so few steps
    assert not torch.allclose(tuned.weights["classifier.weight"], tuned.base["classifier.weight"])


@pytest.mark.parametrize("optim", ["schedule_free_adamw", "prodigy"])
def test_stopped_it_goes_on_to_the_same_bytes(small_job, crash_at, optim):
    keys = {"optim": optim, "learning_rate": 1e-3 if optim != "prodigy" else None, "num_train_epochs": 3}
    whole = small_job(folder="a", **keys)
    with pytest.raises(crash_at.error):
        small_job(folder="b", callbacks=(crash_at(8),), **keys)
    resumed = small_job(folder="b", **keys)
    assert all(torch.equal(whole.weights[k], resumed.weights[k]) for k in whole.weights)
    assert whole.record.best_score == resumed.record.best_score


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"optim": "schedule_free_adamw", "lr_scheduler_type": "cosine"}, "has no schedule: leave out"),
        ({"optim": "schedule_free_adamw", "strategy": "ema"}, "averages by itself: leave out `ema`"),
        ({"optim": "schedule_free_adamw", "monitor": "rollback", "keep": 0.9}, "`monitor: rollback` has none"),
        ({"optim": "prodigy", "learning_rate": "auto"}, "finds the rate by itself"),
        ({"optim": "prodigy", "strategy": "llrd"}, "one rate for all layers"),
        ({"optim": "prodigy", "head_rate_factor": 5}, "one rate for all parameters"),
        ({"optim": "adam"}, "optim"),
    ],
)
def test_what_does_not_go_together(keys, says):
    with pytest.raises(RecipeError, match=says):
        load_recipe(train="x.csv", **keys)


def test_a_missing_package_is_told_before_anything_is_done(tmp_path, tiny_model, tiny_csv, monkeypatch):
    import tunewell

    monkeypatch.setattr("tunewell.extras.find_spec", lambda name: None)
    with pytest.raises(TunewellError, match="schedulefree, prodigyopt are not installed"):
        tunewell.run(
            model=str(tiny_model), train=str(tiny_csv), text="text", label="label", optim="prodigy",
            output_dir=str(tmp_path / "run"), echo=lambda line: None, progress=False,
        )  # fmt: skip
