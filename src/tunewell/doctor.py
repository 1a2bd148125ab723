"""What this machine has for tunewell: versions, processor, memory, disk, caches, what is missing for what."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tunewell import __version__
from tunewell.cache import cache_folder
from tunewell.extras import EXTRAS
from tunewell.results import Record

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "scikit-learn", "numpy")
LEAST_MEMORY, LEAST_DISK = 4.0, 5.0  # GB
SIZE = 1024  # of the matrices multiplied
Level = Literal["ok", "note", "problem"]


class Finding(Record):
    """One line: what was looked at, what was found, and what to do where it is not well."""

    topic: str
    name: str
    found: str
    level: Level = "ok"
    remedy: str = ""


def examine(*, measure: bool = True) -> list[Finding]:
    """Look at everything; nothing is changed, and nothing but the cache folder's size is read from disk.

    Args:
        measure: also measure the speed of matrix multiplication, for about a second.
    """
    return [*_versions(), *_processor(measure), *_room(), *_caches(), *_extras()]


def _versions() -> list[Finding]:
    out = [
        Finding(topic="versions", name="tunewell", found=__version__),
        Finding(topic="versions", name="Python", found=f"{platform.python_version()}, {sys.executable}"),
        Finding(topic="versions", name="system", found=platform.platform()),
    ]
    for name in PACKAGES:
        try:
            out.append(Finding(topic="versions", name=name, found=version(name)))
        except PackageNotFoundError:
            out.append(
                Finding(
                    topic="versions", name=name, found="not installed", level="problem",
                    remedy="pip install --upgrade tunewell",
                )
            )  # fmt: skip
    return out


def _processor(measure: bool) -> list[Finding]:
    import torch

    from tunewell.train.tune import use_bf16

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    out = [
        Finding(
            topic="processor",
            name="cores",
            found=f"{usable} usable, PyTorch takes {threads} threads",
            level="note" if threads > usable else "ok",
            remedy="more threads than cores slow each other down: --threads " + str(usable) if threads > usable else "",
        )
    ]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(i)
            found = f"{card.name}, {card.total_memory / 2**30:.0f} GB"
            out.append(Finding(topic="processor", name=f"graphics card {i}", found=found))
    bf16 = use_bf16(None)
    out.append(
        Finding(
            topic="processor",
            name="bfloat16",
            found="in hardware: tuning uses it" if bf16 else "not in hardware: tuning calculates in fp32",
        )
    )
    if measure:
        for kind, name in ((torch.float32, "fp32"), *(((torch.bfloat16, "bf16"),) if bf16 else ())):
            rate = matrix_rate(kind)
            out.append(Finding(topic="processor", name=f"matrix product, {name}", found=f"{rate:,.0f} GFLOP/s"))
    return out


def matrix_rate(kind: object, seconds: float = 0.3) -> float:
    """GFLOP/s of multiplying square matrices of a dtype: the fastest of repeated products."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.randn(SIZE, SIZE, device=device).to(kind)  # type: ignore[call-overload]
    best, end = float("inf"), time.perf_counter() + seconds
    with torch.inference_mode():
        a @ a
        while best == float("inf") or time.perf_counter() < end:
            started = time.perf_counter()
            a @ a
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
    return 2 * SIZE**3 / best / 1e9


def _room() -> list[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    free = memory.available / 2**30
    place = cache_folder()
    while not place.exists():
        place = place.parent
    disk = shutil.disk_usage(place).free / 2**30
    return [
        Finding(
            topic="room",
            name="memory",
            found=f"{free:.1f} of {memory.total / 2**30:.1f} GB free",
            level="note" if free < LEAST_MEMORY else "ok",
            remedy="a smaller per_device_train_batch_size, or another base model" if free < LEAST_MEMORY else "",
        ),
        Finding(
            topic="room",
            name="disk",
            found=f"{disk:.1f} GB free at {place}",
            level="problem" if disk < LEAST_DISK / 5 else "note" if disk < LEAST_DISK else "ok",
            remedy="free some space; checkpoints take three times the model's size" if disk < LEAST_DISK else "",
        ),
    ]


def _caches() -> list[Finding]:
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "hub")
    out = []
    for name, folder in (("tunewell", cache_folder()), ("Hugging Face hub", hub.expanduser())):
        if folder.is_dir():
            size = sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink()) / 2**30
            writable = os.access(folder, os.W_OK)
            out.append(
                Finding(
                    topic="caches",
                    name=name,
                    found=f"{size:.2f} GB in {folder}" + ("" if writable else ", not writable"),
                    level="ok" if writable else "problem",
                    remedy="" if writable else "mend its permissions, or set TUNEWELL_CACHE",
                )
            )
        else:
            out.append(Finding(topic="caches", name=name, found=f"nothing yet in {folder}"))
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        out.append(
            Finding(topic="caches", name="HF_HUB_OFFLINE", found="set: hub ids come from the cache only", level="note")
        )
    return out


WHAT_FOR = {
    "data": "spreadsheets, databases and URLs",
    "eval": "tasks of lm-eval as probes",
    "export": "ONNX",
    "generate": "translation, and reading packaged decoders",
    "gguf": "writing GGUF for llama.cpp",
    "mlflow": "the tracker, and models that MLflow serves",
    "optim": "schedule-free AdamW and Prodigy",
    "quantize": "adapters over weights in 4 bits",
    "ray": "many jobs at once on a Ray cluster",
    "serve": "the service, the app in the browser and the page to label",
    "tensorflow": "tuning and SavedModel in TensorFlow",
    "track": "TensorBoard",
    "trackio": "the tracker",
    "wandb": "Weights & Biases",
}


def _extras() -> list[Finding]:
    out = []
    for extra, modules in EXTRAS.items():
        missing = [m for m in modules if find_spec(m) is None]
        out.append(
            Finding(
                topic="extras",
                name=extra,
                found=(f"{WHAT_FOR[extra]}: " + (f"without {', '.join(missing)}" if missing else "installed")),
                level="note" if missing else "ok",
                remedy=f"pip install 'tunewell[{extra}]'" if missing else "",
            )
        )
    return out
