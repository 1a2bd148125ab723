"""Runs of tunewell in forked children, each with a fault of its own: a line of JSON in, a line of JSON out.

Everything is imported and warmed up once, so that a start costs a fork. A fault is told by `fault`:

    {"kind": "kill", "at": n}            SIGKILL at the n-th write of this start
    {"kind": "kill", "on": text}         SIGKILL at the first write of a file with this text in its path
    {"kind": "kill", "after": seconds}   SIGKILL at that moment
    {"kind": "term", "after": seconds}   SIGTERM at that moment
    {"kind": "enospc", "at": n}          the n-th write and all later ones find the disk full
    {"kind": "clock"}                    the clock is three days back
    {"kind": "count"}                    none; the writes are counted
    {"kind": "bound"}                    the permissions of files bind the root user as well (Linux)

A write is any of: opening a file to write, `os.replace`, `os.fsync`, `torch.save`, `safetensors.save_file`. Killed in
one of the last two, half of the file stays.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


class Writes:
    """Counts writes of this process below a folder, and does harm at one of them."""

    def __init__(self, fault: dict[str, Any]) -> None:
        self.kind, self.at, self.on, self.n = fault["kind"], fault.get("at"), fault.get("on"), 0

    def met(self, path: Any = None) -> bool:
        """One more write; whether it is the one to be torn in the middle."""
        self.n += 1
        if self.on is not None and self.on in str(path):
            return True
        if self.at is None or self.n < self.at:
            return False
        if self.kind == "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return self.n == self.at

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        import safetensors.torch
        import torch

        plain, replace, fsync, save, save_file = io.open, os.replace, os.fsync, torch.save, safetensors.torch.save_file

        def opened(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            if not isinstance(file, int) and set(mode) & set("wax+") and self.met(file):
                self.die()
            return plain(file, mode, *args, **more)

        def replaced(source: Any, target: Any, **more: Any) -> None:
            if self.met(target):
                self.die()
            replace(source, target, **more)

        def synced(handle: int) -> None:
            if self.met():
                self.die()
            fsync(handle)

        def torn(write: Any, path: Any) -> None:
            write()
            os.truncate(path, os.path.getsize(path) // 2)
            self.die()

        def saved(obj: Any, f: Any, *args: Any, **more: Any) -> None:
            if self.met(f):
                torn(lambda: save(obj, f, *args, **more), f)
            save(obj, f, *args, **more)

        def saved_file(tensors: Any, filename: Any, *args: Any, **more: Any) -> None:
            if self.met(filename):
                torn(lambda: save_file(tensors, filename, *args, **more), filename)
            save_file(tensors, filename, *args, **more)

        builtins.open = io.open = opened  # type: ignore[assignment]
        os.replace, os.fsync, torch.save = replaced, synced, saved  # type: ignore[assignment]
        safetensors.torch.save_file = saved_file  # type: ignore[assignment]


def give_up_override() -> None:
    """Without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH the kernel asks a file's permissions of root, too."""
    import ctypes

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    class Data(ctypes.Structure):
        _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inherited", ctypes.c_uint32))

    libc = ctypes.CDLL(None, use_errno=True)
    header, data = Header(0x20080522, 0), (Data * 2)()
    if libc.capget(ctypes.byref(header), data):
        raise OSError(ctypes.get_errno(), "capget")
    keep = ~(1 << 1 | 1 << 2) & 0xFFFFFFFF
    for kind in ("effective", "permitted", "inherited"):
        setattr(data[0], kind, getattr(data[0], kind) & keep)
    if libc.capset(ctypes.byref(header), data):
        raise OSError(ctypes.get_errno(), "capset")


def run(line: list[str], fault: dict[str, Any], told: str) -> None:
    """In the child: the command line with its fault; never comes back."""
    from tunewell.cli import main

    handle = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    if fault["kind"] == "clock":
        now = time.time
        time.time = lambda: now() - 3 * 86_400
    if fault["kind"] == "bound":
        give_up_override()
    writes = Writes(fault)
    if fault["kind"] in ("count", "enospc", "kill") and "after" not in fault:
        writes.install()
    sys.argv = ["tunewell", *line]
    code: Any = 1
    try:
        main()
    except SystemExit as left:
        code = left.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if fault["kind"] == "count":
            Path(fault["file"]).write_text(str(writes.n))
        os._exit(code if isinstance(code, int) else 1)


def start(asked: dict[str, Any]) -> dict[str, Any]:
    """Fork, wait, and tell how it ended; a signal is told as its negative number."""
    fault, began = asked["fault"], time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            run(asked["line"], fault, asked["told"])
        finally:
            os._exit(99)
    if "after" in fault:
        time.sleep(fault["after"])
        os.kill(child, {"kill": signal.SIGKILL, "term": signal.SIGTERM}[fault["kind"]])
        asked_at = time.monotonic()
    _, status = os.waitpid(child, 0)
    found = {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - began}
    if "after" in fault:
        found["left_after"] = time.monotonic() - asked_at
    return found


def main() -> None:
    warm = json.loads(sys.stdin.readline())
    os.chdir(warm["folder"])
    answers = os.dup(1)  # what runs print must not mix with the answers
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from tunewell.cli import main as tunewell

    sys.argv = ["tunewell", *warm["line"]]
    try:
        tunewell()
    except SystemExit as left:
        os.write(answers, (json.dumps({"code": left.code or 0}) + "\n").encode())
    for asked in sys.stdin:
        os.write(answers, (json.dumps(start(json.loads(asked))) + "\n").encode())


if __name__ == "__main__":
    main()
