"""`seeds: N`: the same rows tuned with N seeds, to tell what was learned from what was luck.

The rows and their split stay; order, head and dropout are drawn anew. The model that a run leaves is that of its own
seed, so that no seed is chosen by its test score. A start has failed when its test score is not above the interval of
the constant answer (Mosbach et al., 2021, count a run as failed that is no better than the majority): its rate was
likely too high, or its steps too few.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from tunewell.errors import RecipeError
from tunewell.evaluate.statistics import mean_interval
from tunewell.folder import fingerprint
from tunewell.results import Choice, Estimate, Evaluation, Retention, SeedResult, Seeds, Training
from tunewell.stages.job import Job
from tunewell.strategies import AUTO
from tunewell.workers import HERE, Workers, done
from tunewell.workers.job import alone_in, refuse, shared_job

CONSTANT = ("majority", "mean")
FILE = "seeds.json"


def preflight(job: Job, workers: Workers = HERE) -> None:
    """Refuse what cannot be repeated.

    Raises:
        RecipeError: a task whose answers are texts, a search instead of a strategy, or workers without work.
    """
    from tunewell.stages.calibrate import CALIBRATED

    refuse(job, workers)
    if job.recipe.seeds == 1:
        if not workers.here:
            raise RecipeError(
                "a run with one seed is one job",
                where=workers.told,
                expected="seeds: N, whose further tunings workers do side by side",
                remedy="leave it out; several processes share one tuning with torchrun",
            )
        return
    if job.spec.name not in CALIBRATED:
        raise RecipeError(
            f"`seeds` repeats tunings for classes and scores, and this task is {job.spec.name}",
            where="seeds",
            expected="seeds: 1, and one run for each `seed`",
        )
    if job.recipe.strategies == (AUTO,):
        raise RecipeError(
            "`seeds` repeats one tuning, and `strategy: auto` is a search",
            where="seeds",
            expected="the strategy that the search has chosen, or seeds: 1",
        )


def over_seeds(
    job: Job,
    training: Training,
    choice: Choice,
    evaluation: Evaluation,
    retention: Retention | None,
    workers: Workers = HERE,
) -> Seeds | None:
    """Tune with the further seeds and write seeds.json; None where there is one seed only."""
    path = job.folder / FILE
    if job.recipe.seeds == 1:
        path.unlink(missing_ok=True)
        return None
    own = SeedResult(
        seed=job.recipe.seed,
        test=evaluation.headline,
        validation=next(c.score.value for c in choice.candidates if c.chosen),
        retention=None if retention is None else retention.mean.value,
        steps=training.steps,
        seconds=round(training.seconds, 2),
    )
    results = [own, *_further(job, range(job.recipe.seed + 1, job.recipe.seed + job.recipe.seeds), workers)]
    made = gathered(results, metric=job.spec.metric, constant=_constant(job))
    made.write(path)
    spread = f"{made.test.value:.4f} ± {made.sd:.4f}" if made.test.value is not None else "–"
    job.echo(f"seeds: {len(results)} tunings, test {made.metric} {spread} (standard deviation), {made.failed} failed")
    return made


def gathered(results: Sequence[SeedResult], *, metric: str, constant: Estimate | None) -> Seeds:
    """Mean and spread over seeds, with Student's 95 % interval of the mean.

    Args:
        constant: the constant answer on the same test rows; None where it was not measured.
    """
    floor = None if constant is None else constant.high if constant.high is not None else constant.value
    marked = tuple(
        r.model_copy(update={"failed": floor is not None and (r.test.value is None or r.test.value <= floor)})
        for r in results
    )
    tests = [r.test.value for r in marked if r.test.value is not None]
    kept = [r.retention for r in marked if r.retention is not None]
    return Seeds(
        metric=metric,
        results=marked,
        test=mean_interval(tests),
        sd=_deviation(tests),
        retention=mean_interval(kept) if kept else None,
        retention_sd=_deviation(kept) if kept else None,
        failed=sum(r.failed for r in marked),
        floor=floor,
    )


def _deviation(values: Sequence[float]) -> float:
    import numpy as np

    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _constant(job: Job) -> Estimate | None:
    from tunewell.run import read_baselines

    return next((b.evaluation.headline for b in read_baselines(job.folder.path) if b.name in CONSTANT), None)


def _further(job: Job, seeds: Sequence[int], workers: Workers) -> list[SeedResult]:
    """More tunings, measured as the run's own was; kept in seeds/, their weights are not."""
    from tqdm import tqdm

    from tunewell.stages.tune import place

    keys = {seed: fingerprint(_child(job, seed).keys.tune, job.keys.choice) for seed in seeds}
    found = {seed: result for seed in seeds if (result := _known(job, seed, keys[seed])) is not None}
    wanted = [seed for seed in seeds if seed not in found]
    if not wanted:
        return [found[seed] for seed in seeds]
    options: dict[str, Any] = {"threads": job.recipe.threads, "echo": job.echo, "name": lambda seed: f"seed {seed}"}
    bar = tqdm(total=len(wanted), desc="seeds", unit="tuning", leave=False, disable=workers.here or not job.progress)
    with bar, closing(done(measure_seed, wanted, shared_job(job), workers, **options)) as results:
        for one in results:
            seed, result = wanted[one.at], SeedResult.model_validate(one.result())
            result.write(job.folder / "seeds" / f"{seed}.json")
            job.folder.mark(f"seed-{seed}", keys[seed], [f"seeds/{seed}.json"])
            folder = job.folder / place(_child(job, seed))
            shutil.rmtree(folder, ignore_errors=True)
            (folder.parent / f".{folder.name}.lock").unlink(missing_ok=True)
            found[seed] = result
            bar.update()
            if not workers.here:
                value = "–" if result.test.value is None else f"{result.test.value:.4f}"
                at = f" on {one.where}" if one.where else ""
                job.echo(f"seeds: {seed}: test {job.spec.metric} {value}, {result.seconds:.0f} s{at}")
    return [found[seed] for seed in seeds]


