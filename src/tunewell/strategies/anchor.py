"""An anchor at the base model on the task's own inputs: no general text is needed.

Decoders: anchor_weight · mean over tokens of KL(p₀ ‖ p), p₀ the base model's next-token probabilities on the very
batch that is learned from: the penalty that RLHF holds against a reference model (Ziegler et al., 2019), in the
forward direction of knowledge distillation (Hinton et al., 2015), as Learning without Forgetting has it for classes
(Li & Hoiem, 2016). Encoders: their head is new, so what is held is the pooled embedding, as in `distill`.

A frozen copy of the base model answers each batch, so a step costs about a third more and the model is in memory
twice. It holds the model where the task lives and says nothing of other text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning


class Anchor:
    name = "anchor"
    title = "Anchor at the base model on the task's own inputs"
    paper = "Li & Hoiem, 2016, Learning without Forgetting; Ziegler et al., 2019; Hinton et al., 2015"

    def __init__(self, options: dict[str, Any]) -> None:
        self.weight = float(options["anchor_weight"])

    def prepare(self, tuning: Tuning) -> None:
        import copy

        from tunewell.train.monitor import is_decoder

        if not self.weight:
            return
        if tuning.model.config.is_encoder_decoder:
            raise RecipeError(
                "`strategy: anchor` is not for encoder-decoders, whose answers it would have to compare word by word",
                where="strategy",
                expected="an encoder or a decoder, or another strategy such as l2sp",
            )
        self.decoder, self.bf16 = is_decoder(tuning.model), tuning.bf16
        self.teacher = copy.deepcopy(tuning.model).requires_grad_(False).eval()
        if not self.decoder:
            self.hidden: Any = None
            self.handle = tuning.model.base_model.register_forward_hook(self._keep)
        tuning.echo("anchor: a frozen copy of the base model answers each batch")

    def _keep(self, module: Any, inputs: Any, outputs: Any) -> None:
        self.hidden = outputs.last_hidden_state if module.training else None

    def batch_loss(self, model: Any, inputs: dict[str, Any], outputs: Any, step: int) -> torch.Tensor | None:
        import torch

        from tunewell import processes

        if not self.weight:
            return None
        idle, inputs = "idle" in inputs, {k: v for k, v in inputs.items() if k != "idle"}
        with torch.no_grad(), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            base = self.teacher(**inputs) if self.decoder else self.teacher.base_model(**inputs)
        mask = inputs["attention_mask"] * (not idle)
        if self.decoder:
            part = processes.share(int(mask.sum()))
            return self.weight * part * divergence(base.logits, outputs.logits, mask)
        from tunewell.models.embed import mean_pool
        from tunewell.strategies.distillation import relative_distance

        student, teacher = (mean_pool(h.float(), mask) for h in (self.hidden, base.last_hidden_state))
        part = processes.share(int(mask.any(dim=1).sum()))
        return self.weight * part * relative_distance(student, teacher)

    def finish(self, model: Any) -> None:
        if self.weight and not self.decoder:
            self.handle.remove()
        self.teacher = None


def divergence(base: torch.Tensor, now: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of KL(p₀ ‖ p) in nats over the tokens that `mask` (B, T) keeps, for logits (B, T, V)."""
    before, after = base.float().log_softmax(-1), now.float().log_softmax(-1)
    kl = (before.exp() * (before - after)).sum(-1)
    weights = mask.to(kl.dtype)
    return (kl * weights).sum() / weights.sum().clamp(min=1)
