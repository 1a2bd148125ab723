"""`report_to` in real tunings: what each tracker holds afterwards are the figures of metrics.jsonl."""

from __future__ import annotations

import json
import sqlite3
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.train.trackers import tracked


@pytest.fixture
def tune(tmp_path: Path, tiny_model: Path, make_reviews, save_csv, monkeypatch: pytest.MonkeyPatch):
    """Tunes the tiny model with a tracker and returns its JSON and the losses that metrics.jsonl holds."""
    save_csv(tmp_path / "reviews.csv", make_reviews(60))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(tracker: str) -> list[float]:
        done = CliRunner().invoke(
            app,
            ["tune", "--train", "reviews.csv", "--model", str(tiny_model), "--report_to", tracker, "--json",
             "--num_train_epochs", "1", "--max_length", "16", "--strategy", "plain", "--threads", "1", "--no-bf16",
             "--probes", "none", "--per_device_train_batch_size", "8", "--output_dir", "runs/tracked"],
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        json.loads(done.stdout)  # whatever a tracker prints
        lines = (tmp_path / "runs/tracked/train/metrics.jsonl").read_text(encoding="utf-8").splitlines()
        losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
        assert losses
        return losses

    return run


@pytest.mark.filterwarnings("ignore")
def test_tensorboard(tune, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    losses = tune("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = sorted((tmp_path / "runs/tracked").rglob("events.out.tfevents.*"))
    assert files
    found = EventAccumulator(str(files[0].parent))
    found.Reload()
    logged = [event.value for event in found.Scalars("train/loss")]
    assert logged == pytest.approx(losses, rel=1e-4)
    assert any(tag.startswith("eval/") for tag in found.Tags()["scalars"])


@pytest.mark.filterwarnings("ignore")
def test_mlflow(tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'tracked.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        losses = tune("mlflow")
        client = mlflow.MlflowClient(uri)
        (one,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
        assert one.info.status == "FINISHED"
        logged = [metric.value for metric in client.get_metric_history(one.info.run_id, "loss")]
        assert logged == pytest.approx(losses, rel=1e-4)
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged: list[float] = []
    log = wandb.Run.log

    def noted(self, data, *args, **more):
        logged.extend([data["train/loss"]] if "train/loss" in data else [])
        return log(self, data, *args, **more)

    monkeypatch.setattr(wandb.Run, "log", noted)
    losses = tune("wandb")
    assert logged == pytest.approx(losses, rel=1e-4)
    assert wandb.run is None
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"train/loss" in file.read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_trackio(tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio import utils

    losses = tune("trackio")
    (place,) = Path(utils.TRACKIO_DIR).glob("*.db")
    with sqlite3.connect(place) as base:
        rows = [json.loads(cell) for (cell,) in base.execute("select metrics from metrics order by id")]
    logged = [row["train/loss"] for row in rows if "train/loss" in row]
    assert logged[-len(losses) :] == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_of_wandb_ends_with_its_tuning_and_the_users_own_stays(monkeypatch: pytest.MonkeyPatch, fails: bool):
    module = types.SimpleNamespace(run=None, ended=0)

    def finish() -> None:
        module.run, module.ended = None, module.ended + 1

    module.finish = finish
    monkeypatch.setitem(sys.modules, "wandb", module)

    def work(names: list[str]) -> None:
        with tracked(names):
            module.run = module.run or object()
            if fails:
                raise RuntimeError

    def attempt(names: list[str]) -> None:
        try:
            work(names)
        except RuntimeError:
            assert fails

    attempt(["wandb"])
    assert module.ended == 1
    attempt(["wandb"])
    assert module.ended == 2
    module.run = "the user's"
    attempt(["wandb"])
    assert (module.ended, module.run) == (2, "the user's")
    module.run = None
    attempt(["none"])
    assert module.ended == 2