def _known(job: Job, seed: int, key: str) -> SeedResult | None:
    """The result of an earlier run of the same tuning."""
    if not job.folder.done(f"seed-{seed}", key, [f"seeds/{seed}.json"]):
        return None
    try:
        return SeedResult.load(job.folder / "seeds" / f"{seed}.json")
    except (OSError, ValueError, KeyError):  # damaged: made again
        return None


def _child(job: Job, seed: int) -> Job:
    """The run's job under another seed, at the rate and with the copies that were chosen."""
    from tunewell.stages.augment import followed
    from tunewell.stages.rates import chosen_for

    return chosen_for(job, followed(job, job.with_keys(f"seed-{seed}", seed=seed)))


def measure_seed(job: Job, seed: int) -> dict[str, Any]:
    """One more tuning, in a process of its own or here: a SeedResult as JSON."""
    from tunewell.stages.tune import place, tune

    child = _child(job, seed)
    job.echo(f"seeds: {seed}")
    with alone_in(job.folder / place(child)):
        return _measured(job, child, tune(child)).model_dump(mode="json")


def _measured(job: Job, child: Job, training: Training) -> SeedResult:
    """Choose among what came of it, on validation and the select halves; then test and the report halves."""
    from tunewell.retention.forgetting import compare
    from tunewell.stages.choose import choose, chosen_by_retention, measuring, tuned_and_base
    from tunewell.stages.probe import base_measurements, measures, suite
    from tunewell.stages.tune import strategies_of

    model, base = tuned_and_base(child)
    # by the run's own job: the base model's measurements and the probes' halves are those of its seed
    wanted = measures(job) and chosen_by_retention(job.recipe)
    choice = choose(model, recipe=child.recipe, base=base, strategies=strategies_of(child), **measuring(job, wanted))
    on_test = copy.copy(job)
    on_test.splits = {**job.splits, "validation": job.splits["test"]}
    test = job.task.validation(on_test, model).headline
    kept = None
    if measures(job):
        before = base_measurements(job, "report")
        after = suite(job, "report").measure(job.task.probed(job, model))
        kept = compare(before, after, seed=job.recipe.seed, n_boot=200).mean.value
    return SeedResult(
        seed=child.recipe.seed,
        test=test,
        validation=next(c.score.value for c in choice.candidates if c.chosen),
        retention=kept,
        steps=training.steps,
        seconds=round(training.seconds, 2),
    )
