"""Workers as processes of this machine: started when needed, replaced when they die, ended with the command."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Any

import tunewell

PATIENCE = 5.0  # seconds from asking a worker to end to ending it


class _Worker:
    """One process and the thread that waits for its answers."""

    def __init__(self, threads: int, answers: queue.Queue[tuple[_Worker, str | None]]) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false")
        root = str(Path(tunewell.__file__).parents[1])
        known = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
        environment["PYTHONPATH"] = os.pathsep.join([*known, *([] if root in known else [root])])
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunewell.workers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            start_new_session=True,  # Ctrl-C in a terminal is sent to the command alone
        )
        self.job: int | None = None
        self._reader = threading.Thread(target=self._read, args=(answers,), daemon=True)
        self._reader.start()

    def _read(self, answers: queue.Queue[tuple[_Worker, str | None]]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith(b"\n"):  # cut short: it died while it wrote
                break
            answers.put((self, line.decode()))
        answers.put((self, None))

    def ask(self, number: int, request: str) -> None:
        assert self.process.stdin is not None
        self.job = number
        with contextlib.suppress(BrokenPipeError):  # it has died: its thread tells
            self.process.stdin.write(request.encode() + b"\n")
            self.process.stdin.flush()

    def fate(self) -> str:
        """How it ended."""
        code = self.process.wait()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"the worker (process {self.process.pid}) was ended by {signal.Signals(-code).name}"
        self.errors.seek(0)
        last = self.errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return f"the worker (process {self.process.pid}) ended with code {code}" + "".join(f": {t}" for t in last)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()

    def close(self) -> None:
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


class LocalPool:
    """See `tunewell.workers.Pool`."""

    def __init__(self, size: int, threads: int) -> None:
        self.size, self.threads = size, threads
        self.told = f"{size} process{'es' if size > 1 else ''} of this machine"
        self._answers: queue.Queue[Any] = queue.Queue()
        self._idle: list[_Worker] = []
        self._all: list[_Worker] = []
        self._waiting: deque[tuple[int, str]] = deque()

    def start(self, number: int, request: str) -> None:
        self._waiting.append((number, request))
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and (self._idle or len(self._all) < self.size):
            if not self._idle:
                worker = _Worker(self.threads, self._answers)
                self._all.append(worker)
                self._idle.append(worker)
            self._idle.pop().ask(*self._waiting.popleft())

    def next(self) -> tuple[int, str | None, str]:
        while True:
            worker, answer = self._answers.get()
            number, worker.job = worker.job, None
            if answer is not None:
                assert number is not None
                self._idle.append(worker)
                self._hand_out()
                return number, answer, ""
            fate = worker.fate()
            worker.close()
            self._all.remove(worker)
            if worker in self._idle:
                self._idle.remove(worker)
            if number is not None:
                return number, None, fate

    def close(self) -> None:
        for worker in self._all:
            worker.end()
        for worker in self._all:
            worker.close()
        self._all.clear()
