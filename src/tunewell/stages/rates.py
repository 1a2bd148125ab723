"""`learning_rate: auto`: whole tunings at different rates, held against each other on validation.

A short probe favours rates that a long run cannot bear, so rates are judged by what they come to. The usual rate is
tuned first, then one twice as high. While a step helps, the next goes the same way; where the first does not
help, half of the usual rate is tried. A tuning that is clearly behind the best so far in its second half is stopped
(as in successive halving; Jamieson & Talwalkar, 2016). The rate with the best validation score is taken: unlike a
larger model or more rows, another rate costs nothing, so that there is no simpler one to prefer in doubt. How sure the
choice is, the interval of the paired difference says.

The rates that were tried stand in rates.json.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tunewell.errors import RecipeError
from tunewell.results import Choice, Estimate, Record, Training

if TYPE_CHECKING:
    from tunewell.recipe import Recipe
    from tunewell.stages.job import Job

FILE, AUTO_RATE = "rates.json", "auto"
FACTOR, TRIALS = 2.0, 4  # from one rate to the next; tunings at most
LEAST, MOST = 1e-6, 1e-2
CLEAR = 2.0  # standard errors of a score by which a tuning is behind
TASKS = ("text-classification", "text-regression")


class RateTrial(Record):
    """One tuning.

    Attributes:
        score: on validation, of its best candidate. difference: its score less that of the best rate before it, paired;
            None for the first. better: whether it took that rate's place. stopped: why it was ended early, or empty.
        met: whether a candidate is inside the retention budget; None without one.
    """

    rate: float
    score: Estimate
    difference: Estimate | None
    better: bool
    met: bool | None
    steps: int
    stopped: str
    seconds: float


class Rates(Record):
    """`rates.json`. `cost` is the time of all tunings over that of the first."""

    metric: str
    usual: float
    chosen: float
    trials: tuple[RateTrial, ...]
    cost: float


def wanted(recipe: Recipe) -> bool:
    """Whether the rate is to be found."""
    return recipe.learning_rate == AUTO_RATE


def preflight(job: Job) -> None:
    """Refuse where rates cannot be judged.

    Raises:
        RecipeError: another task, no validation rows, or a run that tunes several times for another reason.
    """
    from tunewell.strategies import AUTO

    recipe = job.recipe
    if not wanted(recipe):
        return
    problem, expected = "", "a rate, such as 5e-5"
    if job.spec.name not in TASKS:
        problem = f"this task is {job.spec.name}, and rates are compared on classes and scores"
    elif recipe.framework != "pytorch":
        problem = f"`framework: {recipe.framework}` tunes once"
    elif not job.validated:
        problem, expected = "there are no validation rows to judge rates by", "validation_size above 0, or a rate"
    elif recipe.strategies == (AUTO,):
        problem = "`strategy: auto` is a search of its own"
    elif recipe.augment != ["none"] or recipe.unlabelled is not None:
        problem = "`augment` and `unlabelled` tune with and without already"
    if problem:
        raise RecipeError(
            f"`learning_rate: auto`: {problem}", where="learning_rate", expected=expected, remedy="name a rate"
        )


def discard(job: Job) -> None:
    """A folder tells of rates only where its run compared some."""
    (job.folder / FILE).unlink(missing_ok=True)


def search_rate(job: Job) -> tuple[Training, Choice]:
    """Tune at several rates, save the model of the best one, and say how they differ."""
    from tunewell.errors import TrainingError
    from tunewell.stages.choose import chosen_by_retention
    from tunewell.stages.held import Tunings, best_of, finished, joined
    from tunewell.stages.probe import measures
    from tunewell.stages.race import Behind, curve_of
    from tunewell.train.rates import peak_rate

    if (found := finished(job, [FILE])) is not None:
        return found
    assert job.max_length
    held = Tunings(job, wanted=measures(job) and chosen_by_retention(job.recipe))
    usual = rounded(job.task.defaults.get("learning_rate") or peak_rate(job.encoder.model))
    job.echo(f"rate: {usual:g} first, then steps of {FACTOR:g} times; at most {TRIALS} tunings")
    trials: list[RateTrial] = []
    sides: dict[float, tuple[Choice, int]] = {}  # rate -> its choice, and the place of its first candidate
    curves: dict[str, dict[int, float]] = {}
    best = usual

    def attempt(rate: float) -> bool:
        """Tune at a rate; whether it is better than the best before."""
        nonlocal best
        child = job.with_keys(name_of(rate), learning_rate=rate)
        race = Behind(job.spec.metric, curves, _clear(trials), job.echo)
        child.callbacks = [*child.callbacks, race]
        try:
            training, first = held.tune(child), len(held.candidates)
        except TrainingError as error:
            if not trials or not str(error.where).startswith("learning_rate"):
                raise
            lost = RateTrial(
                rate=rate, score=Estimate(value=None, n=trials[0].score.n), difference=None, better=False, met=None,
                steps=0, stopped="the loss did not stay finite", seconds=0.0,
            )  # fmt: skip
            trials.append(lost)
            job.echo(f"rate: {rate:g}: {lost.stopped}")
            return False
        own = held.score(child, (*job.recipe.strategies, f"rate {rate:g}"))
        side = best_of(job, own)
        sides[rate] = (side, first)
        curves[f"{rate:g}"] = curve_of(training, job.spec.metric)
        difference = None
        if trials:
            difference = held.compare(_place(sides[rate]), _place(sides[best])).difference
        better = difference is None or gains(difference, side.met, sides[best][0].met)
        trials.append(
            RateTrial(
                rate=rate,
                score=side.chosen.score,
                difference=difference,
                better=better,
                met=side.met,
                steps=training.steps,
                stopped=training.stopped,
                seconds=round(training.seconds, 2),
            )
        )
        job.echo(f"rate: {_told(trials[-1], job.spec.metric)}")
        if better:
            best = rate
        return better

    attempt(usual)
    for factor in (FACTOR, 1 / FACTOR):
        rate = rounded(usual * factor)
        while len(trials) < TRIALS and LEAST <= rate <= MOST and attempt(rate):
            rate = rounded(rate * factor)
        if best != usual:
            break
    cost = round(held.seconds / max(trials[0].seconds, 1e-9), 3)
    Rates(metric=job.spec.metric, usual=usual, chosen=best, trials=tuple(trials), cost=cost).write(job.folder / FILE)
    job.echo(f"rate: {best:g} is used; {cost:.1f} times the time of one tuning")
    choice = joined([side for side, _ in sides.values()], list(sides).index(best))
    choice = choice.model_copy(update={"reason": f"{choice.reason}; learning rate {best:g} of {len(trials)} tried"})
    return held.settle(choice, [FILE]), choice


def name_of(rate: float) -> str:
    """The name of a rate's tuning, which is that of its folder."""
    return f"rate-{rate:g}"


