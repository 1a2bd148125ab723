"""Distillation on general text: an encoder keeps the base model's sentence embeddings, a decoder its next tokens.

While the task is learned, a small batch of general text goes through the model at every step (on
short texts every few steps, see train/general_batches.py) and its pooled embeddings are held to
those of the base model (feature distillation against forgetting, as in Learning without Forgetting,
Li & Hoiem, 2016, with embeddings for logits; the pooled form follows sentence-embedding distillation, Reimers &
Gurevych, 2020). The base model's embeddings are computed once, and only for the texts that the
planned steps will use.

The term is weight · mean over texts of ‖e − e₀‖² / ‖e₀‖², the squared distance relative to the base
embedding's own length, so that a weight means the same on every model.

A decoder that is tuned to write has logits of its own, and the term is weight · mean over tokens of KL(p₀ ‖ p), the
base model's next-token probabilities against the tuned one's (Hinton et al., 2015; see next_tokens.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError

if TYPE_CHECKING:
    import torch

    from tunewell.train.general_batches import GeneralBatches
    from tunewell.train.hooks import Tuning


class Distillation:
    name = "distill"
    title = "Distillation of the base model's embeddings (decoders: next tokens) on general text"
    paper = "Li & Hoiem, 2016, Learning without Forgetting; Reimers & Gurevych, 2020"

    def __init__(self, options: dict[str, Any]) -> None:
        self.weight = float(options["distill_weight"])
        self.source, self.samples = options["general_text"], options["general_samples"]

    def prepare(self, tuning: Tuning) -> None:
        """Choose the general texts, cut them into batches of like length and ask the base model about them.

        Raises:
            RecipeError: an encoder-decoder.
        """
        from tunewell.models.embed import pad
        from tunewell.train.general_batches import plan_batches
        from tunewell.train.monitor import is_decoder

        if getattr(tuning.model.config, "is_encoder_decoder", False):
            raise RecipeError(
                "`strategy: distill` is for encoders and decoders, not for encoder-decoders",
                where="strategy",
                expected="another strategy such as average or l2sp",
            )
        plan = plan_batches(tuning, self.source, self.samples)
        self.every, self.decoder = plan.every, is_decoder(tuning.model)
        how = "asking" if self.decoder else "embedding them with"
        tuning.echo(f"distill: {len(plan.texts):,} general texts, {plan.pace}; {how} the base model")
        self.batches = [pad(tuning.tokenizer, plan.encoded, batch) for batch in plan.batches]
        if self.decoder:
            self.batches = [{k: v for k, v in b.items() if k != "token_type_ids"} for b in self.batches]
        self.teacher = self._answers(tuning) if self.decoder else self._embeddings(tuning, plan)

    def _answers(self, tuning: Tuning) -> list[Any]:
        from tunewell.strategies.next_tokens import answers

        model, training = tuning.model, tuning.model.training
        model.eval()
        try:
            return [
                answers(model, {k: v.to(model.device) for k, v in batch.items()}, bf16=tuning.bf16)
                for batch in self.batches
            ]
        finally:
            model.train(training)

    def _embeddings(self, tuning: Tuning, plan: GeneralBatches) -> list[Any]:
        import torch

        from tunewell.models.embed import embed
        from tunewell.train.general_batches import LONGEST

        teacher = embed(tuning.model, tuning.tokenizer, plan.texts, max_length=LONGEST, bf16=tuning.bf16)
        return [torch.from_numpy(teacher[batch]) for batch in plan.batches]

    def extra_loss(self, model: Any, step: int) -> torch.Tensor | None:
        if not self.weight or step % self.every:
            return None
        place = step // self.every % len(self.batches)
        batch = {k: v.to(model.device) for k, v in self.batches[place].items()}
        if self.decoder:
            from tunewell.strategies.next_tokens import divergence

            distance = divergence(self.teacher[place], model(**batch).logits, batch["attention_mask"])
        else:
            from tunewell.models.embed import mean_pool

            hidden = model.base_model(**batch).last_hidden_state
            distance = relative_distance(
                mean_pool(hidden.float(), batch["attention_mask"]), self.teacher[place].to(model.device)
            )
        return self.weight * self.every * distance


def relative_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over rows of ‖s − t‖² / ‖t‖² for embeddings (B, H)."""
    return ((student - teacher).square().sum(1) / teacher.square().sum(1).clamp(min=1e-12)).mean()
