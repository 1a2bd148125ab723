"""When a candidate of a search is stopped, and when a stronger one is not worth trying."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tunewell.results import Training
from tunewell.stages.race import Point, Race, behind, points_of


@pytest.mark.parametrize(
    ("score", "kept", "stops"),
    [
        (0.80, 0.95, True),  # clearly worse on the score, no better in what is kept
        (0.89, 0.90, True),  # a little worse on the score, clearly in what is kept
        (0.89, 0.949, False),  # a little worse on both
        (0.80, 0.96, False),  # worse on the score, but keeps more
        (0.91, 0.50, False),  # keeps less, but scores better
    ],
)
def test_only_what_is_behind_on_both_is_behind(score, kept, stops):
    assert behind(Point(score, kept), Point(0.9, 0.95), 0.02) is stops


def test_it_is_stopped_where_it_falls_behind():
    lines: list[str] = []
    monitor = SimpleNamespace(take=lambda state, control: 0.9)
    race = Race(lambda: monitor, "f1", {"plain": {4: Point(0.8, 0.95), 8: Point(0.9, 0.95)}}, 0.02, lines.append)
    control = SimpleNamespace(should_training_stop=False)
    race.on_evaluate(None, SimpleNamespace(global_step=4, max_steps=12), control, metrics={"eval_f1": 0.85})
    assert not control.should_training_stop
    race.on_evaluate(None, SimpleNamespace(global_step=6, max_steps=12), control, metrics={"eval_f1": 0.1})
    assert not control.should_training_stop  # the other one was not seen at this step
    race.on_evaluate(None, SimpleNamespace(global_step=8, max_steps=12), control, metrics={"eval_f1": 0.7})
    assert control.should_training_stop
    assert race.stopped.startswith("stopped at step 8 of 12: validation 0.7000 and about 0.9000 kept, where plain had")
    assert len(lines) == 1


def test_at_the_last_step_there_is_nothing_to_stop():
    monitor = SimpleNamespace(take=lambda state, control: 0.1)
    race = Race(lambda: monitor, "f1", {"plain": {12: Point(0.9, 0.95)}}, 0.0, print)
    control = SimpleNamespace(should_training_stop=False)
    race.on_evaluate(None, SimpleNamespace(global_step=12, max_steps=12), control, metrics={"eval_f1": 0.1})
    assert not control.should_training_stop and not race.stopped


def test_points_are_read_from_a_finished_tuning():
    history = (
        {"step": 3, "eval_f1": 0.5},
        {"step": 3, "kept_estimate": 0.9},
        {"step": 4, "kept_estimate": 0.8},
        {"step": 6, "eval_f1": 0.6},
    )
    training = Training(strategy=("plain",), steps=6, epochs=1, best_step=6, best_score=0.6, stopped_early=False,
                        learning_rate=1e-4, precision="fp32", examples=1, tokens=1, padding_share=0.0, seconds=1.0,
                        peak_memory_mb=1.0, parameters=1, trainable_parameters=1, history=history)  # fmt: skip
    assert points_of(training, "f1") == {3: Point(0.5, 0.9)}
