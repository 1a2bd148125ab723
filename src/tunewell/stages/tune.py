"""Tuning as a stage: from the rows of a job to tuned weights in the run folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.results import Training, write_whole, write_with
from tunewell.stages.job import Job


def place(job: Job) -> str:
    """Where a job tunes, below its run folder: train/, or a folder of its own for each candidate of a search."""
    return f"train/{job.candidate}" if job.candidate else "train"


def weights_of(job: Job) -> Path:
    """The file with the tuned weights."""
    return job.folder / place(job) / "tuned.safetensors"


def tuned_model(job: Job) -> Any:
    """The job's model with the weights that tuning left."""
    from safetensors.torch import load_file

    model = job.fresh_model()
    model.load_state_dict(load_file(str(weights_of(job))))
    return model


def strategies_of(job: Job) -> list[Any]:
    """The recipe's strategies, made with its keys."""
    from tunewell.strategies import strategy_class

    keys = job.recipe.model_dump()
    return [strategy_class(name)(keys) for name in job.recipe.strategies]


def monitor_of(job: Job) -> Any:
    """The recipe's monitor; None where nothing is to be watched.

    Raises:
        RecipeError: a monitor is asked for by name, and there is nothing that it could read.
    """
    from tunewell.errors import RecipeError
    from tunewell.train.monitor import Monitor

    recipe = job.recipe
    mode = recipe.monitor or ("watch" if job.watched and recipe.probes != ["none"] else "off")
    if mode == "off":
        return None
    if recipe.fsdp:
        job.echo("monitor: off, since under `fsdp` no process holds the whole model while it is tuned")
        return None
    if not job.task.watchable(job):
        if recipe.monitor is None:
            return None
        raise RecipeError(
            f"`monitor: {mode}` reads embeddings of encoders and next tokens of decoders, and this is neither",
            where="monitor",
            expected="an encoder or a decoder, or `monitor: off`",
        )
    return Monitor(
        mode,
        floor=recipe.keep,
        source=recipe.general_text,
        samples=recipe.general_samples,
        seed=recipe.seed,
        echo=job.echo,
    )


def tune(job: Job) -> Training:
    """Tune, going on from the last whole checkpoint if there is one; write the weights of the best validation score."""
    from safetensors.torch import save_file

    from tunewell.stages import rewrite
    from tunewell.train.tune import clear_checkpoints

    folder, record = job.folder / place(job), job.folder / place(job) / "training.json"
    step = f"tune-{job.candidate}" if job.candidate else "tune"
    outputs = [f"{place(job)}/training.json", f"{place(job)}/tuned.safetensors"]
    if job.folder.done(step, job.keys.tune, outputs):
        return Training.load(record)
    marker = folder / "inputs"
    if folder.exists() and (not marker.is_file() or marker.read_text(encoding="utf-8") != job.keys.tune):
        shutil.rmtree(folder)  # part of a tuning with other settings
    write_whole(marker, job.keys.tune)
    model, training = tuned_in(job, folder)
    told = " ".join(why for c in job.callbacks if (why := getattr(c, "stopped", "")))
    training = training.taking(training.seconds + rewrite.seconds(job), stopped=told or training.stopped)
    state = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
    write_with(weights_of(job), lambda path: save_file(state, str(path)))
    training.write(record)
    job.folder.mark(step, job.keys.tune, outputs)
    clear_checkpoints(folder)
    return training


def traced(job: Job, folder: Path) -> list[Any]:
    """What writes the adapters of a tuning before they are merged, where influence on written answers reads them."""
    from tunewell.train.trace import Trace, traces

    written = job.task.pipeline in ("text-generation", "translation")
    known = any(isinstance(c, Trace) for c in job.callbacks)
    return [Trace(folder)] if written and not known and traces(job.recipe) else []


def tuned_in(job: Job, folder: Path) -> tuple[Any, Training]:
    """The job's fresh model, tuned; checkpoints go into `folder`, and a whole one found there is continued."""
    from tunewell import processes
    from tunewell.stages.rewrite import learned as on_learned_rows

    child = on_learned_rows(job)  # before the model is there, since it asks one of its own
    processes.summon(job, folder)
    model, inputs = job.fresh_model(), job.task.inputs(child)
    learned = job.targets("train") if inputs is None else np.empty(0)
    if job.spec.regression:
        learned = ((learned - job.scale.mean) / job.scale.std).astype(np.float32)

    made = [*job.hooks, *(s for s in strategies_of(job) if not job.hooks or s.name != "plain")]
    made.sort(key=lambda s: bool(getattr(s, "last", False)))
    job.echo(
        f"tune: {' + '.join(s.name for s in made)}, {len(job.splits['train']):,} rows, "
        f"at most {job.max_length} tokens each, {'bf16' if job.bf16 else 'fp32'}"
    )
    options: dict[str, Any] = {
        "recipe": job.recipe,
        "max_length": job.max_length,
        "targets": learned,
        "strategies": made,
        "folder": folder,
        "echo": job.echo,
        "progress": job.progress,
        "callbacks": [*job.callbacks, *traced(job, folder)],
        "pace": job.pace,
    }
    about = (model, job.input_tokenizer, job.spec, child.splits["train"])
    if job.recipe.framework == "tensorflow":
        from tunewell.backends.tensorflow.tune import tune as tune_twin

        return model, tune_twin(*about, validate=job.validate, **options)
    from tunewell.train.tune import tune as tune_model

    job.monitor = monitor_of(job) if processes.rank() == 0 else None
    validate = job.validate if job.validated else None
    rows = len(job.splits["validation"]) if validate is not None else 0
    return model, tune_model(
        *about, inputs=inputs, validate=validate, monitor=job.monitor, validation_rows=rows, **options
    )
