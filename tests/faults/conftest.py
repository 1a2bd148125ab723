"""A working folder, a server that forks runs with faults, and what an uninterrupted run gives."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

OWN_TO_A_START = ("seconds", "peak_memory_mb", "verdict")  # of summary.json


class Faults:
    """Starts runs of one recipe in folders by name, each start with a fault or none."""

    def __init__(self, folder: Path, model: Path, decoder: Path, rows: list[tuple[str, str]]) -> None:
        self.folder, self.model, self.decoder = folder, model, decoder
        for name, part in (("reviews.csv", rows[:120]), ("probe.csv", rows[120:])):
            with (folder / name).open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *part])
        (folder / "general.txt").write_text("\n".join(t for t, _ in rows[:64]), encoding="utf-8")
        with (folder / "talks.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("prompt", "completion"), *((t, label) for t, label in rows[:60])])
        environment = {
            **os.environ, "TUNEWELL_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        said = (folder / "server.txt").open("wb")
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=said, env=environment, text=True,
        )  # fmt: skip
        said.close()
        assert self._ask({"folder": str(folder), "line": self.line("warm")})["code"] == 0, self.said_by_server()
        self.expected: dict[str, dict[str, Any]] = {}  # by the line of a run, its own folder left out

    def said_by_server(self) -> str:
        return (self.folder / "server.txt").read_text(encoding="utf-8")

    def line(self, name: str) -> list[str]:
        return [
            "run", "--model", str(self.model), "--train", "reviews.csv", "--probes", "none", "--probe_files",
            "probe.csv", "--strategy", "ewc", "--strategy", "average", "--general_text", "general.txt", "--ewc_weight",
            "10", "--num_train_epochs", "2", "--learning_rate", "1e-3", "--no-bf16", "--threads", "1", "--quiet",
            "--gradient_accumulation_steps", "2", "--per_device_train_batch_size", "8", "--output_dir", name,
        ]  # fmt: skip

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(what) + "\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        assert answer, self.said_by_server()
        return json.loads(answer)

    def told(self, name: str) -> str:
        path = self.folder / f"{name}.txt"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def start(self, name: str, kind: str = "none", *, line: list[str] | None = None, **fault: Any) -> dict[str, Any]:
        line = [word for word in (line or self.line(name)) if word != "--quiet"]
        return self._ask({"line": line, "fault": {"kind": kind, **fault}, "told": str(self.folder / f"{name}.txt")})

    def writes(self) -> int:
        """The writes of an uninterrupted run."""
        self.start("counted", "count", file=str(self.folder / "writes"))
        return int((self.folder / "writes").read_text())

    def result(self, name: str) -> dict[str, Any]:
        run = self.folder / name
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        assert not list(run.rglob(".*.tmp"))
        files = {
            "predictions": run / "predictions.csv", "weights": run / "model" / "model.safetensors",
            "tuned": run / "train" / "tuned.safetensors", "dynamics": run / "train" / "dynamics.npz",
        }  # fmt: skip
        return {
            **{key: path.read_bytes() if path.is_file() else b"" for key, path in files.items()},
            "summary": {k: v for k, v in summary.items() if k not in OWN_TO_A_START},
            **{key: _record(run / f"{key}.json") for key in ("choice", "retention", "check")},
        }

    def goes_on(self, name: str, line: list[str] | None = None) -> None:
        """The same command again, without a fault: it ends as the uninterrupted run did, byte for byte.

        Args:
            line: of the command, `--output_dir NAME` at its end; by default the one of `line`.
        """
        line = line or self.line(name)
        kind = " ".join(line[:-1])
        if kind not in self.expected:
            whole = f"whole-{len(self.expected)}"
            assert self.start(whole, line=[*line[:-1], whole])["code"] == 0, self.told(whole)
            self.expected[kind] = self.result(whole)
        assert self.start(name, line=line)["code"] == 0, self.told(name)[-2000:]
        found = self.result(name)
        for key, value in self.expected[kind].items():
            assert found[key] == value, (name, key)


def _record(path: Path) -> dict[str, Any]:
    """A record without its time; empty where the run makes none."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {**found, "seconds": 0}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_decoder: Path, make_reviews):
    made = Faults(tmp_path_factory.mktemp("faults"), tiny_model, tiny_decoder, make_reviews(200))
    yield made
    made.server.stdin.close()  # it ends by itself then
    made.server.wait(60)
    made.server.stdout.close()
