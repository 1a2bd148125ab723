"""What can be told before any model is loaded: settings that do not fit the task, files that do not serve.

A mistake that would end the run an hour later ends it here, with nothing written.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tunewell.errors import RecipeError, nearest
from tunewell.strategies import AUTO

if TYPE_CHECKING:
    from tunewell.stages.job import Job

# name -> its module, and what pip is asked for
TRACKERS = {
    "tensorboard": ("tensorboard", "'tunewell[track]'"),
    "mlflow": ("mlflow", "'tunewell[mlflow]'"),
    "wandb": ("wandb", "'tunewell[wandb]'"),
    "trackio": ("trackio", "'tunewell[trackio]'"),
}


def preflight(job: Job) -> None:
    """Refuse what cannot work.

    Raises:
        RecipeError: a loss that does not fit, an unknown or missing tracker, an unknown probe.
        ModelError: a base model that the framework does not tune.
        DataError: a probe file, a file of general text or one of texts without labels that cannot be used.
    """
    from tunewell.data.general import general_texts
    from tunewell.extras import need
    from tunewell.stages.augment import preflight as augmentable
    from tunewell.stages.rates import preflight as rates_preflight
    from tunewell.stages.seeds import preflight as repeatable
    from tunewell.unlabelled.fits import preflight as unlabelled_preflight

    recipe = job.recipe
    job.task.preflight(job)
    repeatable(job)
    augmentable(job)
    rates_preflight(job)
    unlabelled_preflight(job)
    if recipe.framework == "tensorflow":
        from tunewell.backends.tensorflow.fits import preflight as tensorflow_preflight

        tensorflow_preflight(job)
    if recipe.fsdp:
        from tunewell.train.sharding import check as shardable

        shardable(recipe)
    trackers(recipe.report_to)
    if recipe.probe_files or recipe.probes not in (["auto"], ["none"]):
        job.task.suite(job, "select")
    readers = {"distill", "rehearse", "ewc", "mas", "gpm", AUTO}
    reads = readers & set(recipe.strategies) or recipe.monitor not in (None, "off")
    if recipe.optim != "adamw":
        need("optim", f"optim: {recipe.optim}")
    if recipe.load_in_4bit:
        need("quantize", "load_in_4bit")
    if reads and recipe.general_text is not None:
        general_texts(recipe.general_text, recipe.general_samples, seed=recipe.seed)


def trackers(names: list[str]) -> None:
    """Refuse trackers that are unknown or not installed."""
    for name in names:
        if name == "none":
            continue
        if name not in TRACKERS:
            raise RecipeError(
                f"unknown tracker `{name}`",
                where="report_to",
                expected=", ".join((*TRACKERS, "none")),
                remedy=nearest(name, TRACKERS),
            )
        module, what = TRACKERS[name]
        if find_spec(module) is None:
            raise RecipeError(
                f"the tracker `{name}` is not installed",
                where="report_to",
                expected="an installed package",
                remedy=f"pip install {what}",
            )
        if name == "mlflow":
            from tunewell.export.mlflow import quiet

            quiet()
            kept_here = os.environ.get("MLFLOW_TRACKING_URI", "sqlite").startswith("sqlite")  # as MLflow does by itself
            if kept_here and find_spec("alembic") is None:
                raise RecipeError(
                    "MLflow cannot keep runs in a file of this machine: alembic is not installed",
                    where="report_to",
                    expected="its packages for sqlite, or a server in MLFLOW_TRACKING_URI",
                    remedy="pip install 'tunewell[mlflow]'",
                )
