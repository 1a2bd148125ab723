"""The last stages: summary.json for scripts, the page for people, the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewell.results import Augmentation, Choice, Evaluation, Retention, Seeds, Summary, Training
from tunewell.stages.job import Job
from tunewell.strategies import AUTO

OVER_SEEDS = {"test", "sd", "retention", "retention_sd", "failed"}


def summarise(
    job: Job,
    training: Training,
    choice: Choice,
    evaluation: Evaluation,
    retention: Retention | None,
    seconds: float,
    seeds: Seeds | None = None,
) -> Summary:
    """Write summary.json. `seconds` is the whole run's; a run that repeated no stage keeps its earlier figure."""
    from tunewell.rank.auto import summary_of
    from tunewell.report.build import verdict
    from tunewell.run import read_baselines

    recipe, path = job.recipe, job.folder / "summary.json"
    baselines = {b.name: b.evaluation.headline for b in read_baselines(job.folder.path)}
    if job.folder.done("summary", job.keys.choice, ["summary.json"]):
        seconds = Summary.load(path).seconds["total"]
    summary = Summary(
        task=job.spec.name,
        metric=job.spec.metric,
        test=evaluation.headline,
        base=job.task.base(baselines),
        baselines=baselines,
        retention=None if retention is None else _figures(retention),
        keep=recipe.keep,
        kept=_kept(job, choice, retention),
        strategy=recipe.strategies + (choice.chosen.strategy if AUTO in recipe.strategies else ()),
        unlabelled=_unlabelled(job),
        model=recipe.model,
        seed=recipe.seed,
        n_train=len(job.splits["train"]),
        seconds={"train": round(training.seconds, 2), "total": round(seconds, 2)},
        peak_memory_mb=round(training.peak_memory_mb, 1),
        seeds=None
        if seeds is None
        else seeds.model_dump(include={"test", "sd", "retention", "retention_sd", "failed"}),
        augment=augment_summary(job.folder.path),
        sdft=_rewriting(job),
        ranked=summary_of(job.folder.path, recipe.model),
    )
    summary.write(path)
    summary = summary.model_copy(update={"verdict": verdict(job.folder.path, lang=recipe.lang)})
    summary.write(path)
    job.folder.mark("summary", job.keys.choice, ["summary.json"])
    return summary


def augment_summary(folder: Path) -> dict[str, Any] | None:
    """What summary.json says of `augment`; None for a run without, or made of others."""
    if not (folder / "augment.json").is_file():
        return None
    record = Augmentation.load(folder / "augment.json")
    gain = None if record.comparison is None else record.comparison.difference.model_dump()
    return {"copies": record.kept, "helps": record.helps, "why": record.why, "gain": gain, "steps": record.steps}


def _rewriting(job: Job) -> dict[str, Any] | None:
    """What became of the answers under `sdft`, in short."""
    from tunewell.stages.rewrite import FILE, Rewriting, wanted

    path = job.folder / FILE
    if not wanted(job.recipe) or not path.is_file():
        return None
    return Rewriting.load(path).model_dump(include={"rows", "rewritten", "kept", "similarity", "bits_per_byte"})


def _unlabelled(job: Job) -> dict | None:
    """What texts without labels brought, in short."""
    from tunewell.stages.unlabelled import FILE
    from tunewell.unlabelled.records import Unlabelled

    if job.recipe.unlabelled is None:
        return None
    found = Unlabelled.load(job.folder / FILE)
    best = found.winner
    return {
        "method": found.chosen,
        "pool": found.pool,
        "judged": found.judged,
        "without": found.without.model_dump(),
        "with": None if best is None else best.score.model_dump(),
        "difference": None if best is None else best.comparison.difference.model_dump(),
    }


def _kept(job: Job, choice: Choice, retention: Retention | None) -> bool | None:
    """Whether the budget holds where nothing was chosen: on the report halves. None without a budget."""
    recipe = job.recipe
    if retention is None or not (recipe.keep or recipe.keep_worst):
        return None
    floors = ((retention.mean.value, recipe.keep), (retention.worst.value, recipe.keep_worst))
    return all(floor is None or (value is not None and value >= floor) for value, floor in floors)


def _figures(retention: Retention) -> dict:
    probes = {
        p.name: {
            "before": p.before.value,
            "after": p.after.value,
            "retention": p.retention.value,
            "low": p.retention.low,
            "high": p.retention.high,
        }
        for p in retention.probes
    }
    return {"mean": retention.mean.model_dump(), "worst": retention.worst.model_dump(), "probes": probes}


def tell(job: Job) -> Path:
    """Write the model card and report.html; returns the report's path."""
    from tunewell.export.card import write_card
    from tunewell.report.build import build

    write_card(job.folder.path)
    return build(job.folder.path, lang=job.recipe.lang)
