"""Candidates for classes and scores: judged by what can be read off their frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.rank import cost
from tunewell.rank.cover import cover
from tunewell.rank.measure import Advance, Judged, scores_of
from tunewell.rank.order import BY
from tunewell.rank.rows import Sample
from tunewell.recipe import Recipe

if TYPE_CHECKING:
    from tunewell.tasks import TaskSpec


def judge(name: str, path: str, kind: str, sample: Sample, recipe: Recipe, advance: Advance) -> Judged:
    """One pass over the sample, then one training step.

    Raises:
        ModelError: it cannot be loaded. RecipeError: `max_length` is beyond its window.
    """
    from tunewell.models.embed import encode, pad
    from tunewell.models.load import window
    from tunewell.rank.features import forward
    from tunewell.stages.prepare import choose_max_length
    from tunewell.train.tune import use_bf16

    model, tokenizer, headed = load(name, path, kind, sample.spec, recipe)
    limit, pair, bf16 = window(model, tokenizer), sample.spec.pair, use_bf16(recipe.bf16)
    texts, pairs = sample.rows["text"][:], sample.rows["text_pair"][:] if pair else None
    max_length = choose_max_length(recipe, {"train": sample.rows}, tokenizer, limit, pair)
    covered = cover(tokenizer, texts, pairs, limit)
    passed = forward(model, tokenizer, sample.rows, pair=pair, max_length=max_length, bf16=bf16, advance=advance)
    scores, layer = scores_of(sample.spec, passed, sample.targets, seed=recipe.seed, trained_head=headed)

    # a batch of usual length
    lengths = np.minimum(covered.lengths, max_length)
    near = np.argsort(np.abs(lengths - lengths.mean()), kind="stable")[: recipe.per_device_train_batch_size]
    encoded = encode(tokenizer, texts, pairs, max_length)
    step = cost.measured_step(model.base_model, pad(tokenizer, encoded, near), _loss, bf16=bf16)
    speed = passed.tokens / max(passed.seconds, 1e-9)
    return Judged(BY, 1.0, scores, layer, speed, step, covered, limit, max_length, model.base_model)


def _loss(model: Any, batch: dict[str, Any]) -> Any:
    """Some value of the body's output; a head of a few classes adds next to nothing to a step."""
    return model(**batch).last_hidden_state.float().pow(2).mean()


def load(name: str, path: str, kind: str, spec: TaskSpec, recipe: Recipe) -> tuple[Any, Any, bool]:
    """A model in fp32, its tokenizer, and whether it brings a head of classes; an encoder without gets a new one.

    Raises:
        ModelError: weights are missing, or the tokenizer is another model's.
    """
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification

    from tunewell.errors import ModelError
    from tunewell.models.heads import architectures
    from tunewell.models.load import check_weights, load_classifier, load_part, load_tokenizer
    from tunewell.models.pooled import is_pooled, load_pooled

    headed = any(a.endswith("ForSequenceClassification") for a in architectures(path))
    if is_pooled(path):  # the head of `strategy: fewshot`
        model = load_pooled(path)
        return model, load_tokenizer(name, path, recipe.revision, recipe.trust_remote_code), True
    if headed or kind != "encoder":
        model, found = load_part(
            (AutoModelForSequenceClassification if headed else AutoModel).from_pretrained,
            name,
            path,
            "weights",
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            revision=recipe.revision,
            trust_remote_code=recipe.trust_remote_code,
        )
        missing = list(found["missing_keys"])
    else:
        options = {"revision": recipe.revision, "trust_remote_code": recipe.trust_remote_code}
        model = load_classifier(name, spec, seed=recipe.seed, **options)  # type: ignore[arg-type]
        drawn: Any = model.drawn_parameters
        missing = [key for key in drawn if key.startswith(f"{model.base_model_prefix}.")]
    tokenizer = load_tokenizer(name, path, recipe.revision, recipe.trust_remote_code)
    check_weights(model, sorted(key for key in missing if "pooler" not in key), name)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ModelError(
            f"tokenizer has {len(tokenizer)} entries but the model only "
            f"{model.get_input_embeddings().num_embeddings} embeddings",
            where=name,
            expected="the tokenizer that belongs to the model",
        )
    return model.eval(), tokenizer, headed
