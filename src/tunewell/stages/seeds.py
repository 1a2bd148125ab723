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

from tunewell.errors import RecipeError
from tunewell.evaluate.statistics import mean_interval
from tunewell.folder import fingerprint
from tunewell.results import Choice, Estimate, Evaluation, Retention, SeedResult, Seeds, Training
from tunewell.stages.job import Job
from tunewell.strategies import AUTO

CONSTANT = ("majority", "mean")
FILE = "seeds.json"


def preflight(job: Job) -> None:
    """Refuse what cannot be repeated.

    Raises:
        RecipeError: a task whose answers are texts, or a search instead of a strategy.
    """
    from tunewell.stages.calibrate import CALIBRATED

    if job.recipe.seeds == 1:
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
    job: Job, training: Training, choice: Choice, evaluation: Evaluation, retention: Retention | None
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
    results = [own, *(_further(job, job.recipe.seed + i) for i in range(1, job.recipe.seeds))]
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


def _further(job: Job, seed: int) -> SeedResult:
    """One more tuning, measured as the run's own was; kept in seeds/, its weights are not."""
    from tunewell.stages.augment import followed
    from tunewell.stages.rates import chosen_for
    from tunewell.stages.tune import place, tune

    child = chosen_for(job, followed(job, job.with_keys(f"seed-{seed}", seed=seed)))
    path = job.folder / "seeds" / f"{seed}.json"

    def make() -> SeedResult:
        job.echo(f"seeds: {seed}")
        training = tune(child)
        result = _measured(job, child, training)
        result.write(path)
        return result

    key = fingerprint(child.keys.tune, job.keys.choice)
    found = job.folder.step(f"seed-{seed}", key, [f"seeds/{seed}.json"], make, lambda: SeedResult.load(path))
    shutil.rmtree(job.folder / place(child), ignore_errors=True)
    return found


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
