"""Measuring the base model before it is tuned: its embeddings of the task's texts, cheap baselines, probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.models.load import Encoder
    from tunewell.tasks import TaskSpec

ROWS_EMBEDDED = 20_000  # training rows embedded at most, for baselines and label suspects


def base_embeddings(
    encoder: Encoder, splits: dict[str, Dataset], spec: TaskSpec, *, max_length: int, bf16: bool, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Pooled embeddings of the splits by the frozen base model, and which rows they are of.

    Long training splits are sampled (seeded) to ROWS_EMBEDDED rows.

    Returns:
        split -> (n, H), for pairs (n, 2, H); split -> (n,) row positions within the split.
    """
    from tunewell.models.embed import embed

    vectors, places = {}, {}
    for name, dataset in splits.items():
        place = np.arange(len(dataset))
        if name == "train" and len(dataset) > ROWS_EMBEDDED:
            place = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:ROWS_EMBEDDED])
            dataset = dataset.select(place)
        columns = ["text", "text_pair"] if spec.pair else ["text"]
        parts = [
            embed(encoder.model, encoder.tokenizer, list(dataset[c]), max_length=max_length, bf16=bf16) for c in columns
        ]
        vectors[name] = np.stack(parts, axis=1) if spec.pair else parts[0]
        places[name] = place
    return vectors, places


def embedder(model: Any, tokenizer: Any, max_length: int = 128) -> Any:
    """The callable that retention suites take: texts -> (n, H) float32, always in fp32."""
    from tunewell.models.embed import embed

    return lambda texts: embed(model, tokenizer, texts, max_length=max_length)
