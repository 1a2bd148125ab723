"""What texts without labels cannot be combined with: told before anything is loaded or written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunewell.errors import RecipeError, nearest
from tunewell.strategies import AUTO
from tunewell.unlabelled import METHODS

if TYPE_CHECKING:
    from tunewell.recipe import Recipe
    from tunewell.stages.job import Job

OF_ONE = {
    "unlabelled_pretraining": "pretraining",
    "unlabelled_consistency": "consistency",
    "unlabelled_tsa": "consistency",
}  # key -> the one method that reads it


def check_methods(names: Sequence[str]) -> list[str]:
    """What is wrong with a list of methods, in sentences."""
    known = ("auto", *METHODS)
    problems = [
        f"no such method `{name}`: " + (nearest(name, known) or "there are " + ", ".join(known))
        for name in names
        if name not in known
    ]
    if not names:
        problems.append("name one or more of " + ", ".join(known))
    if "auto" in names and len(names) > 1:
        problems.append("`auto` tries all that fit: leave the others out, or leave `auto` out")
    return problems


def mistakes(recipe: Recipe) -> list[str]:
    """What is wrong with a recipe's keys for texts without labels, in sentences."""
    if recipe.unlabelled is None:
        keys = [k for k in type(recipe).model_fields if k.startswith("unlabelled_")]
        return [
            f"`{key}` says what to do with texts without labels: name them, `unlabelled: pool.csv`"
            for key in keys
            if getattr(recipe, key) != _default(recipe, key)
        ]
    problems = []
    if AUTO in recipe.strategies:
        problems.append(
            "`unlabelled` and `strategy: auto` are a search each: name the strategy that the search has chosen"
        )
    if recipe.seeds > 1:
        problems.append("`seeds` repeats one tuning, and `unlabelled` tries several: leave one of them out")
    if recipe.framework != "pytorch":
        problems.append(f"`unlabelled` is tuned by pytorch, not by `framework: {recipe.framework}`")
    if recipe.classify_by == "likelihood":
        problems.append("`unlabelled` needs a classification head: leave `classify_by: likelihood` out")
    for key, method in OF_ONE.items():
        methods = recipe.unlabelled_methods
        if method not in methods and "auto" not in methods and getattr(recipe, key) != _default(recipe, key):
            problems.append(f"`{key}` says how `{method}` works: add {method} to unlabelled_methods, or leave it out")
    return problems


def _default(recipe: Recipe, key: str) -> object:
    return type(recipe).model_fields[key].default


def methods_of(job: Job, *, echo: bool = True) -> tuple[str, ...]:
    """The methods to try, those of `auto` that fit the base model.

    Raises:
        RecipeError: a method that is named does not fit.
    """
    asked: Sequence[str] = job.recipe.unlabelled_methods
    why = unfit(job)
    if "auto" not in asked:
        for name in asked:
            if name in why:
                raise RecipeError(
                    f"`unlabelled_methods: {name}` {why[name]}",
                    where="unlabelled_methods",
                    expected=", ".join(m for m in METHODS if m not in why),
                )
        return tuple(dict.fromkeys(asked))
    if echo:
        for name, reason in why.items():
            job.echo(f"unlabelled: {name} is not tried: it {reason}")
    return tuple(m for m in METHODS if m not in why)


def unfit(job: Job) -> dict[str, str]:
    """Method -> why it does not go with this job's model or rows."""
    from tunewell.tasks.by_likelihood import is_decoder

    out = {}
    if is_decoder(job):
        out["pretraining"] = "is for encoders, and the base model is a decoder"
    elif job.spec.pair:
        out["pretraining"] = "learns from single texts, and these are pairs"
    return out


def preflight(job: Job) -> None:
    """Refuse rows and models that no method is for; read the pool, so that what is wrong with it is told now.

    Raises:
        RecipeError: no task of one class a row, or a method that does not fit.
        ModelError: see `check_pretraining`.
        DataError: an empty pool, or one that shares texts with validation or test.
    """
    if job.recipe.unlabelled is None:
        return
    spec = job.spec
    if spec.name != "text-classification" or spec.multi_label:
        kind = "several labels a row" if spec.multi_label else spec.name
        raise RecipeError(
            f"`unlabelled` guesses one class a row, and this task is {kind}",
            where="unlabelled",
            expected="text-classification or sentiment, with one class a row",
            remedy="leave `unlabelled` out",
        )
    if "pretraining" in methods_of(job, echo=False):
        check_pretraining(job)
    assert job.pool is not None


def check_pretraining(job: Job) -> None:
    """Refuse a way of pretraining that the base model has no parts for, by its config alone.

    Raises:
        ModelError: no head for masked words, or no decoder can be made of it.
    """
    from tunewell.unlabelled.pretraining import config_of, has_mlm_head, no_head

    wanted = job.recipe.unlabelled_pretraining
    if wanted == "mlm" and not has_mlm_head(config_of(job), job.tokenizer):
        raise no_head(job.recipe.model)
    if wanted == "tsdae":
        from tunewell.unlabelled.denoising import decoder_config

        decoder_config(config_of(job))
