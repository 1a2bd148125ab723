"""Jobs of the tests' own, in a module that workers can load."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from tunewell.errors import DataError


def opened(about: dict[str, Any]) -> dict[str, Any]:
    """Notes each time that a worker opens what is shared."""
    with (Path(about["folder"]) / "opened").open("a") as file:
        file.write(f"{os.getpid()}\n")
    return about


def double(shared: dict[str, Any], item: int) -> list[Any]:
    """Twice the item, the threads, and the process that it was."""
    import torch

    return [2 * item, torch.get_num_threads(), os.getpid()]


def late_first(shared: dict[str, Any], item: int) -> int:
    """The first item comes last."""
    place = Path(shared["folder"])
    if item == 0:
        until = time.monotonic() + 60
        while not (place / "done-3").exists() and time.monotonic() < until:
            time.sleep(0.01)
    (place / f"done-{item}").touch()
    return item


def dies_once(shared: dict[str, Any], item: int) -> int:
    """Item 1 kills its own worker, the first time."""
    marker = Path(shared["folder"]) / "died"
    with (Path(shared["folder"]) / "begun").open("a") as file:
        file.write(f"{item}\n")
    if item == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * item


def always_dies(shared: dict[str, Any], item: int) -> int:
    """No worker lives through this."""
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def mistaken(shared: dict[str, Any], item: int) -> int:
    """Odd items are the user's mistake."""
    if item % 2:
        raise DataError("is odd", where=f"row {item}", expected="an even number", remedy="double it")
    return item


def at_fault(shared: dict[str, Any], item: int) -> float:
    """A fault of ours."""
    return 1 / item


def sleeps(shared: dict[str, Any], item: int) -> int:
    """Tells its process, then takes long."""
    (Path(shared["folder"]) / f"pid-{item}").write_text(str(os.getpid()))
    time.sleep(120)
    return item
