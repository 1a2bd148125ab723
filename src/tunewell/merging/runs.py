"""Merging finished runs: the same base model, the same task, one run folder more, measured as every run is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import DataError, ModelError, RecipeError, RunFolderError, nearest
from tunewell.merging.tensors import METHODS, SOUPS, SPARSE, VECTORS, merge_states

if TYPE_CHECKING:
    from tunewell.results import Candidate, Choice
    from tunewell.run import Run
    from tunewell.stages.job import Job
    from tunewell.train.hooks import Weights

SCALES = (1.0, 0.7, 0.5, 0.3)  # tried where the user names none; chosen on validation, inside the budget


def merge(
    runs: Sequence[str | Path],
    *,
    method: str = "soup",
    output_dir: str | Path,
    weights: Sequence[float] | None = None,
    scales: Sequence[float] | None = None,
    density: float = 0.5,
    seed: int = 42,
    overwrite: bool = False,
    echo: Callable[[str], None] = lambda line: None,
    progress: bool = True,
    command: str = "",
) -> Run:
    """Make one model of several runs' models, and measure it on the first run's data and probes.

    Args:
        runs: finished runs of one base model and one task; data, budget and probes are the first one's.
        method: soup (mean of all; Wortsman et al., 2022), greedy (models join the mean, best first, where validation
            does not fall), task_arithmetic, ties, dare, dare_ties, lines; see `merging.tensors`.
        output_dir: folder of the merged run.
        weights: one a run; by default all alike: 1 for `ties` and `dare_ties`, which take a mean, else 1 / n.
        scales: factors of the merged change, tried and chosen among on validation and the select halves.
        density: share of the entries kept by `ties`, `dare`, `dare_ties`. seed: of what `dare` drops.
        overwrite: start afresh in a folder that holds another run.

    Returns:
        The merged run, with each of the runs as a candidate beside it.

    Raises:
        RecipeError: an option out of range. ModelError: models that cannot be merged, naming the tensor.
        DataError: rows that one run is tested on were learned by another, or data that are gone.
        RunFolderError: not a run, or a folder that is taken.
    """
    from tunewell.restore import check_base, check_rows, take_over
    from tunewell.run import Run, load_run
    from tunewell.stages.choose import save
    from tunewell.stages.evaluate import evaluate_tuned
    from tunewell.stages.job import Job
    from tunewell.stages.probe import probe_base, probe_tuned
    from tunewell.stages.tell import summarise, tell
    from tunewell.train.tune import Scale

    started, target = time.perf_counter(), Path(output_dir)
    _check_options(len(runs), method, weights, scales, density)
    found = [load_run(r) for r in runs]
    if target.resolve() in [r.dir.resolve() for r in found]:
        raise RunFolderError("is one of the runs", where=str(target), expected="another folder", remedy="name another")
    first = found[0]
    _check_kind(found)
    check_base(first)
    recipe = first.recipe.model_copy(update={"output_dir": str(target), "overwrite_output_dir": overwrite})
    with Job(recipe, output_dir=target, echo=echo, progress=progress, command=command) as job:
        check_rows(first, job)
        _check_leaks(found, job)
        job.__dict__["scale"] = Scale()  # the saved heads answer in the user's units already
        states = [job.task.load_tuned(job, r.model_path).state_dict() for r in found]
        model = job.fresh_model()
        base = _base_weights(model)
        _check_tensors(found, base, states)
        take_over(first, job)
        job.begin()
        probe_base(job)
        shares = list(weights) if weights else [1.0 if method in ("ties", "dare_ties") else 1 / len(found)] * len(found)
        choice, chosen, note = _choose(
            job, model, found, base, states, method=method, weights=shares, density=density, seed=seed,
            scales=tuple(scales or (SCALES if method in VECTORS else (1.0,))),
        )  # fmt: skip
        model.load_state_dict(chosen)
        save(job, model)
        choice.write(job.folder / "choice.json")
        training = first.training.taking(sum(r.training.seconds for r in found))
        training.write(job.folder / "train" / "training.json")
        evaluation, retention = evaluate_tuned(job), probe_tuned(job)
        about = {"runs": [str(r.dir) for r in found], "method": method, "weights": shares, **note}
        about |= {"density": density, "seed": seed} if method in SPARSE else {}
        summary = summarise(job, training, choice, evaluation, retention, time.perf_counter() - started)
        summary.model_copy(update={"merged": about}).write(job.folder / "summary.json")
        echo(f"report: {tell(job)}")
    return Run(target)


# ---------------------------------------------------------------- what cannot be merged


def _check_options(n: int, method: str, weights: Any, scales: Any, density: float) -> None:
    if method not in METHODS:
        raise RecipeError(
            f"unknown method `{method}`", where="method", expected=", ".join(METHODS), remedy=nearest(method, METHODS)
        )
    if n < 2:
        raise RecipeError(
            f"{n} run is named", where="merge", expected="two runs or more",
            remedy="`tunewell restore RUN --alpha 0.7` takes one run part of the way back",
        )  # fmt: skip
    if weights is not None and (len(weights) != n or any(not w > 0 for w in weights)):
        raise RecipeError(
            f"{len(weights)} weights for {n} runs: {', '.join(f'{w:g}' for w in weights)}",
            where="weights",
            expected="a number above 0 for each run",
        )
    if weights is not None and method == "greedy":
        raise RecipeError("`greedy` weighs its models alike", where="weights", expected="no weights, or method soup")
    if not 0 < density <= 1:
        raise RecipeError(f"`density: {density:g}`", where="density", expected="a number above 0, 1 at the most")
    if scales is not None and (method in SOUPS or not scales or any(not 0 <= s <= 2 for s in scales)):
        expected = "no scale: a mean of models has none" if method in SOUPS else "numbers from 0 to 2"
        raise RecipeError(f"`scale: {', '.join(f'{s:g}' for s in scales)}`", where="scale", expected=expected)


def _check_kind(runs: Sequence[Run]) -> None:
    """Refuse runs of other base models, tasks or labels."""
    from tunewell.predict import read_task

    first = runs[0]
    specs = [(read_task(r.dir) or {}).get("spec", {}) for r in runs]
    for run, spec in zip(runs[1:], specs[1:], strict=True):
        if run.recipe.model != first.recipe.model:
            raise ModelError(
                f"was tuned from {run.recipe.model}, and {first.dir} from {first.recipe.model}",
                where=str(run.dir),
                expected="runs of one base model: weights of others have nothing in common",
            )
        if run.summary.task != first.summary.task:
            raise ModelError(
                f"is of the task {run.summary.task}, and {first.dir} of {first.summary.task}",
                where=str(run.dir),
                expected="runs of one task",
            )
        if spec.get("labels") != specs[0].get("labels"):
            raise ModelError(
                f"answers with other labels ({', '.join(map(str, (spec.get('labels') or [])[:6]))}) than {first.dir} "
                f"({', '.join(map(str, (specs[0].get('labels') or [])[:6]))}), so that their heads have no mean",
                where=str(run.dir),
                expected="runs with the same labels in the same order",
                remedy="`tunewell sequence` learns tasks with other labels, each under a head of its own",
            )


def _check_leaks(runs: Sequence[Run], job: Job) -> None:
    """Refuse where a row that the merged model is measured on was learned by one of its parts."""
    from tunewell.stages.prepare import prepare

    held = {(r["text"], r.get("text_pair")) for s in ("validation", "test") for r in job.splits[s]}
    for run in runs[1:]:
        if run.recipe.model_copy(update={"output_dir": None}) == runs[0].recipe.model_copy(update={"output_dir": None}):
            continue
        learned = prepare(run.recipe, echo=lambda line: None).splits["train"]
        n = sum((r["text"], r.get("text_pair")) in held for r in learned)
        if n:
            raise DataError(
                f"has learned {n:,} of the {len(held):,} rows that {runs[0].dir} is validated and tested on, so that "
                "the merged model's score would be flattered",
                where=str(run.dir),
                expected="runs that share their validation and test rows",
                remedy="give all runs the same `validation` and `test` files (with `seed` alone the split moves too)",
            )


def _base_weights(model: Any) -> Weights:
    """A copy of the base model's weights, without a head that was drawn."""
    drawn: frozenset[str] = getattr(model, "drawn_parameters", frozenset())
    return {k: v.detach().clone() for k, v in model.state_dict().items() if k not in drawn}