def rounded(rate: float) -> float:
    """Two significant digits: what is said is what is used.

    >>> rounded(0.04 / 384), rounded(3.33e-5 / 2)
    (0.0001, 1.7e-05)
    """
    return float(f"{rate:.1e}")


def gains(difference: Estimate, met: bool | None, met_before: bool | None) -> bool:
    """Whether a rate takes the best one's place: it alone is inside the budget, or it scores higher."""
    if met is not None and met != met_before:
        return bool(met)
    return difference.value is not None and difference.value > 0


def chosen_for(job: Job, child: Job) -> Job:
    """A further tuning of the same run (another seed) at the rate that was chosen."""
    if not wanted(job.recipe):
        return child
    return child.with_keys(child.candidate, learning_rate=Rates.load(job.folder / FILE).chosen)


def _clear(trials: list[RateTrial]) -> float:
    """How far behind is clearly behind; infinite where that is not known."""
    error = trials[0].score.standard_error if trials else None
    return math.inf if error is None else CLEAR * error


def _place(side: tuple[Choice, int]) -> int:
    choice, first = side
    return first + next(i for i, c in enumerate(choice.candidates) if c.chosen)


def _told(trial: RateTrial, metric: str) -> str:
    value = "–" if trial.score.value is None else f"{trial.score.value:.4f}"
    out = f"{trial.rate:g}: validation {metric} {value}"
    if trial.difference is not None and trial.difference.value is not None:
        out += f" ({trial.difference.value:+.4f}), {'better' if trial.better else 'not better'}"
    return out
