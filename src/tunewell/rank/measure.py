"""One candidate, measured: what its frozen features or its own answers are worth here, and what tuning would cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import ModelError
from tunewell.rank import cost
from tunewell.rank.candidates import ENCODERS, fit, kind_at, licence_of
from tunewell.rank.cover import Cover
from tunewell.rank.records import Ranked
from tunewell.rank.rows import Sample

if TYPE_CHECKING:
    from tunewell.rank.features import Passed
    from tunewell.recipe import Recipe
    from tunewell.tasks import TaskSpec

Advance = Callable[[int], None]
GENERATIVE = "bits_per_byte"


@dataclass(frozen=True)
class Judged:
    """What one kind of task found out about a candidate."""

    by: str
    score: float
    scores: dict[str, float]
    layer: int | None
    tokens_per_second: float
    step: cost.Step
    cover: Cover
    window: int
    max_length: int
    model: Any


def measure(name: str, sample: Sample, recipe: Recipe, *, advance: Advance = lambda n: None) -> Ranked:
    """Load a candidate, score it, time it.

    Args:
        recipe: its keys say what tuning is to be; its `model` is not read.
        advance: told of rows done, `len(sample.rows)` in all.

    Raises:
        TunewellError: it cannot be loaded, or this kind of model has no score for the task.
    """
    from tunewell.models.load import locate

    started, cpu = time.perf_counter(), time.process_time()
    path = locate(name)
    recipe = recipe.model_copy(update={"model": name})
    kind = kind_at(name, path, trust_remote_code=recipe.trust_remote_code, revision=recipe.revision)
    good, why = fit(sample.spec.name, kind)
    if not good and (sample.spec.name not in ENCODERS or kind == "encoder-decoder"):
        raise ModelError(why, where=name, expected=f"a model that {sample.spec.name} can be tuned on")
    if sample.spec.name in ENCODERS:
        from tunewell.rank.labelled import judge
    else:
        from tunewell.rank.written import judge
    found = judge(name, path, kind, sample, recipe, advance)
    config = found.model.config
    body = getattr(config, "encoder", config)
    parameters = sum(p.numel() for p in found.model.parameters())
    mean_tokens = float(np.minimum(found.cover.lengths, found.max_length).mean())
    return Ranked(
        name=name,
        kind=kind,
        fits=good,
        fit=why,
        by=found.by,
        score=found.score,
        scores=found.scores,
        layer=found.layer,
        parameters=parameters,
        hidden_size=_first(body, "hidden_size", "d_model"),
        layers=_first(body, "num_hidden_layers", "encoder_layers", "num_layers"),
        size_mb=round(4 * parameters / 1e6, 1),
        tokens_per_second=round(found.tokens_per_second, 1),
        step_seconds=round(found.step.seconds, 4),
        steps=cost.steps_of(recipe, sample.of_rows),
        tuning_seconds=round(
            cost.tuning_seconds(
                recipe,
                found.step,
                rows=sample.of_rows,
                validation_rows=sample.validation_rows,
                tokens_a_row=mean_tokens,
                tokens_per_second=found.tokens_per_second,
            ),
            1,
        ),
        memory_mb=round(
            cost.memory_mb(recipe, found.step, parameters=parameters, max_length=found.max_length, rows=sample.of_rows),
            1,
        ),
        window=found.window,
        cut_share=found.cover.cut_share,
        unknown_share=found.cover.unknown_share,
        characters_per_token=round(found.cover.characters_per_token, 3),
        licence=licence_of(name, path),
        seconds=round(time.perf_counter() - started, 2),
        cpu_seconds=round(time.process_time() - cpu, 2),
    )


def _first(config: Any, *names: str) -> int:
    """The first of these numbers that a config has; 0 where it has none."""
    return next((int(n) for name in names if (n := getattr(config, name, None))), 0)


def scores_of(
    spec: TaskSpec, passed: Passed, targets: np.ndarray, *, seed: int, trained_head: bool = False
) -> tuple[dict[str, float], int]:
    """All scores that are defined, by name, and the layer whose features the probe reads best.

    `_last` is the last layer, `_best` the best of all layers, `_mean` the mean of the layers' features, `_head` what
    the head reads.

    Args:
        trained_head: the logits mean something: the model brings its head.
    """
    from tunewell.evaluate.linear import outputs_of
    from tunewell.rank import scores as s

    classes = not spec.regression and not spec.multi_label
    kind = "regression" if spec.regression else "single-label" if classes else "multi-label"
    y = outputs_of(kind, targets, spec.outputs)  # type: ignore[arg-type]
    measures: dict[str, Callable[[np.ndarray], float]] = {
        "logme": lambda x: s.logme(x, y),
        "probe": lambda x: s.probe_scores(spec, x, targets, seed=seed),
    }
    if classes:
        measures["hscore"] = lambda x: s.shrunken_hscore(x, targets)
        measures["transrate"] = lambda x: s.transrate(x, targets)
    out: dict[str, float] = {}
    layer = len(passed.layers) - 1
    for name, of in measures.items():
        each = [of(x) for x in passed.layers[1:]]
        out[f"{name}_last"], out[f"{name}_best"] = each[-1], max(each)
        out[f"{name}_mean"] = of(passed.layers[1:].mean(axis=0))
        out[f"{name}_head"] = of(passed.read)
        if name == "probe":
            layer = 1 + int(np.argmax(each))
    if trained_head and passed.logits is not None and classes and passed.logits.shape[1] > 1:
        from scipy.special import softmax

        p = softmax(passed.logits.astype(np.float64), axis=1)
        out["leep"], out["nce"] = s.leep(p, targets), s.nce(p, targets)
    return out, layer
