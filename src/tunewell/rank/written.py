"""Candidates for written answers: judged by how likely they find the data's own answers, in bits a byte.

Bits a byte and not a token, so that models with other tokenizers can be compared (Gao et al., 2020).
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from tunewell.errors import DataError
from tunewell.rank import cost
from tunewell.rank.cover import Cover, cover
from tunewell.rank.measure import GENERATIVE, Advance, Judged
from tunewell.rank.rows import Sample
from tunewell.recipe import Recipe

BATCH = 16  # rows a forward pass


def judge(name: str, path: str, kind: str, sample: Sample, recipe: Recipe, advance: Advance) -> Judged:
    """The model as it is on the sample's answers, then one training step.

    Raises:
        ModelError: it cannot be loaded, or writes no text. DataError: no answer fits into its window.
    """
    from tunewell.stages.job import Job
    from tunewell.tasks.generation.models import config_of, window_of

    with Job(recipe, output_dir=None, prepared=sample.small()) as job:
        task: Any = job.task
        model, bf16 = job.fresh_model(), job.bf16
        writer = task.writer(job, model, bf16=bf16)
        encoded = [writer.encode(m) for m in task.messages(job, sample.rows)]
        kept = [e for e in encoded if any(i != -100 for i in e.labels)]
        if not kept:
            raise DataError(
                "no answer fits into its window", where=name, expected=f"answers within {job.max_length} tokens"
            )
        nats = size = seconds = 0.0
        tokens = 0
        for start in range(0, len(kept), BATCH):
            part = kept[start : start + BATCH]
            began = time.perf_counter()
            likelihood = writer.likelihood(part)
            seconds += time.perf_counter() - began
            nats, size = nats + float(likelihood.nats.sum()), size + float(likelihood.bytes.sum())
            tokens += sum(len(e.ids) + (0 if writer.shift else len(e.labels)) for e in part)
            advance(len(part))
        advance(len(encoded) - len(kept))
        if not size:
            raise DataError("the answers hold no text", where=name, expected="answers of at least one character")
        bits = nats / math.log(2) / size
        lengths = np.array([len(e.ids) for e in encoded])
        near = np.argsort(np.abs(np.array([len(e.ids) for e in kept]) - lengths.mean()), kind="stable")
        batch = writer.collate([kept[i]._asdict() for i in near[: recipe.per_device_train_batch_size]])

        def loss(model: Any, batch: dict[str, Any]) -> Any:
            inputs = {k: v for k, v in batch.items() if k != "labels"}
            return writer.loss(model(**inputs), batch["labels"]).mean()

        step = cost.measured_step(model, batch, loss, bf16=bf16)
        limit = window_of(config_of(recipe, path), job.tokenizer)
        texts = cover(job.tokenizer, sample.rows["text"][:], sample.rows["label"][:], limit)
        cut = float(np.mean([e.cut > 0 for e in encoded]))
        covered = Cover(texts.unknown_share, texts.characters_per_token, cut, lengths)
        scores = {GENERATIVE: bits}
        by = "bits per byte of the answers, negative"
        return Judged(by, -bits, scores, None, tokens / seconds, step, covered, limit, job.max_length, model)
