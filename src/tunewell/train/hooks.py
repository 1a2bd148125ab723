"""What a strategy may do. A strategy is a plain object with no base class; it defines only what it needs.

    __init__      takes the recipe's keys as a mapping and picks its own
    prepare       once before tuning, the model still at its base weights: freeze, wrap, cache a teacher's outputs
    batches       which rows go together in a step, and how many steps there are, instead of the loop's own batches
    rate_factors  factors of the learning rate, by parameter name
    begin_step    before an optimiser step's first forward pass
    extra_loss    once a step: a term to add to the task's loss
    batch_loss    the same, given the step's first batch and the model's outputs for it
    labelled_loss the same, given the model's outputs for that batch and its labels
    row_losses    of every batch: other losses in place of the task's own, row by row
    perturb       after a batch's backward pass: move the weights, so that the gradient is taken there instead
    after_backward  gradients are there and not yet clipped: add to them
    before_step, after_step  around the optimiser's update
    validating    a context manager around validation: which weights are scored
    shard         where each process holds a part of every weight (`fsdp`): cut whole tensors that belong to weights
    state, load_state  tensors that a checkpoint must hold, so that a resumed run equals an uninterrupted one
    finish        after tuning, the best weights in the model: merge adapters, put averages in place
    variants      after tuning: other weights worth considering, such as averages with the base model

Beside methods, what a strategy says of itself when it is true: `fits_head` (tuning starts from a head that
has learned, which needs no faster rate), `more_rows` (other texts than the task's rows are learned in full,
so no embedding row may be left out), `reshapes` (its `finish` changes the model's modules and comes late), `refits`
(its `finish` fits the head to the weights that all others have left, and comes last), `last` (it takes the model
through other texts in `labelled_loss`, after the others have read what the model made of the task's batch).

Only `name`, `title`, `paper` and `__init__` are asked for; `hooks` finds the rest. The trainer calls
them; a strategy never writes a loop of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Weights = dict[str, "torch.Tensor"]


@dataclass
class Tuning:
    """What a strategy can know about the job.

    Attributes:
        steps: optimiser steps planned; rows: training rows a step.
        tokens: mean tokens of a training batch, padding counted.
        cache: a folder for what is computed once.
        seed: seed for anything random.
        bf16: forward passes of teachers may run in bf16.
        train: the encoded training rows, labels beside them.
        row_loss: the task's loss: logits (B, C), labels -> (B,).
        float_labels: labels are float32 and not class ids.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    steps: int
    rows: int
    tokens: float
    seed: int
    bf16: bool
    cache: Path
    echo: Callable[[str], None] = lambda line: None
    train: Any = None
    row_loss: Any = None
    float_labels: bool = False


class Strategy(Protocol):
    """What every strategy has. `name`, `title` and `paper` are shown in help, docs and report."""

    name: str
    title: str
    paper: str


class Hooks(Protocol):
    """The signatures of what a strategy may define; see the head of this file for when each is called."""

    def prepare(self, tuning: Tuning) -> None: ...

    def batches(self, lengths: np.ndarray, labels: np.ndarray, *, rows: int, tokens: int, seed: int) -> Any:
        """A batch sampler with `rows`, `set_epoch` and a length, whose one pass is all of tuning; called before
        `prepare`, with the tokens and the label of each row and what a batch may hold."""
        ...

    def rate_factors(self, model: PreTrainedModel) -> dict[str, float]:
        """Factors ≥ 0 of the learning rate; parameters that are not named keep 1."""
        ...

    def begin_step(self, model: PreTrainedModel, step: int) -> None: ...

    def extra_loss(self, model: PreTrainedModel, step: int) -> torch.Tensor | None:
        """A scalar to add to the task's loss at optimiser step `step` (counted from 0), or None."""
        ...

    def batch_loss(
        self, model: PreTrainedModel, inputs: dict[str, torch.Tensor], outputs: Any, step: int
    ) -> torch.Tensor | None:
        """As `extra_loss`, with the batch (labels taken out) and the model's outputs at hand.

        With several processes it is the part of the batch that this one has, and the term is to be its part of the
        whole batch's (`processes.share`); `inputs` holds `idle` where that part does not count.
        """
        ...

    def labelled_loss(
        self, model: PreTrainedModel, outputs: Any, labels: torch.Tensor, step: int
    ) -> torch.Tensor | None: ...

    def row_losses(
        self, model: PreTrainedModel, outputs: Any, labels: torch.Tensor, losses: torch.Tensor
    ) -> torch.Tensor:
        """Losses (B,) that are learned from in place of `losses`, the task's own; not for a task with its own loss."""
        ...

    def perturb(self, model: PreTrainedModel) -> Callable[[], None] | None:
        """Called with a batch's gradients in place; returns what takes the weights back, or None to leave it."""
        ...

    def after_backward(self, model: PreTrainedModel, step: int) -> None: ...

    def before_step(self, model: PreTrainedModel, step: int) -> None: ...

    def after_step(self, model: PreTrainedModel, step: int, learning_rate: float) -> None:
        """`learning_rate` is the one of the update just made; not called for a step that was dropped."""
        ...

    def validating(self, model: PreTrainedModel) -> AbstractContextManager[Any]: ...

    def shard(self, place: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
        """`place(name, tensor)` is this process's part of a tensor of the shape of the weight `name`. Called once
        after `prepare`, and after `load_state` when a tuning goes on; from then on weights are DTensors."""
        ...

    def state(self) -> Weights: ...

    def load_state(self, state: Weights) -> None: ...

    def finish(self, model: PreTrainedModel) -> None: ...

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        """Parameters and weights of further candidates; `base` and `tuned` hold the encoder's weights."""
        ...


def hooks(strategies: Iterable[Strategy], name: str) -> list[Callable[..., Any]]:
    """The method `name` of those strategies that define it, in order.

    >>> class Quiet: name = "quiet"
    >>> hooks([Quiet()], "extra_loss")
    []
    """
    return [method for strategy in strategies if (method := getattr(strategy, name, None)) is not None]
