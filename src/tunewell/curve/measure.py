"""The points of a learning curve: nested subsets of the training rows, each tuned and scored on the same test rows.

Subsets of one repeat contain each other, so that a larger one differs by what was added alone. The
validation rows that choose the best epoch shrink with the subset, as they would for someone who has no
more labels than that. Small subsets get more passes, until tuning has MIN_STEPS steps.
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from tunewell.curve.records import CurvePoint
from tunewell.errors import RecipeError
from tunewell.folder import fingerprint
from tunewell.results import write_whole
from tunewell.stages.job import Job, silent
from tunewell.workers import HERE, Workers, done
from tunewell.workers.job import alone_in, shared_job

MIN_STEPS = 60  # of the smallest subsets
LEAST_VALIDATION = 16
HALVINGS = 5


def default_sizes(n: int, classes: int) -> list[int]:
    """n, n/2, n/4, ..., at most six sizes, the smallest with some four labels a class and eight in all.

    >>> default_sizes(1000, 2)
    [31, 62, 125, 250, 500, 1000]
    >>> default_sizes(100, 8)
    [50, 100]
    """
    least = max(8, 4 * classes)
    return sorted(n // 2**i for i in range(HALVINGS + 1) if n // 2**i >= least)


def check_sizes(sizes: Sequence[int], n: int, classes: int) -> list[int]:
    """Sizes in ascending order, each once.

    Raises:
        RecipeError: fewer than three, one above the number of training rows, or below that of classes.
    """
    out = sorted(set(sizes))
    least = max(classes, 2)
    for size in out:
        if not least <= size <= n:
            raise RecipeError(
                f"size {size} is not possible",
                where="sizes",
                expected=f"between {least} (one label a class) and {n:,} (the training rows that there are)",
            )
    if len(out) < 3:
        raise RecipeError(
            f"{len(out)} size{'s' if len(out) != 1 else ''} make{'s' if len(out) == 1 else ''} no curve",
            where="sizes",
            expected="three different sizes or more",
            remedy="name them with --sizes 25,50,100"
            + ("; there are too few labels to choose three by themselves" if len(out) < 3 else ""),
        )
    return out


def nested_order(strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) an order of rows whose every beginning holds each stratum in about its share.

    Rows of a stratum are shuffled and spread evenly over the order; the first ones are one of each
    stratum, so that the smallest subset misses no class that it has room for.
    """
    n = len(strata)
    place = np.empty(n)
    for stratum in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        place[rows] = (np.arange(len(rows)) + rng.uniform(0.25, 0.75)) / len(rows)
        place[rows[0]] = -1.0
    return np.lexsort((rng.permutation(n), place))


def strata_of(job: Job, split: str) -> np.ndarray:
    """(n,) the class of each row; quintiles of scores; for several labels a row, the rarest of them."""
    targets = job.targets(split)
    if job.spec.regression:
        return np.searchsorted(np.quantile(targets, [0.2, 0.4, 0.6, 0.8]), targets)
    if targets.ndim == 2:
        counts = targets.sum(0)
        rarity = np.where(targets > 0, counts, np.inf)
        return np.where(targets.any(1), rarity.argmin(1), targets.shape[1])
    return targets


def subset(job: Job, size: int, repeat: int) -> Job:
    """The same job on `size` training rows and validation rows in proportion, under the seed of a repeat."""
    other = copy.copy(job)
    for key in ("keys", "places", "vectors", "scale"):
        other.__dict__.pop(key, None)
    seed = job.recipe.seed + repeat
    splits = dict(job.splits)
    share = size / len(job.splits["train"])
    for name, count in (
        ("train", size),
        ("validation", max(LEAST_VALIDATION, round(share * len(job.splits["validation"])))),
    ):
        if count < len(splits[name]):
            order = nested_order(strata_of(job, name), np.random.default_rng([seed, len(name)]))
            splits[name] = splits[name].select(np.sort(order[:count]))
    recipe = job.recipe
    batch = min(recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps, size)
    epochs = max(recipe.num_train_epochs, float(np.ceil(MIN_STEPS * batch / size)))
    other.recipe = recipe.model_copy(update={"seed": seed, "num_train_epochs": epochs})
    other.splits = splits
    other.prepared = replace(job.prepared, splits=splits)
    other.echo, other.progress = silent, False
    return other


