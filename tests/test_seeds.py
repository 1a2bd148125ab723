"""Several seeds of one tuning."""

from __future__ import annotations

import json

import pytest

import tunewell
from tunewell.errors import RecipeError
from tunewell.results import Estimate, SeedResult
from tunewell.stages.seeds import gathered


@pytest.fixture
def keys(tiny_model, tmp_path, make_reviews, save_csv):
    files = {
        name: str(save_csv(tmp_path / f"{name}.csv", make_reviews(n, seed=seed)))
        for seed, (name, n) in enumerate({"train": 64, "validation": 24, "test": 40}.items())
    }
    return {
        **files, "model": str(tiny_model), "probes": "none", "explain": 0, "bf16": False, "threads": 1,
        "learning_rate": 2e-3, "num_train_epochs": 2, "metric": "accuracy", "calibrate": "none",
        "echo": lambda line: None, "progress": False,
    }  # fmt: skip


def test_a_further_seed_is_what_a_run_of_that_seed_gives(keys, tmp_path):
    run = tunewell.run(**keys, seeds=2, output_dir=str(tmp_path / "many"))
    other = tunewell.run(**keys, seed=43, output_dir=str(tmp_path / "other"))
    assert run.seeds is not None
    own, further = run.seeds.results
    assert (own.seed, further.seed) == (42, 43)
    assert own.test == run.evaluation.headline
    assert further.test.value == other.evaluation.headline.value
    assert further.steps == other.training.steps
    assert not list((run.dir / "train").glob("seed-*"))
    assert run.summary.seeds is not None
    assert run.summary.seeds["test"]["n"] == 2
    assert "The same rows, other seeds" in run.report_path.read_text(encoding="utf-8")

    record = (run.dir / "seeds.json").read_bytes()
    lines: list[str] = []
    again = tunewell.run(**{**keys, "echo": lines.append}, seeds=2, output_dir=str(tmp_path / "many"))
    assert (again.dir / "seeds.json").read_bytes() == record
    assert not [line for line in lines if line.startswith("tune:")]


def test_spread_and_failed_starts_by_hand():
    """Scores 0.9, 0.8 and 0.5 over a constant answer of at most 0.55: mean 0.7333, sd 0.2082, one failed."""
    results = [
        SeedResult(seed=s, test=Estimate(value=v, n=100), validation=v, retention=r, steps=1, seconds=1.0)
        for s, v, r in ((1, 0.9, 0.95), (2, 0.8, 0.97), (3, 0.5, 0.99))
    ]
    found = gathered(results, metric="accuracy", constant=Estimate(value=0.5, low=0.45, high=0.55, n=100))
    assert found.test.value == pytest.approx(0.73333, abs=1e-5)
    assert found.sd == pytest.approx(0.20817, abs=1e-5)
    half = 4.30265 * 0.20817 / 3**0.5
    assert (found.test.low, found.test.high) == pytest.approx((0.73333 - half, 0.73333 + half), abs=1e-4)
    assert [r.failed for r in found.results] == [False, False, True]
    assert found.failed == 1
    assert found.retention is not None and found.retention.value == pytest.approx(0.97)


def test_a_start_that_learns_nothing_has_failed(keys, tmp_path):
    run = tunewell.run(**{**keys, "learning_rate": 1.0, "guard": "off"}, seeds=2, output_dir=str(tmp_path / "bad"))
    assert run.seeds is not None
    assert run.seeds.failed == 2
    assert "2 failed" in run.report_path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"strategy": "auto", "keep": 0.9, "probes": "auto"}, "`strategy: auto` is a search"),
        ({"seeds": 0}, "seeds"),
    ],
)
def test_what_cannot_be_repeated(keys, tmp_path, more, says):
    with pytest.raises(RecipeError, match=says):
        tunewell.run(**{**keys, "seeds": 2, **more}, output_dir=str(tmp_path / "no"))


def test_answers_that_are_texts_are_refused(tiny_decoder, tmp_path):
    path = tmp_path / "sft.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"a{i}", "completion": "b"}) for i in range(40)), encoding="utf-8")
    with pytest.raises(RecipeError, match="for classes and scores"):
        tunewell.run(
            train=str(path), model=str(tiny_decoder), seeds=3, output_dir=str(tmp_path / "no"), echo=lambda line: None
        )
