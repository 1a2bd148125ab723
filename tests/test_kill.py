"""`kill -9` at any moment, and the same command again ends with the very same result; two at once are refused."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATIENCE = 1_200  # seconds for one start on a busy machine
OWN_TO_A_START = ("seconds", "peak_memory_mb", "verdict")  # of summary.json; the verdict tells the time that it took


class Kills:
    """A working folder with data, a probe and the command line of a run on the tiny model."""

    def __init__(self, folder: Path, model: Path, rows: list[tuple[str, str]]) -> None:
        self.folder, self.model = folder, model
        for name, part in (("reviews.csv", rows[:200]), ("probe.csv", rows[200:])):
            with (folder / name).open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *part])

    def start(self, name: str) -> subprocess.Popen:
        line = [sys.executable, "-m", "tunewell", "run", "--model", str(self.model), "--train", "reviews.csv"]
        line += ["--probes", "none", "--probe_files", "probe.csv", "--strategy", "average"]
        line += ["--num_train_epochs", "6", "--learning_rate", "1e-3", "--no-bf16", "--threads", "1"]
        line += ["--output_dir", name]
        environment = {**os.environ, "TUNEWELL_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}
        with self.told(name).open("ab") as said:
            return subprocess.Popen(line, cwd=self.folder, env=environment, stdout=said, stderr=said)

    def told(self, name: str) -> Path:
        return self.folder / f"{name}.txt"

    def finish(self, name: str) -> dict[str, object]:
        """Run to the end; what counts of the result."""
        process = self.start(name)
        assert process.wait(PATIENCE) == 0, self.told(name).read_text(encoding="utf-8")
        run = self.folder / name
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        assert not list(run.rglob(".*.tmp"))
        return {
            "predictions": (run / "predictions.csv").read_bytes(),
            "weights": (run / "model" / "model.safetensors").read_bytes(),
            "summary": {k: v for k, v in summary.items() if k not in OWN_TO_A_START},
            "choice": json.loads((run / "choice.json").read_text(encoding="utf-8")),
            "retention": {**json.loads((run / "retention.json").read_text(encoding="utf-8")), "seconds": 0},
            "check": {**json.loads((run / "check.json").read_text(encoding="utf-8")), "seconds": 0},
        }

    def kill(self, name: str, point: str) -> None:
        """Start; end it by SIGKILL when a line of it begins with `point`, or, for "checkpoint", when one is whole."""
        before = self.told(name).stat().st_size if self.told(name).exists() else 0
        process, deadline = self.start(name), time.monotonic() + PATIENCE
        try:
            while not self._reached(name, point, before):
                assert process.poll() is None, f"ended before {point}: {self.told(name).read_text(encoding='utf-8')}"
                assert time.monotonic() < deadline
                time.sleep(0.005)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not (self.folder / name / "summary.json").exists()

    def _reached(self, name: str, point: str, before: int) -> bool:
        if point == "checkpoint":
            return any((self.folder / name / "train").rglob("whole.json"))
        with self.told(name).open("rb") as file:
            file.seek(before)
            return any(line.startswith(point.encode()) for line in file)


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, make_reviews) -> Kills:
    return Kills(tmp_path_factory.mktemp("kills"), tiny_model, make_reviews(280))


@pytest.fixture(scope="module")
def uninterrupted(kills: Kills) -> dict[str, object]:
    return kills.finish("whole")


def same(found: dict[str, object], expected: dict[str, object]) -> None:
    for key, value in expected.items():
        assert found[key] == value, key


def test_killed_twice_it_ends_as_if_nothing_had_happened(kills: Kills, uninterrupted: dict[str, object]) -> None:
    kills.kill("twice", "baselines")
    kills.kill("twice", "checkpoint")
    same(kills.finish("twice"), uninterrupted)
    told = kills.told("twice").read_text(encoding="utf-8")
    assert told.count("check: ") == 1  # the stages that were done are not repeated
    assert told.count("tune: continuing from checkpoint-") == 1


@pytest.mark.slow
@pytest.mark.parametrize("point", ["task", "check", "baselines", "probe", "tune", "checkpoint", "choose", "round trip"])
def test_killed_anywhere(kills: Kills, uninterrupted: dict[str, object], point: str) -> None:
    name = point.replace(" ", "-")
    kills.kill(name, point)
    same(kills.finish(name), uninterrupted)


@pytest.mark.slow
def test_two_at_once_in_one_folder(kills: Kills) -> None:
    first = kills.start("shared")
    try:
        while b"task: " not in kills.told("shared").read_bytes():
            assert first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)  # it holds the folder, however long the second one takes to start
        second = kills.start("shared")
        assert second.wait(PATIENCE) == 2
        told = kills.told("shared").read_text(encoding="utf-8")
        assert f"another tunewell process is working in this folder (process {first.pid})" in told
    finally:
        first.kill()
        first.wait()
