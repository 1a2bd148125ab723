"""`strategy: auto`: what keeps enough at the least cost, looked for from the likeliest to the dear.

1. Distillation on a small general batch, which mostly keeps enough by itself, and its variants, which cost no training:
   averages with the base model (WiSE-FT) and layer-wise scaling (LiNeS). Where the tuned model itself is inside the
   budget by a standard error, the search is over: nothing had to be traded.
2. Plain tuning, to know what the budget costs, and its variants.
3. A stronger distillation, after a linear probe (LP-FT).

A tuning that is hopeless is stopped on the way (see `race`). The tunings are held as `held.Tunings`. The search ends
when a candidate is inside the budget by a standard error with a validation score like plain tuning's, or when the next
tuning would pass `max_cost` times plain tuning's time. All candidates stand on the frontier of the report, and the
choice among them follows the rule of every run (retention/budget.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewell.results import Candidate, Choice, Training
from tunewell.retention.budget import choose as choose_by_budget
from tunewell.retention.budget import safely
from tunewell.stages.choose import choose_and_save
from tunewell.stages.held import Tunings, finished
from tunewell.stages.job import Job
from tunewell.stages.probe import measures
from tunewell.stages.race import Point, Race, points_of
from tunewell.stages.tune import tune
from tunewell.strategies import AFTERWARDS, AUTO

STRONGER = 4  # times distill_weight
LP_COST, DISTILL_COST = 1.05, 1.25  # expected tuning time over plain tuning's; the measured one is shown


@dataclass(frozen=True)
class Rung:
    """One tuning of the search.

    Attributes:
        name: of its folder and candidates. trained: the strategies that tuning follows.
        cost: expected time over plain tuning's. times: factor of `distill_weight`.
    """

    name: str
    trained: tuple[str, ...]
    cost: float
    times: float = 1.0


PLAIN = Rung("plain", (), 1.0)
DISTILL = Rung("distill", ("distill",), DISTILL_COST)
STRONG = Rung("lpft+distill-strong", ("lpft", "distill"), DISTILL_COST + LP_COST - 1, STRONGER)
RUNGS = (DISTILL, PLAIN, STRONG)


def tune_and_choose(job: Job) -> tuple[Training, Choice]:
    """Tune once and choose among what comes of it; with `strategy: auto` search among several tunings, with `augment`
    and `unlabelled` tune with and without what they bring, with `learning_rate: auto` at several rates."""
    from tunewell.stages import augment, rates, rewrite, unlabelled

    if not rewrite.wanted(job.recipe):
        rewrite.discard(job)
    if not augment.wanted(job.recipe):
        augment.discard(job)
    if rates.wanted(job.recipe):
        return rates.search_rate(job)
    rates.discard(job)
    if job.recipe.unlabelled is not None:
        return unlabelled.tune_with_pool(job)
    (job.folder / unlabelled.FILE).unlink(missing_ok=True)
    if job.recipe.strategies == (AUTO,):
        return search(job)
    return augment.with_and_without(job) if augment.wanted(job.recipe) else (tune(job), choose_and_save(job))


def search(job: Job) -> tuple[Training, Choice]:
    """Search, save the chosen model, and return its training (with the time of the whole search) and the choice."""
    if (found := finished(job)) is not None:
        return found
    recipe = job.recipe
    job.echo(
        f"auto: may cost up to {recipe.max_cost:g} times plain tuning, stops when enough is kept: "
        + ", ".join(f"{rung.name} (about {rung.cost:g} ×)" for rung in RUNGS)
    )
    assert job.max_length  # worked out here, once for all rungs
    stopped: dict[str, str] = {}
    raced: dict[str, dict[int, Point]] = {}
    held = Tunings(job)
    candidates, trainings = held.candidates, held.trainings
    for rung in RUNGS:
        spent = held.seconds / plain_seconds(trainings) if trainings else 0.0
        if trainings and spent + rung.cost > recipe.max_cost:
            job.echo(f"auto: {rung.name} is not tried: it would pass max_cost {recipe.max_cost:g}")
            break
        child = _child(job, rung)
        _race(child, raced, candidates)
        training = held.tune(child)
        raced[rung.name] = points_of(training, job.spec.metric)
        if training.stopped:
            stopped[rung.name] = training.stopped
        held.score(child, (rung.name,))
        job.echo(f"auto: {rung.name} took {training.seconds:.0f} s of tuning")
        if winner := enough(candidates, recipe.keep, recipe.keep_worst):
            like = " at a validation score like plain tuning's" if PLAIN.name in trainings else " as it is"
            job.echo(f"auto: {winner.name} keeps enough{like}")
            break
    choice = choose_by_budget(candidates, keep=recipe.keep, keep_worst=recipe.keep_worst)
    costs: dict[str, float] = {}
    reason = f"{choice.reason}; auto: {held.seconds:.0f} s of tuning in all"
    if PLAIN.name in trainings:
        plain = plain_seconds(trainings)
        costs = {name: round(t.seconds / plain, 3) for name, t in trainings.items()}
        about = "about " if trainings[PLAIN.name].stopped else ""
        reason += f", {about}{sum(costs.values()):.2f} × plain tuning's"
    reason += "".join(f"; {name} was {why}" for name, why in stopped.items())
    choice = choice.model_copy(update={"costs": costs, "stopped": stopped, "reason": reason})
    return held.settle(choice), choice


def plain_seconds(trainings: Mapping[str, Training]) -> float:
    """What plain tuning takes: as measured, or as expected from distillation where it was stopped or not tuned."""
    plain = trainings.get(PLAIN.name)
    if plain is not None and not plain.stopped:
        return max(plain.seconds, 1e-9)
    return max(trainings[DISTILL.name].seconds / DISTILL.cost, 1e-9)


def enough(candidates: Sequence[Candidate], keep: float | None, keep_worst: float | None) -> Candidate | None:
    """The candidate that ends the search: inside the budget by a standard error, at a score like plain tuning's.

    Before plain tuning is there: the distilled model itself, which has traded nothing. After it: the best of those that
    were tuned, unless its validation score is below plain tuning's interval, or else the best of all, unless it is
    below plain tuning's score: of a point derived from a model it is known that it gives up some of the task.
    """
    safe = [c for c in candidates if safely(c, keep, keep_worst)]
    tuned = [c for c in safe if not c.parameters]
    plain = next((c for c in candidates if c.name == PLAIN.name), None)

    def best(of: list[Candidate], floor: float | None) -> Candidate | None:
        scored = [c for c in of if c.score.value is not None and floor is not None and c.score.value >= floor]
        return max(scored, key=lambda c: c.score.value or 0.0, default=None)

    if plain is None or plain.score.value is None:  # nothing to be held against
        return next(iter(tuned), None)
    low = plain.score.low if plain.score.low is not None else plain.score.value
    return best(tuned, low) or best(safe, plain.score.value)


def _race(child: Job, raced: Mapping[str, Mapping[int, Point]], candidates: Sequence[Candidate]) -> None:
    """Let a rung run against those before it."""
    clear = (candidates[0].score.standard_error or 0.0) if candidates else 0.0
    race = Race(lambda: child.monitor, child.spec.metric, raced, clear, child.echo)
    child.callbacks = [*child.callbacks, race]


def _child(job: Job, rung: Rung) -> Job:
    """The job of one rung."""
    keys: dict[str, Any] = {"strategy": [*rung.trained, *AFTERWARDS]}
    if job.recipe.monitor is None and measures(job):  # what a race is judged by
        keys["monitor"] = "watch"
    if rung.times != 1:
        keys["distill_weight"] = job.recipe.distill_weight * rung.times
    return job.with_keys(rung.name, **keys)
