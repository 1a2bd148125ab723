"""How a tuning will go, worked out before it starts: batches, steps, when to validate; whatever the framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import TrainingError

if TYPE_CHECKING:
    from tunewell.recipe import Recipe

TOKENS_A_ROW = 128  # the token budget of a batch is this times per_device_train_batch_size


@dataclass(frozen=True)
class Plan:
    """The plan for one tuning.

    Attributes:
        batches: the sampler. rows: rows a full batch. epochs: passes over it.
        steps, steps_an_epoch: optimiser steps planned; accumulate: batches a step. warmup: steps of it.
        every: steps from one validation to the next.
    """

    batches: Any
    rows: int
    epochs: float
    accumulate: int
    steps: int
    steps_an_epoch: int
    warmup: int
    every: int


def plan(
    recipe: Recipe,
    lengths: np.ndarray,
    *,
    tokens_a_row: int = TOKENS_A_ROW,
    random: bool = False,
    own: Callable[..., Any] | None = None,
    pace: tuple[int, int] | None = None,
) -> Plan:
    """The plan of a recipe for rows of known lengths.

    Args:
        lengths: (n,) tokens of each training row. tokens_a_row: the budget of a batch over its rows.
        random: batches are drawn, rows are not padded.
        own: makes the batches of a strategy that has its own, which are gone through once.
        pace: steps, and steps from one validation to the next, of a tuning that this one is to be held against.
    """
    from tunewell.train.batching import LikeLengthBatches, RandomBatches

    rows = min(recipe.per_device_train_batch_size, len(lengths))
    batches: Any
    if own is not None:
        batches = own(lengths, rows=rows, tokens=rows * tokens_a_row, seed=recipe.seed)
    elif random:
        batches = RandomBatches(len(lengths), rows=rows, seed=recipe.seed)
    else:
        batches = LikeLengthBatches(lengths, rows=rows, tokens=rows * tokens_a_row, seed=recipe.seed)
    accumulate = recipe.gradient_accumulation_steps
    steps_an_epoch = -(-len(batches) // accumulate)
    epochs = 1.0 if own is not None else recipe.num_train_epochs
    steps = int(np.ceil(epochs * steps_an_epoch))
    if recipe.max_steps > 0:
        steps = recipe.max_steps if own is None else min(steps, recipe.max_steps)
    every = max(1, min(steps, steps_an_epoch) // recipe.evals_per_epoch)
    if pace is not None:
        steps, every = pace
    return Plan(
        batches=batches,
        rows=rows,
        epochs=epochs,
        accumulate=accumulate,
        steps=steps,
        steps_an_epoch=steps_an_epoch,
        warmup=int(np.ceil(recipe.warmup_ratio * steps)),
        every=every,
    )


def out_of_memory(rows: int) -> TrainingError:
    """What is said when a batch does not fit."""
    return TrainingError(
        "ran out of memory",
        where=f"per_device_train_batch_size: {rows}",
        remedy="halve per_device_train_batch_size and double gradient_accumulation_steps, or lower max_length",
    )


def not_finite(steps: int, last: int, rate: float) -> TrainingError:
    """What is said when `steps` steps in a row, the last of them `last`, had no finite loss or gradient."""
    return TrainingError(
        f"the loss or its gradient was not finite for {steps} steps in a row, last at step {last}",
        where=f"learning_rate: {rate}",
        expected="a finite loss",
        remedy="lower learning_rate, set `bf16: false`, or look for extreme labels with `tunewell check`",
    )