def _check_tensors(runs: Sequence[Run], base: Weights, states: Sequence[Weights]) -> None:
    """Refuse models with other tensors or another vocabulary, naming what differs."""
    from tunewell.models.load import load_tokenizer

    shapes = {k: tuple(v.shape) for k, v in states[0].items()}
    for run, state in zip(runs, states, strict=True):
        for name in [*shapes, *(k for k in state if k not in shapes)]:
            mine = tuple(state[name].shape) if name in state else None
            if mine != shapes.get(name):
                raise ModelError(
                    f"its tensor {name} is {_shape(mine)}, that of {runs[0].dir} is {_shape(shapes.get(name))}",
                    where=str(run.dir),
                    expected="models with the same tensors",
                )
        for name, tensor in base.items():
            if name in state and tensor.shape != state[name].shape:
                raise ModelError(
                    f"its tensor {name} is {_shape(tuple(state[name].shape))}, that of the base model now "
                    f"{_shape(tuple(tensor.shape))}",
                    where=str(run.dir),
                    expected=f"the base model that it was tuned from at {run.recipe.model}",
                )
    known = [load_tokenizer(str(r.model_path), str(r.model_path)).get_vocab() for r in runs]
    for run, vocabulary in zip(runs[1:], known[1:], strict=True):
        other = next((t for t in known[0] if vocabulary.get(t) != known[0][t]), None)
        if other is not None:
            raise ModelError(
                f"its tokenizer has `{other}` at {vocabulary.get(other)}, that of {runs[0].dir} at {known[0][other]}",
                where=str(run.dir),
                expected="models with one vocabulary: rows of embeddings stand for the same words",
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " × ".join(map(str, shape)) or "a number"


# ---------------------------------------------------------------- choosing


def _choose(
    job: Job,
    model: Any,
    runs: Sequence[Run],
    base: Weights,
    states: Sequence[Weights],
    *,
    method: str,
    scales: tuple[float, ...],
    **options: Any,
) -> tuple[Choice, Weights, dict[str, Any]]:
    """The merged candidates beside the models that they are made of; only a merged one can be chosen."""
    from tunewell.retention.budget import choose as choose_by_budget

    parts = [_scored(job, model, state, run.dir.name, {}) for run, state in zip(runs, states, strict=True)]
    note: dict[str, Any] = {}
    if method == "greedy":
        members = _greedy(job, model, states, parts)
        note["members"] = [str(runs[i].dir) for i in members]
        options["weights"] = [float(members.count(i)) for i in range(len(runs))]
        chosen_states = [s for s, w in zip(states, options["weights"], strict=True) if w]
        options["weights"] = [w for w in options["weights"] if w]
        merged = {1.0: merge_states("soup", base, chosen_states, **options)}
    else:
        merged = {s: merge_states(method, base, states, scale=s, **options) for s in scales}
    found = [
        _scored(job, model, weights, method, {"scale": s} if method in VECTORS else {}) for s, weights in merged.items()
    ]
    recipe = job.recipe
    # one scale is as much derived as another: none of them is "the tuned one" that wins ties
    named = [c.model_copy(update={"parameters": {}}) for c in found]
    choice = choose_by_budget(named, keep=recipe.keep, keep_worst=recipe.keep_worst)
    place = next(i for i, c in enumerate(choice.candidates) if c.chosen)
    shown = [c.model_copy(update={"parameters": f.parameters}) for c, f in zip(choice.candidates, found, strict=True)]
    scale = list(merged)[place]
    if method in VECTORS:
        note["scale"] = scale
    reason = f"{method} of {len(runs)} runs: {choice.reason}"
    return choice.model_copy(update={"candidates": (*parts, *shown), "reason": reason}), merged[scale], note


def _scored(job: Job, model: Any, weights: Weights, name: str, parameters: dict[str, float]) -> Candidate:
    """Validation and the select halves of one set of weights."""
    from tunewell.retention.budget import meets
    from tunewell.stages.choose import measuring, score_candidates
    from tunewell.stages.probe import measures

    model.load_state_dict(weights)
    recipe = job.recipe.model_copy(update={"keep": job.recipe.keep or 1.0})  # so that retention is measured
    label = name + "".join(f", {k} {v:g}" for k, v in parameters.items())
    found, _ = score_candidates(
        model, recipe=recipe, base={}, strategies=(), names=(label,), **measuring(job, measures(job))
    )
    inside = meets(found[0], job.recipe.keep, job.recipe.keep_worst)
    return found[0].model_copy(update={"parameters": parameters, "strategy": ("merge",), "meets": inside})


def _greedy(job: Job, model: Any, states: Sequence[Weights], parts: Sequence[Candidate]) -> list[int]:
    """Greedy soup: best first, each joins the mean where validation does not fall (Wortsman et al., 2022, recipe 1)."""
    order = sorted(range(len(states)), key=lambda i: (-(parts[i].score.value or 0.0), i))
    members, best = [order[0]], parts[order[0]].score.value or 0.0
    for i in order[1:]:
        trial = [*members, i]
        model.load_state_dict(merge_states("soup", {}, [states[j] for j in trial], weights=[1.0] * len(trial)))
        score = float(job.task.validation(job, model).headline.value or 0.0)
        joins = score >= best
        job.echo(f"greedy: with {parts[i].name} validation {score:.4f}: {'joins' if joins else 'is left out'}")
        if joins:
            members, best = trial, score
    return members
