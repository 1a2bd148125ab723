"""Two processes that tune together give the weights of one, within float noise."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORK = Path(__file__).with_name("work.py")


def test_two_processes_give_what_one_gives(tiny_model, make_reviews, tmp_path):
    """EWC, distillation and an average along tuning; steps of two batches, the last of one; batches of odd parts."""
    from safetensors.numpy import load_file

    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # masks fall on other rows
    (model / "config.json").write_text(json.dumps(config))
    (tmp_path / "general.txt").write_text("\n".join(t for t, _ in make_reviews(64, seed=9)))
    rows = make_reviews(37)  # four batches of 8 and one of 5
    settings = {
        "model": str(model),
        "texts": [t for t, _ in rows],
        "labels": [int(label == "positive") for _, label in rows],
        "strategies": ["ewc", "distill", "ema"],
        "keys": {
            "num_train_epochs": 2, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "bf16": False,
            "learning_rate": 1e-3, "threads": 1, "evals_per_epoch": 2, "general_samples": 32, "ewc_weight": 10.0,
            "general_text": str(tmp_path / "general.txt"), "early_stopping_patience": 2, "ema_decay": 0.5,
        },
    }  # fmt: skip
    one = runpy.run_path(str(WORK))["tuned"]({**settings, "folder": str(tmp_path / "one")})
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "folder": str(tmp_path / "two")}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {**os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    together |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(
            [sys.executable, str(WORK), str(tmp_path / "settings.json")],
            env={**together, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    assert [process.wait(600) for process in started] == [0, 0]
    two, other = (json.loads((tmp_path / f"record-{rank}.json").read_text()) for rank in range(2))
    for key in ("steps", "examples", "tokens", "best_step", "stopped_early"):
        assert one[key] == two[key] == other[key], key
    assert two["validations"] == one["validations"] and other["validations"] == 0  # process 0 validates, and tells
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4)
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-2)
    first, second = (load_file(str(tmp_path / name / "weights.safetensors")) for name in ("one", "two"))
    for name, array in first.items():
        np.testing.assert_allclose(second[name], array, atol=2e-4, err_msg=name)
    margins = [np.load(tmp_path / name / "dynamics.npz")["margin"] for name in ("one", "two")]
    np.testing.assert_allclose(margins[1], margins[0], atol=1e-3)
