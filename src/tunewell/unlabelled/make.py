"""The methods: from a job and its pool to a tuned candidate each, in a folder of its own below train/."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.errors import ModelError
from tunewell.folder import fingerprint
from tunewell.results import Training, write_whole, write_with
from tunewell.stages.job import Job
from tunewell.stages.tune import tune, tuned_model
from tunewell.unlabelled import WITHOUT
from tunewell.unlabelled.guess import Guesses, guesses, temperature_for

CACHE = "cache/unlabelled"


@dataclass(frozen=True)
class Made:
    """A tuned candidate.

    Attributes:
        job: that tuned it. seconds: that it took beside its own tuning: teachers, graph, pretraining.
        guessed: the labels that it learned; None where none were guessed.
    """

    job: Job
    training: Training
    guessed: Guesses | None = None
    rounds: int = 1
    seconds: float = 0.0
    about: dict[str, Any] = field(default_factory=dict)


class NothingError(Exception):
    """A method that brings no candidate; says why."""


def without(job: Job, prefix: str = "") -> Made:
    """The recipe's tuning on labelled rows alone."""
    child = job.with_keys(prefix + WITHOUT)
    return Made(child, tune(child))


def self_training(job: Job, prefix: str, teacher: Made) -> Made:
    """A student that learns the labels that the teacher is surest of, begun from the base model anew; round by round
    the student is the next teacher (Yarowsky, 1995; Mukherjee & Awadallah, 2020)."""
    rounds, spent = job.recipe.unlabelled_rounds, 0.0
    made = teacher
    for turn in range(1, rounds + 1):
        name = f"{prefix}self_training" + ("" if turn == rounds else f"-{turn}")
        teaching, started = made.job, time.perf_counter()
        found = _guessed(job, name, teaching.keys.tune, lambda t=teaching: _taught(job, t))  # type: ignore[misc]
        spent += time.perf_counter() - started
        child = with_guesses(job, name, found)
        made = Made(child, tune(child), found, turn, spent)
        spent += made.training.seconds if turn < rounds else 0.0
    return made


def propagation(job: Job, prefix: str, teacher: Made) -> Made:
    """Labels spread to neighbours in the base model's frozen embeddings, and learned."""
    name, started = f"{prefix}propagation", time.perf_counter()
    found = _guessed(job, name, fingerprint(job.keys.data, job.more), lambda: _spread(job))
    seconds = time.perf_counter() - started
    child = with_guesses(job, name, found)
    return Made(child, tune(child), found, 1, seconds)


def pretraining(job: Job, prefix: str, teacher: Made) -> Made:
    """The recipe's tuning, begun from weights that were pretrained on the pool."""
    try:
        path, key, about = adapted(job)
    except ModelError as error:
        if "auto" not in job.recipe.unlabelled_methods or job.recipe.unlabelled_pretraining != "auto":
            raise
        raise NothingError(error.what) from error
    child = job.with_keys(f"{prefix}pretraining")
    child.adapted, child.more = path, (*job.more, "pretrained", key)
    return Made(child, tune(child), seconds=float(about["seconds"]), about=about)


def consistency(job: Job, prefix: str, teacher: Made) -> Made:
    """The recipe's tuning with a term that asks for the same answer to a text of the pool and to it changed."""
    from tunewell.unlabelled.consistency import Consistency

    recipe, pool = job.recipe, job.pool
    assert pool is not None
    threshold = recipe.unlabelled_threshold
    counts = np.bincount(job.targets("train"), minlength=len(job.spec.labels))
    hook = Consistency(
        pool.texts,
        pool.pairs,
        shares=(counts / counts.sum()).tolist(),
        max_length=job.max_length,
        threshold=threshold,
        weight=recipe.unlabelled_weight,
        soft=recipe.unlabelled_consistency == "soft",
        tsa=recipe.unlabelled_tsa,
    )
    child = job.with_keys(f"{prefix}consistency")
    child.hooks = [*job.hooks, hook]
    how = (threshold, recipe.unlabelled_weight, recipe.unlabelled_consistency, recipe.unlabelled_tsa)
    child.more = (*job.more, "consistency", pool.fingerprint, *how)
    path, key = _cache(job, child.candidate, "json"), child.keys.tune
    if _noted(path).get("key") != key:
        path.unlink(missing_ok=True)  # of another tuning in this folder
    training = tune(child)
    about: dict[str, Any] = {"form": recipe.unlabelled_consistency}
    if hook.seen:
        level = hook.running.level if threshold is None else threshold
        about |= {"counted": hook.counted / hook.seen, "threshold": level}
    if hook.rows_seen:
        about |= {"tsa": hook.tsa, "rows_counted": hook.rows_counted / hook.rows_seen}
    if hook.seen or hook.rows_seen:
        write_whole(path, json.dumps({"key": key, "about": about}))
    return Made(child, training, about=_noted(path).get("about", {}))


