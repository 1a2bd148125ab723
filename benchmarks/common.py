"""What the benchmarks share: reading the sets, a process of its own for each measurement, tables."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    out = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    out.add_argument(
        "--data-root",
        type=Path,
        default=os.environ.get("TUNEWELL_DATA_ROOT"),
        help="folder with the public sets as <set>/{train,test}.jsonl (text, label); or TUNEWELL_DATA_ROOT",
    )
    out.add_argument("--model", default="all-MiniLM-L6-v2")
    out.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    out.add_argument("--output", type=Path, default=None, help="append the figures to this file as JSON lines")
    out.add_argument("--child", default=None, help=argparse.SUPPRESS)
    return out


def file_of(root: Path | None, name: str, split: str) -> Path:
    """The file of a set's split, or a clear end."""
    if root is None:
        sys.exit("name the folder with the public sets: --data-root FOLDER")
    path = Path(root) / name / f"{split}.jsonl"
    if not path.is_file():
        sys.exit(f"{path}: no such file; expected <data-root>/{name}/{split}.jsonl with text and label")
    return path


def child(script: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run one measurement in a process of its own, so that time and peak memory are its own.

    The child prints its figures as the last line of its output, in JSON.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, script, "--child", json.dumps(job)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))},  # this checkout's code
    )
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr[-3000:]}")
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    return {**job, **figures, "process_seconds": round(time.perf_counter() - started, 2)}


def record(path: Path | None, row: dict[str, Any]) -> None:
    """Append a measurement to a JSON-lines file."""
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def once(
    script: str, job: dict[str, Any], benchmark: str, output: Path | None, *, apart: tuple[str, ...] = ()
) -> tuple[dict[str, Any], bool]:
    """A measurement and whether it was made now: one that `output` has of the same job is taken from there.

    Args:
        apart: keys of the job that decide nothing, such as its folder.
    """
    if output is not None and output.is_file():
        for line in output.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if all(row.get(k) == v for k, v in job.items() if k not in apart):
                return row, False
    row = child(script, job)
    record(output, {"benchmark": benchmark, **row})
    return row, True


def spread(values: list[float]) -> str:
    """Mean and, with more than one value, the half-width of its 95 % t interval."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.4f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:.4f} ± {half:.4f}"
