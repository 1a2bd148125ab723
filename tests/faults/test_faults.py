"""Killed at any moment and at each write, with a full disk, a folder that cannot be written, two at once, a clock set
back, damaged files: the same command again ends with the bytes of a run to which nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from tunewell.folder import RunFolder

MOMENTS, EVERY = 24, 1  # slow: random moments; every how many-th write is killed at
DAMAGED = [  # of a finished run
    "train/tuned.safetensors", "train/training.json", "model/model.safetensors", "model/tokenizer.json", "choice.json",
    "evaluation.json", "predictions.csv", "check.json", "retention.json", "cache/baseline-scores.npz",
    "probes/before-report.npz", "probes/after-report.npz", "summary.json", "steps.json", "files.json", "recipe.yaml",
]  # fmt: skip


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def writes(faults) -> int:
    return faults.writes()


@pytest.mark.parametrize("share", [0.3, 0.55])
def test_killed_at_a_write(faults, writes, share):
    name = f"write-{share}"
    assert faults.start(name, "kill", at=int(share * writes))["code"] == -9
    assert not (faults.folder / name / "summary.json").exists()
    faults.goes_on(name)


def test_a_full_disk_is_told_of_and_nothing_is_lost(faults, writes):
    found = faults.start("full", "enospc", at=int(0.5 * writes))
    assert found["code"] == 2, faults.told("full")
    assert "No space left on device" in faults.told("full") and "Traceback" not in faults.told("full")
    faults.goes_on("full")


def test_two_in_one_folder(faults):
    with RunFolder(faults.folder / "held"):
        assert faults.start("held")["code"] == 2
    assert f"another tunewell process is working in this folder (process {os.getpid()})" in faults.told("held")


@pytest.mark.slow
def test_killed_at_each_write(faults, writes):
    killed = 0
    for at in range(1, writes + 1, EVERY):
        name = f"each-{at}"
        assert faults.start(name, "kill", at=at)["code"] == -9, at
        faults.goes_on(name)
        shutil.rmtree(faults.folder / name)
        killed += 1
    print(f"\nkilled at {killed} of {writes} writes, each run went on to the same bytes")


@pytest.mark.slow
def test_killed_at_random_moments(faults):
    whole = min(faults.start(name)["seconds"] for name in ("measure", "again"))  # the machine may be slow at first
    rng, killed = random.Random(0), 0
    for i in range(MOMENTS):
        name = f"moment-{i}"
        killed += faults.start(name, "kill", after=rng.uniform(0.02, 0.95) * whole)["code"] == -9
        faults.goes_on(name)
        shutil.rmtree(faults.folder / name)
    print(f"\nkilled at {killed} of {MOMENTS} random moments, each run went on to the same bytes")
    assert killed >= 20


@pytest.mark.slow
def test_killed_again_and_again(faults):
    """One folder, killed ever later, until a start gets through."""
    starts = 0
    for at in range(10, 10_000, 10):
        starts += 1
        if faults.start("again", "kill", at=at)["code"] == 0:
            break
    assert starts > 3
    faults.goes_on("again")


@pytest.mark.slow
def test_stopped_politely_at_random_moments(faults):
    """SIGTERM: exit code 143 within ten seconds, wherever it comes."""
    whole = faults.start("polite-measure")["seconds"]
    rng, stopped = random.Random(1), 0
    for i in range(12):
        name = f"polite-{i}"
        found = faults.start(name, "term", after=rng.uniform(0.05, 0.9) * whole)
        assert found["code"] in (143, 0) and found["left_after"] < 10, found
        stopped += found["code"] == 143
        faults.goes_on(name)
    print(f"\nstopped by SIGTERM {stopped} times")
    assert stopped >= 8


@pytest.mark.slow
def test_a_full_disk_at_many_writes(faults, writes):
    for at in range(1, writes + 1, 9):
        name = f"full-{at}"
        found = faults.start(name, "enospc", at=at)
        assert found["code"] in (2, 0) and "Traceback" not in faults.told(name), (at, faults.told(name))
        faults.goes_on(name)
        shutil.rmtree(faults.folder / name, ignore_errors=True)


@pytest.mark.slow
def test_a_clock_set_back(faults, writes):
    assert faults.start("clock", "kill", at=int(0.6 * writes))["code"] == -9
    assert faults.start("clock", "clock")["code"] == 0
    faults.goes_on("clock")


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_of_a_finished_run_is_made_again(faults, name):
    faults.goes_on("damaged")
    flip(faults.folder / "damaged" / name)
    faults.goes_on("damaged")


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_or_cache(faults, writes, damage):
    assert faults.start(damage, "kill", at=int(0.6 * writes))["code"] == -9
    train = faults.folder / damage / "train"
    checkpoints = sorted(train.glob("checkpoints/checkpoint-*"))
    assert checkpoints and (train / "cache" / "ewc.safetensors").is_file()
    for path in [checkpoints[-1] / "optimizer.pt", train / "cache" / "ewc.safetensors"]:
        if damage == "flip":
            flip(path)
        else:
            os.truncate(path, path.stat().st_size // 2 if damage == "cut" else 0)
    faults.goes_on(damage)
    told = faults.told(damage)
    assert "is passed over: optimizer.pt " in told and "ewc: what was kept of an earlier start is measured" in told


@contextlib.contextmanager
def refusing(folder: Path):
    """Nobody may write in a folder, or in any below."""
    modes = {place: place.stat().st_mode for place in [folder, *folder.rglob("*")] if place.is_dir()}
    for place in modes:
        place.chmod(0o555)
    try:
        yield
    finally:
        for place, mode in modes.items():
            place.chmod(mode)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@pytest.mark.skipif(sys.platform != "linux", reason="the root user is bound to permissions on Linux only")
def test_a_folder_that_cannot_be_written(faults):
    """The folder in which the run's own is to be made; that of a run which was killed, once it has checkpoints."""
    locked = faults.folder / "locked"
    locked.mkdir()
    with refusing(locked):
        assert faults.start("locked-told", "bound", line=[*faults.line("")[:-1], "locked/run"])["code"] == 2
    told = faults.told("locked-told")
    assert "Permission denied" in told and "locked/run" in told and "Traceback" not in told
    assert not list(locked.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="the root user is bound to permissions on Linux only")
@pytest.mark.parametrize("part", [".", "train"])
def test_a_killed_run_whose_folder_cannot_be_written_any_more(faults, part):
    name = f"closed-{len(part)}"
    assert faults.start(name, "kill", on="train/tuned.safetensors" if part == "." else "checkpoint-")["code"] == -9
    folder = faults.folder / name
    before = everything(folder / "train")
    with refusing(folder / part):
        found = faults.start(name, "bound")
        told = faults.told(name)
        assert found["code"] == 2, told
        assert "Permission denied" in told and name in told and "Traceback" not in told, told
        assert everything(folder / "train") == before
    faults.goes_on(name)
