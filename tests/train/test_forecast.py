"""The time that tuning will take, from steps of known length."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tunewell.results import Training
from tunewell.train.forecast import FORWARD, Forecast


class Clock:
    """Counts of a tuning whose every token takes a hundredth of a second."""

    tokens, computing = 0, 0.0

    @property
    def so_far(self) -> float:
        return self.computing + 7.0  # what was prepared before the first step

    def step(self, tokens: int, seconds: float | None = None) -> None:
        self.tokens += tokens
        self.computing += tokens / 100 if seconds is None else seconds


def run(steps: list[int], *, tokens: float, warm: float = 20.0, validation: float = 0.0) -> tuple[Forecast, list[str]]:
    clock, lines = Clock(), []
    forecast = Forecast(clock, tokens=tokens, validation=validation, every=10, echo=lines.append)
    for i, size in enumerate(steps, 1):
        clock.step(size, warm if i <= 2 else None)
        state = SimpleNamespace(global_step=i, max_steps=len(steps), is_world_process_zero=True)
        forecast.on_step_end(None, state, None)
    return forecast, lines


def test_steps_ahead_take_as_long_a_token_as_those_that_were_timed():
    """40 steps of 50 and 150 tokens in turn: 4,000 tokens, of which the first 200 took 40 s and the others 38 s."""
    forecast, lines = run([50, 150] * 20, tokens=4000)
    assert forecast.seconds == pytest.approx(7 + 40 + 38)
    assert lines == ["tune: about 1 min 25 s for 40 steps"]


def test_long_steps_to_come_are_counted():
    forecast, _ = run([50] * 12 + [150] * 28, tokens=12 * 50 + 28 * 150)
    assert forecast.seconds == pytest.approx(7 + 40 + (10 * 50 + 28 * 150) / 100)


def test_validation_takes_its_part():
    """Told at step 6 (a tenth was timed), before the first of four validations."""
    without, _ = run([100] * 40, tokens=4000)
    with_it, _ = run([100] * 40, tokens=4000, validation=1000)
    assert with_it.seconds - without.seconds == pytest.approx(4 * 1000 * FORWARD / 100)


def test_steps_count_where_tokens_are_not_known():
    forecast, _ = run([100] * 40, tokens=0)
    assert forecast.seconds == pytest.approx(7 + 40 + 38)


@pytest.mark.parametrize(("seconds", "told"), [(100.0, 90.0), (250.0, None)])
def test_the_time_of_several_tunings_was_not_foretold(seconds, told):
    one = Training(
        strategy=("plain",), steps=9, epochs=1.0, best_step=9, best_score=0.5, stopped_early=False, learning_rate=1e-4,
        precision="fp32", examples=1, tokens=1, padding_share=0.0, seconds=100.0, forecast_seconds=90.0,
        peak_memory_mb=1.0, parameters=1, trainable_parameters=1,
    )  # fmt: skip
    of_all = one.taking(seconds, cpu_seconds=7.0)
    assert (of_all.seconds, of_all.forecast_seconds, of_all.cpu_seconds) == (seconds, told, 7.0)


def test_short_tunings_are_over_before_there_is_much_to_tell():
    assert run([1] * 3, tokens=3)[0].seconds is None


def test_a_run_keeps_what_it_was_told(tmp_path, tiny_model, tiny_csv):
    import tunewell

    lines: list[str] = []
    run = tunewell.run(
        model=str(tiny_model), train=str(tiny_csv), text="text", label="label", explain=0,
        probes="none", max_steps=60, per_device_train_batch_size=4, output_dir=str(tmp_path / "run"),
        echo=lines.append, progress=False,
    )  # fmt: skip
    assert not [line for line in lines if line.startswith("tune: about")]  # it takes no time
    training = Training.load(run.dir / "train" / "training.json")
    assert training.forecast_seconds is not None and training.forecast_seconds > 0
