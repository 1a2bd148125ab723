"""Tuning as a stage: from the rows of a job to tuned weights in the run folder."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np

from tunewell.results import Training, write_whole, write_with
from tunewell.stages.job import Job

WEIGHTS, RECORD = "train/tuned.safetensors", "train/training.json"


def strategies_of(job: Job) -> list[Any]:
    """The recipe's strategies, made with its keys."""
    from tunewell.strategies import strategy_class

    keys = job.recipe.model_dump()
    return [strategy_class(name)(keys) for name in job.recipe.strategies]


def tune(job: Job) -> Training:
    """Tune, going on from the last whole checkpoint if there is one; write the weights of the best validation score."""
    from safetensors.torch import save_file

    from tunewell.train.tune import clear_checkpoints
    from tunewell.train.tune import tune as tune_model

    folder = job.folder / "train"
    if job.folder.done("tune", job.keys.tune, [RECORD, WEIGHTS]):
        return Training.load(job.folder / RECORD)
    marker = folder / "inputs"
    if folder.exists() and (not marker.is_file() or marker.read_text(encoding="utf-8") != job.keys.tune):
        shutil.rmtree(folder)  # part of a tuning with other settings
    write_whole(marker, job.keys.tune)
    model, learned = job.fresh_model(), job.targets("train")
    if job.spec.regression:
        learned = ((learned - job.scale.mean) / job.scale.std).astype(np.float32)

    made = [*job.hooks, *(s for s in strategies_of(job) if not job.hooks or s.name != "plain")]
    job.echo(
        f"tune: {' + '.join(s.name for s in made)}, {len(job.splits['train']):,} rows, "
        f"at most {job.max_length} tokens each, {'bf16' if job.bf16 else 'fp32'}"
    )
    training = tune_model(
        model,
        job.tokenizer,
        job.spec,
        job.splits["train"],
        recipe=job.recipe,
        max_length=job.max_length,
        targets=learned,
        validate=job.validate,
        strategies=made,
        folder=folder,
        echo=job.echo,
        progress=job.progress,
        callbacks=job.callbacks,
    )
    state = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
    write_with(job.folder / WEIGHTS, lambda path: save_file(state, str(path)))
    training.write(job.folder / RECORD)
    job.folder.mark("tune", job.keys.tune)
    clear_checkpoints(folder)
    return training
