"""LESS as a story: a warm-up tuning with adapters on part of the pool, gradients at each of its epochs, scores.

Xia et al., 2024, LESS: Selecting Influential Data for Targeted Instruction Tuning. Each part is written into the run
folder as it is made (`train/warmup`, `gradients/`), so that a stopped command goes on, and another share or another
target takes no second warm-up.

Shapes: n rows of the pool, t target rows, E epochs, k numbers of a projected gradient.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import RunFolderError
from tunewell.explain.influence.answers.gradients import Moments, Pulls
from tunewell.explain.influence.answers.index import SEED, fill
from tunewell.explain.influence.answers.sketch import BLOCKS, SIZE, Sketch
from tunewell.explain.influence.answers.weights import at, weights_of
from tunewell.explain.influence.index import is_whole
from tunewell.folder import file_hash, fingerprint
from tunewell.prune.answers.scores import less_by_subtask
from tunewell.results import write_whole
from tunewell.train.trace import FILE, Adapters, Trace

if TYPE_CHECKING:
    from tunewell.prune.answers.target import Target
    from tunewell.stages.job import Job
    from tunewell.tasks.generation.writers import Encoded

NAME, STEP = "warmup", "warm-up"
LEAST = 32  # rows of the warm-up, where the pool has so many
FORMAT = 1


@dataclass(frozen=True)
class Warmup:
    """What the warm-up has left.

    Attributes:
        moments: the adapters' files, one an epoch. rates: mean learning rate of each. rows: it was tuned on.
    """

    moments: tuple[Path, ...]
    rates: tuple[float, ...]
    rows: int


def scores(
    job: Job, encoded: Sequence[Encoded], target: Target, share: float, usable: np.ndarray
) -> tuple[np.ndarray, Warmup]:
    """(n, J) influence of each row of the pool on each subtask, and the warm-up that it was read from.

    Args:
        job: whose training rows are the pool, under `strategy: lora`. encoded: the pool.
        share: of the pool that is tuned on first. usable: (n,) rows that may be: no test prompts, no duplicates.
    """
    warm = warm_up(job, share, usable)
    task: Any = job.task
    writer = task.writer(job, None)  # that only encodes
    wanted = [writer.encode(talk) for talk in task.messages(job, target.rows)]
    steps, aims = [], []
    hashes = (tokens_hash(encoded), tokens_hash(wanted))
    for number, path in enumerate(warm.moments, 1):
        pool = _Part(job, path, f"epoch-{number}", encoded, hashes[0], adam=True)
        aim = _Part(job, path, f"target-epoch-{number}", wanted, hashes[1], adam=False)
        if not (pool.whole and aim.whole):
            _take(job, path, [pool, aim], f"prune: epoch {number} of {len(warm.moments)}, gradients")
        steps.append(pool.read())
        aims.append(np.asarray(aim.read(), dtype=np.float32))
    return less_by_subtask(steps, aims, warm.rates, target.group), warm


def warm_up(job: Job, share: float, usable: np.ndarray) -> Warmup:
    """Tune on a seeded part of the pool, adapters and Adam's moments written at the end of each epoch.

    Args:
        usable: (n,) rows that the part is drawn from.

    Raises:
        RunFolderError: the tuning has not left a file for each epoch.
    """
    from tunewell.stages.tune import place, tuned_in
    from tunewell.train.tune import clear_checkpoints

    pool = job.splits["train"]
    places = np.flatnonzero(usable)
    n = min(len(places), max(LEAST, round(share * len(pool))))
    chosen = np.sort(np.random.default_rng(job.recipe.seed).permutation(places)[:n])
    assert job.max_length  # that of the whole pool
    part = {"train": pool.select(chosen), "validation": pool.select([]), "test": job.splits["test"]}
    child = job.with_rows(NAME, part, (STEP, chosen.tolist()))
    folder = job.folder / place(child)
    trace = Trace(folder / "epochs", each_epoch=True)
    child.callbacks = (trace,)
    outputs = [f"{place(child)}/epochs"]
    if not job.folder.done(STEP, child.keys.tune, outputs):
        marker = folder / "inputs"
        if folder.exists() and (not marker.is_file() or marker.read_text(encoding="utf-8") != child.keys.tune):
            shutil.rmtree(folder)
        write_whole(marker, child.keys.tune)
        job.echo(f"prune: warm-up on {n:,} of {len(pool):,} rows")
        tuned_in(child, folder)
        job.folder.mark(STEP, child.keys.tune, outputs)
        clear_checkpoints(folder)
    last = Adapters.load(folder / "epochs" / FILE)  # when tuning ended
    files = tuple(trace.path(k) for k in range(1, len(list((folder / "epochs").glob("epoch-*.safetensors"))) + 1))
    found = [Adapters.load(path) for path in files]
    rates = tuple(f.rate for f in found if f is not None and f.moments)
    ended = last is not None and found and found[-1] is not None and found[-1].steps == last.steps
    if not ended or len(rates) < len(files) or not sum(rates) > 0:
        raise RunFolderError(
            "the warm-up has left no checkpoints that gradients can be taken at",
            where=str(folder / "epochs"),
            expected="adapters with Adam's moments for each epoch",
            remedy="--overwrite_output_dir tunes again",
        )
    return Warmup(files, rates, n)


def tokens_hash(encoded: Sequence[Encoded]) -> str:
    """A short hash of rows of tokens, read one row at a time: a pool of them as one text would be many times it."""
    digest = hashlib.sha256()
    for row in encoded:
        for numbers in (row.ids, row.labels):
            digest.update(len(numbers).to_bytes(8, "little") + np.asarray(numbers, dtype=np.int64).tobytes())
    return digest.hexdigest()[:20]


class _Part:
    """Gradients of some rows at one checkpoint, on disk."""

    def __init__(
        self, job: Job, moment: Path, name: str, encoded: Sequence[Encoded], tokens: str, *, adam: bool
    ) -> None:
        self.encoded, self.adam = encoded, adam
        self.folder = job.folder / "gradients" / name
        about = (FORMAT, SIZE, BLOCKS, SEED, adam, job.bf16, job.keys.data)
        self.key = fingerprint("less", *about, file_hash(moment), tokens)

    @property
    def whole(self) -> bool:
        return is_whole(self.folder, self.key)

    def read(self) -> np.ndarray:
        name = "adam.npy" if self.adam else "plain.npy"
        return np.asarray(np.load(self.folder / name, mmap_mode="r", allow_pickle=False))

    def make(self, pulls: Pulls, *, echo: Any, progress: bool, title: str) -> None:
        (self.folder / "index.json").unlink(missing_ok=True)
        told: dict[str, Any] = {"echo": echo, "progress": progress, "title": title}
        fill(self.folder, self.key, self.encoded, pulls, hidden=0, plain=not self.adam, **told)
        write_whole(self.folder / "index.json", json.dumps({"key": self.key}) + "\n")
        (self.folder / "progress.json").unlink(missing_ok=True)


def _take(job: Job, moment: Path, parts: Sequence[_Part], title: str) -> None:
    """Gradients of the pool and of the target at one checkpoint."""
    adapters = Adapters.load(moment)
    assert adapters is not None
    model = job.fresh_model()
    at(model, adapters)
    writer = job.task.writer(job, model.eval(), bf16=job.bf16)  # type: ignore[attr-defined]
    settings = Moments(adapters.steps, adapters.betas, adapters.eps)
    with weights_of(model, adapters) as weights:
        sketch = Sketch(weights.sizes, seed=SEED)
        for part in parts:
            if not part.whole:
                pulls = Pulls(writer, weights, sketch, settings if part.adam else None, plain=not part.adam)
                part.make(pulls, echo=job.echo, progress=job.progress, title=title)
