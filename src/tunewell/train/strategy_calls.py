"""How the loop calls strategies beyond their loss terms: around a step, in checkpoints, at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from tunewell.train.hooks import hooks
from tunewell.train.optimisers import ADAMW, made

if TYPE_CHECKING:
    from tunewell.train.hooks import Strategy
    from tunewell.train.trainer import TunewellTrainer


class StrategyCalls(TrainerCallback):
    """Passes the trainer's events on to the strategies."""

    def __init__(self, trainer: TunewellTrainer, strategies: Sequence[Strategy]) -> None:
        self.trainer = trainer
        self.begin, self.before, self.after = (
            hooks(strategies, n) for n in ("begin_step", "before_step", "after_step")
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.go_on()

    def _model(self) -> Any:
        return self.trainer.accelerator.unwrap_model(self.trainer.model)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for begin_step in self.begin:
            begin_step(self._model(), state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for before_step in self.before:
            before_step(self._model(), state.global_step)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.after and not self.trainer.step_dropped:
            rate = float(self.trainer._get_learning_rate())
            for after_step in self.after:
                after_step(self._model(), state.global_step, rate)


def climb(
    trainer: TunewellTrainer, model: Any, perturb: Sequence[Callable[..., Any]], backward: Callable[[], torch.Tensor]
) -> torch.Tensor:
    """A batch's backward pass, taken again at the weights to which `perturb` moves, on the same dropout masks.

    Gradients that earlier batches of the same optimiser step have left stay as they are. Returns the
    loss of the first pass.
    """
    earlier = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for p in model.parameters():
        p.grad = None
    drawn = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    loss = backward()
    back = [undo for p in perturb if (undo := p(model)) is not None]
    if back:
        for p in model.parameters():
            p.grad = None
        after = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
        _set_rng(drawn)
        trainer._climbed = True
        try:
            backward()
        finally:
            trainer._climbed = False
            for undo in reversed(back):
                undo()
        _set_rng(after)
    for name, p in model.named_parameters():
        if name in earlier:
            p.grad = earlier[name] if p.grad is None else p.grad.add_(earlier[name])
    return loss


def _set_rng(state: tuple[torch.Tensor, Any]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state_all(state[1])


def grouped(trainer: TunewellTrainer, model: Any, factors: Sequence[dict[str, float]]) -> torch.optim.Optimizer:
    """The optimiser over groups of one weight decay and one learning rate each: Trainer's own, or one by name.

    Args:
        factors: of the learning rate by parameter name, one mapping a strategy; they multiply.
    """
    decayed = set(trainer.get_decay_parameter_names(model))
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            factor = 1.0
            for mapping in factors:
                factor *= mapping.get(name, 1.0)
            groups.setdefault((factor, trainer.args.weight_decay if name in decayed else 0.0), []).append(p)
    # the full rate comes first: it is the one that is logged
    ordered = sorted(groups.items(), key=lambda item: (item[0][0] != 1.0, -item[0][0], -item[0][1]))
    rate = float(trainer.args.learning_rate)
    split = [{"params": ps, "weight_decay": decay, "lr": rate * factor} for (factor, decay), ps in ordered]
    if trainer.optim != ADAMW:
        return made(trainer.optim, split, rate=rate, warmup=int(trainer.args.warmup_steps))
    kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, model)
    return kind(split, **options)


def _file(folder: str | Path, strategy: Strategy) -> Path:
    return Path(folder) / f"strategy-{strategy.name}.safetensors"


def save_states(strategies: Sequence[Strategy], folder: str | Path) -> None:
    """Write what strategies carry into a checkpoint; called by all processes where tensors are in parts."""
    from safetensors.torch import save_file

    from tunewell import processes
    from tunewell.train.sharding import whole_state

    for strategy in strategies:
        for state in hooks([strategy], "state"):
            tensors = {k: v.detach().cpu().contiguous() for k, v in whole_state(state()).items()}
            if tensors and processes.rank() == 0:
                save_file(tensors, str(_file(folder, strategy)))


def load_states(strategies: Sequence[Strategy], folder: str | Path) -> None:
    """Read what `save_states` wrote."""
    from safetensors.torch import load_file

    for strategy in strategies:
        for load_state in hooks([strategy], "load_state"):
            path = _file(folder, strategy)
            if path.is_file():
                load_state(load_file(str(path)))


def finish(model: Any, strategies: Sequence[Strategy], best: str | None) -> None:
    """Let strategies bring the model, at its best weights, into its final form.

    Args:
        best: the best checkpoint, whose strategy states belong to those weights.
    """
    if best is not None:
        load_states(strategies, best)
    ordered = sorted(strategies, key=lambda s: (bool(getattr(s, "refits", False)), bool(getattr(s, "reshapes", False))))
    for last in hooks(ordered, "finish"):
        last(model)
