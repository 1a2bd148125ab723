"""What does not go together in a recipe, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewell.strategies import AUTO, check_combination
from tunewell.unlabelled.fits import mistakes as unlabelled_mistakes

if TYPE_CHECKING:
    from tunewell.recipe import Recipe


def contradictions(recipe: Recipe) -> list[str]:
    """Keys that are fine by themselves and not together."""
    problems = []
    if recipe.validation_size + recipe.test_size >= 1 and recipe.validation is None and recipe.test is None:
        problems.append("validation_size + test_size must leave rows to train on (be below 1)")
    if any(not 0 <= a <= 1 for a in recipe.average_alphas) or not recipe.average_alphas:
        problems.append("average_alphas must be one or more numbers from 0 to 1")
    if any(not 0 <= a <= 1 for a in recipe.lines_alphas) or not recipe.lines_alphas:
        problems.append("lines_alphas must be one or more numbers from 0 to 1")
    if recipe.strategy is not None:
        known = set(check_combination(recipe.strategy))  # told already, by the key itself
        problems += [p for p in check_combination(recipe.strategy, recipe.freeze) if p not in known]
    if recipe.strategy == [AUTO] and not (recipe.keep or recipe.keep_worst):
        problems.append("`strategy: auto` searches for what keeps enough: say how much, such as `keep: 0.98`")
    if recipe.augment != ["none"] and recipe.unlabelled is not None:
        problems.append("`augment` and `unlabelled` each tune with and without: take one at a time")
    if recipe.augment != ["none"] and recipe.strategy == [AUTO]:
        problems.append("`augment` tunes with and without, and `strategy: auto` is a search: take what it chose")
    if recipe.load_in_4bit and recipe.strategy != [AUTO]:
        if "lora" not in (recipe.strategy or []):
            problems.append("`load_in_4bit` is for the frozen weights under adapters: add `strategy: lora`")
        elif recipe.lora_variant not in ("lora", "rslora"):
            problems.append(f"`load_in_4bit` goes with lora_variant lora or rslora, not with {recipe.lora_variant}")
    problems += _optimiser(recipe)
    if not recipe.do_sample:
        drawn = [
            k for k in ("temperature", "top_p", "top_k") if getattr(recipe, k) != type(recipe).model_fields[k].default
        ]
        if drawn:
            problems.append(f"{', '.join(drawn)} only matters when tokens are drawn: add `do_sample: true`")
    elif recipe.num_beams > 1:
        problems.append("`do_sample: true` and `num_beams` above 1 exclude each other: draw or search")
    if recipe.num_beams == 1 and recipe.length_penalty != 1:
        problems.append("length_penalty only matters to the beam search: set num_beams above 1")
    if recipe.monitor in ("stop", "rollback"):
        problems += _undecidable(recipe)
    if recipe.text_pair is not None and recipe.text_pair == recipe.text:
        problems.append("text_pair must be another column than text")
    if recipe.aspect is not None and recipe.text_pair is not None:
        problems.append("`aspect` is the second text: leave `text_pair` out")
    if recipe.aspect is not None and recipe.aspect == recipe.text:
        problems.append("aspect must be another column than text")
    if recipe.task not in ("auto", "sentiment"):
        problems += [
            f"`{key}` belongs to `task: sentiment`, not to `task: {recipe.task}`"
            for key in ("aspect", "polarity", "sentiment")
            if key in recipe.model_fields_set and getattr(recipe, key) not in (None, "auto")
        ]
    if "prompt" not in (recipe.strategy or []):
        problems += [
            f"`{key}` belongs to `strategy: prompt`" for key in ("pattern", "verbaliser") if getattr(recipe, key)
        ]
    if recipe.polarity is not None and recipe.sentiment == "scores":
        problems.append("`polarity` makes classes: it does not go with `sentiment: scores`")
    if (recipe.keep or recipe.keep_worst) and recipe.probes == ["none"] and not recipe.probe_files:
        problems.append("keep needs probes to measure retention: remove `probes: none`")
    problems += unlabelled_mistakes(recipe)
    if recipe.framework == "tensorflow":
        from tunewell.backends.tensorflow.fits import mistakes as unfit

        problems += unfit(recipe)
    return problems


def _optimiser(recipe: Recipe) -> list[str]:
    """What does not go with an optimiser other than AdamW."""
    problems, named = [], f"`optim: {recipe.optim}`"
    strategies = recipe.strategy or []
    if recipe.optim == "schedule_free_adamw":
        if "lr_scheduler_type" in recipe.model_fields_set and not recipe.lr_scheduler_type.startswith("constant"):
            problems.append(f"{named} has no schedule: leave out `lr_scheduler_type: {recipe.lr_scheduler_type}`")
        if means := [s for s in strategies if s in ("ema", "swa")]:
            problems.append(f"{named} averages by itself: leave out `{means[0]}`")
        if recipe.monitor == "rollback":
            problems.append(f"{named} leaves a mean of many states, so that `monitor: rollback` has none to go back to")
    if recipe.optim == "prodigy":
        if recipe.learning_rate == "auto":
            problems.append(f"{named} finds the rate by itself: leave out `learning_rate: auto`")
        if "llrd" in strategies:
            problems.append(f"{named} knows one rate for all layers: leave out `llrd`")
        if "head_rate_factor" in recipe.model_fields_set and recipe.head_rate_factor != 1:
            problems.append(f"{named} knows one rate for all parameters: leave out `head_rate_factor`")
    return problems


def _undecidable(recipe: Recipe) -> list[str]:
    """What is wrong with a monitor that is to decide."""
    problems, mode = [], f"`monitor: {recipe.monitor}`"
    if not recipe.keep:
        problems.append(f"{mode} holds tuning to a budget: say how much is to be kept, such as `keep: 0.98`")
    if recipe.strategy == [AUTO]:
        problems.append(f"{mode} would cut the search of `auto` short, which watches by itself: leave it out")
    if recipe.monitor == "rollback" and (means := [s for s in recipe.strategy or [] if s in ("ema", "swa")]):
        problems.append(f"`{means[0]}` leaves a mean of many states, so that {mode} has no single one to go back to")
    return problems
