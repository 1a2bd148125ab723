"""`unlabelled: pool.csv`: the same tuning with and without texts that have no label, held against each other.

Every method is a candidate of its own, tuned in train/<method> beside train/without, as the rungs of `strategy: auto`
are (`stages/held.py`). It is judged on validation rows, paired with the tuning without it; where a run has none, by
cross-validation on the training rows, each fold tuned with and without. What does not help is not among the candidates
that are chosen from; `unlabelled.json` holds the figures of all, used or not.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from tunewell.folder import fingerprint
from tunewell.results import Choice, Comparison, Estimate, Training, write_whole
from tunewell.retention.budget import choose as choose_by_budget
from tunewell.stages.choose import chosen_by_retention
from tunewell.stages.held import Tunings, finished
from tunewell.stages.job import Job
from tunewell.stages.probe import measures
from tunewell.stages.tune import strategies_of, tuned_model
from tunewell.unlabelled import WITHOUT
from tunewell.unlabelled.decide import folds, judge
from tunewell.unlabelled.fits import methods_of
from tunewell.unlabelled.make import CACHE, MAKERS, Made, NothingError, without
from tunewell.unlabelled.records import MethodResult, Unlabelled

FILE = "unlabelled.json"


def tune_with_pool(job: Job) -> tuple[Training, Choice]:
    """Tune with and without the pool, use what helps, save the chosen model.

    Returns:
        The chosen model's training (with the time of all tunings) and the choice.
    """
    if (found := finished(job, [FILE])) is not None:
        return found
    methods = methods_of(job)
    assert job.pool is not None
    assert job.max_length  # worked out here, once for all candidates
    assert job.encoder.model
    if "propagation" in methods and not job.validated:
        assert len(job.pool_vectors)  # and here for all folds
    how = "validation rows" if job.validated else "4-fold cross-validation: there are no validation rows"
    job.echo(f"unlabelled: {', '.join(methods)}, each held against tuning without, by {how}")
    skipped: dict[str, str] = {}
    if job.validated:
        teacher = without(job)
        made = {WITHOUT: teacher} | _tried(job, methods, "", teacher, skipped)
        scores = {name: job.scores(tuned_model(m.job), "validation") for name, m in made.items()}
        targets = job.targets("validation")
    else:
        scores, targets = _cross_validated(job, methods, skipped)
    judged = _judged(job, scores, targets)
    helping = [name for name, (_, helps) in judged.items() if helps]
    if not job.validated:
        teacher = without(job)
        made = {WITHOUT: teacher} | _tried(job, helping, "", teacher, skipped)
        # nothing else tells them apart, so that the one that brought most comes first
        helping = sorted((n for n in helping if n in made), key=lambda n: -(judged[n][0].difference.value or 0.0))
    held = Tunings(job, wanted=measures(job) and chosen_by_retention(job.recipe))
    held.trainings = {m.job.candidate: m.training for m in made.values()}
    held.beside = sum(m.seconds for m in made.values())  # teachers, graphs, pretraining
    choice = _choice(held, made, [WITHOUT, *helping] if job.validated else [*helping, WITHOUT], judged)
    winner = held.owners[next(i for i, c in enumerate(choice.candidates) if c.chosen)][0].candidate
    results = tuple(_result(job, name, scores, targets, judged[name], made.get(name), winner) for name in judged)
    about = Unlabelled(
        source=job.pool.source,
        read=job.pool.read,
        pool=len(job.pool),
        left_out=job.pool.left_out,
        judged="validation" if job.validated else "cross-validation",
        n=len(targets),
        metric=job.spec.metric,
        rule=job.recipe.unlabelled_rule,
        without=_headline(job, scores[WITHOUT], targets),
        methods=results,
        skipped=skipped,
        chosen=None if winner == WITHOUT else winner,
    )
    about.write(job.folder / FILE)
    _tell(job, about)
    return held.settle(choice, [FILE]), choice


def _tried(job: Job, methods: Sequence[str], prefix: str, teacher: Made, skipped: dict[str, str]) -> dict[str, Made]:
    """The candidates of the methods; what brings none is noted in `skipped`."""
    out = {}
    for name in methods:
        try:
            out[name] = MAKERS[name](job, prefix, teacher)
        except NothingError as reason:
            skipped[name] = str(reason)
            job.echo(f"unlabelled: {name} is not tried: {reason}")
    return out


def _judged(job: Job, scores: dict[str, np.ndarray], targets: np.ndarray) -> dict[str, tuple[Comparison, bool]]:
    others = {name: s for name, s in scores.items() if name != WITHOUT}
    rule, seed = job.recipe.unlabelled_rule, job.recipe.seed
    return judge(job.spec, scores[WITHOUT], others, targets, rule=rule, seed=seed)


# ---------------------------------------------------------------- without validation rows


def _cross_validated(
    job: Job, methods: Sequence[str], skipped: dict[str, str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scores (n, C) of each training row by models that have not learned from it, with and without; its targets."""
    targets = job.targets("train")
    fold = folds(targets, job.recipe.seed)
    scores = {name: np.full((len(targets), len(job.spec.labels)), np.nan) for name in (WITHOUT, *methods)}
    for k in range(int(fold.max()) + 1):
        for name, found in _fold(job, methods, fold, k).items():
            scores[name][fold == k] = found
    whole = {name: s for name, s in scores.items() if not np.isnan(s).any()}
    skipped |= {name: "no text of the pool is sure enough in some fold" for name in scores if name not in whole}
    return whole, targets


