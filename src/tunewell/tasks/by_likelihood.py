"""Tuning a decoder to tell classes apart by the likelihood of their names (`classify_by: likelihood`), and the same
without tuning, as a baseline of every decoder that classifies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import ModelError, RecipeError
from tunewell.tasks.base import Inputs, TokenLoss, refuse_strategies
from tunewell.tasks.likelihood import LabelLikelihood

if TYPE_CHECKING:
    from tunewell.stages.job import Job

ROLE = "a language-model head"
WITHOUT = ("lpft", "fewshot", "ewc", "mas", "mixup", "auto")  # need a classification head
CHOSEN_ON = 200  # validation rows at most on which the variant of the baseline is chosen


def is_decoder(job: Job) -> bool:
    """Whether a job's model is a decoder."""
    from tunewell.tasks.generation.models import config_of, kind_of

    return kind_of(config_of(job.recipe, job.model_path)) == "decoder"


def chosen(job: Job) -> bool:
    return job.recipe.classify_by == "likelihood"


def preflight(job: Job) -> None:
    """Refuse what a decoder cannot do as a classifier.

    Raises:
        RecipeError, ModelError: with what would do.
    """
    recipe, spec = job.recipe, job.spec
    decoder = is_decoder(job)
    if not chosen(job):
        if decoder and spec.pair:
            raise RecipeError(
                "a decoder under a classification head reads one text, not a pair",
                where="text_pair",
                expected="an encoder, or `classify_by: likelihood`",
                remedy="--classify_by likelihood",
            )
        return
    if not decoder:
        raise ModelError(
            "is no decoder, so that it cannot tell how likely the name of a class is",
            where=recipe.model,
            expected="a decoder such as SmolLM2-135M-Instruct, or `classify_by: head`",
        )
    if spec.regression or spec.multi_label:
        raise RecipeError(
            "`classify_by: likelihood` needs one class a text",
            where="classify_by",
            expected="classify_by: head for scores and for several labels a text",
        )
    for key in ("loss", "class_weight", "label_smoothing_factor"):
        if getattr(recipe, key) != type(recipe).model_fields[key].default:
            raise RecipeError(
                f"`{key}` does not go with `classify_by: likelihood`",
                where=key,
                expected="cross-entropy of tokens; leave it out",
            )
    refuse_strategies(job, WITHOUT, "needs a classification head")


def load_base(job: Job) -> Any:
    """The base model with its language-model head."""
    from tunewell.tasks.generation.models import load_base as load

    return load(job.recipe, job.model_path, "decoder", job.tokenizer)


def load_saved(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    from tunewell.models.heads import load_saved as load

    return load(AutoModelForCausalLM, folder, ROLE)[0]


def scorer(job: Job, model: Any, *, bf16: bool = False) -> LabelLikelihood:
    """A model of this job as a classifier."""
    return LabelLikelihood(
        model, job.tokenizer, job.spec.labels, job.max_length, min(16, job.recipe.per_device_eval_batch_size), bf16
    )


def texts_of(job: Job, split: str) -> tuple[list[str], list[str] | None]:
    rows = job.splits[split]
    return list(rows["text"]), list(rows["text_pair"]) if job.spec.pair else None


def scores(job: Job, model: Any, split: str, *, bf16: bool = False) -> np.ndarray:
    return scorer(job, model, bf16=bf16).scores(*texts_of(job, split))


def max_length(job: Job) -> int:
    """Tokens of the longest question, by the 99.5 % quantile of training rows, within the model's window."""
    from tunewell.stages.prepare import length_asked, usual_length
    from tunewell.tasks.generation.models import config_of, window_of

    limit = window_of(config_of(job.recipe, job.model_path), job.tokenizer)
    if (given := length_asked(job.recipe, limit)) is not None:
        return given
    rows = job.splits["train"].select(range(min(2000, len(job.splits["train"]))))
    asked = LabelLikelihood(None, job.tokenizer, job.spec.labels, limit)
    found = asked.prompts(list(rows["text"]), list(rows["text_pair"]) if job.spec.pair else None)
    return usual_length([len(ids) for ids in found], limit)


def inputs(job: Job) -> Inputs:
    """Questions with the names of their classes as answers."""
    from datasets import Dataset

    from tunewell.tasks.generation.audit import inputs_of
    from tunewell.tasks.generation.learning import token_loss
    from tunewell.tasks.generation.writers import CausalWriter
    from tunewell.tasks.likelihood import encoded

    rows = encoded(scorer(job, None), *texts_of(job, "train"), job.splits["train"]["label"][:])
    writer = CausalWriter(None, job.tokenizer, max(len(row.ids) for row in rows))

    def tokens(model: Any) -> TokenLoss:
        whole = "anchor" in job.recipe.strategies  # compares whole logits, which the fast way never makes
        return token_loss(model, writer, packing=job.recipe.packing, whole=whole, echo=job.echo)

    return Inputs(Dataset.from_dict(inputs_of(rows)), writer.collate, writer.loss, writer.max_length, tokens)


def zero_shot(job: Job) -> dict[str, Any] | None:
    """The base decoder without tuning: `title`, `seconds` and `scores` (n, C) on test; None where it cannot be."""
    from tunewell.models.heads import architectures
    from tunewell.tasks.likelihood import zero_shot as measure

    single = not (job.spec.regression or job.spec.multi_label)
    known = architectures(job.model_path) if Path(job.model_path).is_dir() else ["ForCausalLM"]
    if not single or not is_decoder(job) or not any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in known):
        return None
    started = time.perf_counter()
    some = np.sort(np.random.default_rng(job.recipe.seed).permutation(len(job.splits["validation"]))[:CHOSEN_ON])
    texts, pairs = texts_of(job, "validation")
    few: tuple[Sequence[str], Sequence[str] | None] = (
        [texts[i] for i in some],
        [pairs[i] for i in some] if pairs is not None else None,
    )
    made = scorer(job, load_base(job), bf16=job.bf16)
    variant, found = measure(
        made, job.spec, {"validation": few, "test": texts_of(job, "test")}, job.targets("validation")[some]
    )
    return {
        "name": "label-likelihood",
        "title": f"base model asked in words, by label likelihood ({variant})",
        "seconds": time.perf_counter() - started,
        "scores": found["test"],
    }
