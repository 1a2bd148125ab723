"""What counts as whole: sealed checkpoints, the files of finished stages, what is kept between starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tunewell.folder import RunFolder
from tunewell.seal import broken, seal
from tunewell.train.checkpoint import by_step, last_whole, seal_and_rotate
from tunewell.train.hooks import Tuning


def checkpoint(folder: Path, step: int, *, best: int | None = None) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(bytes(range(200)))
    named = None if best is None else f"elsewhere/checkpoint-{best}"
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "best_model_checkpoint": named}))
    seal(path)
    return path


def flip(path: Path) -> None:
    """Another byte in the middle of a file, its size and times as before."""
    import os

    state, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda p: (p / "whole.json").unlink(), "it was not written to its end"),
        (lambda p: (p / "whole.json").write_text("{"), "its seal cannot be read"),
        (lambda p: flip(p / "optimizer.pt"), "optimizer.pt is not what was written"),
        (lambda p: (p / "optimizer.pt").write_bytes(b"x"), "optimizer.pt has 1 bytes instead of 200"),
        (lambda p: (p / "optimizer.pt").unlink(), "optimizer.pt is missing"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_in_one_line(tmp_path, damage, told):
    first, last = checkpoint(tmp_path, 4), checkpoint(tmp_path, 8)
    damage(last)
    said: list[str] = []
    assert last_whole(tmp_path, said.append) == first
    assert said == [f"tune: checkpoint-8 is passed over: {told}"]
    assert not last.exists()


def test_a_whole_checkpoint_whose_best_is_gone_does_not_count(tmp_path):
    checkpoint(tmp_path, 4)
    best, last = checkpoint(tmp_path, 8), checkpoint(tmp_path, 12, best=8)
    assert last_whole(tmp_path) == last
    flip(best / "optimizer.pt")
    said: list[str] = []
    assert last_whole(tmp_path, said.append) == tmp_path / "checkpoint-4"
    assert said[0].startswith("tune: checkpoint-12 is passed over: the best one so far, checkpoint-8, does not count")
    assert last_whole(tmp_path / "nothing") is None


def test_checkpoints_rotate_by_step_and_the_best_stays(tmp_path):
    import os

    for step in (4, 8, 12, 16):
        path = checkpoint(tmp_path, step, best=4)
        os.utime(path, (2e9 - step, 2e9 - step))  # a clock that goes backwards
        seal_and_rotate(path, keep=2, best="elsewhere/checkpoint-4")
    assert [p.name for p in by_step(tmp_path)] == ["checkpoint-4", "checkpoint-16"]
    seal_and_rotate(checkpoint(tmp_path, 20), keep=3, best="checkpoint-4")
    assert [p.name for p in by_step(tmp_path)] == ["checkpoint-4", "checkpoint-16", "checkpoint-20"]


def test_a_folder_of_a_finished_stage_that_is_damaged_is_made_again(tmp_path):
    said: list[str] = []
    made = []

    def make() -> int:
        (tmp_path / "run" / "model").mkdir(exist_ok=True, parents=True)
        (tmp_path / "run" / "model" / "weights").write_bytes(bytes(100))
        (tmp_path / "run" / "out.json").write_text("[1]")
        made.append(1)
        return 1

    def start() -> int:
        with RunFolder(tmp_path / "run") as folder:
            folder.say = said.append
            return folder.step("choose", "key", ["out.json", "model"], make, lambda: 0)

    assert start() == 1 and start() == 0 and not said
    (tmp_path / "run" / "model" / "README.md").write_text("a file more is no damage")
    assert start() == 0
    flip(tmp_path / "run" / "model" / "weights")
    assert start() == 1 and start() == 0
    assert said == ["choose: done again, since a file of it is damaged (model: weights is not what was written)"]
    (tmp_path / "run" / "files.json").write_text("{")  # nothing is known: taken as it is, as of earlier versions
    assert start() == 0 and len(made) == 2


def test_importances_that_are_damaged_are_measured_again(tmp_path):
    from tunewell.strategies.quadratic import cached

    said: list[str] = []
    tuning = Tuning(None, None, 1, 1, 1.0, 0, False, tmp_path, said.append)  # type: ignore[arg-type]
    calls = []

    def measure():
        calls.append(1)
        return {"w": torch.arange(50.0)}

    assert torch.equal(cached(tuning, "ewc", measure)["w"], cached(tuning, "ewc", measure)["w"])
    assert len(calls) == 1
    flip(tmp_path / "ewc.safetensors")
    cached(tuning, "ewc", measure)
    assert len(calls) == 2
    assert said == ["ewc: what was kept of an earlier start is measured again: ewc.safetensors is not what was written"]
    assert broken(tmp_path / "ewc.safetensors") is None


def test_converted_data_in_the_cache_that_is_damaged_is_converted_again(tmp_path, monkeypatch):
    from tunewell.data import arrow
    from tunewell.data.load import load

    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(arrow, "IN_MEMORY", 100)
    (tmp_path / "a.csv").write_text("text,label\n" + "good word,a\nbad word,b\n" * 50)
    first = load(tmp_path / "a.csv").dataset["text"][:]
    (kept,) = (tmp_path / "cache" / "data").glob("*.arrow")
    whole = kept.read_bytes()
    changed = whole.replace(b"good word", b"evil word", 1)
    assert changed != whole
    kept.write_bytes(changed)
    assert load(tmp_path / "a.csv").dataset["text"][:] == first
    assert kept.read_bytes() == whole


def test_the_state_of_a_seal_does_not_depend_on_the_clock(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(3))
    seal(path)
    import os

    os.utime(path, (0, 0))
    assert broken(path) is None
