"""What a run ran on, for `environment.json`."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from tunewell import __version__

PACKAGES = (
    "torch",
    "tensorflow",
    "transformers",
    "datasets",
    "accelerate",
    "tokenizers",
    "safetensors",
    "scikit-learn",
    "numpy",
)


def environment(command: str = "") -> dict[str, Any]:
    """Versions, processor, memory, device and time."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        memory = None
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = "mps" if torch.backends.mps.is_available() else "cpu"
    return {
        "tunewell": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(memory, 1) if memory else None,
        "device": device,
        "packages": versions,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
