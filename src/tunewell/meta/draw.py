"""Episodes of real tasks: texts of a task as batches for an encoder, and rows dealt out by a seed.

Every episode has its own seed, (seed, purpose, number, ...): the same whatever was drawn before, so that a stopped
job goes on with the same ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tunewell.meta.episode import Episode
from tunewell.meta.family import Task

SCALE = 10.0**0.5  # length of an embedding: distances are then 20 (1 − cosine) between two rows
WAYS = 5  # classes an episode where none are asked for


class Body(torch.nn.Module):
    """An encoder as a function of padded texts: (n, H) embeddings of length SCALE.

    The embedding is the mean over tokens, what sentence encoders are made for and what probes of retention read.
    Dropout is off, in learning too: two passes over a text give the same.
    """

    def __init__(self, model: Any, *, bf16: bool) -> None:
        super().__init__()
        self.model, self.bf16 = model, bf16
        self.eval()

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        from tunewell.models.pooled import sentence_embedding

        device = self.model.device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
            hidden = self.model(**batch).last_hidden_state
        return SCALE * sentence_embedding(hidden, batch["attention_mask"])


class Tokens:
    """The encoded rows of a task, as batches."""

    def __init__(self, task: Task, tokenizer: Any, max_length: int, device: torch.device) -> None:
        from tunewell.models.embed import encode

        self.task, self.tokenizer, self.device = task, tokenizer, device
        self.encoded = encode(tokenizer, task.texts, task.pairs, max_length)
        self.groups = [task.rows_of(c) for c in range(len(task.classes))]

    def batch(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Rows of the task as padded tensors (n, T)."""
        from tunewell.models.embed import pad

        return {k: v.to(self.device) for k, v in pad(self.tokenizer, self.encoded, list(rows)).items()}

    def episode(self, *seed: int | str, ways: int | None, shots: int, queries: int) -> Episode:
        """An episode: `ways` classes, `shots` rows of each to learn from, up to `queries` others to be asked."""
        rng = np.random.default_rng([s if isinstance(s, int) else zlib.crc32(s.encode()) for s in seed])
        ways = min(WAYS, len(self.groups)) if ways is None else ways
        support: list[int] = []
        query: list[int] = []
        rows: list[int] = []
        labels: list[int] = []
        for c, own in enumerate(rng.permutation(len(self.groups))[:ways]):
            chosen = rng.permutation(self.groups[own])[: shots + queries]
            first = len(rows)
            rows += [int(r) for r in chosen]
            labels += [c] * len(chosen)
            support += range(first, first + shots)
            query += range(first + shots, first + len(chosen))
        return Episode(
            take=lambda wanted: self.batch([rows[i] for i in wanted]),
            labels=torch.tensor(labels, device=self.device),
            support=tuple(support[i] for i in rng.permutation(len(support))),
            query=tuple(query[i] for i in rng.permutation(len(query))),
            classes=ways,
            task=self.task.name,
        )
