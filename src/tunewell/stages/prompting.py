"""What `strategy: prompt` needs of a run: pattern and words, the model that answers by them, its zero-shot score."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import RecipeError
from tunewell.tasks import verbaliser

if TYPE_CHECKING:
    from tunewell.evaluate.baselines import Baseline
    from tunewell.stages.job import Job

SEARCHED, NUMBERS = 500, 20_000_000  # training rows that the search for words looks at; numbers that it holds
PROMPT = "prompt"


@dataclass(frozen=True)
class Prompt:
    """A pattern and its words for one base model.

    Attributes:
        pattern: with {text}, {mask} and, for pairs, {text_pair}.
        words: token ids of each class's words, in the order of the classes.
        tokenizer: puts the pattern around texts. how: where the words come from, for people.
    """

    pattern: str
    words: list[list[int]]
    tokenizer: Any
    how: str

    def spoken(self, labels: tuple[str, ...]) -> dict[str, list[str]]:
        """label -> its words as text."""
        return {
            label: [self.tokenizer.decode([i]).strip() for i in ids]
            for label, ids in zip(labels, self.words, strict=True)
        }


def prompt_of(job: Job) -> Prompt | None:
    """The prompt of a run, None for other strategies.

    Raises:
        RecipeError: pattern or words that do not fit, or a task without one class a row.
        ModelError: a base model without a head for masked words.
    """
    from tunewell.models.load import window
    from tunewell.models.prompt import patterned

    recipe, spec = job.recipe, job.spec
    if PROMPT not in recipe.strategies:
        return None
    if spec.regression or spec.multi_label:
        raise RecipeError(
            "`strategy: prompt` answers with one word for one class",
            where="strategy",
            expected="classes, one a row",
            remedy="`sentiment: classes` makes classes of scores" if spec.regression else "another strategy",
        )
    pattern = recipe.pattern or verbaliser.usual_pattern(ordered=spec.ordered, pair=spec.pair)
    limit = min(window(job.encoder.model, job.tokenizer), recipe.max_length or 10**6)
    tokenizer = patterned(job.tokenizer, pattern, pair=spec.pair, max_length=limit)
    words, how = None, "by the labels' names"
    if isinstance(recipe.verbaliser, dict):
        words, how = verbaliser.given(job.tokenizer, spec.labels, recipe.verbaliser), "given"
    elif recipe.verbaliser is None:
        words = verbaliser.by_name(job.tokenizer, spec.labels)
    if words is None:
        words, how = _searched(job, tokenizer, pattern, limit), "searched on the training rows"
    prompt = Prompt(pattern, words, tokenizer, how)
    spoken = "; ".join(
        f"{label}: {' | '.join(found)}" for label, found in list(prompt.spoken(spec.labels).items())[:12]
    )
    job.echo(f"prompt: {pattern}  words {how}: {spoken}")
    return prompt


def _searched(job: Job, tokenizer: Any, pattern: str, limit: int) -> list[list[int]]:
    """Words by LM-BFF's search over a seeded sample of the training rows."""
    rows, labels = job.splits["train"], job.targets("train")
    most = max(8 * len(job.spec.labels), min(SEARCHED, NUMBERS // len(tokenizer)))
    chosen = np.sort(np.random.default_rng(job.recipe.seed).permutation(len(rows))[:most])
    missing = set(range(len(job.spec.labels))) - set(labels[chosen].tolist())
    first = [int(np.flatnonzero(labels == c)[0]) for c in sorted(missing)]
    chosen = np.unique([*chosen.tolist(), *first])
    job.echo(f"prompt: searching words on {len(chosen):,} training rows")
    part = rows.select(chosen)
    model = _model(job, [[0]] * len(job.spec.labels), tokenizer, pattern)  # its words are not asked for
    pairs = list(part["text_pair"]) if job.spec.pair else None
    length = min(limit, job.recipe.max_length or 128)
    log_p = mask_log_probabilities(model, tokenizer, list(part["text"]), pairs, length)
    log_p[:, ~verbaliser.allowed(tokenizer)] = -np.inf
    return [[w] for w in verbaliser.search(log_p, labels[chosen], len(job.spec.labels))]


def mask_log_probabilities(
    model: Any, tokenizer: Any, texts: list[str], pairs: list[str] | None, max_length: int
) -> np.ndarray:
    """(n, V) float32: log-probability of every token at the pattern's mask, as the model stands."""
    import torch

    from tunewell.models.embed import encode, like_length, pad
    from tunewell.models.prompt import at_mask

    model.eval()
    encoded = encode(tokenizer, texts, pairs, max_length)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    out = np.empty((len(texts), len(tokenizer)), np.float32)
    with torch.inference_mode():
        for index in like_length(lengths, 16):
            batch = {k: v.to(model.device) for k, v in pad(tokenizer, encoded, index).items()}
            logits = at_mask(model, type(model).__mro__[1], batch.pop("input_ids"), batch)
            out[index] = logits.float().log_softmax(-1)[:, : len(tokenizer)].cpu().numpy()
    return out


def prompted_model(job: Job) -> Any:
    """The base model, answering by the run's prompt."""
    assert job.prompt is not None
    return _model(job, job.prompt.words, job.prompt.tokenizer, job.prompt.pattern)


def _model(job: Job, words: list[list[int]], tokenizer: Any, pattern: str) -> Any:
    from transformers import set_seed

    from tunewell.models.prompt import MASK, TEXT, load_prompted

    recipe = job.recipe
    set_seed(recipe.seed)
    return load_prompted(
        recipe.model,
        job.model_path,
        labels=job.spec.labels,
        words=words,
        mask=tokenizer.mask_token_id,
        first=pattern.index(MASK) < pattern.index(TEXT),
        revision=recipe.revision,
        trust_remote_code=recipe.trust_remote_code,
    )


def zero_shot(job: Job) -> Baseline:
    """The base model, asked by the pattern and not tuned."""
    from tunewell.evaluate.baselines import Baseline

    started = time.perf_counter()
    model = prompted_model(job)
    scores = {split: job.scores(model, split) for split in ("validation", "test")}
    return Baseline("zero-shot", "base model, asked by the pattern", scores, time.perf_counter() - started)
