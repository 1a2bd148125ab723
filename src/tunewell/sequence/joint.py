"""Joint training: all tasks at once on a shared body (Caruana, 1997), the ceiling that a sequence is held against.

The task with the most rows sets the steps; at each of them every other task adds the mean loss of rows of its own,
answered by its own head. A step has as many rows as a step on one task has, shared by the tasks that take part: so
there are as many steps as in a sequence of the same tasks, and neither has an advantage. All rows of all tasks are
seen, a smaller task's more often.

With a temperature T a task of n rows takes part in a share of the steps, in proportion to n^(1/T)
(Arivazhagan et al., 2019; Raffel et al., 2020): at 1 tasks weigh as they have rows, and the higher T,
the more alike. Without one all take part in every step, which is where it tends to as T grows.
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


def share(rows: int, most: int, temperature: float | None) -> float:
    """Share of the steps in which a task takes part, the largest in all: (rows / most)^(1 / temperature).

    >>> share(250, 1000, 1), share(250, 1000, 2), share(250, 1000, None)
    (0.25, 0.5, 1.0)
    """
    return 1.0 if temperature is None or rows >= most else (rows / most) ** (1 / temperature)


class Joint:
    name = "joint"
    title = "Joint training on all tasks at once"
    paper = "Caruana, 1997, Multitask learning"
    more_rows = True  # the companions' words are learned too

    def __init__(
        self,
        companions: Sequence[Companion],
        *,
        max_length: int,
        batch: int,
        seed: int,
        lead_rows: int = 0,
        temperature: float | None = None,
    ) -> None:
        """Args: batch: rows a step, of all tasks. lead_rows: of the task that sets the steps. temperature: above 0;
        None for all at every step."""
        self.companions, self.max_length, self.seed = companions, max_length, seed
        self.shares = [share(len(c.rows), lead_rows, temperature) for c in companions]
        self.rows = max(1, round(batch / (1 + sum(self.shares))))  # of each task that takes part
        self.turns = [np.empty(0, dtype=np.int64) for _ in companions]

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
            rows = min(self.rows, len(lengths))
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
            turn = self.turn(t, step)
            if turn is None:
                continue
            n = len(self.plan(t, 0))
            index = self.plan(t, turn // n)[turn % n]
            batch = {k: v.to(model.device) for k, v in pad(self.tokenizer, self.encoded[t], index).items()}
            hidden = model.base_model(**batch).last_hidden_state
            logits = read_out(model, live_head(model, c.head), hidden, batch["attention_mask"])
            total = total + F.cross_entropy(logits.float(), torch.from_numpy(c.targets[index]).to(model.device))
        return total

    def turn(self, task: int, step: int) -> int | None:
        """How often a companion has taken part before this step, and takes part now; None where it does not.

        A function of the seed and the step alone, so that a resumed tuning goes on in the same way.
        """
        if self.shares[task] >= 1:
            return step
        if step >= len(self.turns[task]):
            drawn = np.random.default_rng([self.seed, task]).random(2 * step + 1024) < self.shares[task]
            self.turns[task] = np.where(drawn, np.cumsum(drawn) - 1, -1)
        turn = int(self.turns[task][step])
        return None if turn < 0 else turn

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        return iter(())
