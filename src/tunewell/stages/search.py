"""`strategy: auto`: from cheap to dear, until the budget is met at a task score like plain tuning's.

1. Plain tuning. Along the way between it and the base model there are candidates that cost no training:
   averages (WiSE-FT) and layer-wise scaling (LiNeS).
2. A linear probe first, then tuning (LP-FT): about the time of plain tuning.
3. Distillation on a small general batch, together with LP-FT where that has kept more than plain tuning.
4. The same with a four times stronger distillation.

A tuning that is hopeless is stopped on the way (see `race`), and the stronger distillation is left out where the
weaker one has kept enough and it is the score that it lacks.

The tunings are held as `held.Tunings`. The search ends when one is
inside the budget with a validation score not below the interval of plain tuning's, or when the next
tuning would pass `max_cost` times plain tuning's time. All candidates stand on the frontier of the report,
and the choice among them follows the rule of every run (retention/budget.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewell.results import Candidate, Choice, Training
from tunewell.retention.budget import choose as choose_by_budget
from tunewell.retention.budget import meets
from tunewell.stages.choose import choose_and_save
from tunewell.stages.held import Tunings, finished
from tunewell.stages.job import Job
from tunewell.stages.probe import measures
from tunewell.stages.race import Point, Race, points_of
from tunewell.stages.tune import tune
from tunewell.strategies import AFTERWARDS, AUTO

STRONGER = 4  # times distill_weight on the last rung
LP_COST, DISTILL_COST = 1.05, 1.35  # expected tuning time over plain tuning's; the measured one is shown


@dataclass(frozen=True)
class Rung:
    """One tuning of the search.

    Attributes:
        name: of its folder and candidates. trained: the strategies that tuning follows.
        cost: expected time over plain tuning's. stronger: factor of `distill_weight`.
    """

    name: str
    trained: tuple[str, ...]
    cost: float
    stronger: float = 1.0


PLAIN = Rung("plain", (), 1.0)
LPFT = Rung("lpft", ("lpft",), LP_COST)


def later(probe_helps: bool) -> tuple[Rung, Rung]:
    """The dear rungs: distillation, weak and strong; with a linear probe first where that has helped."""
    names = ("lpft", "distill") if probe_helps else ("distill",)
    joined = "+".join(names)
    cost = DISTILL_COST + (LP_COST - 1 if probe_helps else 0)
    return Rung(joined, names, cost), Rung(f"{joined}-strong", names, cost, STRONGER)


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
    lines = [f"{rung.name} (about {rung.cost:g} ×)" for rung in (PLAIN, LPFT, *later(True))]
    job.echo(
        f"auto: may cost up to {recipe.max_cost:g} times plain tuning, stops when enough is kept: {', '.join(lines)}"
    )
    assert job.max_length  # worked out here, once for all rungs
    stopped: dict[str, str] = {}
    raced: dict[str, dict[int, Point]] = {}
    held = Tunings(job)
    candidates, trainings = held.candidates, held.trainings
    for rung in _rungs(candidates):
        plain_seconds = trainings["plain"].seconds if trainings else 0.0
        if trainings and held.seconds + rung.cost * plain_seconds > recipe.max_cost * plain_seconds:
            job.echo(f"auto: {rung.name} is not tried: it would pass max_cost {recipe.max_cost:g}")
            break
        if rung.stronger != 1 and pointless(candidates, recipe.keep, recipe.keep_worst):
            job.echo(f"auto: {rung.name} is not tried: the weaker one keeps enough, it is the score that it lacks")
            break
        child = _child(job, rung)
        _race(child, raced, candidates)
        training = held.tune(child)
        raced[rung.name] = points_of(training, job.spec.metric)
        if training.stopped:
            stopped[rung.name] = training.stopped
        held.score(child, (rung.name,))
        ratio = training.seconds / max(trainings["plain"].seconds, 1e-9)
        job.echo(f"auto: {rung.name} took {training.seconds:.0f} s of tuning, {ratio:.2f} × plain")
        if winner := enough(candidates, recipe.keep, recipe.keep_worst):
            job.echo(f"auto: {winner.name} keeps enough at a validation score like plain tuning's")
            break
    choice = choose_by_budget(candidates, keep=recipe.keep, keep_worst=recipe.keep_worst)
    plain = max(trainings["plain"].seconds, 1e-9)
    costs = {name: round(t.seconds / plain, 3) for name, t in trainings.items()}
    reason = f"{choice.reason}; auto: {sum(costs.values()):.2f} × plain tuning's time"
    reason += "".join(f"; {name} was {why}" for name, why in stopped.items())
    choice = choice.model_copy(update={"costs": costs, "stopped": stopped, "reason": reason})
    return held.settle(choice), choice


def _rungs(candidates: list[Candidate]) -> Iterator[Rung]:
    """The rungs in order; the later ones depend on what `candidates`, which grows meanwhile, have shown."""
    yield PLAIN
    yield LPFT
    yield from later(probe_helps(candidates))


def probe_helps(candidates: Sequence[Candidate]) -> bool:
    """Whether LP-FT as it is has kept more than plain tuning as it is."""

    def kept(name: str) -> float:
        for c in candidates:
            if c.name == name and c.retention_mean is not None and c.retention_mean.value is not None:
                return c.retention_mean.value
        return float("-inf")

    return kept(LPFT.name) > kept(PLAIN.name)


def enough(candidates: Sequence[Candidate], keep: float | None, keep_worst: float | None) -> Candidate | None:
    """The candidate inside the budget with the best validation score, unless that is below plain tuning's interval."""
    plain = candidates[0].score
    floor = plain.low if plain.low is not None else plain.value
    inside = [c for c in candidates if meets(c, keep, keep_worst) and c.score.value is not None]
    best = max(inside, key=lambda c: c.score.value or 0.0, default=None)
    if best is None or floor is None or best.score.value is None or best.score.value < floor:
        return None
    return best


def pointless(candidates: Sequence[Candidate], keep: float | None, keep_worst: float | None) -> bool:
    """Whether distillation as it is, the last that was tuned, keeps enough at a score below plain tuning's interval."""
    plain, last = candidates[0].score, next(c for c in reversed(candidates) if not c.parameters)
    floor = plain.low if plain.low is not None else plain.value
    if "distill" not in last.name or floor is None or last.score.value is None:
        return False
    return bool(meets(last, keep, keep_worst)) and last.score.value < floor


def _race(child: Job, raced: Mapping[str, Mapping[int, Point]], candidates: Sequence[Candidate]) -> None:
    """Let a rung run against those before it."""
    score = candidates[0].score if candidates else None
    known = score is not None and score.low is not None and score.high is not None
    clear = (score.high - score.low) / (2 * 1.96) if known else 0.0  # type: ignore[union-attr,operator]
    race = Race(lambda: child.monitor, child.spec.metric, raced, clear, child.echo)
    child.callbacks = [*child.callbacks, race]


def _child(job: Job, rung: Rung) -> Job:
    """The job of one rung."""
    keys: dict[str, Any] = {"strategy": [*rung.trained, *AFTERWARDS]}
    if job.recipe.monitor is None and measures(job):  # what a race is judged by
        keys["monitor"] = "watch"
    if rung.stronger != 1:
        keys["distill_weight"] = job.recipe.distill_weight * rung.stronger
    return job.with_keys(rung.name, **keys)
