"""What a strategy may do. A strategy is a plain object with these methods and no base class.

    __init__  takes the recipe's keys as a mapping and picks its own
    prepare   once before tuning, the model still at its base weights: freeze, cache a teacher's outputs
    extra_loss  once a step: a term to add to the task's loss
    variants  after tuning: other weights worth considering, such as averages with the base model

The trainer calls them; a strategy never writes a loop of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
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


class Strategy(Protocol):
    """See the head of this file. `name`, `title` and `paper` are shown in help, docs and report."""

    name: str
    title: str
    paper: str

    def prepare(self, tuning: Tuning) -> None: ...

    def extra_loss(self, model: PreTrainedModel, step: int) -> torch.Tensor | None:
        """A scalar to add to the task's loss at optimiser step `step` (counted from 0), or None."""
        ...

    def variants(self, base: Weights, tuned: Weights) -> Iterator[tuple[dict[str, float], Weights]]:
        """Parameters and weights of further candidates; `base` and `tuned` hold the encoder's weights."""
        ...
