"""Distillation on general text: the tuned encoder keeps the base model's sentence embeddings.

While the task is learned, a small batch of general text goes through the model at every step (on
short texts every few steps, see `period`) and its pooled embeddings are held to those of the base
model (feature distillation against forgetting, as in Learning without Forgetting, Li & Hoiem, 2016,
with embeddings for logits; the pooled form follows sentence-embedding distillation, Reimers &
Gurevych, 2020). The base model's embeddings are computed once, and only for the texts that the
planned steps will use.

The term is weight · mean over texts of ‖e − e₀‖² / ‖e₀‖², the squared distance relative to the base
embedding's own length, so that a weight means the same on every model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning

SHARE = 0.1  # tokens of the general batch over tokens of the task batch
LONGEST = 64  # tokens of a general text
LEAST = 256  # tokens that a general batch should hold: smaller ones cost a pass through the model for little
RAREST = 4  # steps between two general batches at most


class Distillation:
    name = "distill"
    title = "Distillation of the base model's embeddings on general text"
    paper = "Li & Hoiem, 2016, Learning without Forgetting; Reimers & Gurevych, 2020"

    def __init__(self, options: dict[str, Any]) -> None:
        self.weight = float(options["distill_weight"])
        self.source, self.samples = options["general_text"], options["general_samples"]

    def prepare(self, tuning: Tuning) -> None:
        """Choose the general texts, cut them into batches of like length and embed them with the base model."""
        import torch

        from tunewell.data.general import general_texts
        from tunewell.models.embed import embed, encode, pad
        from tunewell.train.batching import LikeLengthBatches

        texts = general_texts(self.source, self.samples, seed=tuning.seed)
        encoded = encode(tuning.tokenizer, texts, None, LONGEST)
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        self.every = period(SHARE * tuning.tokens)
        share = SHARE * tuning.tokens * self.every
        rows = max(2, round(share / lengths.mean()))
        sampler = LikeLengthBatches(lengths, rows=rows, tokens=int(2 * max(share, lengths.max())), seed=tuning.seed)
        plan = list(sampler)[: -(-tuning.steps // self.every)]  # repeated when the steps are more
        used = sorted({i for batch in plan for i in batch})
        place = {row: i for i, row in enumerate(used)}
        often = "a step" if self.every == 1 else f"every {self.every} steps"
        tuning.echo(f"distill: {len(used):,} general texts, about {rows} {often}; embedding them with the base model")
        teacher = embed(tuning.model, tuning.tokenizer, [texts[i] for i in used], max_length=LONGEST, bf16=tuning.bf16)
        self.batches = [pad(tuning.tokenizer, encoded, batch) for batch in plan]
        self.teacher = [torch.from_numpy(teacher[[place[i] for i in batch]]) for batch in plan]

    def extra_loss(self, model: Any, step: int) -> torch.Tensor | None:
        from tunewell.models.embed import mean_pool

        if not self.weight or step % self.every:
            return None
        place = step // self.every % len(self.batches)
        batch = {k: v.to(model.device) for k, v in self.batches[place].items()}
        hidden = model.base_model(**batch).last_hidden_state
        distance = relative_distance(
            mean_pool(hidden.float(), batch["attention_mask"]), self.teacher[place].to(model.device)
        )
        return self.weight * self.every * distance


def period(tokens: float) -> int:
    """Steps between general batches, when a step's share of general text is `tokens` long.

    On short texts that share is two or three sentences, and a pass through the model costs more than it
    teaches. The term is then computed on every k-th step, on k times the text and with k times the weight:
    the same gradient on average (lazy regularisation; Karras et al., 2020, section 3.1).

    >>> period(80), period(200), period(400)
    (4, 2, 1)
    """
    return min(RAREST, max(1, -int(-LEAST // max(tokens, 1.0))))


def relative_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over rows of ‖s − t‖² / ‖t‖² for embeddings (B, H)."""
    return ((student - teacher).square().sum(1) / teacher.square().sum(1).clamp(min=1e-12)).mean()
