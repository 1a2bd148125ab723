"""General text in place of stored rows: earlier heads keep their answers on it, the body its embeddings.

Unlabelled text that has nothing to do with the tasks still shows where the body moves away from what
earlier heads read (Lee et al., 2019, Overcoming catastrophic forgetting with unlabeled data in the
wild; there with a sampled stream, here with the general sentences of `distill`). Before a task the
body and all earlier heads answer the texts once. While it is tuned, every few steps a batch of them is
held to that: ‖e − e₀‖² / ‖e₀‖² of the mean-pooled and the first token's states, and the distillation
loss of `lwf` for each head. On the first task only the embeddings are held, to those of the base model.

How many texts and how often: see `train/general_batches.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from tunewell.sequence.heads import read_out, run_heads, summary_of
from tunewell.sequence.lwf import distillation_loss, state_distance
from tunewell.sequence.past import Past
from tunewell.sequence.replay import live_head

if TYPE_CHECKING:
    from tunewell.train.hooks import Tuning, Weights


class General:
    name = "general"
    title = "Earlier heads and the body keep their answers on general text"
    paper = "Lee et al., 2019, Overcoming catastrophic forgetting with unlabeled data in the wild"

    def __init__(self, past: Past, *, source: str | None, samples: int, weight: float = 1.0, lwf: float = 1.0) -> None:
        """`weight` of the embeddings, `lwf` of each earlier head's answers; `source` and `samples` as in a recipe."""
        self.past, self.source, self.samples, self.weight, self.lwf = past, source, samples, weight, lwf

    def prepare(self, tuning: Tuning) -> None:
        """Choose the texts, cut them into batches of like length, and let body and heads answer them."""
        from tunewell.models.embed import pad
        from tunewell.train.general_batches import plan_batches

        plan = plan_batches(tuning, self.source, self.samples)
        self.every = plan.every
        heads = self.past.heads
        tuning.echo(f"general: {len(plan.texts):,} texts, {plan.pace}, answered by {len(heads)} heads so far")
        logits, summary = run_heads(tuning.model, tuning.tokenizer, plan.encoded, heads, bf16=tuning.bf16)
        self.batches = []
        for of in plan.batches:
            wanted = {task: torch.from_numpy(values[of]) for task, values in logits.items()}
            self.batches.append((pad(tuning.tokenizer, plan.encoded, of), torch.from_numpy(summary[of]), wanted))

    def extra_loss(self, model: Any, step: int) -> torch.Tensor | None:
        if step % self.every or not (self.weight or self.lwf):
            return None
        inputs, summary, wanted = self.batches[step // self.every % len(self.batches)]
        batch = {k: v.to(model.device) for k, v in inputs.items()}
        hidden = model.base_model(**batch).last_hidden_state
        mask = batch["attention_mask"]
        loss = self.weight * state_distance(summary_of(hidden, mask), summary.to(model.device))
        for task, before in wanted.items():
            logits = read_out(model, live_head(model, task), hidden, mask).float()
            temperature = self.past.options["lwf_temperature"]
            loss = loss + self.lwf * distillation_loss(logits, before.to(model.device), temperature)
        return self.every * loss

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        return iter(())
