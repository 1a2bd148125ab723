"""Taking back part of what tuning changed, without training: `tunewell restore RUN --alpha 0.7`.

The encoder's weights become (1 − α) · base + α · tuned (WiSE-FT; Wortsman et al., 2022), or layer by
layer, the first layer keeping α and the last all (LiNeS; Wang et al., 2024). Or whole layers go back, as few as
regain a named probe (see `regain`). The result is a run folder
of its own with validation, test and retention measured again, so that it can be compared, gated,
served or restored further.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import AssetError, DataError, ModelError, RecipeError, RunFolderError

if TYPE_CHECKING:
    from tunewell.results import Choice
    from tunewell.run import Run
    from tunewell.stages.job import Job

# what a restored run takes over: all that does not depend on the tuned weights
COPIED = ("check.json", "cache", "probes/before-select.npz", "probes/before-report.npz", "train/training.json",
          "train/metrics.jsonl")  # fmt: skip
STEPS = ("check", "baselines", "probe-before-select", "probe-before-report")


def restore(
    path: str | Path,
    *,
    alpha: float | None = None,
    layerwise: bool = False,
    probe: str | None = None,
    keep: float | None = None,
    output_dir: str | Path | None = None,
    overwrite: bool = False,
    echo: Callable[[str], None] = lambda line: None,
    progress: bool = True,
    command: str = "",
) -> Run:
    """Re-weight a run's model between its base model and itself, and measure it again.

    Args:
        path: a finished run. alpha: share of the change that is kept: 0 the base model, 1 the tuned one.
        layerwise: the first layer keeps `alpha` of its change, the last all, those between in proportion.
        probe: instead of `alpha`: layers go back to the base model until this probe keeps `keep` (by default what the
            run's recipe keeps, else 0.98) on its select half, at least cost in validation score.
        output_dir: folder of the restored run; by default `<run>-alpha<alpha>` or `<run>-<probe>` beside it.
        overwrite: start afresh in a folder that holds another run.

    Returns:
        The restored run, complete with report.

    Raises:
        RecipeError: alpha is not between 0 and 1, or no such probe.
        ModelError: the base model is gone or is another one.
        DataError: the data files are gone or changed. RunFolderError: not a run, or a folder that is taken.
    """
    from tunewell.regain import FLOOR, regain
    from tunewell.run import Run, load_run
    from tunewell.stages.choose import encoder_weights, save
    from tunewell.stages.evaluate import evaluate_tuned
    from tunewell.stages.job import Job
    from tunewell.stages.probe import probe_base, probe_tuned
    from tunewell.stages.tell import summarise, tell
    from tunewell.strategies.averaging import interpolate
    from tunewell.strategies.lines import scaled
    from tunewell.train.tune import Scale

    _check_wanted(alpha, layerwise, probe, keep)
    if alpha is not None and not 0 <= alpha <= 1:
        raise RecipeError(f"`alpha: {alpha:g}`", where="alpha", expected="a number from 0 (base model) to 1 (tuned)")
    run, started = load_run(path), time.perf_counter()
    suffix = f"alpha{alpha:g}" if probe is None else probe
    target = Path(output_dir) if output_dir else run.dir.with_name(f"{run.dir.name}-{suffix}")
    if target.resolve() == run.dir.resolve():
        raise RunFolderError(
            "is the run itself", where=str(target), expected="another folder", remedy="name another --output_dir"
        )
    check_base(run)
    keys = {"output_dir": str(target), "overwrite_output_dir": overwrite}
    recipe = run.recipe.model_copy(update=keys)
    with Job(recipe, output_dir=target, echo=echo, progress=progress, command=command) as job:
        check_rows(run, job)
        take_over(run, job)
        job.begin()
        job.__dict__["scale"] = Scale()  # the saved head answers in the user's units already
        model = job.task.load_tuned(job, run.model_path)
        base, tuned = encoder_weights(job.fresh_model()), encoder_weights(model)
        check_shapes(run, base, tuned)
        probe_base(job)
        if probe is None:
            assert alpha is not None
            new = scaled(base, tuned, alpha) if layerwise else interpolate(base, tuned, alpha)
            parameters = {"layerwise" if layerwise else "alpha": alpha}
            about: dict[str, Any] = {"run": str(run.dir), "alpha": alpha, "layerwise": layerwise}
        else:
            floor = keep or run.recipe.keep or FLOOR
            way, new = regain(job, model, base, tuned, probe, floor)
            parameters = {"layers back": float(len(way) - 1)}
            about = {"run": str(run.dir), "probe": probe, "keep": floor, "met": way[-1].kept >= floor}
            about["way"] = [asdict(step) for step in way]
        model.base_model.load_state_dict(new)
        choice = _choice(run, job, model, parameters)
        save(job, model)
        choice.write(job.folder / "choice.json")
        evaluation, retention = evaluate_tuned(job), probe_tuned(job)
        summary = summarise(job, run.training, choice, evaluation, retention, time.perf_counter() - started)
        summary.model_copy(update={"restored": about}).write(job.folder / "summary.json")
        echo(f"report: {tell(job)}")
    return Run(target)


def _check_wanted(alpha: float | None, layerwise: bool, probe: str | None, keep: float | None) -> None:
    """Either how much of the change is kept, or what is to be regained."""
    if (alpha is None) == (probe is None):
        raise RecipeError(
            "neither `alpha` nor `probe` is given" if alpha is None else "`alpha` and `probe` are both given",
            where="restore",
            expected="--alpha 0.7, or --probe similarity",
        )
    if probe is not None and layerwise:
        raise RecipeError("`layerwise` scales by `alpha`", where="layerwise", expected="--alpha, or --probe alone")
    if keep is not None and (probe is None or not 0 < keep <= 1):
        raise RecipeError(f"`keep: {keep:g}`", where="keep", expected="a number up to 1, together with --probe")


def check_base(run: Run) -> None:
    from tunewell.models.load import locate

    name = run.recipe.model
    try:
        locate(name)
    except (ModelError, AssetError) as error:
        raise ModelError(
            f"the base model of this run is gone: {error.what}",
            where=name,
            expected=f"the model that {run.dir} was tuned from",
            remedy="put it back where it was; without it there is nothing to go back to",
        ) from error


def check_rows(run: Run, job: Job) -> None:
    import json

    path = run.dir / "split.json"
    known = json.loads(path.read_text(encoding="utf-8"))["fingerprint"] if path.is_file() else None
    if known is not None and known != job.prepared.fingerprint:
        raise DataError(
            "the data files are not those of the run, so that figures could not be compared",
            where=str(job.recipe.train),
            expected=f"the files that {run.dir} was made from",
            remedy="put them back, or measure the model on other rows with `tunewell evaluate`",
        )


def check_shapes(run: Run, base: dict[str, Any], tuned: dict[str, Any]) -> None:
    if {k: v.shape for k, v in base.items()} != {k: v.shape for k, v in tuned.items()}:
        raise ModelError(
            "is another model now than the one this run was tuned from: its weights have other names or shapes",
            where=run.recipe.model,
            expected=f"the model that {run.dir} was tuned from",
            remedy="put it back where it was",
        )


def take_over(run: Run, job: Job) -> None:
    """Copy the records that do not depend on the tuned weights, with the marks of their steps."""
    from tunewell.folder import RunFolder

    for name in COPIED:
        source, target = run.dir / name, job.folder / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    marks = RunFolder.read_steps(run.dir)
    for name in STEPS:
        if name in marks:
            job.folder.mark(name, marks[name])
    for name in [n for n in job.folder.steps if n not in STEPS]:  # of an earlier restore into this folder
        del job.folder.steps[name]


def _choice(run: Run, job: Job, model: Any, parameters: dict[str, float]) -> Choice:
    """The run's candidates and the restored one, which is chosen by hand."""
    from tunewell.retention.budget import meets
    from tunewell.stages.choose import measuring, score_candidates
    from tunewell.stages.probe import measures

    recipe = job.recipe.model_copy(update={"keep": job.recipe.keep or 1.0})  # so that retention is measured
    found, _ = score_candidates(
        model, recipe=recipe, base={}, strategies=(), names=("restored",), **measuring(job, measures(job))
    )
    label = "restored, " + ", ".join(f"{k} {v:g}" for k, v in parameters.items())
    inside = meets(found[0], job.recipe.keep, job.recipe.keep_worst)
    restored = found[0].model_copy(
        update={"name": label, "parameters": parameters, "meets": inside, "chosen": True, "strategy": ("restore",)}
    )
    others = tuple(c.model_copy(update={"chosen": False}) for c in run.choice.candidates)
    return run.choice.model_copy(
        update={"candidates": (*others, restored), "met": inside, "reason": f"{label}: chosen by hand"}
    )
