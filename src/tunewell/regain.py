"""Regaining a named ability at least cost: `tunewell restore RUN --probe similarity`.

Layers go back to the base model one after the other until the probe keeps enough on its select half. At each step
the layer is taken whose return regains most of the probe for what it costs in validation score; every choice is
made on validation and the select half, and what came of it is measured on test and the report half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError, nearest

if TYPE_CHECKING:
    from tunewell.stages.job import Job
    from tunewell.train.hooks import Weights

FREE = 1e-3  # prices below this are taken as noise of the validation score: among such, most regained wins
FLOOR = 0.98  # where neither the command nor the run's `keep` names one


@dataclass(frozen=True)
class Step:
    """One layer taken back: what the probe keeps then (select half), and the validation score."""

    layer: str
    kept: float
    score: float


def layers_of(names: Iterable[str]) -> dict[str, list[str]]:
    """Layer -> names of its weights, from bottom to top, as in the base model's state; a pooler belongs to the head.

    >>> layers_of(["embeddings.w", "encoder.layer.0.w", "encoder.layer.1.w", "norm.w", "pooler.w"])
    {'embeddings': ['embeddings.w'], 'layer 1': ['encoder.layer.0.w'], 'layer 2': ['encoder.layer.1.w', 'norm.w']}
    """
    from tunewell.strategies.lines import place

    found: dict[int, list[str]] = {}
    for name, number in place(names).items():
        if "pooler" not in name:
            found.setdefault(0 if "embed" in name else number, []).append(name)
    return {"embeddings" if n == 0 else f"layer {n}": found[n] for n in sorted(found)}


def climb_back(
    layers: Sequence[str], measure: Callable[[frozenset[str]], tuple[float, float]], floor: float
) -> list[Step]:
    """Greedy choice of layers to take back.

    Args:
        measure: layers that are back -> (what the probe keeps, validation score).
        floor: ends the climb.

    Returns:
        The way, beginning with nothing taken back (layer ""). It ends at the floor, or where no layer helps any more.
    """
    back: frozenset[str] = frozenset()
    kept, score = measure(back)
    way = [Step("", kept, score)]
    while kept < floor and len(back) < len(layers):
        trials = [Step(layer, *measure(back | {layer})) for layer in layers if layer not in back]
        helping = [t for t in trials if t.kept > kept + 1e-6]
        if not helping:
            break
        enough = [t for t in helping if t.kept >= floor]
        if enough:  # the last step: cheapest of those that arrive
            best = max(enough, key=lambda t: (t.score, t.kept))
        else:
            before = (kept, score)
            best = max(helping, key=lambda t: (t.kept - before[0]) / max(before[1] - t.score, FREE))
        back, kept, score = back | {best.layer}, best.kept, best.score
        way.append(best)
    return way


def regain(job: Job, model: Any, base: Weights, tuned: Weights, probe: str, floor: float) -> tuple[list[Step], Weights]:
    """The way back for one probe, and the encoder's weights at its end, which `model` holds afterwards.

    Raises:
        RecipeError: no such probe, or it keeps enough already.
    """
    from tunewell.retention.forgetting import compare
    from tunewell.retention.measurement import Measurements
    from tunewell.stages.probe import base_measurements, measures, probed, suite

    whole = suite(job, "select") if measures(job) else None
    names = whole.names if whole is not None else ()
    if probe not in names:
        raise RecipeError(
            f"the run has no probe `{probe}`",
            where="probe",
            expected=", ".join(names) or "a run whose recipe measures probes",
            remedy=nearest(probe, names),
        )
    assert whole is not None
    one = replace(whole, probes=_only(whole.probes, probe))
    known = base_measurements(job, "select")
    before = Measurements("select", {probe: known[probe]})
    groups = layers_of(tuned)

    def weights(back: frozenset[str]) -> Weights:
        taken = {name for layer in back for name in groups[layer]}
        return {name: base[name] if name in taken and name in base else w for name, w in tuned.items()}

    def measure(back: frozenset[str]) -> tuple[float, float]:
        model.base_model.load_state_dict(weights(back))
        found = compare(before, one.measure(probed(job, "select", model)), seed=job.recipe.seed, n_boot=2)
        kept = found.probes[0].retention.value
        if kept is None:
            raise RecipeError(
                f"the base model is at chance on `{probe}`, so that nothing can be regained",
                where="probe",
                expected=", ".join(n for n in names if n != probe) or "another probe",
            )
        score = float(job.task.validation(job, model).headline.value or 0.0)
        if back:
            job.echo(f"restore: without {', '.join(sorted(back))}: {probe} {kept:.4f}, validation {score:.4f}")
        else:
            job.echo(f"restore: as tuned: {probe} {kept:.4f}, validation {score:.4f}; wanted {floor:g}")
            if kept >= floor:
                raise RecipeError(
                    f"`{probe}` keeps {kept:.4f} on its select half, which is enough: nothing is to be regained",
                    where="keep",
                    expected=f"a floor above {kept:.4f}",
                    remedy="name a higher --keep",
                )
        return kept, score

    way = climb_back(list(groups), measure, floor)
    final = weights(frozenset(s.layer for s in way[1:]))
    model.base_model.load_state_dict(final)
    return way, final


def _only(probes: Any, name: str) -> Any:
    """One probe of a suite: of encoders a tuple, of decoders a mapping."""
    if isinstance(probes, dict):
        return {name: probes[name]}
    return tuple(p for p in probes if p.name == name)
