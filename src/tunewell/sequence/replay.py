"""Replay: at every step a batch of stored rows of earlier tasks, each answered by its own head.

Plain replay adds the mean cross-entropy of the stored batch, with weight 1 as in experience replay
(ER; Chaudhry et al., 2019, On tiny episodic memories). Dark replay (DER++; Buzzega et al., 2020)
adds α · the mean squared distance to the logits that were stored with the rows, and β · their
cross-entropy; here the two come from the same batch, in the paper from two.

The batch of a step depends on seed and step alone, so that a resumed run goes on to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from tunewell.sequence.heads import HOLDER, attached, read_out
from tunewell.sequence.memory import Stored
from tunewell.sequence.past import Past

if TYPE_CHECKING:
    from tunewell.train.hooks import Tuning, Weights


class Memory:
    """Stored rows of all earlier tasks, encoded, and the losses of a batch of them."""

    def __init__(self, stored: Sequence[Stored], tokenizer: Any, max_length: int) -> None:
        from tunewell.models.embed import encode

        self.stored, self.tokenizer = [s for s in stored if len(s)], tokenizer
        self.encoded = [encode(tokenizer, s.texts, s.pairs, max_length) for s in self.stored]
        self.places = [(t, i) for t, s in enumerate(self.stored) for i in range(len(s))]

    def __len__(self) -> int:
        return len(self.places)

    def draw(self, size: int, seed: int, step: int) -> list[tuple[int, int]]:
        """(task, row) of `size` rows without repetition; all when there are fewer."""
        chosen = np.random.default_rng([seed, 11, step]).permutation(len(self.places))[:size]
        return [self.places[i] for i in sorted(chosen)]

    def losses(self, model: Any, drawn: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy of drawn rows, and mean squared distance of their logits to the stored ones."""
        rows = [
            {k: self.encoded[t][k][i] for k in self.encoded[t] if k in self.tokenizer.model_input_names}
            for t, i in drawn
        ]
        batch = {k: v.to(model.device) for k, v in self.tokenizer.pad(rows, return_tensors="pt").items()}
        hidden = model.base_model(**batch).last_hidden_state
        entropy, distance = [], []
        for t, stored in enumerate(self.stored):
            index = [k for k, (task, _) in enumerate(drawn) if task == t]
            if not index:
                continue
            of = [drawn[k][1] for k in index]
            logits = read_out(model, live_head(model, stored.head), hidden[index], batch["attention_mask"][index])
            targets = torch.from_numpy(stored.targets[of]).to(model.device)
            before = torch.from_numpy(stored.logits[of]).to(model.device)
            entropy.append(F.cross_entropy(logits.float(), targets, reduction="none"))
            distance.append((logits.float() - before).square().mean(1))
        return torch.cat(entropy).mean(), torch.cat(distance).mean()


def live_head(model: Any, head: str) -> dict[str, torch.Tensor]:
    """An earlier head as it is in training; nothing to replace where it is the model's own (a shared head)."""
    holder = getattr(model, HOLDER, None)
    return attached(model, head) if holder is not None and head in dict(holder.named_children()) else {}


class Replay:
    name = "replay"
    title = "Replay of stored rows of earlier tasks"
    paper = "Chaudhry et al., 2019, On tiny episodic memories in continual learning"

    def __init__(self, past: Past, *, weight: float = 1.0, dark: float = 0.0, rows: int | None = None) -> None:
        """`weight` of the cross-entropy, `dark` of the squared distance of logits, `rows` a step (a task batch)."""
        self.past, self.weight, self.dark, self.rows = past, weight, dark, rows or past.batch

    def prepare(self, tuning: Tuning) -> None:
        self.memory = Memory(self.past.stored, tuning.tokenizer, self.past.memory_length)
        if len(self.memory):
            tuning.echo(f"{self.name}: {len(self.memory):,} stored rows of earlier tasks, {self.rows} a step")

    def extra_loss(self, model: Any, step: int) -> torch.Tensor | None:
        if not len(self.memory):
            return None
        entropy, distance = self.memory.losses(model, self.memory.draw(self.rows, self.past.seed, step))
        return self.weight * entropy + self.dark * distance

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        return iter(())


class DarkReplay(Replay):
    name = "der"
    title = "Dark replay: stored rows with their labels and logits (DER++)"
    paper = "Buzzega et al., 2020, Dark experience for general continual learning"
