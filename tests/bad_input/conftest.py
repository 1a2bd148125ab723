"""What all bad-input tests share: commands run in an empty folder that must look the same afterwards."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tunewell.cli import app

FAST = ["--probes", "none", "--strategy", "plain", "--max_steps", "2", "--output_dir", "runs/x"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with caches of its own."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))
    return folder


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, and a hash of its content."""
    out = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with open(path, "rb") as file:  # not Path.open, which a test may have replaced
            out[str(path.relative_to(folder))] = hashlib.sha256(file.read()).hexdigest()
    return out


@pytest.fixture
def tunewell(here: Path) -> Callable[..., Result]:
    """Run a command line in `here`."""

    def call(*args: object, **options) -> Result:
        return CliRunner().invoke(app, [str(a) for a in args], **options)

    return call


@pytest.fixture
def refused(here: Path, tunewell: Callable[..., Result]) -> Callable[..., Result]:
    """Run a command line that must fail: with this code, these words on stderr, nothing on stdout, nothing written."""

    def call(*args: object, code: int = 2, says: tuple[str, ...] | str = (), **options) -> Result:
        before = tree(here)
        result = tunewell(*args, **options)
        told = f"{result.output}\n{result.exception!r}"
        assert result.exit_code == code, told
        for words in (says,) if isinstance(says, str) else says:
            assert words in result.stderr, told
        assert "Traceback" not in result.stderr
        assert "fault of tunewell" not in result.stderr
        assert result.stdout == ""
        assert tree(here) == before
        assert not (here / "runs" / "x").exists()
        return result

    return call


@pytest.fixture
def run_refused(refused: Callable[..., Result], tiny_model: Path) -> Callable[..., Result]:
    """`refused` for `tunewell run` with the tiny model, two steps and no probes."""

    def call(*args: object, **options) -> Result:
        return refused("run", "--model", tiny_model, *FAST, *args, **options)

    return call


@pytest.fixture
def broken_model(tiny_model: Path, here: Path) -> Path:
    """A copy of the tiny model, to be broken."""
    return Path(shutil.copytree(tiny_model, here / "model"))
