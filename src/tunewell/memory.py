"""How much memory this process has taken, and giving back what it holds but does not use."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from pathlib import Path


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MB."""
    if sys.platform == "linux":  # `ru_maxrss` begins at that of the process that started this one
        with suppress(OSError, StopIteration, ValueError):
            lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def give_back() -> None:
    """Return freed memory to the system, where the C library keeps it otherwise (glibc).

    After a phase of many large tensors it holds some hundred MB in pieces, which the next phase's do not fit into.
    """
    gc.collect()
    if sys.platform != "linux":
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)
