"""Calibration in a run: what is stored is what `predict` and `serve` apply, answers stay, promises are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import tunewell
from tunewell.cli import app
from tunewell.errors import DamagedRecordError, RecipeError
from tunewell.evaluate.calibrators import calibrated
from tunewell.predict import Predictor
from tunewell.results import Calibration


@pytest.fixture(scope="module")
def run(tiny_model: Path, make_reviews: Any, save_csv: Any, tmp_path_factory: pytest.TempPathFactory) -> tunewell.Run:
    folder = tmp_path_factory.mktemp("calibrated")
    rows = make_reviews(240)
    return tunewell.run(
        model=str(tiny_model), train=str(save_csv(folder / "train.csv", rows[:100])), probes=["none"],
        validation=str(save_csv(folder / "validation.csv", rows[100:160])), max_steps=6, explain=0, bf16=False,
        test=str(save_csv(folder / "test.csv", rows[160:])), calibrate="temperature", progress=False,
        output_dir=str(folder / "run"), echo=lambda line: None,
    )  # fmt: skip


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_predictions_are_calibrated_and_answers_stay(run: tunewell.Run, make_reviews: Any) -> None:
    found = Calibration.load(run.dir / "calibration.json")
    assert found.calibrator.method == "temperature"
    assert found.calibrator.n == 60
    assert set(found.validation) == {"none", "temperature"}  # too few rows for an isotonic one
    texts = [text for text, _ in make_reviews(40, seed=5)]
    raw, after = run.predictor.raw_scores(texts), run.predictor.scores(texts)
    assert after == pytest.approx(calibrated(found.calibrator, raw))
    assert (after.argmax(axis=1) == raw.argmax(axis=1)).all()
    plain = Predictor.load(run.dir / "model")  # beside its calibration.json
    assert plain.scores(texts) == pytest.approx(after)
    assert run.metrics["ece"].value == pytest.approx(found.after["ece"].value)
    assert run.metrics["log_loss"].value == pytest.approx(found.after["log_loss"].value)


def test_the_service_gives_the_same(run: tunewell.Run) -> None:
    from tunewell.serving.models import load

    served = load("tiny", run.dir)
    texts = ["the crew was great", "an awful seat"]
    assert served.scores(served.encode(texts, None), 8) == pytest.approx(run.predictor.scores(texts), abs=1e-6)


def test_sets_of_a_file(run: tunewell.Run, save_csv: Any, make_reviews: Any, tmp_path: Path) -> None:
    rows = make_reviews(30, seed=7)
    data = save_csv(tmp_path / "new.csv", [*rows, ("", "negative")])
    with np.load(run.dir / "conformal.npz") as known:
        threshold = np.sort(known["lac"])[int(np.ceil(61 * 0.9)) - 1]
    done = command(run.dir, data, "--coverage", "0.9", "-o", tmp_path / "out.jsonl")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = run.predictor.scores([text for text, _ in rows])
    for row, line in zip(scores, lines, strict=False):
        inside = [run.predictor.labels[j] for j in np.argsort(-row) if 1 - float(row[j]) <= threshold + 1e-6]
        assert line["prediction_set"] == inside
    assert lines[-1]["prediction_set"] is None
    for ending in ("csv", "parquet"):
        assert command(run.dir, data, "--coverage", "0.9", "-o", tmp_path / f"o.{ending}").exit_code == 0
    head = (tmp_path / "o.csv").read_text(encoding="utf-8").splitlines()[0]
    assert head == "text,label,prediction,prediction_set,p_negative,p_positive"


def test_regression_gets_intervals(tiny_model: Path, make_reviews: Any, save_csv: Any, tmp_path: Path) -> None:
    rows = [(text, str(len(text) / 10)) for text, _ in make_reviews(120)]
    run = tunewell.run(
        model=str(tiny_model), train=str(save_csv(tmp_path / "t.csv", rows)), probes=["none"], max_steps=2, explain=0,
        bf16=False, validation_size=0.3, output_dir=str(tmp_path / "run"), echo=lambda line: None, progress=False,
        task="text-regression",
    )  # fmt: skip
    done = command(run.dir, tmp_path / "t.csv", "--coverage", "0.8", "-o", tmp_path / "o.csv")
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "o.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "text,label,prediction,prediction_low,prediction_high"
    middle, low, high = map(float, lines[1].split(",")[2:])
    known = np.load(run.dir / "conformal.npz")["distance"]
    k = int(np.ceil((len(known) + 1) * 0.8))
    assert (high - low) / 2 == pytest.approx(np.sort(known)[k - 1], abs=2e-6)
    assert (high + low) / 2 == pytest.approx(middle, abs=2e-6)
    assert 'id="trust"' in run.report_path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--coverage", "90"], "did you mean 0.9?"),
        (["--coverage", "0"], "above 0 and below 1"),
        (["--coverage", "0.99"], "60 validation rows are too few to promise a coverage of 0.99"),
        (["--coverage", "0.9", "--conformal", "app"], "did you mean `aps`?"),
        (["--coverage", "often"], "not a valid float"),
    ],
)
def test_promises_that_cannot_be_kept(options: list[str], said: str, run: tunewell.Run, tiny_csv: Path) -> None:
    done = command(run.dir, tiny_csv, *options)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plain_folder_promises_nothing(tiny_classifier: Path, tiny_csv: Path) -> None:
    done = command(tiny_classifier, tiny_csv, "--coverage", "0.9")
    assert done.exit_code == 2
    assert "has no calibration scores" in done.stderr


def test_maps_that_do_not_go_with_the_task(tiny_model: Path, save_csv: Any, tmp_path: Path) -> None:
    common = {"model": str(tiny_model), "probes": ["none"], "progress": False, "output_dir": str(tmp_path / "run")}
    several = save_csv(tmp_path / "m.csv", [(f"great crew {i}", "a|b" if i % 2 else "a") for i in range(60)])
    with pytest.raises(RecipeError, match="could change which labels"):
        tunewell.run(train=str(several), label_separator="|", calibrate="isotonic", echo=lambda line: None, **common)
    scores = save_csv(tmp_path / "s.csv", [(f"great crew {i}", f"{i / 7:.3f}") for i in range(60)])
    with pytest.raises(RecipeError, match="scores have none"):
        tunewell.run(train=str(scores), calibrate="temperature", echo=lambda line: None, **common)


def test_a_damaged_record_is_named(run: tunewell.Run) -> None:
    path = run.dir / "calibration.json"
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(before[:40], encoding="utf-8")
        with pytest.raises(DamagedRecordError, match="is damaged or of another version"):
            Predictor.load(run.dir)
    finally:
        path.write_text(before, encoding="utf-8")


def test_the_report_shows_it(run: tunewell.Run) -> None:
    html = run.report_path.read_text(encoding="utf-8")
    for said in ('id="trust"', "Prediction sets", "Leaving the unsure answers", "Brier score"):
        assert said in html
