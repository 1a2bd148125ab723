"""What the base model knows, and what the tuned one still does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tunewell.folder import fingerprint
from tunewell.results import Retention
from tunewell.stages.job import Job


def embedder(
    model: Any, tokenizer: Any, max_length: int = 128, *, bf16: bool = False
) -> Callable[[Sequence[str]], np.ndarray]:
    """What retention suites take: texts -> (n, H) float32, computed in fp32 unless told otherwise."""
    from tunewell.models.embed import embed

    return lambda texts: embed(model, tokenizer, texts, max_length=max_length, bf16=bf16)


def measures(job: Job) -> bool:
    """Whether the recipe asks for any probe, and there are probes for this kind of model."""
    wanted = job.recipe.probes != ["none"] or bool(job.recipe.probe_files)
    return wanted and job.task.measurable(job)


def suite(job: Job, half: str) -> Any:
    whole = job.task.suite(job, half)
    return whole if half == "report" else whole.counted()  # drift is shown, and nothing is chosen by it


def probed(job: Job, half: str, model: Any) -> Callable[..., Any]:
    """A model as one half asks it: what is shown is in fp32, what only chooses in bfloat16 where tuning is."""
    return job.task.probed(job, model, bf16=_quick(job, half))


def _quick(job: Job, half: str) -> bool:
    return half == "select" and job.bf16


def base_measurements(job: Job, half: str) -> Any:
    """The base model on one half of the suite; measured once a run folder."""
    return _measured(job, "before", half, job.keys.probe, lambda: job.task.base_model(job))


def _measured(job: Job, name: str, half: str, key: str, model: Callable[[], Any]) -> Any:
    from tunewell.retention.suite import Measurements

    path = job.folder / "probes" / f"{name}-{half}.npz"

    def make() -> Any:
        job.echo(f"probe: {'base' if name == 'before' else 'tuned'} model, {half} half")
        measured = suite(job, half).measure(probed(job, half, model()))
        measured.save(path)
        return measured

    return job.folder.step(
        f"probe-{name}-{half}",
        f"{key}-bf16" if _quick(job, half) else key,
        [f"probes/{name}-{half}.npz"],
        make,
        lambda: Measurements.load(path),
    )


def probe_base(job: Job) -> None:
    """The suite on the base model: the report half for what is shown; the select half where it will choose."""
    from tunewell.stages.choose import chosen_by_retention

    if measures(job):
        for half in ("select", "report") if chosen_by_retention(job.recipe) else ("report",):
            base_measurements(job, half)


def probe_tuned(job: Job) -> Retention | None:
    """The report halves, which nothing was chosen on; None when nothing is measured."""
    from tunewell.retention.forgetting import compare
    from tunewell.retention.forgotten import forgotten

    path = job.folder / "retention.json"
    if not measures(job):
        path.unlink(missing_ok=True)
        return None

    def make() -> Retention:
        before = base_measurements(job, "report")
        after = _measured(
            job, "after", "report", job.keys.choice, lambda: job.task.load_tuned(job, job.folder / "model")
        )
        retention = compare(before, after, seed=job.recipe.seed)
        probes = suite(job, "report").probes
        lost = forgotten(probes, before, after)
        retention = retention.model_copy(update={"forgotten": lost})
        retention.write(path)
        return retention

    return job.folder.step(
        "retention", fingerprint(job.keys.choice, "report"), ["retention.json"], make, lambda: Retention.load(path)
    )
