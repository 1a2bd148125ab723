"""Places that cannot be written, or that belong to something else."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FAST = ["--probes", "none", "--strategy", "plain", "--max_steps", "2"]


@pytest.fixture
def run(here: Path, refused: Callable, tiny_model: Path, make_reviews, save_csv) -> Callable:
    """A run on good data into the folder that is named."""
    save_csv(here / "a.csv", make_reviews(60))

    def call(folder: str, *args: object, **options):
        return refused(
            "run", "--model", tiny_model, "--train", "a.csv", *FAST, "--output_dir", folder, *args, **options
        )

    return call


def test_below_a_file(run: Callable) -> None:
    run("a.csv/runs", says=("a.csv/runs", "name another --output_dir"))


def test_a_file(run: Callable) -> None:
    run("a.csv", says="a.csv: is a file, not a folder")


def test_other_things(here: Path, run: Callable) -> None:
    (here / "photos").mkdir()
    (here / "photos" / "cat.jpg").write_text("meow")
    run("photos", says="photos: holds other things than a run")
    run("photos", "--overwrite_output_dir", says="photos: holds other things than a run")
    assert (here / "photos" / "cat.jpg").read_text() == "meow"


def test_locked(here: Path, run: Callable) -> None:
    folder = here / "runs" / "busy"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("train: a.csv\n")
    with (folder / ".lock").open("w") as lock:
        lock.write("12345")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        run("runs/busy", says=("another tunewell process is working in this folder (process 12345)", "wait for it"))


def test_no_permission(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom no permission stops: the refusal of the system is imitated."""
    make = os.mkdir

    def refuse(path, *args, **options):
        if "forbidden" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return make(path, *args, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    run("forbidden/x", says=("forbidden/x", "Permission denied", "mend the permissions"))


def test_no_permission_to_read(
    here: Path, refused: Callable, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "secret.csv").write_text("text,label\na,b\n")
    open_ = Path.open

    def refuse(self, *args, **options):
        if self.name == "secret.csv":
            raise PermissionError(13, "Permission denied", str(self))
        return open_(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    refused("run", "--model", tiny_model, "--train", "secret.csv", says="secret.csv: no permission to read")


@pytest.mark.parametrize("kilobytes", [2, 40, 200])
def test_disk_full(here: Path, tiny_model: Path, make_reviews, save_csv, kilobytes: int) -> None:
    """No file may grow beyond so many kilobytes, as when a disk fills up: first records, then weights fail."""
    save_csv(here / "a.csv", make_reviews(60))
    code = "import sys; from tunewell.cli import main; sys.argv[0] = 'tunewell'; main()"
    line = ["run", "--model", str(tiny_model), "--train", "a.csv", *FAST, "--output_dir", "runs/x"]

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, kilobytes << 10))

    done = subprocess.run(
        [sys.executable, "-c", code, *line], capture_output=True, text=True, check=False, preexec_fn=limit
    )
    assert done.returncode == 2, done.stderr
    assert "error: " in done.stderr
    assert "File too large" in done.stderr or "No space left" in done.stderr
    assert "fault of tunewell" not in done.stderr
    left = [p.name for p in here.rglob("*") if p.is_file()]
    assert not [name for name in left if name.endswith((".tmp", ".part"))], left
    assert "summary.json" not in left
    assert "report.html" not in left


def test_a_run_goes_on_once_there_is_space_again(
    here: Path, tunewell: Callable, tiny_model: Path, make_reviews, save_csv, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_csv(here / "a.csv", make_reviews(60))
    line = ["run", "--model", tiny_model, "--train", "a.csv", *FAST, "--output_dir", "runs/x"]
    replace, full = os.replace, True

    def refuse(source, target, *args, **options):
        if full and str(target).endswith("evaluation.json"):
            raise OSError(28, "No space left on device", str(target))
        return replace(source, target, *args, **options)

    monkeypatch.setattr(os, "replace", refuse)
    stopped = tunewell(*line)
    assert stopped.exit_code == 2, stopped.output
    assert "evaluation.json: cannot write: No space left on device" in stopped.stderr
    full = False
    again = tunewell(*line)
    assert again.exit_code == 0, again.output
    assert "tune:" not in again.stderr  # the tuned weights were kept
    assert (here / "runs" / "x" / "report.html").is_file()
