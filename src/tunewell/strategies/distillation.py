"""Distillation on general text: the tuned encoder keeps the base model's sentence embeddings.

While the task is learned, a small batch of general text goes through the model at every step (on
short texts every few steps, see train/general_batches.py) and its pooled embeddings are held to
those of the base model (feature distillation against forgetting, as in Learning without Forgetting,
Li & Hoiem, 2016, with embeddings for logits; the pooled form follows sentence-embedding distillation, Reimers &
Gurevych, 2020). The base model's embeddings are computed once, and only for the texts that the
planned steps will use.

The term is weight · mean over texts of ‖e − e₀‖² / ‖e₀‖², the squared distance relative to the base
embedding's own length, so that a weight means the same on every model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning


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

        from tunewell.models.embed import embed, pad
        from tunewell.train.general_batches import LONGEST, plan_batches

        plan = plan_batches(tuning, self.source, self.samples)
        self.every = plan.every
        tuning.echo(f"distill: {len(plan.texts):,} general texts, {plan.pace}; embedding them with the base model")
        teacher = embed(tuning.model, tuning.tokenizer, plan.texts, max_length=LONGEST, bf16=tuning.bf16)
        self.batches = [pad(tuning.tokenizer, plan.encoded, batch) for batch in plan.batches]
        self.teacher = [torch.from_numpy(teacher[batch]) for batch in plan.batches]

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


def relative_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over rows of ‖s − t‖² / ‖t‖² for embeddings (B, H)."""
    return ((student - teacher).square().sum(1) / teacher.square().sum(1).clamp(min=1e-12)).mean()
