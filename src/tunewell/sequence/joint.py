"""Joint training: all tasks at once on a shared body (Caruana, 1997), the ceiling that a sequence is held against.

The task with the most rows sets the steps; at each of them every other task adds the mean loss of a
batch of its own, answered by its own head. All rows of all tasks are seen, a smaller task's more often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from tunewell.sequence.heads import read_out
from tunewell.sequence.replay import live_head

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.train.hooks import Tuning, Weights


@dataclass(frozen=True)
class Companion:
    """Another task that is learned at the same time."""

    head: str
    rows: Dataset
    targets: np.ndarray
    pair: bool


class Joint:
    name = "joint"
    title = "Joint training on all tasks at once"
    paper = "Caruana, 1997, Multitask learning"
    more_rows = True  # the companions' words are learned too

    def __init__(self, companions: Sequence[Companion], *, max_length: int, batch: int, seed: int) -> None:
        self.companions, self.max_length, self.batch, self.seed = companions, max_length, batch, seed

    def prepare(self, tuning: Tuning) -> None:
        from tunewell.models.embed import encode
        from tunewell.train.batching import LikeLengthBatches
        from tunewell.train.tune import TOKENS_A_ROW

        self.tokenizer = tuning.tokenizer
        self.encoded, samplers = [], []
        for c in self.companions:
            pairs = list(c.rows["text_pair"]) if c.pair else None
            encoded = encode(tuning.tokenizer, list(c.rows["text"]), pairs, self.max_length)
            lengths = np.array([len(ids) for ids in encoded["input_ids"]])
            rows = min(self.batch, len(lengths))
            samplers.append(LikeLengthBatches(lengths, rows=rows, tokens=rows * TOKENS_A_ROW, seed=self.seed))
            self.encoded.append(encoded)

        @lru_cache(maxsize=2 * len(samplers))
        def plan(task: int, epoch: int) -> list[list[int]]:
            samplers[task].set_epoch(epoch)
            return list(samplers[task])

        self.plan = plan

    def extra_loss(self, model: Any, step: int) -> torch.Tensor | None:
        from tunewell.models.embed import pad

        total = torch.zeros((), device=model.device)
        for t, c in enumerate(self.companions):
            n = len(self.plan(t, 0))
            index = self.plan(t, step // n)[step % n]
            batch = {k: v.to(model.device) for k, v in pad(self.tokenizer, self.encoded[t], index).items()}
            hidden = model.base_model(**batch).last_hidden_state
            logits = read_out(model, live_head(model, c.head), hidden, batch["attention_mask"])
            total = total + F.cross_entropy(logits.float(), torch.from_numpy(c.targets[index]).to(model.device))
        return total

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        return iter(())
