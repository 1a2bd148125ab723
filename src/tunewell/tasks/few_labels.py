"""What `strategy: fewshot`, and tuning without validation rows, cannot be combined with: refused before anything is
written."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tunewell.errors import DataError, ModelError, RecipeError
from tunewell.strategies import AUTO, FEWSHOT

if TYPE_CHECKING:
    from tunewell.stages.job import Job


def preflight(job: Job) -> None:
    """Refuse what does not go with few labels.

    Raises:
        RecipeError: scores, several labels a row, or a key that needs validation rows where there are none.
        ModelError: a decoder. DataError: a class with a single row only, so that no text has a partner.
    """
    from tunewell.tasks.by_likelihood import is_decoder

    if not job.validated:
        _without_validation(job, decoder=is_decoder(job))
    if FEWSHOT not in job.recipe.strategies:
        return
    spec = job.spec
    if spec.regression or spec.multi_label:
        raise RecipeError(
            "`strategy: fewshot` compares texts of one class with those of others",
            where="strategy",
            expected="classes, one a row",
            remedy="`sentiment: classes` makes classes of scores" if spec.regression else "another strategy",
        )
    if is_decoder(job):
        raise ModelError(
            "is a decoder, and `strategy: fewshot` tunes the sentence embeddings of an encoder",
            where=job.recipe.model,
            expected="an encoder such as all-MiniLM-L6-v2",
            remedy="`classify_by: likelihood` asks a decoder with few labels",
        )
    counts = Counter(job.splits["train"]["label"][:])
    if max(counts.values()) < 2:
        label = next(iter(counts))
        raise DataError(
            f"every class has a single training row ({label!r} among them), so that no two texts belong together",
            where=str(job.recipe.train),
            expected="two rows or more of some class",
            remedy="label more rows: `tunewell select` says which",
        )


def _without_validation(job: Job, *, decoder: bool) -> None:
    """Refuse what is decided on validation rows."""
    recipe = job.recipe
    remedy = "name a file for `validation`, or set validation_size"
    if AUTO in recipe.strategies or recipe.monitor in ("stop", "rollback"):
        key, value = ("strategy", AUTO) if AUTO in recipe.strategies else ("monitor", recipe.monitor)
        raise RecipeError(
            f"`{key}: {value}` chooses by the score on validation rows, and there are none",
            where=key,
            expected="validation rows",
            remedy=remedy,
        )
    if recipe.calibrate in ("temperature", "isotonic"):
        raise RecipeError(
            f"`calibrate: {recipe.calibrate}` is fitted on validation rows, and there are none",
            where="calibrate",
            expected="auto or none",
            remedy=remedy,
        )
    if decoder:
        raise RecipeError(
            "a decoder is tuned and asked with validation rows, and there are none",
            where="validation_size",
            expected="a share above 0",
            remedy=remedy,
        )
