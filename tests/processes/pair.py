"""Starts jobs.py in this process and in several, and holds what they leave against each other."""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

JOBS = Path(__file__).with_name("jobs.py")
PATIENCE = 600


def asked(request: Any) -> list[str]:
    """The names of cases that are asked for of a module."""
    items = [i for i in request.session.items if i.module is request.module and "name" in i.fixturenames]
    return list(dict.fromkeys(i.callspec.params["name"] for i in items))


def alone(folder: Path, cases: dict[str, dict[str, Any]]) -> Path:
    """The cases in this process."""
    runpy.run_path(str(JOBS))["tuned"](folder, cases)
    return folder


def start(folder: Path, cases: dict[str, dict[str, Any]], n: int = 2) -> list[subprocess.Popen]:
    """The cases in `n` processes on gloo."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.json").write_text(json.dumps({"folder": str(folder), "cases": cases}), encoding="utf-8")
    return launch(folder, [str(JOBS), str(folder / "cases.json")], n)


def launch(folder: Path, command: list[str], n: int = 2) -> list[subprocess.Popen]:
    """A script in `n` processes, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {**os.environ, "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1"}
    together |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"}
    started = []
    for rank in range(n):
        with (folder / f"said-{rank}.txt").open("ab") as said:
            environment = {**together, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            started.append(subprocess.Popen([sys.executable, *command], env=environment, stdout=said, stderr=said))
    return started


def finish(folder: Path, started: list[subprocess.Popen]) -> Path:
    codes = [process.wait(PATIENCE) for process in started]
    assert codes == [0] * len(started), said(folder, len(started))
    return folder


def said(folder: Path, n: int) -> str:
    return "".join((folder / f"said-{i}.txt").read_text()[-3000:] for i in range(n))


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "train" / "training.json").read_text())


def together(folder: Path, cases: dict[str, dict[str, Any]], n: int = 2) -> Path:
    return finish(folder, start(folder, cases, n))


def same(one: Path, two: Path, *, weights: float = 2e-4, losses: float = 1e-4, norms: float = 1e-2) -> None:
    """Two run folders hold the same tuning, within float noise."""
    from safetensors.numpy import load_file

    first, second = (load_file(str(run / "train" / "tuned.safetensors")) for run in (one, two))
    assert list(second) == list(first)
    for name, array in first.items():
        if name.endswith("key.bias"):  # without effect: its gradient is noise, which Adam makes steps of
            continue
        np.testing.assert_allclose(second[name], array, atol=weights, err_msg=name)
    records = [record(run) for run in (one, two)]
    for key in ("steps", "epochs", "examples", "tokens", "padding_share", "best_step", "trainable_parameters"):
        if key == "padding_share" and records[0][key]:
            continue  # parts of a batch are padded to their own longest row
        assert records[1][key] == records[0][key], key
    for key, close in (("loss", losses), ("grad_norm", norms)):
        found = [[e[key] for e in r["history"] if key in e] for r in records]
        assert found[1] == pytest.approx(found[0], rel=close, abs=1e-4), key


def without_dropout(model: Path, to: Path) -> Path:
    """A copy of a model folder whose dropout is off: masks fall on other rows with other processes."""
    import shutil

    shutil.copytree(model, to)
    config = json.loads((to / "config.json").read_text())
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout_rate", "dropout", "attention_dropout"):
        if key in config:
            config[key] = 0.0
    (to / "config.json").write_text(json.dumps(config))
    return to
