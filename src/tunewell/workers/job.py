"""A run's job in a worker: opened from its recipe, on the run folder of the process that gave the command."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError, TrainingError, WorkerError
from tunewell.folder import RunFolder
from tunewell.workers import Shared, Workers

if TYPE_CHECKING:
    from tunewell.stages.job import Job

PATIENCE = 60.0  # seconds that another process has to leave a folder in which a job tunes


class Borrowed(RunFolder):
    """A run folder that another process has locked: its finished steps are read, and nothing is noted in it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.say = lambda line: None
        self._lock, self._made = None, False
        self.steps = self.read_steps(self.path)
        self.files = self._read_files()

    def mark(self, name: str, inputs: str, outputs: Iterable[str] = ()) -> None:
        """Noted by the process that gave the command, once it has the result."""


def shared_job(job: Job) -> Shared:
    """A job as workers open it, see `tunewell.workers.Shared`."""
    files = [getattr(job.recipe, name) for name in job.prepared.files]
    about = {
        "recipe": job.recipe.model_dump(mode="json", exclude_unset=True),
        "folder": str(job.folder.path.absolute()),
        "max_length": job.max_length,
        "rows": job.prepared.fingerprint,
        "model": _model(job.model_path),
        "keys": asdict(job.keys),
    }
    return Shared(lambda: job, open_job, about, [str(job.folder / "recipe.yaml"), *files])


def open_job(about: dict[str, Any]) -> Job:
    """The job of a description, in a worker.

    Raises:
        WorkerError: its rows or its base model are not those of the process that gave the command.
    """
    from tunewell.recipe import Recipe
    from tunewell.stages.job import Job
    from tunewell.stages.keys import Keys

    job = Job(Recipe(**about["recipe"]), output_dir=None, progress=False)
    for what, mine in (("rows", job.prepared.fingerprint), ("model", _model(job.model_path))):
        if mine != about[what]:
            raise WorkerError(
                f"the worker on {platform.node()} has read other {'rows' if what == 'rows' else 'weights'}",
                where="train" if what == "rows" else job.recipe.model,
                expected="the same files on all machines",
                remedy="put data and models on a file system that all machines share",
            )
    job.__dict__["max_length"] = about["max_length"]
    job.__dict__["keys"] = Keys(**about["keys"])  # by which finished steps are known; files' times may differ here
    job._folder = Borrowed(about["folder"])
    return job


def _model(path: str) -> list[Any]:
    """Names and sizes of a model's files; times differ from machine to machine."""
    folder = Path(path)
    if not folder.is_dir():
        return [path]
    return [[p.name, p.stat().st_size] for p in sorted(folder.iterdir()) if p.is_file()]


def refuse(job: Job, workers: Workers) -> None:
    """Make sure that workers can be had, and can read a job's rows again.

    Raises:
        RecipeError: they cannot. WorkerError: the address does not answer.
    """
    from tunewell import processes

    if workers.here:
        return
    if workers.ray is not None:
        from tunewell.workers.on_ray import reach

        reach(workers.ray)  # now, and not after an hour's work
    if processes.size() > 1:
        raise RecipeError(
            f"{workers.told} starts workers of its own",
            where="torchrun",
            expected="one of the two: torchrun for one tuning on several processes, workers for many tunings",
        )
    if not job.recipe.train:
        raise RecipeError("rows in memory cannot be read by workers", where=workers.told, expected="a file as `train`")


@contextlib.contextmanager
def alone_in(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Keep two processes from tuning in one folder: a worker that was thought dead may still be at it.

    Raises:
        TrainingError: another one is, for longer than `patience` seconds.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path, until = folder.parent / f".{folder.name}.lock", time.monotonic() + patience
    with path.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    raise TrainingError(
                        "another process is still tuning here",
                        where=str(folder),
                        expected="an earlier worker to have ended",
                        remedy="end it, or wait for it, and give the same command again",
                    ) from None
                time.sleep(0.2)
        yield
