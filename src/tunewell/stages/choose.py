"""Choosing the final weights inside the retention budget, on validation and the select halves only; saving them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.results import Candidate, Choice, Evaluation, write_whole, write_with
from tunewell.stages.job import Job
from tunewell.stages.probe import base_measurements, measures, probed, suite
from tunewell.stages.tune import strategies_of, weights_of
from tunewell.strategies import AFTERWARDS

if TYPE_CHECKING:
    from tunewell.recipe import Recipe
    from tunewell.train.hooks import Strategy, Weights

CHOSEN = ("choice.json", "task.json", "model")  # what choosing leaves


def encoder_weights(model: Any) -> Weights:
    """A copy of the base model's weights (everything but the head)."""
    return {name: tensor.detach().clone() for name, tensor in model.base_model.state_dict().items()}


def tuned_and_base(job: Job) -> tuple[Any, Weights]:
    """The tuned model of a job, and the encoder's weights before tuning."""
    from safetensors.torch import load_file

    model = job.fresh_model()
    base = encoder_weights(model)
    model.load_state_dict(load_file(str(weights_of(job))))
    return model, base


def score_candidates(
    model: Any,
    *,
    recipe: Recipe,
    base: Weights,
    strategies: Sequence[Strategy],
    evaluate: Callable[[Any], Evaluation],
    suite: Any,
    before: Any,
    embedder: Callable[[Any], Any],
    echo: Callable[[str], None],
    names: tuple[str, ...] | None = None,
) -> tuple[list[Candidate], list[Weights | None]]:
    """Score the tuned model and its variants; `model` holds the last one's weights afterwards.

    Args:
        model: the tuned model; base: the encoder's weights before tuning.
        evaluate: model -> Evaluation on validation.
        suite: the select half, None when nothing is to be measured; before: the base model's measurements on it.
        names: what the candidates are called after; by default all strategies.

    Returns:
        The candidates, and the encoder's weights of each: None for the tuned ones.
    """
    from tunewell.retention.forgetting import compare
    from tunewell.train.hooks import hooks

    names = tuple(s.name for s in strategies) if names is None else names
    tuned = encoder_weights(model)
    variants: list[tuple[dict[str, float], Weights | None]] = [({}, None)]
    for others in hooks(strategies, "variants"):
        variants += list(others(base, tuned))
    measured = suite is not None and (recipe.keep or recipe.keep_worst or len(variants) > 1)
    candidates: list[Candidate] = []
    for parameters, weights in variants:
        model.base_model.load_state_dict(weights if weights is not None else tuned)
        score = evaluate(model).headline
        mean = worst = None
        probes: dict[str, float] = {}
        if measured:
            retention = compare(before, suite.measure(embedder(model)), seed=recipe.seed, n_boot=500)
            mean, worst = retention.mean, retention.worst
            probes = {p.name: p.retention.value for p in retention.probes if p.retention.value is not None}
        label = " + ".join(names) + "".join(f", {k} {v:g}" for k, v in parameters.items())
        candidates.append(
            Candidate(
                name=label,
                strategy=names,
                parameters=parameters,
                score=score,
                retention_mean=mean,
                retention_worst=worst,
                probes=probes,
                meets=None,
            )
        )
        if mean is not None and worst is not None:
            kept = f"{mean.value:.4f} (worst {worst.value:.4f})" if mean.value is not None else "not known"
            scored = "no validation rows" if score.value is None else f"validation {score.value:.4f}"
            echo(f"choose: {label}: {scored}, retention {kept}")
    model.base_model.load_state_dict(tuned)
    return candidates, [weights for _, weights in variants]


def choose(model: Any, *, recipe: Recipe, **options: Any) -> Choice:
    """Score the tuned model and its variants, choose one and leave its weights in `model`; see `score_candidates`."""
    from tunewell.retention.budget import choose as choose_by_budget

    candidates, weights = score_candidates(model, recipe=recipe, **options)
    choice = choose_by_budget(candidates, keep=recipe.keep, keep_worst=recipe.keep_worst)
    chosen = weights[next(i for i, c in enumerate(choice.candidates) if c.chosen)]
    if chosen is not None:
        model.base_model.load_state_dict(chosen)
    return choice


def fold_scale(model: Any, mean: float, std: float) -> None:
    """Put a regression head's outputs into the user's units: y = std · z + mean, folded into its last layer."""
    import torch

    last = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == model.config.num_labels][
        -1
    ]
    with torch.no_grad():
        last.weight.mul_(std)
        if last.bias is None:
            last.bias = torch.nn.Parameter(torch.zeros(last.out_features))
        last.bias.mul_(std).add_(mean)


def chosen_by_retention(recipe: Recipe) -> bool:
    """Whether the select halves have a say: there is a budget, or there are several candidates."""
    return bool(recipe.keep or recipe.keep_worst or set(AFTERWARDS) & set(recipe.strategies))


def choose_and_save(job: Job) -> Choice:
    """Choose among the tuned model and its variants; save the chosen one as a plain Transformers folder."""
    if job.folder.done("choose", job.keys.choice, [*CHOSEN, "model/config.json"]):
        return Choice.load(job.folder / "choice.json")
    model, base = tuned_and_base(job)
    wanted = measures(job) and chosen_by_retention(job.recipe)
    choice = choose(model, recipe=job.recipe, base=base, strategies=strategies_of(job), **measuring(job, wanted))
    save(job, model)
    choice.write(job.folder / "choice.json")
    job.folder.mark("choose", job.keys.choice, CHOSEN)
    return choice


def measuring(job: Job, wanted: bool = True) -> dict[str, Any]:
    """What `score_candidates` needs of a job to measure models; without retention where it is not wanted."""
    return {
        "suite": suite(job, "select") if wanted else None,
        "before": base_measurements(job, "select") if wanted else None,
        "evaluate": lambda m: job.task.validation(job, m),
        "embedder": lambda m: probed(job, "select", m),
        "echo": job.echo,
    }


def save(job: Job, model: Any) -> None:
    """model/ and task.json; the folder appears whole or not at all."""
    job.task.finish(job, model)
    model.eval()
    tokenizer = job.input_tokenizer
    limit = tokenizer.model_max_length

    def write(path: Path) -> None:
        path.mkdir()
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)

    tokenizer.model_max_length = job.max_length
    try:
        write_with(job.folder / "model", write)
    finally:
        tokenizer.model_max_length = limit
    write_whole(job.folder / "task.json", json.dumps(job.task.describe(job), ensure_ascii=False, indent=1) + "\n")
