"""Runs that were started from the page: one at a time, each a `tunewell run` of its own, known after a restart.

A job is a file in .tunewell-ui/jobs with its recipe and its log beside it. What was waiting or at work when the
app ended is "interrupted" afterwards and can go on; a run that outlived the app is watched by its folder's lock.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

from tunewell.errors import EXIT_GATE, RunFolderError
from tunewell.results import Record, write_whole
from tunewell.ui.places import Place
from tunewell.ui.scan import FAULTS, working
from tunewell.ui.uploads import folder_name, own_folder

State = Literal["waiting", "working", "stopping", "finished", "missed", "failed", "cancelled", "interrupted"]
OPEN = ("waiting", "working", "stopping")
TAIL = 16_000  # bytes of a log that are shown
PATIENCE = 20.0  # seconds that a run has to save its checkpoint when the app ends
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Job(Record):
    """One job. `at` is the run's folder as a browser asks for it; dates are ISO 8601."""

    id: str
    at: str
    state: State = "waiting"
    created: str = ""
    started: str = ""
    ended: str = ""
    code: int | None = None


class Queue:
    """All jobs of a folder. Safe to use from several threads.

    Args:
        command: what runs a recipe; `python -m tunewell` of this interpreter by default.
    """

    def __init__(self, place: Place, command: Sequence[str] = (sys.executable, "-m", "tunewell")) -> None:
        self.place, self.command = place, list(command)
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._jobs: dict[str, Job] = {}
        with self._changed:
            self._load()

    @property
    def folder(self) -> Path:
        return own_folder(self.place) / "jobs"

    def all(self) -> list[Job]:
        """Every job, the newest first."""
        with self._changed:
            self._look_at_orphans()
            return sorted(self._jobs.values(), key=lambda j: (j.created, j.id), reverse=True)

    def add(self, at: str, recipe: str) -> Job:
        """Queue a run.

        Args:
            at: the folder that it will write. recipe: YAML.
        """
        job = Job(id=uuid4().hex[:12], at=at, created=_now())
        with self._changed:
            write_whole(self.folder / f"{job.id}.yaml", recipe)
            self._put(job)
            self._start()
        return job

    def again(self, id: str) -> None:
        """Put a job that ended without a result into the queue once more; the run goes on where it was."""
        with self._changed:
            job = self._get(id)
            if job.state in ("failed", "cancelled", "interrupted"):
                self._put(job.model_copy(update={"state": "waiting", "started": "", "ended": "", "code": None}))
                self._start()

    def cancel(self, id: str) -> None:
        """Take a waiting job out; ask one at work to save and end (SIGTERM), asked again end it at once."""
        with self._changed:
            self._look_at_orphans()
            job = self._get(id)
            if job.state == "waiting":
                self._put(job.model_copy(update={"state": "cancelled", "ended": _now()}))
            elif job.state in ("working", "stopping"):
                self._stop(job, at_once=job.state == "stopping")
                self._put(job.model_copy(update={"state": "stopping"}))

    def taken(self, at: str) -> bool:
        """Whether a job that is not over will write this folder."""
        with self._changed:
            return any(j.at == at and j.state in OPEN for j in self._jobs.values())

    def log(self, id: str) -> str:
        """The last lines that a job wrote."""
        try:
            with (self.folder / f"{self._get(id).id}.log").open("rb") as file:
                length = file.seek(0, 2)
                file.seek(max(0, length - TAIL))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        text = ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
        return text if length <= TAIL else "…\n" + text.partition("\n")[2]

    def close(self) -> None:
        """End the app's part: the run at work saves and ends, and is interrupted from then on."""
        with self._changed:
            self._closed = True
            process = self._process
            self._changed.notify_all()
        if process is not None:
            _signal(process.pid, signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
        if self._thread is not None:
            self._thread.join(PATIENCE)

    # ------------------------------------------------------------ inside

    def _get(self, id: str) -> Job:
        if id not in self._jobs:
            raise RunFolderError("no such job", where=ascii(id[:40]))
        return self._jobs[id]

    def _put(self, job: Job) -> None:
        self._jobs[job.id] = job
        job.write(self.folder / f"{job.id}.json")
        self._changed.notify_all()

    def _load(self) -> None:
        folder = self.place.folder / ".tunewell-ui" / "jobs"
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            try:
                job = Job.load(path)
            except FAULTS:
                continue
            if job.id != path.stem or not job.id.isalnum() or folder_name(job.at) != job.at:
                continue
            self._jobs[job.id] = job
            if job.state == "waiting" or (job.state in OPEN and working(self._run(job)) is None):
                self._settle(job)

    def _run(self, job: Job) -> Path:
        return self.place.folder / job.at

    def _settle(self, job: Job) -> None:
        """A job whose process is gone without this app having seen its exit code."""
        done = job.state != "waiting" and _written_since(self._run(job) / "summary.json", job.started)
        self._put(job.model_copy(update={"state": "finished" if done else "interrupted", "ended": _now()}))

    def _look_at_orphans(self) -> None:
        for job in self._orphans():
            if working(self._run(job)) is None:
                self._settle(job)

    def _orphans(self) -> list[Job]:
        """Jobs at work whose process belongs to an earlier session of the app."""
        mine = self._mine if self._process is not None else ""
        return [j for j in self._jobs.values() if j.state in ("working", "stopping") and j.id != mine]

    _mine = ""  # the job whose process this is

    def _stop(self, job: Job, at_once: bool) -> None:
        number = getattr(signal, "SIGKILL", signal.SIGTERM) if at_once else signal.SIGTERM
        if self._process is not None and self._mine == job.id:
            if self._process.poll() is None:
                _signal(self._process.pid, number)
        elif (pid := working(self._run(job))) is not None:
            _signal(pid, number)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tunewell-ui-jobs", daemon=True)
            self._thread.start()

    def _next(self) -> Job | None:
        self._look_at_orphans()
        if self._orphans():
            return None
        return min((j for j in self._jobs.values() if j.state == "waiting"), key=lambda j: j.created, default=None)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (job := self._next()) is None:
                    self._changed.wait(1.0 if self._orphans() else None)
                if self._closed:
                    return
                assert job is not None
                job = job.model_copy(update={"state": "working", "started": _now()})
                self._mine = job.id
                try:
                    self._process = self._popen(job)
                except OSError as error:
                    write_whole(self.folder / f"{job.id}.log", f"cannot be started: {error}\n")
                    self._put(job.model_copy(update={"state": "failed", "ended": _now()}))
                    continue
                self._put(job)
            code = self._process.wait()
            with self._changed:
                asked = self._jobs[job.id].state == "stopping"
                state = outcome(code, asked, (self._run(job) / "summary.json").is_file())
                self._process, self._mine = None, ""
                self._put(job.model_copy(update={"state": state, "ended": _now(), "code": code}))

    def _popen(self, job: Job) -> subprocess.Popen[bytes]:
        with (self.folder / f"{job.id}.log").open("ab") as log:
            return subprocess.Popen(
                [*self.command, "run", str(self.folder / f"{job.id}.yaml"), "--output_dir", str(self._run(job))],
                cwd=self.place.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
                start_new_session=True,  # Ctrl-C in the app's terminal is for the app, which then asks the run to end
            )


def outcome(code: int, asked: bool, summary: bool) -> State:
    """What a run's exit means.

    Args:
        asked: it was asked to end. summary: its summary.json is there.

    >>> outcome(0, False, True), outcome(3, False, True), outcome(143, True, False), outcome(-15, False, False)
    ('finished', 'missed', 'cancelled', 'interrupted')
    """
    if code == 0:
        return "finished"
    if asked:
        return "cancelled"
    if code == EXIT_GATE and summary:
        return "missed"
    return "interrupted" if code in (128 + signal.SIGTERM, -signal.SIGTERM) else "failed"


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):  # gone by itself
        os.kill(pid, number)


def _now() -> str:
    return datetime.now().isoformat(timespec="microseconds")


def _written_since(path: Path, started: str) -> bool:
    try:
        return path.stat().st_mtime >= datetime.fromisoformat(started).timestamp() - 1
    except (OSError, ValueError):
        return False
