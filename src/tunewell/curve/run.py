"""`tunewell curve` as a story: rows, sizes, points, laws, and answers to how many labels are enough."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tunewell.curve.records import Foreseen, LearningCurve, More, Needed
from tunewell.data.secrets import stem_of
from tunewell.errors import RecipeError
from tunewell.recipe import Recipe
from tunewell.recipe_file import load_recipe

if TYPE_CHECKING:
    from tunewell.curve.laws import Forecast
    from tunewell.explain.influence.rows import FileRows
    from tunewell.stages.job import Job

FARTHEST = 20.0  # times the labels that there are: beyond, no law is asked
STEPS_AHEAD = (0.5, 1.0, 3.0)  # shares of the labels at hand that are asked for beyond them
TASKS = ("text-classification", "text-regression")


def learning_curve(
    recipe: Recipe | str | Path | None = None,
    *,
    sizes: Sequence[int] = (),
    repeats: int = 3,
    by: Literal["tune", "probe"] = "tune",
    target: float | None = None,
    more: Sequence[int] = (),
    runs: Sequence[str | Path] = (),
    cost_per_label: float | None = None,
    labels_per_hour: float | None = None,
    echo: Callable[[str], None] | None = None,
    progress: bool = True,
    command: str = "",
    jobs: int | None = None,
    ray: str | None = None,
    **keys: Any,
) -> LearningCurve:
    """How the score grows with the number of labels, and what more of them would bring.

    Models are tuned on nested subsets of the training rows and scored on the same test rows; laws of
    learning curves are fitted to the scores and extrapolated (see `tunewell.curve.laws`).

    Args:
        recipe: a Recipe, the path of a YAML file, or None when everything is given as keys; keys take precedence.
        sizes: numbers of labels; by default all, half, a quarter, ... of the training rows, six at most.
        repeats: subsets and seeds at each size. by: `tune`, or `probe` for a linear probe on frozen embeddings.
        target: a score; the answer is how many labels reach it. more: numbers of further labels to ask for.
        runs: finished runs on labels of the same kind; the answer is how many labels their scores are worth.
        cost_per_label, labels_per_hour: give the answers in money and hours too.
        jobs, ray: where points are tuned: so many processes side by side; on Ray, "local" or the address of a
            cluster. Scores do not depend on it, given `threads`.

    Returns:
        The curve; also written to `curve.json` and `report.html` in the output folder. The same call goes on
        where a stopped one was.

    Raises:
        TunewellError: the user's mistakes.
    """
    from tunewell.curve.measure import check_sizes, default_sizes, measure
    from tunewell.curve.worth import comparable
    from tunewell.stages.job import ROWS_EMBEDDED, Job
    from tunewell.stages.preflight import preflight
    from tunewell.workers import Workers
    from tunewell.workers.job import refuse

    workers = Workers(jobs, ray)
    given = recipe.model_dump(exclude_unset=True) if isinstance(recipe, Recipe) else {}
    recipe = load_recipe(None if isinstance(recipe, Recipe) else recipe, **{**given, **keys})
    if by == "probe" and not workers.here:
        raise RecipeError(
            "linear probes are fitted here, in seconds",
            where=workers.told,
            expected="by: tune, or no workers",
            remedy="leave it out",
        )
    _check(recipe, repeats, cost_per_label, labels_per_hour, more)
    started = time.perf_counter()
    place = recipe.output_dir or str(Path("runs") / f"{stem_of(recipe.train or 'data')}-curve")
    with Job(recipe, output_dir=place, echo=echo or _to_stderr, progress=progress, command=command) as job:
        if job.spec.name not in TASKS:
            raise RecipeError(
                f"learning curves are for classes and scores, not for {job.spec.name}",
                where="task",
                expected=" or ".join(TASKS),
            )
        if by == "probe" and len(job.splits["train"]) > ROWS_EMBEDDED:
            job.echo(f"curve: a seeded sample of {ROWS_EMBEDDED:,} training rows")
            job.splits["train"] = job.splits["train"].select(job.places["train"])
            del job.places
        if not job.validated:
            raise RecipeError(
                "a learning curve takes its best epoch from validation rows, and there are none",
                where="validation_size",
                expected="a share above 0, or a file for `validation`",
            )
        n, classes = len(job.splits["train"]), max(len(job.spec.labels), 1)
        ladder = check_sizes(sizes or default_sizes(n, classes), n, classes)
        preflight(job)
        refuse(job, workers)
        held = [comparable(job, run) for run in runs]  # before anything is measured
        job.begin()
        points = measure(job, ladder, repeats, by, workers)
        curve = _curve(
            job,
            points,
            ladder,
            by,
            target,
            more,
            held,
            cost_per_label,
            labels_per_hour,
            time.perf_counter() - started,
        )
        curve.write(job.folder / "curve.json")
        from tunewell.report.curve import build

        job.echo(f"report: {build(job.folder.path, curve, lang=recipe.lang)}")
    return curve


def _check(recipe: Recipe, repeats: int, cost: float | None, speed: float | None, more: Sequence[int]) -> None:
    if recipe.keep or recipe.keep_worst or "auto" in recipe.strategies or "average" in recipe.strategies:
        raise RecipeError(
            "a learning curve measures the score alone",
            where="keep" if recipe.keep or recipe.keep_worst else "strategy",
            expected="a recipe without `keep`, `auto` and `average`",
            remedy="leave them out here; give them to `tunewell run`",
        )
    if recipe.augment != ["none"]:
        raise RecipeError(
            "a learning curve measures the rows as they are",
            where="augment",
            expected="a recipe without `augment`",
            remedy="leave it out here; give it to `tunewell run`",
        )
    if recipe.unlabelled is not None:
        raise RecipeError(
            "a learning curve is one of labelled rows",
            where="unlabelled",
            expected="a recipe without `unlabelled`",
            remedy="leave it out here; give it to `tunewell run`",
        )
    for name, value in (("repeats", repeats), ("cost_per_label", cost), ("labels_per_hour", speed)):
        if value is not None and not value > 0:
            raise RecipeError(f"`{name}: {value:g}` is not possible", where=name, expected="a number above 0")
    if any(m < 1 for m in more):
        raise RecipeError("further labels are counted from 1", where="more", expected="whole numbers above 0")


def _curve(
    job: Job, points: Sequence[Any], sizes: Sequence[int], by: Any, target: float | None, more: Sequence[int],
    runs: Sequence[FileRows], cost: float | None, speed: float | None, seconds: float,
) -> LearningCurve:  # fmt: skip
    from tunewell.curve.laws import forecast
    from tunewell.curve.worth import worth

    n = sizes[-1]
    scores = [[p.score for p in points if p.size == size] for size in sizes]
    law = forecast(sizes, scores, seed=job.recipe.seed)
    grid = np.unique(np.geomspace(sizes[0], 4 * n, 60).round().astype(int))
    return LearningCurve(
        task=job.spec.name,
        metric=job.spec.metric,
        model=job.recipe.model,
        strategy=tuple(job.recipe.strategies),
        by=by,
        seed=job.recipe.seed,
        n_train=len(job.splits["train"]),
        n_test=len(job.splits["test"]),
        points=tuple(points),
        laws={name: round(weight, 4) for name, weight in law.weights.items()},
        discrepancy=round(law.discrepancy, 6),
        curve=tuple(
            Foreseen(size=int(size), value=float(v), low=float(low), high=float(high), measured=bool(size <= n))
            for size, (v, low, high) in zip(grid, law.at(grid), strict=True)
        ),
        more=tuple(_more(law, n, m, cost, speed) for m in (more or _ahead(n))),
        needed=None if target is None else _needed(law, n, target, cost, speed),
        worth=worth(job, runs, lambda score: _needed(law, n, score, cost, speed)),
        cost_per_label=cost,
        labels_per_hour=speed,
        seconds=round(seconds, 1),
    )


def _ahead(n: int) -> list[int]:
    """Round numbers near the shares STEPS_AHEAD of n."""
    out = []
    for share in STEPS_AHEAD:
        value = max(1.0, share * n)
        unit = 10.0 ** max(0, int(np.log10(value)) - 1)
        out.append(int(max(1, round(value / unit)) * unit))
    return sorted(set(out))


def _price(labels: float, cost: float | None, speed: float | None) -> dict[str, float | None]:
    return {
        "money": None if cost is None else round(labels * cost, 2),
        "hours": None if speed is None else round(labels / speed, 2),
    }


def _more(law: Forecast, n: int, labels: int, cost: float | None, speed: float | None) -> More:
    gain, low, high = law.gain(n, labels)
    return More(labels=labels, gain=gain, low=low, high=high, **_price(labels, cost, speed))


def _needed(law: Forecast, n: int, target: float, cost: float | None, speed: float | None) -> Needed:
    most = int(FARTHEST * n)
    value, low, high, share = law.needed(target, most)
    whole = [None if v is None else int(np.ceil(v)) for v in (value, low, high)]
    price = _price(max(0, whole[0] - n), cost, speed) if whole[0] is not None else {}
    return Needed(target=target, value=whole[0], low=whole[1], high=whole[2], share=share, most=most, **price)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