def _noted(path: Path) -> dict[str, Any]:
    """What a tuning has left about itself; nothing where the file is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


MAKERS: dict[str, Callable[[Job, str, Made], Made]] = {
    "self_training": self_training,
    "propagation": propagation,
    "pretraining": pretraining,
    "consistency": consistency,
}


# ---------------------------------------------------------------- guessed labels


def with_guesses(job: Job, name: str, found: Guesses) -> Job:
    """The job on its labelled rows and those of the pool with a guessed label.

    Raises:
        NothingError: no label is sure enough.
    """
    from datasets import Dataset, concatenate_datasets

    pool = job.pool
    assert pool is not None
    if not len(found):
        raise NothingError("no text of the pool is sure enough")
    names = [c for c in ("text", "text_pair", "label", "row", "source") if c in job.splits["train"].column_names]
    train: Dataset = job.splits["train"].select_columns(names)
    rows = pool.rows.select(found.places)
    columns = {c: rows[c][:] for c in names if c != "label"}
    columns["label"] = [job.spec.labels[i] for i in found.labels.tolist()]
    guessed = Dataset.from_dict({c: columns[c] for c in names}, features=train.features)
    content = fingerprint(pool.fingerprint, found.places.tolist(), found.labels.tolist())
    return job.with_rows(name, {**job.splits, "train": concatenate_datasets([train, guessed])}, ("guessed", content))


def _guessed(job: Job, name: str, key: str, make: Callable[[], Guesses]) -> Guesses:
    """Guesses, kept in the run folder under what they depend on."""
    pool = job.pool
    assert pool is not None
    path = _cache(job, name, "npz")

    def write() -> Guesses:
        found, buffer = make(), io.BytesIO()
        np.savez(
            buffer, places=found.places, labels=found.labels, confidence=found.confidence, temperature=found.temperature
        )
        write_whole(path, buffer.getvalue())
        return found

    def read() -> Guesses:
        with np.load(path, allow_pickle=False) as saved:
            return Guesses(saved["places"], saved["labels"], saved["confidence"], float(saved["temperature"]))

    inputs = fingerprint(key, job.keys.data, job.more, pool.fingerprint, job.recipe.unlabelled_threshold)
    found = job.folder.step(f"guess-{name}", inputs, [str(path.relative_to(job.folder.path))], write, read)
    sure = f", mean confidence {found.confidence.mean():.3f}" if len(found) else ""
    job.echo(f"unlabelled: {name}: labels guessed for {len(found):,} of {len(pool):,} texts{sure}")
    return found


def _select(job: Job, pool: np.ndarray, validation: np.ndarray) -> Guesses:
    """Guesses from probabilities (m, C) on the pool and (v, C) on validation."""
    counts = np.bincount(job.targets("train"), minlength=len(job.spec.labels))
    temperature = temperature_for(validation, job.targets("validation"))
    return guesses(pool, counts, temperature=temperature, threshold=job.recipe.unlabelled_threshold)


def _taught(job: Job, teacher: Job) -> Guesses:
    """What a tuned teacher makes of the pool."""
    assert job.pool is not None
    model = tuned_model(teacher)
    asked = job.with_rows(job.candidate, {**job.splits, "pool": job.pool.rows}, ())
    return _select(job, asked.scores(model, "pool", bf16=job.bf16), job.scores(model, "validation", bf16=job.bf16))


def _spread(job: Job) -> Guesses:
    """What labelled rows say of their neighbours; validation rows are nodes without a label, for the temperature."""
    from tunewell.unlabelled.propagation import graph, spread

    names = ("train", "validation")
    asked = job.with_rows(job.candidate, job.splits, ())
    asked.__dict__["places"] = {n: np.arange(len(job.splits[n])) for n in names}
    vectors = [v.reshape(len(v), -1) for n in names if len(v := asked.embed(n))]
    vectors.append(job.pool_vectors.reshape(len(job.pool_vectors), -1))
    nodes, n = np.concatenate(vectors), len(job.splits["train"])
    labels = np.full(len(nodes), -1)
    labels[:n] = job.targets("train")
    shares = spread(graph(nodes), labels, len(job.spec.labels))
    end = len(nodes) - len(job.pool_vectors)
    return _select(job, shares[end:], shares[n:end])


# ---------------------------------------------------------------- pretraining


def adapted(job: Job) -> tuple[Path, str, dict[str, Any]]:
    """The file of pretrained weights, its key, and about it; made once for the run.

    Training texts are read too where there are validation rows to judge by; in cross-validation the rows that are held
    out stand among them, so there the pool is read alone.
    """
    from safetensors.torch import save_file

    from tunewell.stages.keys import model_key
    from tunewell.train.tune import clear_checkpoints
    from tunewell.unlabelled.pretraining import pretrain

    recipe, pool = job.recipe, job.pool
    assert pool is not None
    texts = pool.texts
    if job.validated:
        known = dict.fromkeys(job.splits["train"]["text"][:])
        texts = [*known, *texts]
    keys = ("unlabelled_epochs", "unlabelled_pretraining", "seed", "learning_rate", "bf16", "threads", "guard",
            "warmup_ratio", "weight_decay", "attention_dropout", "max_grad_norm", "lr_scheduler_type")  # fmt: skip
    key = fingerprint(model_key(job.model_path, recipe.revision), texts, [getattr(recipe, k) for k in keys])
    path, record = _cache(job, "pretraining", "safetensors"), _cache(job, "pretraining-texts", "json")
    folder = job.folder / "train" / "pretraining-texts"

    def make() -> dict[str, Any]:
        marker = folder / "inputs"
        if folder.exists() and (not marker.is_file() or marker.read_text(encoding="utf-8") != key):
            shutil.rmtree(folder)
        write_whole(marker, key)
        weights, about = pretrain(job, texts, folder)
        write_with(path, lambda p: save_file(weights, str(p)))
        write_whole(record, json.dumps(about))
        clear_checkpoints(folder)
        return about

    outputs = [str(p.relative_to(job.folder.path)) for p in (path, record)]
    about = job.folder.step("pretrain", key, outputs, make, lambda: json.loads(record.read_text(encoding="utf-8")))
    return path, key, about


def _cache(job: Job, name: str, ending: str) -> Path:
    return job.folder / f"{CACHE}/{name.replace('/', '-')}.{ending}"
