"""Distillation on general text: the tuned encoder keeps the base model's sentence embeddings.

While the task is learned, a small batch of general text goes through the model at every step and
its pooled embeddings are held to those of the base model (feature distillation against forgetting,
as in Learning without Forgetting, Li & Hoiem, 2016, with embeddings for logits; the pooled form
follows sentence-embedding distillation, Reimers & Gurevych, 2020). The base model's embeddings are
computed once, and only for the texts that the planned steps will use.

The term is weight · mean over texts of ‖e − e₀‖² / ‖e₀‖², the squared distance relative to the base
embedding's own length, so that a weight means the same on every model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning, Weights

SHARE = 0.2  # tokens of the general batch over tokens of the task batch
LONGEST = 64  # tokens of a general text


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
        budget = max(SHARE * tuning.tokens, float(lengths.max()))
        rows = max(2, round(SHARE * tuning.tokens / lengths.mean()))
        sampler = LikeLengthBatches(lengths, rows=rows, tokens=int(2 * budget), seed=tuning.seed)
        plan = list(sampler)[: tuning.steps]  # repeated when the steps are more
        used = sorted({i for batch in plan for i in batch})
        place = {row: i for i, row in enumerate(used)}
        tuning.echo(f"distill: {len(used):,} general texts, about {rows} a step; embedding them with the base model")
        teacher = embed(tuning.model, tuning.tokenizer, [texts[i] for i in used], max_length=LONGEST, bf16=tuning.bf16)
        self.batches = [pad(tuning.tokenizer, encoded, batch) for batch in plan]
        self.teacher = [torch.from_numpy(teacher[[place[i] for i in batch]]) for batch in plan]

    def extra_loss(self, model: Any, step: int) -> torch.Tensor | None:
        from tunewell.models.embed import mean_pool

        if not self.weight:
            return None
        batch = {k: v.to(model.device) for k, v in self.batches[step % len(self.batches)].items()}
        target = self.teacher[step % len(self.teacher)].to(model.device)
        hidden = model.base_model(**batch).last_hidden_state
        return self.weight * relative_distance(mean_pool(hidden.float(), batch["attention_mask"]), target)

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        return iter(())


def relative_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over rows of ‖s − t‖² / ‖t‖² for embeddings (B, H)."""
    return ((student - teacher).square().sum(1) / teacher.square().sum(1).clamp(min=1e-12)).mean()
