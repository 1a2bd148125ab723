"""`torchrun` with two processes on gloo gives what one process gives, within float noise."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PATIENCE = 600
KEYS = [
    "--num_train_epochs", "2", "--learning_rate", "1e-3", "--no-bf16", "--threads", "1", "--max_length", "32",
    "--per_device_train_batch_size", "8", "--evals_per_epoch", "2", "--early_stopping_patience", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model: Path, make_reviews, save_csv) -> Path:
    """A folder with data and a model without dropout: masks are drawn for other rows with other processes."""
    import shutil

    folder = tmp_path_factory.mktemp("processes")
    shutil.copytree(tiny_model, folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    rows = make_reviews(150)
    save_csv(folder / "train.csv", rows[:67])  # batches of 8 and one of 3: uneven parts
    save_csv(folder / "validation.csv", rows[67:110])
    save_csv(folder / "test.csv", rows[110:])
    (folder / "general.txt").write_text("\n".join(t for t, _ in make_reviews(64, seed=9)))
    (folder / "scores.csv").write_text(
        "text,label\n" + "\n".join(f"{t},{i % 7 / 2}" for i, (t, _) in enumerate(rows[:120]))
    )
    return folder


def line(name: str, *more: str, train: str = "train.csv") -> list[str]:
    files = ["--validation", "validation.csv", "--test", "test.csv"] if train == "train.csv" else []
    return [
        "run", "--model", "model", "--train", train, *files, "--probes", "none", "--general_text", "general.txt",
        *KEYS, *more, "--output_dir", name,
    ]  # fmt: skip


def start(place: Path, arguments: list[str], processes: int) -> subprocess.Popen:
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--nproc-per-node", str(processes)]
        launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m"]
    launcher += ["tunewell"]
    environment = {
        **os.environ, "TUNEWELL_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    said = (place / f"{arguments[-1]}.txt").open("ab")
    with said:
        return subprocess.Popen([*launcher, *arguments], cwd=place, env=environment, stdout=said, stderr=said)


def finish(place: Path, arguments: list[str], processes: int, code: int = 0) -> Path:
    found = start(place, arguments, processes).wait(PATIENCE)
    assert found == code, (place / f"{arguments[-1]}.txt").read_text()[-3000:]
    return place / arguments[-1]


def weights(run: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(str(run / "train" / "tuned.safetensors"))


def same_within_noise(one: Path, two: Path, tolerance: float = 2e-4) -> None:
    first, second = weights(one), weights(two)
    for name, array in first.items():
        if name.endswith("key.bias"):  # without effect: its gradient is noise, which Adam makes steps of
            continue
        np.testing.assert_allclose(second[name], array, atol=tolerance, err_msg=name)
    records: list[dict[str, Any]] = [json.loads((r / "train" / "training.json").read_text()) for r in (one, two)]
    for key in ("steps", "epochs", "examples", "tokens", "best_step", "stopped_early"):
        assert records[0][key] == records[1][key], key
    losses = [[e["loss"] for e in r["history"] if "loss" in e] for r in records]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    norms = [[e["grad_norm"] for e in r["history"] if "grad_norm" in e] for r in records]
    assert norms[1] == pytest.approx(norms[0], rel=1e-2)
    dynamics = [np.load(r / "train" / "dynamics.npz")["margin"] for r in (one, two)]
    np.testing.assert_allclose(dynamics[1], dynamics[0], atol=1e-3)
    assert records[0]["stopped_early"] or np.isfinite(dynamics[1]).all()


@pytest.mark.slow
def test_torchrun_gives_what_one_process_gives(place):
    """EWC and an average along tuning, rows accumulated over two batches, an odd number of rows."""
    more = ("--strategy", "ewc", "--strategy", "ema", "--ema_decay", "0.5", "--gradient_accumulation_steps", "2")
    one = finish(place, line("one", *more), 1)
    two = finish(place, line("two", *more), 2)
    same_within_noise(one, two)
    assert (
        json.loads((two / "summary.json").read_text())["test"] == json.loads((one / "summary.json").read_text())["test"]
    )
    assert (place / "two.txt").read_text().count("tune: ewc") == 1  # one process speaks


def test_other_commands_and_what_cannot_be_shared_are_refused(place, monkeypatch, tmp_path):
    from tunewell import processes
    from tunewell.errors import RecipeError
    from tunewell.folder import RunFolder

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (processes.size(), processes.rank()) == (2, 0)
    with pytest.raises(RecipeError, match="2 processes were started, and work in a run folder is done by one"):
        RunFolder(tmp_path / "x")


def test_rows_are_dealt_out_whole():
    from tunewell.processes import Dealt
    from tunewell.train.batching import LikeLengthBatches

    batches = LikeLengthBatches(np.array([5, 9, 5, 9, 7, 3, 3]), rows=3, tokens=100, seed=0)
    parts = [Dealt(batches, place=i, of=2) for i in range(2)]
    assert len(parts[0]) == len(batches) == 3
    seen: list[int] = []
    for part in parts:
        part.set_epoch(1)
        for rows in part:
            seen += [] if part.idle else rows
    assert sorted(seen) == list(range(7))  # the batch of one row is idle at the second process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more", "train"),
    [
        ("plain", (), "train.csv"),
        ("distill", ("--strategy", "distill", "--strategy", "lpft"), "train.csv"),
        ("lora", ("--strategy", "lora"), "train.csv"),
        ("gpm", ("--strategy", "gpm", "--strategy", "swa", "--swa_start", "0.3"), "train.csv"),
        ("l2sp", ("--strategy", "l2sp", "--early_stopping_patience", "1"), "train.csv"),
        ("balanced", ("--class_weight", "balanced", "--label_smoothing_factor", "0.1"), "train.csv"),
        ("scores", (), "scores.csv"),
    ],
)
def test_two_processes_give_what_one_gives_for_each(place, name, more, train):
    one = finish(place, line(f"{name}-1", *more, train=train), 1)
    two = finish(place, line(f"{name}-2", *more, train=train), 2)
    same_within_noise(one, two)


@pytest.mark.slow
def test_a_model_in_parts_leaves_the_same_run(place):
    """With `fsdp` the run folder holds the same files, the weights whole, and says the same."""
    one = finish(place, line("together", "--strategy", "l2sp"), 1)
    two = finish(place, line("parts", "--strategy", "l2sp", "--fsdp"), 2)
    same_within_noise(one, two)
    files = [sorted(str(f.relative_to(run)) for f in run.rglob("*") if f.is_file()) for run in (one, two)]
    assert files[1] == files[0]
    tests = [json.loads((run / "summary.json").read_text())["test"] for run in (one, two)]
    assert tests[1] == tests[0]
    said = (place / "parts.txt").read_text()
    assert said.count("tune: weights, gradients and moments are in 2 parts") == 1
    assert "Warning" not in said


@pytest.mark.slow
def test_killed_and_stopped_it_goes_on(place):
    """SIGKILL to all, then SIGTERM to the launcher, then to the end: as if nothing had happened."""
    more = ("--num_train_epochs", "12")
    one = finish(place, line("once", *more), 2)
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = start(place, line("often", *more), 2)
        told = place / "often.txt"
        before = len(list((place / "often" / "train" / "checkpoints").glob("*/whole.json")))
        deadline = time.monotonic() + PATIENCE
        while len(list((place / "often" / "train" / "checkpoints").glob("*/whole.json"))) <= min(before, 1):
            assert process.poll() is None and time.monotonic() < deadline, told.read_text()[-2000:]
            time.sleep(0.02)
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
        if number == signal.SIGKILL:
            for pid in [process.pid, *map(int, children.stdout.split())]:
                os.kill(pid, signal.SIGKILL)
        else:
            process.send_signal(number)
        assert process.wait(60) != 0
    finish(place, line("often", *more), 2)
    first, second = weights(one), weights(place / "often")
    assert all((first[k] == second[k]).all() for k in first)
    assert "tune: continuing from checkpoint-" in (place / "often.txt").read_text()


@pytest.mark.slow
def test_what_several_processes_do_not_do_is_said(place):
    finish(place, line("sam", "--strategy", "sam"), 2, code=1)  # torchrun's own code
    assert "`strategy: sam` is tuned by one process, and 2 were started" in (place / "sam.txt").read_text()