def _fold(job: Job, methods: Sequence[str], fold: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Name -> probabilities of the rows of one fold; kept in the run folder, the weights are not."""
    train, prefix = job.splits["train"], f"fold-{k + 1}/"
    held = {
        **job.splits,
        "train": train.select(np.flatnonzero(fold != k)),
        "held": train.select(np.flatnonzero(fold == k)),
    }
    child = job.with_rows(job.candidate, held, ("fold", k, len(fold)))
    path = job.folder / f"{CACHE}/fold-{k + 1}.npz"

    def make() -> dict[str, np.ndarray]:
        job.echo(f"unlabelled: fold {k + 1} of {int(fold.max()) + 1}")
        teacher = without(child, prefix)
        made = {WITHOUT: teacher} | _tried(child, methods, prefix, teacher, {})
        found = {name: child.scores(tuned_model(m.job), "held") for name, m in made.items()}
        buffer = io.BytesIO()
        np.savez(buffer, **found)  # type: ignore[arg-type]
        write_whole(path, buffer.getvalue())
        return found

    def read() -> dict[str, np.ndarray]:
        with np.load(path, allow_pickle=False) as saved:
            return {name: saved[name] for name in saved.files}

    assert job.pool is not None
    keys = ("threshold", "rounds", "epochs", "pretraining", "weight", "consistency", "tsa")
    asked = (methods, job.pool.fingerprint, [getattr(job.recipe, f"unlabelled_{k}") for k in keys])
    found = job.folder.step(f"fold-{k + 1}", fingerprint(child.keys.tune, asked), [f"{CACHE}/{path.name}"], make, read)
    shutil.rmtree(job.folder / "train" / prefix, ignore_errors=True)
    return found


# ---------------------------------------------------------------- the choice and its record


def _choice(
    held: Tunings, made: dict[str, Made], names: Sequence[str], judged: dict[str, tuple[Comparison, bool]]
) -> Choice:
    """Choose among the tunings `names` and what comes of them, by the rule of every run."""
    job = held.job
    for name in names:
        child = made[name].job
        # the recipe's own candidates keep their names
        held.score(child, (*(s.name for s in strategies_of(child)), *(() if name == WITHOUT else (name,))))
    choice = choose_by_budget(held.candidates, keep=job.recipe.keep, keep_worst=job.recipe.keep_worst)
    refused = [name for name, (_, helps) in judged.items() if not helps]
    reason = choice.reason + (f"; unlabelled: {', '.join(refused)} did not help" if refused else "")
    plain = max(made[WITHOUT].training.seconds, 1e-9)
    costs = {name: round((m.training.seconds + m.seconds) / plain, 3) for name, m in made.items()}
    return choice.model_copy(update={"reason": reason, "costs": costs})


def _headline(job: Job, scores: np.ndarray, targets: np.ndarray) -> Estimate:
    from tunewell.evaluate.metrics import evaluate

    return evaluate(job.spec, scores, targets, split="validation", seed=job.recipe.seed, n_boot=500).headline


def _result(
    job: Job,
    name: str,
    scores: dict[str, np.ndarray],
    targets: np.ndarray,
    judged: tuple[Comparison, bool],
    made: Made | None,
    winner: str,
) -> MethodResult:
    from tunewell.evaluate.statistics import mean_interval

    comparison, helps = judged
    about: dict[str, Any] = {}
    if made is not None:
        about = {"seconds": round(made.training.seconds + made.seconds, 2), "rounds": made.rounds, "about": made.about}
        if made.guessed is not None:
            g, labels = made.guessed, job.spec.labels
            counts = np.bincount(g.labels, minlength=len(labels))
            about |= {
                "rows": len(g), "classes": dict(zip(labels, counts.tolist(), strict=True)),
                "confidence": mean_interval(g.confidence), "least": float(g.confidence.min()),
                "temperature": g.temperature if job.validated else None,
            }  # fmt: skip
    return MethodResult(
        method=name,
        score=_headline(job, scores[name], targets),
        comparison=comparison,
        helps=helps,
        chosen=name == winner,
        **about,
    )


def _tell(job: Job, about: Unlabelled) -> None:
    """One line a method, and the decision."""
    for m in about.methods:
        d = m.comparison.difference
        interval = "" if d.low is None or d.high is None else f" [{d.low:+.4f}, {d.high:+.4f}]"
        verdict = "helps" if m.helps else "does not help, not used"
        job.echo(
            f"unlabelled: {m.method}: {about.judged} {about.metric} {m.score.value:.4f}, without it "
            f"{about.without.value:.4f}, difference {d.value:+.4f}{interval}: {verdict}"
        )
    if about.tells is not None:
        job.echo(f"unlabelled: {about.n:,} rows tell differences from about {about.tells:.3f}")
    job.echo(f"unlabelled: {about.chosen or 'the model that learned from labelled rows alone'} is used")