def measure(job: Job, sizes: Sequence[int], repeats: int, by: str, workers: Workers = HERE) -> list[CurvePoint]:
    """All points; those that `points.jsonl` in the job's folder holds already are not measured again."""
    path = job.folder / "points.jsonl"
    key = fingerprint(job.keys.tune, by, job.recipe.strategies, MIN_STEPS)
    known: dict[tuple[int, int], CurvePoint] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row.pop("key") == key:
                point = CurvePoint.model_validate(row)
                known[point.size, point.repeat] = point
    wanted = [(size, repeat) for repeat in range(repeats) for size in sizes]
    work = {w: round(job.recipe.num_train_epochs * w[0] + MIN_STEPS) for w in wanted}  # in proportion to the time
    from tqdm import tqdm

    job.echo(
        f"curve: {len(wanted)} points at {', '.join(f'{s:,}' for s in sizes)} labels, {repeats} "
        f"repeat{'s' if repeats > 1 else ''} by {'tuning' if by == 'tune' else 'a linear probe'}"
        + (f"; {sum(w in known for w in wanted)} are there already" if known else "")
    )
    missing = [w for w in wanted if w not in known]
    if not workers.here:
        missing.sort(key=lambda w: -work[w])  # the longest first, so that none is left over at the end
    options: dict[str, Any] = {
        "threads": job.recipe.threads,
        "echo": job.echo,
        "name": lambda item: f"{item[0]:,} labels, repeat {item[1] + 1}",
    }
    items = [[*w, by] for w in missing]
    with (
        tqdm(total=sum(work.values()), desc="curve", disable=not job.progress, bar_format=BAR) as bar,
        closing(done(measure_point, items, shared_job(job), workers, **options)) as results,
    ):
        bar.update(sum(work[w] for w in wanted if w in known))
        try:
            for one in results if missing else ():
                size, repeat = missing[one.at]
                known[size, repeat] = point = CurvePoint(size=size, repeat=repeat, **one.result())
                write_whole(path, "".join(_line(p, key) for p in known.values()))
                if job.folder.steps.get("points") != key:
                    job.folder.mark("points", key)  # else the folder of a stopped curve would be taken for empty
                job.echo(
                    f"curve: {size:,} labels, repeat {repeat + 1}: {job.spec.metric} {point.score:.4f}, "
                    f"{point.seconds:.0f} s" + (f" on {one.where}" if one.where else "")
                )
                bar.update(work[size, repeat])
        finally:
            results.close()
            shutil.rmtree(job.folder / "tuning", ignore_errors=True)
    return [known[w] for w in wanted]


def measure_point(job: Job, item: Sequence[Any]) -> dict[str, float]:
    """One point, in a process of its own or here: the score, and the seconds that it took.

    Args:
        item: size, repeat, and `tune` or `probe`.
    """
    size, repeat, by = item
    started = time.perf_counter()
    small = subset(job, size, repeat)
    score = _tuned(small, f"tuning-{size}-{repeat}") if by == "tune" else _probed(small, job)
    return {"score": score, "seconds": round(time.perf_counter() - started, 2)}


BAR = "{desc} {percentage:3.0f}% |{bar}| {elapsed} < {remaining}"


def _line(point: CurvePoint, key: str) -> str:
    return json.dumps({**point.model_dump(), "key": key}) + "\n"


def score_on_test(job: Job, scores: np.ndarray) -> float:
    """The headline metric of scores on the job's test rows."""
    from tunewell.evaluate.metrics import score

    return float(score(job.spec.metric, job.spec, scores, job.targets("test")))


def _tuned(job: Job, place: str) -> float:
    from tunewell.stages.tune import tuned_in

    folder = job.folder / "tuning" / place
    try:
        with alone_in(folder):
            shutil.rmtree(folder, ignore_errors=True)
            model, _ = tuned_in(job, folder)
            return score_on_test(job, job.scores(model, "test"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _probed(job: Job, whole: Job) -> float:
    """A linear probe on embeddings that are computed once for all points."""
    from tunewell.evaluate.baselines import pair_features
    from tunewell.evaluate.linear import fit_linear_probe
    from tunewell.evaluate.metrics import score

    x: dict[str, np.ndarray] = {}
    for name, dataset in job.splits.items():
        at = {row: i for i, row in enumerate(_rows(whole.splits[name]))}
        vectors = whole.vectors[name][[at[row] for row in _rows(dataset)]]
        x[name] = pair_features(vectors) if vectors.ndim == 3 else vectors
    validation = job.targets("validation")
    probe = fit_linear_probe(
        x["train"],
        job.targets("train"),
        x["validation"],
        validation,
        seed=job.recipe.seed,
        n_classes=len(job.spec.labels) or None,
        objective=lambda scores: score(job.spec.metric, job.spec, scores, validation),
    )
    return score_on_test(job, probe.scores(x["test"]))


def _rows(dataset: Any) -> list[tuple[str, int]]:
    return list(zip(dataset["source"][:], dataset["row"][:], strict=True))
